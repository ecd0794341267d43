//! The message ids that a room remembers, so that a retry is stored once.

use std::collections::{BTreeMap, VecDeque};

use super::{Answer, Digest, Outcome};

/// The ids of the messages among a room's last `limits.dedup_events` events, and what became of each.
///
/// A count of events and not a time, so that every replica forgets at the same point. About 100 bytes an event.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    results: BTreeMap<Digest, First>,
    order: VecDeque<(u64, Digest)>,
    forgotten: bool,
}

/// The first result of a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) content: Digest,
    pub(super) timestamp: i64,
    pub(super) sequence: u64,
}

impl First {
    /// The answer when the message comes again.
    pub(super) fn again(self, message_id: String) -> Outcome {
        Outcome {
            events: vec![],
            answer: Answer::Duplicate {
                timestamp: self.timestamp,
                sequence: self.sequence,
                message_id,
            },
        }
    }
}

impl Recent {
    /// Of a room whose past has not been read yet.
    pub(super) fn forgotten() -> Self {
        Self {
            forgotten: true,
            ..Self::default()
        }
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    pub(super) fn get(&self, key: Digest) -> Option<First> {
        self.results.get(&key).copied()
    }

    /// Remembers what became of the newest event.
    pub(super) fn remember(&mut self, key: Digest, first: First) {
        self.order.push_back((first.sequence, key));
        self.results.insert(key, first);
    }

    /// Forgets all events before `oldest`.
    pub(super) fn forget_before(&mut self, oldest: u64) {
        while let Some(&(sequence, key)) = self.order.front() {
            if sequence >= oldest {
                break;
            }
            self.order.pop_front();
            // The same id may stand for a later message, if it was forgotten in between under a smaller limit.
            if self
                .results
                .get(&key)
                .is_some_and(|first| first.sequence == sequence)
            {
                self.results.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_stands_for_two_messages_is_remembered_until_the_later_one_is_forgotten() {
        let key = Digest::of(&[b"again"]);
        let first = |sequence| First {
            content: key,
            timestamp: 1,
            sequence,
        };
        let mut recent = Recent::default();
        recent.remember(key, first(1));
        recent.remember(key, first(5));
        recent.forget_before(5);
        assert_eq!(recent.get(key), Some(first(5)));
        recent.forget_before(6);
        assert_eq!(recent.get(key), None);
    }
}
