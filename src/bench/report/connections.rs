//! What a run of silent participants found.

use std::time::Duration;

use serde::Serialize;

use super::{Report, Row, counted, grouped, milliseconds, seconds};
use crate::bench::{check::Violations, meter::Latencies};

/// What a run of silent participants found.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// The subcommand: `connections`.
    pub mode: &'static str,
    /// The server's address.
    pub server: String,
    /// How many there were, each one participant.
    pub connections: usize,
    /// In how many rooms.
    pub rooms: usize,
    /// From the first connection until everybody had joined and read the JOINs of the others.
    #[serde(serialize_with = "seconds", rename = "join_seconds")]
    pub joined_in: Duration,
    /// `connections` by `join_seconds`.
    pub joins_per_second: f64,
    /// In microseconds, from the connecting of one until it read its own JOIN.
    #[serde(rename = "join_latency_us")]
    pub joins: Option<Latencies>,
    /// How long nothing happened then.
    #[serde(serialize_with = "seconds", rename = "hold_seconds")]
    pub held_for: Duration,
    /// The server's memory, if its process is known.
    pub memory: Option<Memory>,
    /// Messages that were published at the end: one in each room.
    pub messages: u64,
    /// Deliveries that these should have led to: one to each participant.
    #[serde(rename = "deliveries_due")]
    pub due: u64,
    /// Deliveries of these messages.
    pub deliveries: u64,
    /// In microseconds, from when a message was to be sent until a participant had it.
    #[serde(rename = "latency_us")]
    pub latencies: Option<Latencies>,
    /// What was not as promised, over all participants.
    pub violations: Violations,
}

/// Memory of the server that is in use (resident set), in bytes. Kernel memory of its sockets is not in it; the JOINs that
/// it keeps as history are, where that is in memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Before the first connection.
    #[serde(rename = "rss_before_bytes")]
    pub before: u64,
    /// When everybody had joined and read the JOINs of the others.
    #[serde(rename = "rss_joined_bytes")]
    pub joined: u64,
    /// After nothing had happened for a while.
    #[serde(rename = "rss_held_bytes")]
    pub held: u64,
    /// What each participant added by joining.
    #[serde(rename = "rss_bytes_per_participant")]
    pub each: f64,
}

impl Report for Held {
    fn title(&self) -> String {
        format!(
            "{}: {} in {}",
            self.server,
            counted(self.connections, "silent participant"),
            counted(self.rooms, "room")
        )
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![(
            "joined",
            format!(
                "in {:.2} s: {} joins/s",
                self.joined_in.as_secs_f64(),
                grouped(self.joins_per_second as u64)
            ),
        )];
        if let Some(joins) = &self.joins {
            let [p50, p99, max] = [joins.p50, joins.p99, joins.max].map(milliseconds);
            rows.push(("one join", format!("p50 {p50}, p99 {p99}, max {max}")));
        }
        if let Some(memory) = &self.memory {
            rows.extend(memory.rows(self.held_for));
        }
        let (deliveries, due) = (grouped(self.deliveries), grouped(self.due));
        rows.push(("delivered at the end", format!("{deliveries} of {due}")));
        rows.extend(self.violations.rows());
        rows.extend(self.latencies.iter().flat_map(Latencies::rows));
        rows
    }

    fn violations(&self) -> &Violations {
        &self.violations
    }
}

impl Memory {
    fn rows(&self, held_for: Duration) -> [Row; 2] {
        let kib = |bytes: u64| grouped(bytes >> 10);
        [
            (
                "server memory",
                format!(
                    "{} KiB before, {} KiB with all, {} KiB after {held_for:?} (resident)",
                    kib(self.before),
                    kib(self.joined),
                    kib(self.held)
                ),
            ),
            (
                "one participant",
                format!(
                    "{:.1} KiB, what is kept in memory of the history included",
                    self.each / 1024.0
                ),
            ),
        ]
    }
}
