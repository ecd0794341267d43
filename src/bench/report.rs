//! What a run found, as a table for people and as JSON for programs. One file per kind of run.

pub mod connections;
pub mod fanout;
pub mod publish;

use std::{fmt::Write as _, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{check::Violations, meter::Latencies, process::Usage};

/// A line of the table: what, and the figure.
pub type Row = (&'static str, String);

/// What a run found.
pub trait Report: Serialize {
    /// What was done, in one line.
    fn title(&self) -> String;

    /// Its figures, for people.
    fn rows(&self) -> Vec<Row>;

    /// What was not as promised.
    fn violations(&self) -> &Violations;

    /// Whether everything was as promised.
    fn is_good(&self) -> bool {
        self.violations().count() == 0
    }

    /// One line of JSON, for programs.
    fn json(&self) -> String {
        serde_json::to_string(self).expect("its maps have strings for keys") + "\n"
    }

    /// For a person: what was done, then a line for each figure.
    fn table(&self) -> String {
        let mut table = self.title() + "\n\n";
        for (what, figure) in self.rows() {
            // A String takes whatever is written to it.
            let _ = writeln!(table, "  {what:<22}{figure}");
        }
        table
    }
}

/// What a process used while it was measured.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    user: Duration,
    system: Duration,
    rss_bytes: u64,
    /// What was done meanwhile: how many of what.
    count: u64,
    what: &'static str,
}

impl Used {
    /// What was used between two moments, for so many of `what`.
    pub(super) fn between((before, after): (Usage, Usage), count: u64, what: &'static str) -> Self {
        Self {
            user: after.user.saturating_sub(before.user),
            system: after.system.saturating_sub(before.system),
            rss_bytes: after.rss_bytes,
            count,
            what,
        }
    }

    /// Microseconds for each of what was done.
    fn each_us(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.count.max(1) as f64
    }

    fn words(&self) -> String {
        let cpu = self.user + self.system;
        let each = self.each_us(cpu);
        // The dearer ones to a tenth, the cheaper ones to the nanosecond.
        let digits = if each < 1.0 { 3 } else { 1 };
        format!(
            "{:.2} s of CPU: {each:.digits$} us/{} ({:.digits$} user, {:.digits$} system); {} MiB resident",
            cpu.as_secs_f64(),
            self.what,
            self.each_us(self.user),
            self.each_us(self.system),
            self.rss_bytes >> 20
        )
    }
}

/// `cpu_seconds`, `user_seconds`, `system_seconds`; `cpu_us_per_event` and its parts, where an event may be something
/// else; `rss_bytes`, at the end.
impl Serialize for Used {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let times = [
            ("cpu", self.user + self.system),
            ("user", self.user),
            ("system", self.system),
        ];
        for (name, time) in times {
            map.serialize_entry(&format!("{name}_seconds"), &time.as_secs_f64())?;
            let each = format!("{name}_us_per_{}", self.what);
            map.serialize_entry(&each, &self.each_us(time))?;
        }
        map.serialize_entry("rss_bytes", &self.rss_bytes)?;
        map.end()
    }
}

impl Latencies {
    fn rows(&self) -> [Row; 4] {
        [
            ("latency p50", milliseconds(self.p50)),
            ("latency p99", milliseconds(self.p99)),
            ("latency p99.9", milliseconds(self.p999)),
            ("latency max", milliseconds(self.max)),
        ]
    }
}

impl Violations {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            ("lost", grouped(self.lost)),
            ("misordered", grouped(self.misordered)),
        ];
        let rarer = [
            ("repeated", self.repeated),
            ("sequence not dense", self.sequence),
            ("time not rising", self.logical_time),
        ];
        let rarer = rarer.into_iter().filter(|(_, count)| *count > 0);
        rows.extend(rarer.map(|(what, count)| (what, grouped(count))));
        rows
    }
}

/// What the two processes used.
fn process_rows(server: Option<Used>, client: Option<Used>) -> Vec<Row> {
    let server = server.map(|used| ("server", used.words()));
    let client = client.map(|used| ("this client", used.words()));
    server.into_iter().chain(client).collect()
}

/// Messages that were due and never sent, if there are any.
fn missed_row(missed: u64) -> Option<Row> {
    let words = || {
        let missed = grouped(missed);
        format!("{missed} were due and had no turn: the latency is worse than it looks")
    };
    (missed > 0).then(|| ("not sent", words()))
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1_000.0)
}

/// So many in that time, by the second; 0 of nothing.
pub(super) fn per_second(count: u64, took: Duration) -> f64 {
    if took.is_zero() {
        return 0.0;
    }
    count as f64 / took.as_secs_f64()
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

    #[test]
    fn what_a_process_used_is_told_by_what_was_done() {
        let usage = |user, system| Usage {
            user: Duration::from_millis(user),
            system: Duration::from_millis(system),
            rss_bytes: 7 << 20,
        };
        let used = Used::between((usage(100, 10), usage(400, 110)), 1_000, "delivery");
        assert_eq!(
            used.words(),
            "0.40 s of CPU: 400.0 us/delivery (300.0 user, 100.0 system); 7 MiB resident"
        );
        let json = serde_json::to_value(used).unwrap();
        assert_eq!(json["cpu_us_per_delivery"], 400.0, "{json}");
        assert_eq!(json["system_seconds"], 0.1, "{json}");
    }
}
