//! How long to wait before a server is tried again.

use std::time::Duration;

/// The longest first pause; doubled with each further one.
///
/// Source: a connection that broke by itself is back at once, and a thousand clients of a server that was started anew
/// do not come in the same instant.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause; also how long a connection must have held for the pauses to start small again.
///
/// Source: what a person who waits for the server's return will bear; a thousand waiting clients then try about 450
/// times a second.
const MAX: Duration = Duration::from_secs(3);

/// Pauses between attempts: at random up to a bound that doubles, so that many clients do not come in step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { bound: FIRST }
    }
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(MAX);
        bound.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// A connection has held for `time`: if that is long, the next break has nothing to do with the last one.
    pub(crate) fn held(&mut self, time: Duration) {
        if time > MAX {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_leave_at_most_half_to_chance() {
        let mut backoff = Backoff::default();
        for bound_ms in [100, 200, 400, 800, 1_600, 3_000, 3_000] {
            let bound = Duration::from_millis(bound_ms);
            let pause = backoff.pause();
            assert!(
                bound / 2 <= pause && pause <= bound,
                "{pause:?} of {bound:?}"
            );
        }
    }

    #[test]
    fn a_connection_that_held_makes_the_next_pause_a_short_one() {
        let mut backoff = Backoff::default();
        let longest = (0..10).map(|_| backoff.pause()).max();
        backoff.held(MAX);
        assert!(backoff.pause() > FIRST, "{longest:?}");
        backoff.held(MAX + FIRST);
        assert!(backoff.pause() <= FIRST);
    }
}
