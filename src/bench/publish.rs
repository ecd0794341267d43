//! How many messages a server acknowledges.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use tokio::{task::JoinSet, time::sleep_until};

use super::{
    Load, Outcome, Target,
    connection::{Connection, STREAMS_MAX, WINDOW_BYTES},
    descriptors,
    meter::Meter,
    publisher::Publisher,
    report::{per_second, publish::Published},
    supervise::{Measured, Tasks, measure_all, server_usage},
    turns::{self, Extent, Pacer, Turns, Window},
    unary,
};
use crate::client::{self, render, status::because};

/// Streams that one connection may carry.
pub const STREAMS_PER_CONNECTION_MAX: u16 = STREAMS_MAX;

/// How long a silent connection for single calls is left in peace.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What to publish.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Participants, each with a stream of its own.
    pub streams: usize,
    /// Rooms that they are dealt to; at most `streams`.
    pub rooms: usize,
    /// Streams that share a connection.
    pub streams_per_connection: usize,
    /// Messages that each may have unacknowledged.
    pub in_flight: usize,
    /// Characters of each text.
    pub text_chars: usize,
    /// How long it goes on after the warm-up.
    pub extent: Extent,
    /// How long it goes on before anything is measured.
    pub warm_up: Duration,
    /// Messages a second over all streams; none: each acknowledgement lets the next one go.
    pub rate: Option<u32>,
    /// By `SendMessage`, as posters outside of the rooms; each has a room and connections of its own.
    pub unary: bool,
}

/// A load that has begun.
struct Running {
    tasks: Tasks,
    window: Window,
    /// Wakes whose turn it is, where there is a schedule.
    _pacer: Option<Pacer>,
}

/// Publishes as planned.
///
/// # Errors
/// The server cannot be reached, refuses, or stops answering. Violations are no error: they stand in the report.
pub async fn run(plan: &Plan) -> anyhow::Result<Published> {
    // Before anything is started.
    server_usage(&plan.target)?;
    descriptors::allow(if plan.unary {
        plan.streams * connections_of_a_poster(plan)
    } else {
        plan.streams.div_ceil(plan.streams_per_connection)
    })?;
    let load = Arc::new(Load::new(plan.rooms, plan.in_flight, plan.text_chars));
    let meter = Arc::new(Meter::new());
    let running = if plan.unary {
        start_posters(plan, &load, &meter)?
    } else {
        start_streams(plan, &load, &meter).await?
    };
    let window = running.window;
    let measured = measure_all(running.tasks, &meter, (window, plan.extent), &plan.target).await?;
    if measured.outcome.sent == 0 {
        bail!(
            "nothing was sent in the time that was measured: the schedule is too fast, or the time too short"
        );
    }
    Ok(report(plan, &meter, window, measured))
}

/// All join, one after the other, and begin together.
async fn start_streams(plan: &Plan, load: &Load, meter: &Arc<Meter>) -> anyhow::Result<Running> {
    let endpoint = client::endpoint(&plan.target.url, KEEPALIVE)?;
    let mut joined = Vec::new();
    let mut index = 0;
    while index < plan.streams {
        let end = plan.streams.min(index + plan.streams_per_connection);
        let mut connection = Connection::open(endpoint.uri(), WINDOW_BYTES)
            .await
            .map_err(|status| {
                anyhow!("{}: {}", plan.target.url, render::clean(&because(&status)))
            })?;
        let mut publishers = Vec::new();
        for index in index..end {
            publishers.push(Publisher::join(&mut connection, load, index).await?);
        }
        joined.push((connection, publishers));
        index = end;
    }
    let (window, turns, pacer) = schedule(plan, plan.streams)?;
    let mut turns = turns.into_iter();
    let mut tasks = JoinSet::new();
    for (connection, publishers) in joined {
        let publishers = publishers.into_iter().zip(turns.by_ref()).collect();
        tasks.spawn(publish(connection, publishers, window, Arc::clone(meter)));
    }
    Ok(Running {
        tasks,
        window,
        _pacer: pacer,
    })
}

fn start_posters(plan: &Plan, load: &Arc<Load>, meter: &Arc<Meter>) -> anyhow::Result<Running> {
    let (window, turns, pacer) = schedule(plan, plan.streams * plan.in_flight)?;
    let mut turns = turns.into_iter();
    let mut tasks = JoinSet::new();
    for index in 0..plan.streams {
        let clients: Result<Vec<_>, _> = (0..connections_of_a_poster(plan))
            .map(|_| client::service(&plan.target.url, KEEPALIVE))
            .collect();
        let turns = turns.by_ref().take(plan.in_flight).collect();
        let (load, meter) = (Arc::clone(load), Arc::clone(meter));
        tasks.spawn(unary::post(clients?, load, index, turns, meter));
    }
    Ok(Running {
        tasks,
        window,
        _pacer: pacer,
    })
}

/// tonic begins more calls than a server allows on a connection, as long as it has not been told how many.
fn connections_of_a_poster(plan: &Plan) -> usize {
    plan.in_flight.div_ceil(STREAMS_MAX.into())
}

/// When each of `publishers` sends, from now on.
fn schedule(plan: &Plan, publishers: usize) -> anyhow::Result<(Window, Vec<Turns>, Option<Pacer>)> {
    turns::begin(plan.warm_up, plan.extent, plan.rate, publishers)
        .context("cannot start the thread that paces")
}

/// The task of one connection, and all the streams on it: woken once, it reads all that has come and sends all it may.
async fn publish(
    mut connection: Connection,
    mut publishers: Vec<(Publisher, Turns)>,
    window: Window,
    meter: Arc<Meter>,
) -> anyhow::Result<Outcome> {
    let mut end = window
        .until
        .map(|until| Box::pin(sleep_until(until.into())));
    poll_fn(|context| {
        // Wakes those that wait for what does not come.
        if end
            .as_mut()
            .is_some_and(|end| end.as_mut().poll(context).is_ready())
        {
            end = None;
        }
        let driven = connection.drive(context);
        let mut busy = false;
        for (publisher, turns) in &mut publishers {
            match publisher.poll(context, turns, &meter) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => busy = true,
            }
        }
        match driven {
            _ if !busy => Poll::Ready(Ok(())),
            Ok(()) => Poll::Pending,
            Err(status) => Poll::Ready(Err(anyhow!("{}", status.message()))),
        }
    })
    .await?;
    let mut outcome = Outcome::default();
    for (publisher, turns) in publishers {
        outcome.add(publisher.finish(turns.missed()));
    }
    Ok(outcome)
}

fn report(plan: &Plan, meter: &Meter, window: Window, measured: Measured) -> Published {
    let Measured {
        outcome, usages, ..
    } = measured;
    let acknowledged = meter.measured();
    let took = meter.last().map_or(Duration::ZERO, |last| {
        last.saturating_duration_since(window.from)
    });
    Published {
        mode: "publish",
        server: plan.target.url.clone(),
        streams: plan.streams,
        rooms: if plan.unary { plan.streams } else { plan.rooms },
        streams_per_connection: if plan.unary {
            1
        } else {
            plan.streams_per_connection
        },
        in_flight: plan.in_flight,
        text_chars: plan.text_chars,
        unary: plan.unary,
        rate: plan.rate,
        messages: outcome.sent,
        acknowledged,
        took,
        acknowledged_per_second: per_second(acknowledged, took),
        missed: outcome.missed,
        latencies: meter.latencies(),
        server_usage: usages.server(acknowledged, "event"),
        client_usage: usages.client(acknowledged, "event"),
        fsync: None,
        violations: outcome.violations,
    }
}
