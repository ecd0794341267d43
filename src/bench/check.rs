//! Whether what is read is what was promised: each message once, in order, at a later logical time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    ops::Range,
    sync::Arc,
};

use serde::Serialize;

use super::turns::Turn;

/// Violations that are told in words; the rest is counted.
const EXAMPLES_MAX: usize = 5;

/// Gaps in one series that may be filled later.
///
/// When reached: the oldest gap is lost, and what would have filled it comes as a repetition. Source: a server that keeps
/// its promise leaves none.
const GAPS_MAX: usize = 1_024;

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

    /// `reader` got a message that was never sent, or not as it was sent.
    pub(super) fn stranger(&mut self, reader: &str) {
        self.repeated += 1;
        self.note(|| format!("{reader}: a message came that was never sent, or was altered"));
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

    /// The last event's.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
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

/// The messages of one publisher as one reader gets them: 0, 1, 2 ... up to as many as were sent.
#[derive(Debug)]
pub(super) struct Series {
    publisher: Arc<str>,
    reader: Arc<str>,
    next: u64,
    /// Numbers before `next` that have not come, as ranges: the first, and the one after the last.
    missing: BTreeMap<u64, u64>,
    ended: bool,
}

impl Series {
    /// Of which nothing has come.
    pub(super) fn of(publisher: Arc<str>, reader: Arc<str>) -> Self {
        Self {
            publisher,
            reader,
            next: 0,
            missing: BTreeMap::new(),
            ended: false,
        }
    }

    /// The message `number` came. Whether that was the first time.
    pub(super) fn take(&mut self, number: u64, violations: &mut Violations) -> bool {
        if number == self.next {
            self.next += 1;
            return true;
        }
        if number > self.next {
            self.miss(self.next..number, violations);
            self.next = number + 1;
            return true;
        }
        if self.find(number) {
            violations.misordered += 1;
            violations
                .note(|| self.words(number, &format!("came after message {}", self.next - 1)));
            return true;
        }
        violations.repeated += 1;
        violations.note(|| self.words(number, "came twice"));
        false
    }

    /// The publisher has said its last word. Whether that was the first time.
    pub(super) fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.ended, true)
    }

    /// Nothing more will come, and so many were sent.
    pub(super) fn finish(mut self, sent: u64, violations: &mut Violations) {
        if self.next < sent {
            self.miss(self.next..sent, violations);
        }
        for (&from, &to) in &self.missing {
            self.lose(from..to, violations);
        }
    }

    fn miss(&mut self, numbers: Range<u64>, violations: &mut Violations) {
        self.missing.insert(numbers.start, numbers.end);
        if self.missing.len() > GAPS_MAX
            && let Some((from, to)) = self.missing.pop_first()
        {
            self.lose(from..to, violations);
        }
    }

    /// Whether `number` was missing; now it is not.
    fn find(&mut self, number: u64) -> bool {
        let Some((&from, &to)) = self.missing.range(..=number).next_back() else {
            return false;
        };
        if number >= to {
            return false;
        }
        self.missing.remove(&from);
        if from < number {
            self.missing.insert(from, number);
        }
        if number + 1 < to {
            self.missing.insert(number + 1, to);
        }
        true
    }

    fn lose(&self, numbers: Range<u64>, violations: &mut Violations) {
        violations.lost += numbers.end - numbers.start;
        violations.note(|| self.words(numbers.start, "never came"));
    }

    fn words(&self, number: u64, what: &str) -> String {
        let Self {
            publisher, reader, ..
        } = self;
        format!("{reader}: message {number} of {publisher} {what}")
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

    fn series(numbers: impl IntoIterator<Item = u64>, sent: u64) -> Violations {
        violations(|violations| {
            let mut series = Series::of("bench-0".into(), "bench-1".into());
            for number in numbers {
                series.take(number, violations);
            }
            series.finish(sent, violations);
        })
    }

    #[test]
    fn a_series_in_order_violates_nothing() {
        assert_eq!(series(0..5, 5), Violations::default());
    }

    #[test]
    fn each_message_of_a_series_that_does_not_come_is_lost_also_at_its_end() {
        let found = series([0, 3, 4, 6], 9);
        assert_eq!((found.lost, found.count()), (5, 5), "{found:?}");
        let words = "bench-1: message 1 of bench-0 never came";
        assert_eq!(found.examples[0], words, "{found:?}");
    }

    #[test]
    fn a_message_of_a_series_that_comes_late_is_misordered_and_not_lost() {
        let found = series([0, 5, 3, 1, 2, 4], 6);
        assert_eq!((found.misordered, found.count()), (4, 4), "{found:?}");
        let words = "bench-1: message 3 of bench-0 came after message 5";
        assert_eq!(found.examples[0], words, "{found:?}");
    }

    #[test]
    fn a_message_of_a_series_that_comes_again_is_repeated_whenever_it_comes() {
        let found = series([0, 0, 3, 2, 2, 1, 0], 4);
        assert_eq!((found.repeated, found.misordered), (3, 2), "{found:?}");
        assert_eq!(found.lost, 0, "{found:?}");
    }

    #[test]
    fn gaps_beyond_what_is_remembered_are_lost_and_not_forgotten() {
        let gaps = GAPS_MAX as u64 + 10;
        let found = series((1..=gaps).map(|gap| 2 * gap - 1), 2 * gaps);
        assert_eq!((found.lost, found.count()), (gaps, gaps));
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
