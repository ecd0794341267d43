//! The message ids that a room remembers, so that a retry is stored once.

use std::collections::{BTreeMap, VecDeque};

use super::Digest;

/// The ids of the messages among a room's last `limits.dedup_events` events, and what became of each.
///
/// A count of events and not a time, so that every replica forgets at the same point. About 100 bytes an event.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    results: BTreeMap<Digest, First>,
    order: VecDeque<(u64, Digest)>,
}

/// The first result of a message id.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    pub(super) content: Digest,
    pub(super) timestamp: i64,
    pub(super) sequence: u64,
}

impl Recent {
    pub(super) fn get(&self, key: Digest) -> Option<First> {
        self.results.get(&key).copied()
    }

    /// Remembers the event `sequence`.
    pub(super) fn remember(&mut self, key: Digest, content: Digest, timestamp: i64, sequence: u64) {
        self.order.push_back((sequence, key));
        self.results.insert(
            key,
            First {
                content,
                timestamp,
                sequence,
            },
        );
    }

    /// Forgets all events before `oldest`.
    pub(super) fn forget_before(&mut self, oldest: u64) {
        while let Some(&(sequence, key)) = self.order.front() {
            if sequence >= oldest {
                break;
            }
            self.order.pop_front();
            self.results.remove(&key);
        }
    }
}
