//! What a run of delivering to many found.

use std::time::Duration;

use serde::Serialize;

use super::{Report, Row, Used, counted, grouped, missed_row, process_rows, seconds};
use crate::bench::{check::Violations, meter::Latencies};

/// What a run of delivering to many found.
#[derive(Debug, Clone, Serialize)]
pub struct Delivered {
    /// The subcommand: `fanout`.
    pub mode: &'static str,
    /// The server's address.
    pub server: String,
    /// How many only read.
    pub subscribers: usize,
    /// How many published; they read as well.
    pub publishers: usize,
    /// In how many rooms.
    pub rooms: usize,
    /// How many subscribers share a connection.
    pub streams_per_connection: usize,
    /// The subscribers read by `Watch`.
    pub watch: bool,
    /// Messages of a room that could be outstanding; none if they were scheduled.
    pub window: Option<u32>,
    /// Messages a second that were scheduled; none if deliveries let the next one go.
    pub rate: Option<u32>,
    /// Characters of each text.
    pub text_chars: usize,
    /// How many joined and did not read.
    pub stalled: usize,
    /// Of these, those whose stream the server ended.
    pub stalled_ended: usize,
    /// From the first connection until everybody had joined and read the JOINs of the others.
    #[serde(serialize_with = "seconds", rename = "join_seconds")]
    pub joined_in: Duration,
    /// Messages that were measured: sent after the warm-up and before the end.
    pub messages: u64,
    /// Deliveries that these should have led to: one to each reader of the room.
    #[serde(rename = "deliveries_due")]
    pub due: u64,
    /// Deliveries of these messages.
    pub deliveries: u64,
    /// From the end of the warm-up to the last delivery.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub took: Duration,
    /// `messages` by `seconds`.
    pub messages_per_second: f64,
    /// `deliveries` by `seconds`.
    pub deliveries_per_second: f64,
    /// Scheduled messages that were due and never sent; their latency is in no figure.
    pub missed: u64,
    /// In microseconds, from when a message was to be sent until a reader had it, over all deliveries.
    #[serde(rename = "latency_us")]
    pub latencies: Option<Latencies>,
    /// What the server used, if its process is known.
    #[serde(rename = "server_process")]
    pub server_usage: Option<Used>,
    /// What this program used.
    #[serde(rename = "client_process")]
    pub client_usage: Option<Used>,
    /// What was not as promised, over all readers.
    pub violations: Violations,
}

impl Report for Delivered {
    fn title(&self) -> String {
        let pace = match (self.window, self.rate) {
            (Some(window), _) => format!("{} outstanding in each", grouped(window.into())),
            (_, Some(rate)) => format!("{} messages/s scheduled", grouped(rate.into())),
            (None, None) => String::new(),
        };
        let how = if self.watch { " by Watch" } else { "" };
        format!(
            "{}: {} to {}{how} in {}, {pace}, texts of {} characters",
            self.server,
            counted(self.publishers, "publisher"),
            counted(self.subscribers, "subscriber"),
            counted(self.rooms, "room"),
            self.text_chars
        )
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            (
                "joined",
                format!("in {:.2} s", self.joined_in.as_secs_f64()),
            ),
            (
                "delivered",
                format!(
                    "{} of {} in {:.2} s: {} deliveries/s",
                    grouped(self.deliveries),
                    grouped(self.due),
                    self.took.as_secs_f64(),
                    grouped(self.deliveries_per_second as u64)
                ),
            ),
            (
                "published",
                format!(
                    "{}: {} messages/s",
                    grouped(self.messages),
                    grouped(self.messages_per_second as u64)
                ),
            ),
        ];
        rows.extend(missed_row(self.missed));
        if self.stalled > 0 {
            let (stalled, ended) = (self.stalled as u64, self.stalled_ended as u64);
            rows.push((
                "stood still",
                format!(
                    "{}, of whom the server ended {}",
                    grouped(stalled),
                    grouped(ended)
                ),
            ));
        }
        rows.extend(self.violations.rows());
        rows.extend(self.latencies.iter().flat_map(Latencies::rows));
        rows.extend(process_rows(self.server_usage, self.client_usage));
        rows
    }

    fn violations(&self) -> &Violations {
        &self.violations
    }
}
