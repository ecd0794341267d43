//! Whether what is read is what was promised: each message once, in order, at a later logical time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use serde::Serialize;

use super::turns::Turn;

/// Violations that are told in words; the rest is counted.
const EXAMPLES_MAX: usize = 5;

/// What was not as promised, from the first message of a run on, its warm-up included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// Messages that were sent and whose event never came.
    pub lost: u64,
    /// Events that came after one that was sent later by the same participant.
    pub misordered: u64,
    /// Events that came a second time, or of messages that were never sent.
    pub repeated: u64,
    /// Events whose sequence is not one more than that of the event before.
    pub sequence: u64,
    /// Events whose logical time is not later than that of the event before, or than the sender's.
    pub logical_time: u64,
    /// The first few, in words.
    pub examples: Vec<String>,
}

impl Violations {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lost + self.misordered + self.repeated + self.sequence + self.logical_time
    }

    /// These and those.
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.misordered += other.misordered;
        self.repeated += other.repeated;
        self.sequence += other.sequence;
        self.logical_time += other.logical_time;
        let left = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(left));
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(words());
        }
    }
}

/// The order of a room's events as one reader sees them: sequences without a gap, logical times that rise.
#[derive(Debug)]
pub(super) struct RoomOrder {
    room: String,
    sequence: u64,
    timestamp: i64,
}

impl RoomOrder {
    /// After the event `sequence`.
    pub(super) fn after(room: &str, sequence: u64, timestamp: i64) -> Self {
        Self {
            room: room.to_owned(),
            sequence,
            timestamp,
        }
    }

    /// The next event.
    pub(super) fn event(&mut self, sequence: u64, timestamp: i64, violations: &mut Violations) {
        if sequence != self.sequence + 1 {
            violations.sequence += 1;
            violations.note(|| {
                format!(
                    "{}: event {sequence} came after event {}",
                    self.room, self.sequence
                )
            });
        }
        if timestamp <= self.timestamp {
            violations.logical_time += 1;
            violations.note(|| {
                format!(
                    "{}: event {sequence} has L={timestamp}, the event before it L={}",
                    self.room, self.timestamp
                )
            });
        }
        (self.sequence, self.timestamp) = (sequence, timestamp);
    }
}

/// The same for a room that is heard of by answers, which overtake each other: those of several calls at a time.
#[derive(Debug)]
pub(super) struct Answers {
    order: RoomOrder,
    early: BinaryHeap<Reverse<(u64, i64)>>,
}

impl Answers {
    /// Of a room that has no events yet.
    pub(super) fn of_new(room: &str) -> Self {
        Self {
            order: RoomOrder::after(room, 0, 0),
            early: BinaryHeap::new(),
        }
    }

    /// The answer to one call; it waits for those that the room had before it.
    pub(super) fn answer(&mut self, sequence: u64, timestamp: i64, violations: &mut Violations) {
        if sequence <= self.order.sequence {
            violations.repeated += 1;
            violations.note(|| format!("{}: event {sequence} was given twice", self.order.room));
            return;
        }
        self.early.push(Reverse((sequence, timestamp)));
        while let Some(Reverse((sequence, timestamp))) = self.early.peek().copied()
            && sequence <= self.order.sequence + 1
        {
            self.early.pop();
            self.order.event(sequence, timestamp, violations);
        }
    }

    /// No more answers come: those that still wait were given sequences beyond a gap.
    pub(super) fn finish(mut self, violations: &mut Violations) {
        while let Some(Reverse((sequence, timestamp))) = self.early.pop() {
            self.order.event(sequence, timestamp, violations);
        }
    }
}

/// One participant's messages that have not come back. They come back in the order in which they were sent.
#[derive(Debug)]
pub(super) struct InFlight {
    sender: String,
    waiting: VecDeque<(u64, Turn)>,
    /// The number of the next message.
    next: u64,
    /// The greatest number that has come back, and one.
    returned: u64,
}

impl InFlight {
    /// Of a participant that has sent nothing; `sender` names it.
    pub(super) fn of(sender: &str) -> Self {
        Self {
            sender: sender.to_owned(),
            waiting: VecDeque::new(),
            next: 0,
            returned: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// One more is sent: its number.
    pub(super) fn send(&mut self, turn: Turn) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.push_back((number, turn));
        number
    }

    /// The message `number` came back. Its turn, if it is the first time.
    pub(super) fn take(&mut self, number: u64, violations: &mut Violations) -> Option<Turn> {
        let found = self
            .waiting
            .binary_search_by_key(&number, |(number, _)| *number);
        let Ok(place) = found else {
            violations.repeated += 1;
            violations.note(|| {
                format!(
                    "{}: message {number} came twice, or was never sent",
                    self.sender
                )
            });
            return None;
        };
        if number < self.returned {
            violations.misordered += 1;
            violations.note(|| {
                let later = self.returned - 1;
                format!(
                    "{}: message {number} came after message {later}",
                    self.sender
                )
            });
        }
        self.returned = self.returned.max(number + 1);
        self.waiting.remove(place).map(|(_, turn)| turn)
    }

    /// Nothing more will come: what has not come is lost.
    pub(super) fn finish(self, violations: &mut Violations) {
        for (number, _) in self.waiting {
            violations.lost += 1;
            violations.note(|| format!("{}: message {number} never came back", self.sender));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn in_flight(messages: u64) -> InFlight {
        let mut in_flight = InFlight::of("bench-0");
        for _ in 0..messages {
            in_flight.send(Turn {
                due: Instant::now(),
                measured: true,
            });
        }
        in_flight
    }

    fn violations(of: impl FnOnce(&mut Violations)) -> Violations {
        let mut violations = Violations::default();
        of(&mut violations);
        violations
    }

    #[test]
    fn messages_that_come_back_in_order_violate_nothing() {
        let found = violations(|violations| {
            let mut in_flight = in_flight(3);
            for number in 0..3 {
                assert!(in_flight.take(number, violations).is_some());
            }
            in_flight.finish(violations);
        });
        assert_eq!(found, Violations::default());
    }

    #[test]
    fn a_message_that_is_overtaken_is_misordered_once_and_not_lost() {
        let found = violations(|violations| {
            let mut in_flight = in_flight(4);
            for number in [0, 2, 1, 3] {
                in_flight.take(number, violations);
            }
            in_flight.finish(violations);
        });
        assert_eq!((found.misordered, found.count()), (1, 1), "{found:?}");
        assert_eq!(found.examples, ["bench-0: message 1 came after message 2"]);
    }

    #[test]
    fn a_message_that_does_not_come_is_lost_and_those_after_it_are_in_order() {
        let found = violations(|violations| {
            let mut in_flight = in_flight(4);
            for number in [0, 2, 3] {
                in_flight.take(number, violations);
            }
            in_flight.finish(violations);
        });
        assert_eq!((found.lost, found.count()), (1, 1), "{found:?}");
    }

    #[test]
    fn a_message_that_comes_twice_counts_once() {
        let found = violations(|violations| {
            let mut in_flight = in_flight(1);
            assert!(in_flight.take(0, violations).is_some());
            assert!(in_flight.take(0, violations).is_none());
        });
        assert_eq!((found.repeated, found.count()), (1, 1), "{found:?}");
    }

    #[test]
    fn sequences_are_dense_and_logical_times_rise() {
        let found = violations(|violations| {
            let mut order = RoomOrder::after("room", 1, 10);
            for (sequence, timestamp) in [(2, 11), (3, 11), (5, 12), (6, 20)] {
                order.event(sequence, timestamp, violations);
            }
        });
        assert_eq!((found.sequence, found.logical_time), (1, 1), "{found:?}");
    }

    #[test]
    fn answers_may_overtake_each_other_and_their_events_not() {
        let found = violations(|violations| {
            let mut answers = Answers::of_new("room");
            for (sequence, timestamp) in [(2, 7), (1, 5), (4, 8), (3, 9), (3, 9), (6, 12)] {
                answers.answer(sequence, timestamp, violations);
            }
            answers.finish(violations);
        });
        assert_eq!(found.logical_time, 1, "4 is at 8, 3 at 9: {found:?}");
        assert_eq!(found.repeated, 1, "3 twice: {found:?}");
        assert_eq!(found.sequence, 1, "there is no 5: {found:?}");
    }

    #[test]
    fn of_many_violations_a_few_are_told_and_all_are_counted() {
        let mut sum = Violations::default();
        for _ in 0..3 {
            sum.add(violations(|violations| in_flight(4).finish(violations)));
        }
        assert_eq!((sum.lost, sum.examples.len()), (12, EXAMPLES_MAX));
    }
}
