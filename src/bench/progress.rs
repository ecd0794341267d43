//! The line that a person sees while a run goes on.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::{
    meter::Meter,
    report::grouped,
    turns::{Extent, Window},
};

/// How often the line changes: often enough to see that it lives, and nothing to be measured.
pub(super) const EVERY: Duration = Duration::from_millis(200);

/// Unit: characters.
const BAR_WIDTH: usize = 30;

/// A bar on standard error, if that is a terminal; it is gone when this is dropped.
pub(super) struct Progress {
    shown: bool,
    window: Window,
    extent: Extent,
    /// The last look: when, and how many were acknowledged.
    before: (Instant, u64),
}

impl Progress {
    pub(super) fn new(window: Window, extent: Extent) -> Self {
        Self {
            shown: io::stderr().is_terminal(),
            window,
            extent,
            before: (Instant::now(), 0),
        }
    }

    /// Shows how far the run is, and how fast since the last look.
    pub(super) fn show(&mut self, meter: &Meter) {
        if !self.shown {
            return;
        }
        let (now, count) = (Instant::now(), meter.count());
        let (before, counted) = self.before;
        self.before = (now, count);
        let rate = (count - counted) as f64 / now.duration_since(before).as_secs_f64();
        let line = line(
            self.done(now, meter.measured()),
            now < self.window.from,
            rate,
        );
        write(&line);
    }

    /// What part of the run is done, of 1.
    fn done(&self, now: Instant, measured: u64) -> f64 {
        match self.extent {
            Extent::Messages(messages) => measured as f64 / messages as f64,
            Extent::Duration(duration) => {
                let since = now.saturating_duration_since(self.window.from);
                since.as_secs_f64() / duration.as_secs_f64()
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            write("");
        }
    }
}

fn line(done: f64, warm_up: bool, rate: f64) -> String {
    let done = done.clamp(0.0, 1.0);
    let full = (done * BAR_WIDTH as f64) as usize;
    let bar = "#".repeat(full) + &"-".repeat(BAR_WIDTH - full);
    let stage = if warm_up {
        "warm-up".to_owned()
    } else {
        format!("{:.0} %", done * 100.0)
    };
    format!(
        "[{bar}] {stage:>7}  {} acknowledged/s",
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

    #[test]
    fn the_bar_fills_and_does_not_overflow() {
        assert_eq!(
            line(0.0, true, 0.0),
            "[------------------------------] warm-up  0 acknowledged/s"
        );
        assert_eq!(
            line(0.5, false, 21_034.7),
            "[###############---------------]    50 %  21,034 acknowledged/s"
        );
        assert!(line(1.2, false, 1.0).starts_with("[##############################]   100 %"));
    }
}
