//! The Lamport clock.

/// A process's Lamport clock: a count that rises with every step of the process, and jumps ahead of every timestamp the
/// process receives, so that what may have caused something always has the smaller time.
///
/// Source: L. Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", CACM 21(7), 1978.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LamportClock(i64);

impl LamportClock {
    /// A clock that stands at `time`, as when a process takes up where it stopped.
    #[must_use]
    pub const fn at(time: i64) -> Self {
        Self(time)
    }

    /// What the clock shows: the logical time of the process's last step; 0 before the first.
    #[must_use]
    pub const fn now(self) -> i64 {
        self.0
    }

    /// A step of the process itself, such as sending: one tick. Returns the time of that step.
    pub fn tick(&mut self) -> i64 {
        self.merge(self.0)
    }

    /// The receipt of a message that carries `received`: `max(own, received) + 1`. Returns the time of that step.
    ///
    /// At the end of the range the clock stands still rather than starting again below what it has given out. The
    /// service never comes there: it refuses timestamps more than `limits.clock_jump` ahead of its own, so the way
    /// takes 2^43 messages.
    pub fn merge(&mut self, received: i64) -> i64 {
        self.0 = self.0.max(received).saturating_add(1);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_adds_one() {
        let mut clock = LamportClock::default();
        assert_eq!((clock.tick(), clock.tick(), clock.now()), (1, 2, 2));
    }

    #[test]
    fn a_receipt_is_later_than_both_clocks() {
        let mut clock = LamportClock::at(5);
        assert_eq!(clock.merge(3), 6, "the own clock is ahead");
        assert_eq!(clock.merge(6), 7, "both are equal");
        assert_eq!(clock.merge(40), 41, "the received one is ahead");
    }

    #[test]
    fn a_clock_never_goes_back_even_at_the_end_of_its_range() {
        let mut clock = LamportClock::at(i64::MAX - 1);
        assert_eq!(clock.merge(i64::MIN), i64::MAX);
        assert_eq!(clock.tick(), i64::MAX);
    }
}
