//! What a run of publishing found.

use std::time::Duration;

use serde::Serialize;

use super::{Report, Row, Used, counted, grouped, milliseconds, missed_row, process_rows, seconds};
use crate::bench::{
    check::Violations,
    meter::{Latencies, microseconds},
};

/// What a run of publishing found.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// The subcommand: `publish` or `echo`.
    pub mode: &'static str,
    /// The server's address.
    pub server: String,
    /// How many published.
    pub streams: usize,
    /// In how many rooms.
    pub rooms: usize,
    /// How many streams share a connection.
    pub streams_per_connection: usize,
    /// Messages that each may have unacknowledged.
    pub in_flight: usize,
    /// Characters of each text.
    pub text_chars: usize,
    /// By `SendMessage` instead of a stream.
    pub unary: bool,
    /// Messages a second that were scheduled; none if each acknowledgement let the next one go.
    pub rate: Option<u32>,
    /// Messages that were measured: sent after the warm-up and before the end.
    pub messages: u64,
    /// Of these, those whose event came back.
    pub acknowledged: u64,
    /// From the end of the warm-up to the last acknowledgement.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub took: Duration,
    /// `acknowledged` by `seconds`.
    pub acknowledged_per_second: f64,
    /// Scheduled messages that were due and never sent; their latency is in no figure.
    pub missed: u64,
    /// In microseconds, from when a message was to be sent until its event was read.
    #[serde(rename = "latency_us")]
    pub latencies: Option<Latencies>,
    /// What the server used, if its process is known.
    #[serde(rename = "server_process")]
    pub server_usage: Option<Used>,
    /// What this program used.
    #[serde(rename = "client_process")]
    pub client_usage: Option<Used>,
    /// The disk, if it was measured.
    pub fsync: Option<Fsync>,
    /// What was not as promised.
    pub violations: Violations,
}

/// What one fsync takes, before the run and after it: medians. If they are far apart the disk had other work, and the
/// run says little.
#[derive(Debug, Clone, Serialize)]
pub struct Fsync {
    /// Where.
    pub directory: String,
    /// Before.
    #[serde(serialize_with = "microseconds", rename = "before_us")]
    pub before: Duration,
    /// After.
    #[serde(serialize_with = "microseconds", rename = "after_us")]
    pub after: Duration,
}

impl Report for Published {
    fn title(&self) -> String {
        let by = if self.unary {
            counted(self.streams, "poster") + " by SendMessage"
        } else {
            counted(self.streams, "stream")
        };
        let rate = match self.rate {
            Some(rate) => format!(", {} messages/s scheduled", grouped(u64::from(rate))),
            None => String::new(),
        };
        format!(
            "{}: {by} in {}, {} in flight each, texts of {} characters{rate}",
            self.server,
            counted(self.rooms, "room"),
            self.in_flight,
            self.text_chars
        )
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![(
            "acknowledged",
            format!(
                "{} of {} messages in {:.2} s: {} events/s",
                grouped(self.acknowledged),
                grouped(self.messages),
                self.took.as_secs_f64(),
                grouped(self.acknowledged_per_second as u64)
            ),
        )];
        rows.extend(missed_row(self.missed));
        rows.extend(self.violations.rows());
        rows.extend(self.latencies.iter().flat_map(Latencies::rows));
        if let Some(fsync) = &self.fsync {
            rows.push(("one fsync", fsync.words()));
            if let Some(latencies) = &self.latencies {
                let beyond = latencies.p50.saturating_sub(fsync.before.min(fsync.after));
                rows.push(("p50 beyond one fsync", milliseconds(beyond)));
            }
        }
        rows.extend(process_rows(self.server_usage, self.client_usage));
        rows
    }

    fn violations(&self) -> &Violations {
        &self.violations
    }
}

impl Fsync {
    fn words(&self) -> String {
        format!(
            "{} before, {} after (medians, 4 KiB in {})",
            milliseconds(self.before),
            milliseconds(self.after),
            self.directory
        )
    }
}
