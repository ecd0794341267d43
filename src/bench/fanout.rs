//! What it costs to bring each message to many readers.

use std::{cmp::max, time::Duration};

use anyhow::{Context as _, bail};

use super::{
    Outcome, Target,
    crowd::{self, Cast, Crowd},
    report::{fanout::Delivered, per_second},
    supervise::{Usages, server_usage},
    turns::{self, Extent},
};

/// Characters that a text has at least: what its readers judge it by.
pub const TEXT_CHARS_MIN: u16 = crowd::LABEL_CHARS as u16;

/// Messages of a room that may be outstanding where a schedule sends them.
///
/// Unit: messages. When reached: they wait, and count as late, or in the end as not sent. Source: more than a server
/// holds back that is not about to fail, and little memory here.
const SCHEDULED_OUTSTANDING_MAX: u64 = 65_536;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Those who only read.
    pub subscribers: usize,
    /// Participants that publish, and read as well; each has a connection of its own.
    pub publishers: usize,
    /// Rooms that they are dealt to; at most as many as publishers, and as subscribers.
    pub rooms: usize,
    /// When a message is sent.
    pub pace: Pace,
    /// Characters of each text; at least [`TEXT_CHARS_MIN`].
    pub text_chars: usize,
    /// Subscribers that share a connection.
    pub streams_per_connection: usize,
    /// The subscribers read by `Watch` instead of taking part.
    pub watch: bool,
    /// Further subscribers that join and then do not read, until the measuring is over.
    pub stalled: usize,
    /// How long to measure.
    pub duration: Duration,
    /// How long it goes on before anything is measured.
    pub warm_up: Duration,
}

/// When messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As soon as so few messages of the room are outstanding, which means that not all of its readers have them; in
    /// bursts of half as many. With 1 no two messages can share a packet.
    Window(u32),
    /// So many a second over all publishers, whether or not the server keeps up.
    Rate(u32),
}

/// Measures as planned.
///
/// # Errors
/// The server cannot be reached, refuses, or stops answering. Violations are no error: they stand in the report.
pub async fn run(plan: &Plan) -> anyhow::Result<Delivered> {
    // Before anything is started.
    server_usage(&plan.target)?;
    let mut crowd = Crowd::gather(&plan.target, plan.cast()).await?;
    let extent = Extent::Duration(plan.duration);
    let (window, turns, _pacer) =
        turns::begin(plan.warm_up, extent, plan.pace.rate(), plan.publishers)
            .context("cannot start the thread that paces")?;
    crowd.begin(turns);
    let measured = crowd.measure((window, extent), &plan.target).await?;
    let (outcome, usages) = crowd.conclude(measured).await?;
    if outcome.sent == 0 {
        bail!(
            "nothing was sent in the time that was measured: the schedule is too fast, or the time too short"
        );
    }
    let last = crowd.meter().last();
    let took = last.map_or(Duration::ZERO, |last| {
        last.saturating_duration_since(window.from)
    });
    Ok(report(plan, &crowd, took, outcome, &usages))
}

impl Plan {
    fn cast(&self) -> Cast {
        let (window, burst) = match self.pace {
            Pace::Window(window) => (window.into(), max(1, window / 2).into()),
            Pace::Rate(_) => (SCHEDULED_OUTSTANDING_MAX, 1),
        };
        Cast {
            rooms: self.rooms,
            publishers: self.publishers,
            subscribers: self.subscribers,
            watch: self.watch,
            stalled: self.stalled,
            streams_per_connection: self.streams_per_connection,
            window,
            burst,
            text_chars: self.text_chars,
        }
    }
}

impl Pace {
    fn rate(self) -> Option<u32> {
        match self {
            Self::Window(_) => None,
            Self::Rate(rate) => Some(rate),
        }
    }
}

fn report(
    plan: &Plan,
    crowd: &Crowd,
    took: Duration,
    outcome: Outcome,
    usages: &Usages,
) -> Delivered {
    let meter = crowd.meter();
    let deliveries = meter.measured();
    Delivered {
        mode: "fanout",
        server: plan.target.url.clone(),
        subscribers: plan.subscribers,
        publishers: plan.publishers,
        rooms: plan.rooms,
        streams_per_connection: plan.streams_per_connection,
        watch: plan.watch,
        window: match plan.pace {
            Pace::Window(window) => Some(window),
            Pace::Rate(_) => None,
        },
        rate: plan.pace.rate(),
        text_chars: plan.text_chars,
        stalled: plan.stalled,
        stalled_ended: crowd.stalled_ended(),
        joined_in: crowd.gathered_in,
        messages: outcome.sent,
        due: crowd.due(),
        deliveries,
        took,
        messages_per_second: per_second(outcome.sent, took),
        deliveries_per_second: per_second(deliveries, took),
        missed: outcome.missed,
        latencies: meter.latencies(),
        server_usage: usages.server(deliveries, "delivery"),
        client_usage: usages.client(deliveries, "delivery"),
        violations: outcome.violations,
    }
}
