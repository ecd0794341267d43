//! The line that a person sees while something goes on: a run, or the reading of a recorded one.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::{
    meter::Meter,
    report::{grouped, per_second},
    turns::{Extent, Window},
};

/// How often the line changes: often enough to see that it lives, and nothing to be measured.
pub(crate) const EVERY: Duration = Duration::from_millis(200);

/// Unit: characters.
const BAR_WIDTH: usize = 30;

/// A bar on standard error, if that is a terminal; it is gone when this is dropped.
pub(crate) struct Progress {
    shown: bool,
    /// What is counted.
    unit: &'static str,
    /// The last look: when, and how many there were.
    before: (Instant, u64),
}

/// How far something is.
pub(crate) struct Stage {
    /// What part of it is done, of 1.
    pub(crate) done: f64,
    /// What it is, or how much of it is done.
    pub(crate) label: String,
}

impl Stage {
    /// How far the measuring is.
    pub(super) fn measuring(window: Window, extent: Extent, meter: &Meter) -> Self {
        let now = Instant::now();
        let done = match extent {
            Extent::Messages(messages) => meter.measured() as f64 / messages as f64,
            Extent::Duration(duration) => {
                let since = now.saturating_duration_since(window.from);
                since.as_secs_f64() / duration.as_secs_f64()
            }
        };
        let label = if now < window.from {
            "warm-up".into()
        } else {
            format!("{:.0} %", done.clamp(0.0, 1.0) * 100.0)
        };
        Self { done, label }
    }
}

impl Progress {
    /// Nothing is shown yet; `unit` is what is counted.
    pub(crate) fn new(unit: &'static str) -> Self {
        Self {
            shown: io::stderr().is_terminal(),
            unit,
            before: (Instant::now(), 0),
        }
    }

    /// Shows how far the run is, and how fast since the last look; `count` is how many there are.
    pub(crate) fn show(&mut self, stage: &Stage, count: u64) {
        if !self.shown {
            return;
        }
        let now = Instant::now();
        let (before, counted) = self.before;
        self.before = (now, count);
        let rate = per_second(count - counted, now.duration_since(before));
        write(&line(stage, rate, self.unit));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            write("");
        }
    }
}

fn line(stage: &Stage, rate: f64, unit: &str) -> String {
    let full = (stage.done.clamp(0.0, 1.0) * BAR_WIDTH as f64) as usize;
    let bar = "#".repeat(full) + &"-".repeat(BAR_WIDTH - full);
    format!(
        "[{bar}] {:>7}  {} {unit}/s",
        stage.label,
        grouped(rate as u64)
    )
}

/// In place of what stood on the line. That nobody sees it is no failure.
fn write(line: &str) {
    let _ = write!(io::stderr(), "\r\x1b[K{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(done: f64, label: &str) -> Stage {
        Stage {
            done,
            label: label.into(),
        }
    }

    #[test]
    fn the_bar_fills_and_does_not_overflow() {
        assert_eq!(
            line(&stage(0.0, "warm-up"), 0.0, "acknowledged"),
            "[------------------------------] warm-up  0 acknowledged/s"
        );
        assert_eq!(
            line(&stage(0.5, "50 %"), 21_034.7, "deliveries"),
            "[###############---------------]    50 %  21,034 deliveries/s"
        );
        let beyond = line(&stage(1.2, "100 %"), 1.0, "acknowledged");
        assert!(beyond.starts_with("[##############################]   100 %"));
    }
}
