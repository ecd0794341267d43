//! The history in memory: the newest events of all rooms, up to a bound in bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Batch, Dropped, Entry, Extent, Limit, Page, Range};
use crate::wire::Frame;

/// What an event costs beside its frame, in bytes: its place in two queues and the frame's own header, estimated.
const ENTRY_BYTES: usize = 96;

/// The history, and both its ends.
#[derive(Debug, Clone)]
pub(super) struct Memory(Arc<Mutex<Logs>>);

pub(super) type Reader = Memory;
pub(super) type Writer = Memory;

#[derive(Debug)]
struct Logs {
    rooms: BTreeMap<Arc<str>, Log>,
    /// Room and sequence of each event, oldest first; some may have fallen out of their room already.
    order: VecDeque<(Arc<str>, u64)>,
    events: usize,
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

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Logs {
            rooms: BTreeMap::new(),
            order: VecDeque::new(),
            events: 0,
            bytes: 0,
            bytes_max,
        })))
    }

    pub(super) fn reader(&self) -> Reader {
        self.clone()
    }

    pub(super) fn writer(&self) -> Writer {
        self.clone()
    }

    pub(super) fn store(&self, batch: Batch) -> Vec<Dropped> {
        let mut logs = self.lock();
        for entry in batch.entries {
            logs.push(entry);
        }
        for Extent { room, first, .. } in batch.rooms {
            logs.drop_before(&room, first);
        }
        logs.drop_oldest()
    }

    pub(super) fn read(&self, room: &str, range: Range, limit: Limit) -> Page {
        let logs = self.lock();
        let Some(log) = logs.rooms.get(room) else {
            return Page::default();
        };
        log.read(range, limit)
    }

    fn lock(&self) -> MutexGuard<'_, Logs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logs {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.frame.len() + ENTRY_BYTES;
        self.events += 1;
        self.order
            .push_back((Arc::clone(&entry.room), entry.sequence));
        let log = self.rooms.entry(entry.room).or_insert_with(|| Log {
            first: entry.sequence,
            frames: VecDeque::new(),
        });
        log.frames.push_back(entry.frame);
    }

    fn drop_before(&mut self, room: &str, first: u64) {
        while self.rooms.get(room).is_some_and(|log| log.first < first) {
            if !self.drop_front(room) {
                break;
            }
        }
        // What is left over of them in the order is at most as much again as there is, and a little.
        if self.order.len() > 2 * self.events + 64 {
            let rooms = &self.rooms;
            self.order.retain(|(room, sequence)| {
                rooms.get(room).is_some_and(|log| *sequence >= log.first)
            });
        }
    }

    fn drop_oldest(&mut self) -> Vec<Dropped> {
        let mut dropped = BTreeMap::new();
        while self.bytes > self.bytes_max {
            let Some((room, sequence)) = self.order.pop_front() else {
                break;
            };
            let is_there = self
                .rooms
                .get(&room)
                .is_some_and(|log| log.first == sequence);
            if is_there && self.drop_front(&room) {
                dropped.insert(room, sequence + 1);
            }
        }
        dropped
            .into_iter()
            .map(|(room, first)| Dropped { room, first })
            .collect()
    }

    fn drop_front(&mut self, room: &str) -> bool {
        let Some(log) = self.rooms.get_mut(room) else {
            return false;
        };
        let Some(frame) = log.frames.pop_front() else {
            return false;
        };
        log.first += 1;
        self.events -= 1;
        self.bytes -= frame.len() + ENTRY_BYTES;
        true
    }
}

impl Log {
    fn read(&self, range: Range, limit: Limit) -> Page {
        let head = self.first + self.frames.len() as u64 - 1;
        let page = range.page((self.first, head), limit, |sequence| {
            Ok::<_, Infallible>(self.frames[self.index(sequence)].clone())
        });
        page.unwrap_or_else(|never| match never {})
    }

    fn index(&self, sequence: u64) -> usize {
        usize::try_from(sequence - self.first).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{journal::PAGE_BYTES_MAX, wire::v1::ServerMessage};

    fn read(journal: &Memory, room: &str, range: Range, limit: usize) -> Page {
        journal.read(room, range, limit.into())
    }

    fn append(journal: &Memory, entries: Vec<Entry>) -> Vec<Dropped> {
        journal.store(Batch {
            entries,
            ..Batch::default()
        })
    }

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

    fn ten_events() -> Memory {
        let journal = Memory::new(1 << 20);
        let dropped = append(&journal, (1..=10).map(|n| entry("lobby", n)).collect());
        assert!(dropped.is_empty());
        journal
    }

    #[test]
    fn a_range_is_read_forwards() {
        let journal = ten_events();
        let page = read(
            &journal,
            "lobby",
            Range::After {
                after: 3,
                before: 8,
            },
            100,
        );
        assert_eq!((sequences(&page), page.more), (vec![4, 5, 6, 7], false));
        let page = read(
            &journal,
            "lobby",
            Range::After {
                after: 0,
                before: 0,
            },
            3,
        );
        assert_eq!((sequences(&page), page.more), (vec![1, 2, 3], true));
        let page = read(
            &journal,
            "lobby",
            Range::After {
                after: 10,
                before: 0,
            },
            3,
        );
        assert_eq!((sequences(&page), page.more), (vec![], false));
        let page = read(
            &journal,
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
        let page = read(&journal, "lobby", Range::Before(8), 3);
        assert_eq!((sequences(&page), page.more), (vec![5, 6, 7], true));
        let page = read(&journal, "lobby", Range::Before(3), 3);
        assert_eq!((sequences(&page), page.more), (vec![1, 2], false));
        let page = read(&journal, "lobby", Range::Before(u64::MAX), 1);
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
        let journal = Memory::new(1 << 30);
        assert!(append(&journal, (1..=5).map(large).collect()).is_empty());
        let page = read(
            &journal,
            "lobby",
            Range::After {
                after: 0,
                before: 0,
            },
            100,
        );
        assert_eq!((sequences(&page), page.more), (vec![1, 2], true));
        let page = read(&journal, "lobby", Range::Before(6), 100);
        assert_eq!((sequences(&page), page.more), (vec![4, 5], true));
        let huge = Entry {
            frame: Frame::of(&ServerMessage {
                msg_stream: "x".repeat(2 * PAGE_BYTES_MAX),
                ..ServerMessage::default()
            }),
            ..entry("lobby", 6)
        };
        assert!(append(&journal, vec![huge]).is_empty());
        let page = read(
            &journal,
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
        let page = read(&ten_events(), "elsewhere", Range::Before(8), 3);
        assert!(page.events.is_empty() && !page.more);
    }

    #[test]
    fn the_oldest_events_of_all_rooms_fall_out_first_and_it_is_told() {
        let cost = entry("a", 1).frame.len() + ENTRY_BYTES;
        let journal = Memory::new(4 * cost);
        assert!(append(&journal, vec![entry("a", 1), entry("b", 1), entry("a", 2)]).is_empty());
        let dropped = append(&journal, vec![entry("b", 2), entry("b", 3), entry("b", 4)]);
        let told: Vec<_> = dropped.iter().map(|d| (&*d.room, d.first)).collect();
        assert_eq!(told, [("a", 2), ("b", 2)]);
        let page = read(
            &journal,
            "b",
            Range::After {
                after: 0,
                before: 0,
            },
            10,
        );
        assert_eq!(sequences(&page), [2, 3, 4]);
    }

    #[test]
    fn what_a_room_lets_go_of_falls_out_of_the_order_of_all_rooms_too() {
        let cost = entry("a", 1).frame.len() + ENTRY_BYTES;
        let journal = Memory::new(4 * cost + 8);
        for sequence in 1..=1_000 {
            let dropped = journal.store(Batch {
                entries: vec![entry("a", sequence)],
                rooms: vec![Extent {
                    room: "a".into(),
                    head: sequence,
                    first: sequence,
                    oldest: sequence,
                }],
                ..Batch::default()
            });
            assert!(dropped.is_empty(), "it keeps one");
        }
        assert!(journal.lock().order.len() < 100);
        assert!(append(&journal, (1..=3).map(|n| entry("b", n)).collect()).is_empty());
        let dropped = append(&journal, vec![entry("b", 4)]);
        assert_eq!(dropped.len(), 1, "the one that is left of a is the oldest");
        assert_eq!((&*dropped[0].room, dropped[0].first), ("a", 1_001));
    }
}
