//! The history of every room: what was said stays readable here.
//!
//! In memory, and gone when the server stops. It keeps the newest events, up to a bound in bytes; what falls out moves
//! the first sequence that can be read, visibly.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::wire::Frame;

/// What an event costs beside its frame, in bytes: its place in two queues and the frame's own header, estimated.
const ENTRY_BYTES: usize = 96;

/// What one page of history holds at most, in bytes of frames (and one event at least).
///
/// gRPC clients refuse a response above 4 MiB unless told otherwise. When reached: the page is shorter and says `more`.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// The history. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Mutex<Memory>>);

#[derive(Debug)]
struct Memory {
    rooms: BTreeMap<Arc<str>, Log>,
    /// The room of each kept event, oldest first.
    order: VecDeque<Arc<str>>,
    bytes: usize,
    bytes_max: usize,
}

/// One room's events.
#[derive(Debug)]
struct Log {
    /// The sequence of the front of `frames`.
    first: u64,
    frames: VecDeque<Frame>,
}

/// One event to keep.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its room.
    pub room: Arc<str>,
    /// Its place there; one more than the room's last.
    pub sequence: u64,
    /// As everybody receives it.
    pub frame: Frame,
}

/// Which part of a room's history to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// From the event after this sequence on, up to (not including) `before` if that is not 0.
    After {
        /// Not included; 0 for the oldest kept.
        after: u64,
        /// Not included; 0 for no bound.
        before: u64,
    },
    /// The newest events before this sequence.
    Before(u64),
}

/// A part of a room's history, ascending.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Sequence and event.
    pub events: Vec<(u64, Frame)>,
    /// There are more in the direction of reading.
    pub more: bool,
}

/// The journal keeps nothing before `first` in `room` any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The room.
    pub room: Arc<str>,
    /// The oldest sequence that is kept.
    pub first: u64,
}

impl Journal {
    /// A journal in memory, of at most `bytes_max` bytes over all rooms; beyond that the oldest events are dropped.
    #[must_use]
    pub fn in_memory(bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Memory {
            rooms: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
        })))
    }

    /// Keeps `entries`, in order. Returns where history was dropped to make room, once for each room.
    #[must_use]
    pub fn append(&self, entries: Vec<Entry>) -> Vec<Dropped> {
        let mut memory = self.lock();
        for entry in entries {
            memory.push(entry);
        }
        memory.drop_oldest()
    }

    /// Reads at most `limit` events of `room`. A room without history is empty.
    #[must_use]
    pub fn read(&self, room: &str, range: Range, limit: usize) -> Page {
        let memory = self.lock();
        let Some(log) = memory.rooms.get(room) else {
            return Page::default();
        };
        log.read(range, limit)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.frame.len() + ENTRY_BYTES;
        self.order.push_back(Arc::clone(&entry.room));
        let log = self.rooms.entry(entry.room).or_insert_with(|| Log {
            first: entry.sequence,
            frames: VecDeque::new(),
        });
        log.frames.push_back(entry.frame);
    }

    fn drop_oldest(&mut self) -> Vec<Dropped> {
        let mut dropped = BTreeMap::new();
        while self.bytes > self.bytes_max {
            let Some(room) = self.order.pop_front() else {
                break;
            };
            let Some(log) = self.rooms.get_mut(&room) else {
                continue;
            };
            if let Some(frame) = log.frames.pop_front() {
                self.bytes -= frame.len() + ENTRY_BYTES;
                log.first += 1;
                dropped.insert(room, log.first);
            }
        }
        dropped
            .into_iter()
            .map(|(room, first)| Dropped { room, first })
            .collect()
    }
}

impl Log {
    fn read(&self, range: Range, limit: usize) -> Page {
        let end = self.first + self.frames.len() as u64;
        let (from, until) = match range {
            Range::After { after, before } => {
                let from = after.saturating_add(1).clamp(self.first, end);
                let until = if before == 0 { end } else { before };
                (from, until.clamp(from, end))
            }
            Range::Before(before) => (self.first, before.clamp(self.first, end)),
        };
        let index = |sequence: u64| usize::try_from(sequence - self.first).unwrap_or(usize::MAX);
        let asked = index(from)..index(until);
        let mut bytes = 0;
        let mut fits = |at: &usize| {
            let first = bytes == 0;
            bytes += self.frames[*at].len();
            first || bytes <= PAGE_BYTES_MAX
        };
        let taken = match range {
            Range::After { .. } => {
                let count = asked.clone().take(limit).take_while(&mut fits).count();
                asked.start..asked.start + count
            }
            Range::Before(_) => {
                let count = asked
                    .clone()
                    .rev()
                    .take(limit)
                    .take_while(&mut fits)
                    .count();
                asked.end - count..asked.end
            }
        };
        Page {
            more: taken != asked,
            events: (self.first + taken.start as u64..)
                .zip(self.frames.range(taken).cloned())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::ServerMessage;

    fn entry(room: &str, sequence: u64) -> Entry {
        Entry {
            room: room.into(),
            sequence,
            frame: Frame::of(&ServerMessage {
                sequence,
                msg_stream: "x".repeat(100),
                ..ServerMessage::default()
            }),
        }
    }

    fn sequences(page: &Page) -> Vec<u64> {
        page.events.iter().map(|(sequence, _)| *sequence).collect()
    }

    fn ten_events() -> Journal {
        let journal = Journal::in_memory(1 << 20);
        let dropped = journal.append((1..=10).map(|n| entry("lobby", n)).collect());
        assert!(dropped.is_empty());
        journal
    }

    #[test]
    fn a_range_is_read_forwards() {
        let journal = ten_events();
        let page = journal.read(
            "lobby",
            Range::After {
                after: 3,
                before: 8,
            },
            100,
        );
        assert_eq!((sequences(&page), page.more), (vec![4, 5, 6, 7], false));
        let page = journal.read(
            "lobby",
            Range::After {
                after: 0,
                before: 0,
            },
            3,
        );
        assert_eq!((sequences(&page), page.more), (vec![1, 2, 3], true));
        let page = journal.read(
            "lobby",
            Range::After {
                after: 10,
                before: 0,
            },
            3,
        );
        assert_eq!((sequences(&page), page.more), (vec![], false));
        let page = journal.read(
            "lobby",
            Range::After {
                after: u64::MAX,
                before: 2,
            },
            3,
        );
        assert_eq!((sequences(&page), page.more), (vec![], false));
    }

    #[test]
    fn a_range_is_read_backwards() {
        let journal = ten_events();
        let page = journal.read("lobby", Range::Before(8), 3);
        assert_eq!((sequences(&page), page.more), (vec![5, 6, 7], true));
        let page = journal.read("lobby", Range::Before(3), 3);
        assert_eq!((sequences(&page), page.more), (vec![1, 2], false));
        let page = journal.read("lobby", Range::Before(u64::MAX), 1);
        assert_eq!((sequences(&page), page.more), (vec![10], true));
    }

    #[test]
    fn a_page_is_bounded_in_bytes_from_the_side_that_it_is_read_from() {
        let large = |sequence| Entry {
            frame: Frame::of(&ServerMessage {
                msg_stream: "x".repeat(PAGE_BYTES_MAX / 3),
                ..ServerMessage::default()
            }),
            ..entry("lobby", sequence)
        };
        let journal = Journal::in_memory(1 << 30);
        assert!(journal.append((1..=5).map(large).collect()).is_empty());
        let page = journal.read(
            "lobby",
            Range::After {
                after: 0,
                before: 0,
            },
            100,
        );
        assert_eq!((sequences(&page), page.more), (vec![1, 2], true));
        let page = journal.read("lobby", Range::Before(6), 100);
        assert_eq!((sequences(&page), page.more), (vec![4, 5], true));
        let huge = Entry {
            frame: Frame::of(&ServerMessage {
                msg_stream: "x".repeat(2 * PAGE_BYTES_MAX),
                ..ServerMessage::default()
            }),
            ..entry("lobby", 6)
        };
        assert!(journal.append(vec![huge]).is_empty());
        let page = journal.read(
            "lobby",
            Range::After {
                after: 5,
                before: 0,
            },
            100,
        );
        assert_eq!((sequences(&page), page.more), (vec![6], false));
    }

    #[test]
    fn a_room_without_history_is_empty() {
        let page = ten_events().read("elsewhere", Range::Before(8), 3);
        assert!(page.events.is_empty() && !page.more);
    }

    #[test]
    fn the_oldest_events_of_all_rooms_fall_out_first_and_it_is_told() {
        let cost = entry("a", 1).frame.len() + ENTRY_BYTES;
        let journal = Journal::in_memory(4 * cost);
        assert!(
            journal
                .append(vec![entry("a", 1), entry("b", 1), entry("a", 2)])
                .is_empty()
        );
        let dropped = journal.append(vec![entry("b", 2), entry("b", 3), entry("b", 4)]);
        let told: Vec<_> = dropped.iter().map(|d| (&*d.room, d.first)).collect();
        assert_eq!(told, [("a", 2), ("b", 2)]);
        let page = journal.read(
            "b",
            Range::After {
                after: 0,
                before: 0,
            },
            10,
        );
        assert_eq!(sequences(&page), [2, 3, 4]);
    }
}
