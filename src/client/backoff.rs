//! How long to wait before a server is tried again, and how long at all.

use std::time::Duration;

use tokio::time::Instant;

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

/// How long a name or id that is held is waited for by a participant that may hold it itself.
///
/// A JOIN that the service accepted and whose answer was lost leaves a ghost: a participant whose session nobody knows.
/// It holds name and id until the service has noticed that its connection is gone and its grace is over. When this time
/// is over, somebody else holds them, and the refusal counts. Source: the service's keepalive (20 s and 10 s for the
/// answer) and grace (5 s) by default, and as much again for a server that starts anew meanwhile.
pub(crate) const HELD_PATIENCE: Duration = Duration::from_secs(60);

/// How long a held name or id has been met with, and whether to go on asking for it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    until: Option<Instant>,
}

impl Held {
    /// It is held (still): whether to try again, within [`HELD_PATIENCE`] of the first time.
    pub(crate) fn is_waited_for(&mut self) -> bool {
        let now = Instant::now();
        now < *self.until.get_or_insert(now + HELD_PATIENCE)
    }

    /// An attempt had no answer, and may have left another ghost: the time starts anew.
    pub(crate) fn unanswered(&mut self) {
        self.until = None;
    }
}

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
    use crate::config;

    #[test]
    fn a_ghost_is_outlived_with_every_default_of_the_server() {
        let server = config::Server::default();
        let ghost = server.keepalive_interval + server.keepalive_timeout + server.grace;
        assert!(HELD_PATIENCE > ghost, "{ghost:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_waited_for_from_the_last_attempt_without_an_answer_on() {
        let second = Duration::from_secs(1);
        let mut held = Held::default();
        assert!(held.is_waited_for());
        tokio::time::advance(HELD_PATIENCE - second).await;
        assert!(held.is_waited_for());
        tokio::time::advance(second).await;
        assert!(!held.is_waited_for());

        held.unanswered();
        assert!(held.is_waited_for());
        tokio::time::advance(HELD_PATIENCE).await;
        assert!(!held.is_waited_for());
    }

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
