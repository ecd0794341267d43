//! The recent part of each room, as encoded frames that everybody shares.
//!
//! A subscriber is a cursor, not a queue: waking up, it takes all there is, as shared bytes. A slow one costs nobody
//! anything; one that falls behind what the feed holds reads on from the journal.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use crate::wire::Frame;

/// What one room's feed holds at most.
///
/// Unit: bytes of frames. Enough for about 2,000 ordinary messages, more than a reader that keeps up is ever behind.
/// When full: the oldest frames go, and whoever still needed them reads the journal.
const FEED_BYTES_MAX: usize = 256 * 1024;

/// Frames that one reading takes.
///
/// When reached: the reader takes the rest in its next reading. So a long catch-up does not hold the room's lock.
const READ_FRAMES_MAX: u64 = 256;

/// The feeds of all rooms. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Feeds {
    feeds: Arc<Mutex<HashMap<Arc<str>, Arc<Feed>>>>,
    rooms_max: usize,
}

/// One room's recent frames, and who waits for the next.
#[derive(Debug)]
pub struct Feed {
    room: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The sequence of the front of `frames`, or of the next event if that is empty.
    first: u64,
    frames: VecDeque<Frame>,
    bytes: usize,
    readers: Vec<Slot>,
    free: Vec<usize>,
}

/// Where a reader leaves its waker.
type Slot = Option<Waker>;

/// Somebody who reads a feed.
#[derive(Debug)]
pub struct Reader {
    feed: Arc<Feed>,
    slot: usize,
}

/// What a reading gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The next frames, ascending, at least one.
    Frames(Vec<Frame>),
    /// Nothing yet; the reader will be woken.
    Nothing,
    /// The feed does not hold the next event any more: it is in the journal.
    Behind,
}

impl Feeds {
    /// Feeds for at most `rooms_max` rooms.
    #[must_use]
    pub fn new(rooms_max: usize) -> Self {
        Self::restore([], rooms_max)
    }

    /// The same, where some rooms have a history already: their last sequences, whose events are in the journal.
    pub fn restore<'a>(rooms: impl IntoIterator<Item = (&'a str, u64)>, rooms_max: usize) -> Self {
        let feeds = rooms.into_iter().map(|(room, head)| {
            let feed = Arc::new(Feed::after(room.into(), head));
            (Arc::clone(&feed.room), feed)
        });
        Self {
            feeds: Arc::new(Mutex::new(feeds.collect())),
            rooms_max,
        }
    }

    /// The feed of a room that has a history; how many there are is bounded by the rules (`limits.rooms`).
    #[must_use]
    pub fn open(&self, room: &str) -> Arc<Feed> {
        Self::open_in(&mut self.lock(), room)
    }

    /// The feed of a room that need not have a history yet; none if there are too many of those already.
    #[must_use]
    pub fn watch(&self, room: &str) -> Option<Arc<Feed>> {
        let mut feeds = self.lock();
        if feeds.len() >= self.rooms_max {
            // Rooms that were watched and never came to be.
            feeds.retain(|_, feed| Arc::strong_count(feed) > 1 || feed.has_history());
        }
        let fits = feeds.len() < self.rooms_max || feeds.contains_key(room);
        fits.then(|| Self::open_in(&mut feeds, room))
    }

    fn open_in(feeds: &mut HashMap<Arc<str>, Arc<Feed>>, room: &str) -> Arc<Feed> {
        if let Some(feed) = feeds.get(room) {
            return Arc::clone(feed);
        }
        let feed = Arc::new(Feed::after(room.into(), 0));
        feeds.insert(Arc::clone(&feed.room), Arc::clone(&feed));
        feed
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    /// A feed of what comes after the event `head`.
    fn after(room: Arc<str>, head: u64) -> Self {
        Self {
            room,
            state: Mutex::new(State {
                first: head + 1,
                frames: VecDeque::new(),
                bytes: 0,
                readers: Vec::new(),
                free: Vec::new(),
            }),
        }
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &Arc<str> {
        &self.room
    }

    /// Appends the event `sequence`; readers hear of it by [`Feed::wake`].
    pub fn append(&self, sequence: u64, frame: Frame) {
        let mut state = self.lock();
        debug_assert_eq!(sequence, state.end(), "the order leaves no gap");
        state.bytes += frame.len();
        state.frames.push_back(frame);
        while state.bytes > FEED_BYTES_MAX {
            let Some(oldest) = state.frames.pop_front() else {
                break;
            };
            state.bytes -= oldest.len();
            state.first += 1;
        }
    }

    /// Wakes everybody who waits for the next event.
    pub fn wake(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.lock();
            state.readers.iter_mut().filter_map(Option::take).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A new reader.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Reader {
        let mut state = self.lock();
        let slot = state.free.pop().unwrap_or_else(|| {
            state.readers.push(None);
            state.readers.len() - 1
        });
        Reader {
            feed: Arc::clone(self),
            slot,
        }
    }

    fn has_history(&self) -> bool {
        self.lock().end() > 1
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }
}

impl Reader {
    /// The room.
    #[must_use]
    pub fn room(&self) -> &Arc<str> {
        &self.feed.room
    }

    /// The last event that can be read; 0 for none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.feed.lock().end() - 1
    }

    /// Takes what is there after the event `cursor`, up to and including `until`; with nothing there, `context` is woken
    /// by the next event.
    pub fn read(&self, cursor: u64, until: u64, context: &Context<'_>) -> Read {
        let mut state = self.feed.lock();
        let next = cursor.saturating_add(1);
        let end = state
            .end()
            .min(until.saturating_add(1))
            .min(next.saturating_add(READ_FRAMES_MAX));
        if next >= end {
            let slot = &mut state.readers[self.slot];
            match slot {
                Some(waker) => waker.clone_from(context.waker()),
                None => *slot = Some(context.waker().clone()),
            }
            return Read::Nothing;
        }
        if next < state.first {
            return Read::Behind;
        }
        let range = usize::try_from(next - state.first).unwrap_or(usize::MAX)
            ..usize::try_from(end - state.first).unwrap_or(usize::MAX);
        Read::Frames(state.frames.range(range).cloned().collect())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.feed.lock();
        state.readers[self.slot] = None;
        state.free.push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;
    use crate::wire::v1::ServerMessage;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn frame(sequence: u64) -> Frame {
        Frame::of(&ServerMessage {
            sequence,
            msg_stream: "x".repeat(100),
            ..ServerMessage::default()
        })
    }

    fn publish(feed: &Feed, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            feed.append(sequence, frame(sequence));
        }
        feed.wake();
    }

    #[test]
    fn a_reader_takes_all_that_is_there_and_is_woken_by_the_next() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let feed = Feeds::new(1).open("lobby");
        let reader = feed.subscribe();
        assert_eq!(reader.last(), 0);

        publish(&feed, 1..=3);
        assert_eq!(reader.last(), 3);
        assert_eq!(count.0.load(Ordering::SeqCst), 0, "nobody waited");
        let read = reader.read(1, u64::MAX, &context);
        assert_eq!(read, Read::Frames(vec![frame(2), frame(3)]));
        assert_eq!(reader.read(1, 2, &context), Read::Frames(vec![frame(2)]));
        assert_eq!(reader.read(3, u64::MAX, &context), Read::Nothing);
        publish(&feed, 4..=5);
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "woken once for both");
        assert_eq!(
            reader.read(3, u64::MAX, &context),
            Read::Frames(vec![frame(4), frame(5)])
        );
    }

    #[test]
    fn a_reader_behind_what_the_feed_holds_is_told_so() {
        let context = Context::from_waker(Waker::noop());
        let feed = Feeds::new(1).open("lobby");
        let reader = feed.subscribe();
        let enough = (FEED_BYTES_MAX / frame(1).len() + 2) as u64;
        publish(&feed, 1..=enough);
        assert_eq!(reader.read(0, u64::MAX, &context), Read::Behind);
        assert_ne!(reader.read(enough - 1, u64::MAX, &context), Read::Behind);
        assert!(feed.lock().bytes <= FEED_BYTES_MAX);
    }

    #[test]
    fn a_reader_that_goes_leaves_its_place_to_the_next() {
        let feed = Feeds::new(1).open("lobby");
        drop(feed.subscribe());
        drop(feed.subscribe());
        assert_eq!(feed.lock().readers.len(), 1);
    }

    #[test]
    fn rooms_that_nobody_reads_and_that_have_no_history_make_place_for_others() {
        let feeds = Feeds::new(2);
        let watched = feeds.watch("watched").map(|feed| feed.subscribe());
        assert!(feeds.watch("forgotten").is_some());
        assert!(feeds.watch("new").is_some());
        assert!(feeds.watch("watched").is_some());
        publish(&feeds.open("new"), 1..=1);
        assert!(feeds.watch("one more").is_none(), "both are in use");
        drop(watched);
        assert!(feeds.watch("one more").is_some());
    }
}
