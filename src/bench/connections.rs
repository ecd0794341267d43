//! What it costs to have many participants who say nothing.

use std::time::Duration;

use anyhow::Context as _;

use super::{
    Target,
    crowd::{Cast, Crowd, LABEL_CHARS},
    report::{
        connections::{Held, Memory},
        per_second,
    },
    supervise::server_usage,
    turns::{self, Extent},
};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Participants, each with a connection of its own.
    pub connections: usize,
    /// Rooms that they are dealt to; at most as many.
    pub rooms: usize,
    /// How long they are there and nothing happens.
    pub hold: Duration,
}

/// Lets all join, holds them, publishes one message in each room, and lets all leave.
///
/// # Errors
/// The server cannot be reached, refuses, stops answering, or ends a stream. Violations are no error: they stand in the
/// report.
pub async fn run(plan: &Plan) -> anyhow::Result<Held> {
    let before = resident(&plan.target)?;
    let mut crowd = Crowd::gather(&plan.target, plan.cast()).await?;
    let joined = resident(&plan.target)?;
    crowd.hold(plan.hold).await?;
    let held = resident(&plan.target)?;
    let extent = Extent::Messages(plan.rooms as u64);
    let (window, turns, _) = turns::begin(Duration::ZERO, extent, None, plan.rooms)
        .context("cannot begin to publish")?;
    crowd.begin(turns);
    let measured = crowd.measure((window, extent), &plan.target).await?;
    let (outcome, _) = crowd.conclude(measured).await?;
    let memory = |((before, joined), held)| Memory {
        before,
        joined,
        held,
        each: joined as f64 / plan.connections as f64 - before as f64 / plan.connections as f64,
    };
    Ok(Held {
        mode: "connections",
        server: plan.target.url.clone(),
        connections: plan.connections,
        rooms: plan.rooms,
        joined_in: crowd.gathered_in,
        joins_per_second: per_second(plan.connections as u64, crowd.gathered_in),
        joins: crowd.joins().latencies(),
        held_for: plan.hold,
        memory: before.zip(joined).zip(held).map(memory),
        messages: outcome.sent,
        due: crowd.due(),
        deliveries: crowd.meter().measured(),
        latencies: crowd.meter().latencies(),
        violations: outcome.violations,
    })
}

/// The server's memory, if its process is known.
fn resident(target: &Target) -> anyhow::Result<Option<u64>> {
    Ok(server_usage(target)?.map(|usage| usage.rss_bytes))
}

impl Plan {
    /// One in each room publishes, at the end.
    fn cast(&self) -> Cast {
        Cast {
            rooms: self.rooms,
            publishers: self.rooms,
            subscribers: self.connections - self.rooms,
            watch: false,
            stalled: 0,
            streams_per_connection: 1,
            window: 1,
            burst: 1,
            text_chars: LABEL_CHARS,
        }
    }
}
