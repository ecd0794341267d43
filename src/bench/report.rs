//! What a run found, as a table for people and as JSON for programs.

use std::{fmt::Write as _, time::Duration};

use serde::{Serialize, Serializer};

use super::{
    check::Violations,
    meter::{Latencies, microseconds},
};

/// What a run of publishing found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
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
    /// What the server used, if its process was named.
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

/// What a process used while it was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Used {
    /// User and kernel mode together.
    #[serde(serialize_with = "seconds", rename = "cpu_seconds")]
    pub cpu: Duration,
    /// By acknowledged event.
    #[serde(rename = "cpu_us_per_event")]
    pub per_event_us: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
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

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Report {
    /// Whether everything was as promised.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.count() == 0
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("its maps have strings for keys") + "\n"
    }

    /// For a person: what was done, then a line for each figure.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = self.title() + "\n\n";
        for (what, figure) in self.rows() {
            // A String takes whatever is written to it.
            let _ = writeln!(table, "  {what:<22}{figure}");
        }
        table
    }

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

    fn rows(&self) -> Vec<(&'static str, String)> {
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
        if self.missed > 0 {
            let missed = grouped(self.missed);
            rows.push((
                "not sent",
                format!("{missed} were due and had no turn: the latency is worse than it looks"),
            ));
        }
        rows.extend(self.violation_rows());
        if let Some(latencies) = &self.latencies {
            rows.push(("latency p50", milliseconds(latencies.p50)));
            rows.push(("latency p99", milliseconds(latencies.p99)));
            rows.push(("latency p99.9", milliseconds(latencies.p999)));
            rows.push(("latency max", milliseconds(latencies.max)));
        }
        if let Some(fsync) = &self.fsync {
            rows.push(("one fsync", fsync.words()));
            if let Some(latencies) = &self.latencies {
                let beyond = latencies.p50.saturating_sub(fsync.before.min(fsync.after));
                rows.push(("p50 beyond one fsync", milliseconds(beyond)));
            }
        }
        rows.extend(self.server_usage.map(|used| ("server", used.words())));
        rows.extend(self.client_usage.map(|used| ("this client", used.words())));
        rows
    }

    fn violation_rows(&self) -> Vec<(&'static str, String)> {
        let found = &self.violations;
        let mut rows = vec![
            ("lost", grouped(found.lost)),
            ("misordered", grouped(found.misordered)),
        ];
        let rarer = [
            ("repeated", found.repeated),
            ("sequence not dense", found.sequence),
            ("time not rising", found.logical_time),
        ];
        let rarer = rarer.into_iter().filter(|(_, count)| *count > 0);
        rows.extend(rarer.map(|(what, count)| (what, grouped(count))));
        rows
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

impl Used {
    fn words(&self) -> String {
        format!(
            "{:.2} s of CPU: {:.1} us/event; {} MiB resident",
            self.cpu.as_secs_f64(),
            self.per_event_us,
            self.rss_bytes >> 20
        )
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1_000.0)
}

/// How many of something.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(count as u64))
}

/// A count with a comma after each three digits.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three_digits() {
        let counts = [0, 999, 1_000, 21_034, 1_234_567].map(grouped);
        assert_eq!(counts, ["0", "999", "1,000", "21,034", "1,234,567"]);
    }
}
