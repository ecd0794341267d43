//! The recent part of each room, as bytes that are ready to be sent and that everybody shares.
//!
//! A feed is a log of gRPC frames, cut into chunks. What the order has stored together becomes one chunk, copied once
//! and never again for anybody who keeps up. A subscriber is a cursor, not a queue: waking up, it takes all there is as a
//! part of a chunk, by reference. Chunks that readers left behind are joined for the first who comes by, so that a
//! reading is one piece however many batches it spans: h2 writes each piece to the socket on its own.
//!
//! A slow reader costs nobody anything. One that falls behind what the feeds hold reads on from the journal.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};

use crate::wire::Frame;

/// The most that one chunk, and so one reading, has.
///
/// Unit: bytes. When reached: the next chunk begins, and a reader takes it in its next reading. A single longer event is a
/// chunk of its own. Source: HTTP/2's usual limit for a DATA frame; a longer piece would be cut there. A reader that has
/// stopped keeps those chunks alive of which HTTP/2 holds a part for it.
pub(crate) const CHUNK_BYTES_MAX: usize = 16_384;

/// What a chunk takes beside its bytes: its place in a feed, in the list of what is held, and in the allocator.
///
/// Unit: bytes. Counted, so that a million short events do not hold three times what is allowed.
const CHUNK_OVERHEAD: usize = 160;

/// The feeds of all rooms. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Feeds {
    all: Arc<Mutex<All>>,
    rooms_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct All {
    feeds: HashMap<Arc<str>, Arc<Feed>>,
    /// What all feeds hold, oldest first.
    held: VecDeque<Held>,
    bytes: usize,
}

/// What became readable together.
#[derive(Debug)]
struct Held {
    feed: Arc<Feed>,
    /// The last of its events.
    last: u64,
    bytes: usize,
}

/// One room's recent events, and who waits for the next.
#[derive(Debug)]
pub struct Feed {
    room: Arc<str>,
    /// The last event that can be read; 0 for none.
    head: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The sequence of the oldest event that is held, or of the next one if none is.
    first: u64,
    /// Where it starts. Positions are counted in bytes, from this process's first event on.
    start: u64,
    /// Where each event from `first` on ends.
    ends: VecDeque<u64>,
    /// The bytes from `start` on, without a gap; each chunk ends where an event does.
    chunks: VecDeque<Chunk>,
    /// The events after the last chunk, none of which can be read yet.
    gathered: Vec<Frame>,
    gathered_bytes: usize,
    /// What the chunks hold that cannot be read yet either.
    unshown_bytes: usize,
    readers: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Chunk {
    start: u64,
    bytes: Bytes,
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
    /// The frames of the next events, one behind the other, and the sequence of the last of them.
    Events(Bytes, u64),
    /// The feed does not hold the next event any more: it is in the journal.
    Behind,
}

impl Feeds {
    /// Feeds for at most `rooms_max` rooms that hold at most `bytes_max` bytes together (`limits.feed_bytes`). When they
    /// hold more, what was shown first goes, whichever room it is of.
    #[must_use]
    pub fn new(rooms_max: usize, bytes_max: usize) -> Self {
        Self::restore([], rooms_max, bytes_max)
    }

    /// The same, where some rooms have a history already: their last sequences, whose events are in the journal.
    pub fn restore<'a>(
        rooms: impl IntoIterator<Item = (&'a str, u64)>,
        rooms_max: usize,
        bytes_max: usize,
    ) -> Self {
        let feeds = rooms.into_iter().map(|(room, head)| {
            let feed = Arc::new(Feed::after(room.into(), head));
            (Arc::clone(&feed.room), feed)
        });
        Self {
            all: Arc::new(Mutex::new(All {
                feeds: feeds.collect(),
                ..All::default()
            })),
            rooms_max,
            bytes_max,
        }
    }

    /// The feed of a room that has a history; how many there are is bounded by the rules (`limits.rooms`).
    #[must_use]
    pub fn open(&self, room: &str) -> Arc<Feed> {
        self.lock().open(room)
    }

    /// The feed of a room that need not have a history yet; none if there are too many of those already.
    #[must_use]
    pub fn watch(&self, room: &str) -> Option<Arc<Feed>> {
        let mut all = self.lock();
        if all.feeds.len() >= self.rooms_max {
            // Rooms that were watched and never came to be.
            all.feeds
                .retain(|_, feed| Arc::strong_count(feed) > 1 || feed.head() > 0);
        }
        let fits = all.feeds.len() < self.rooms_max || all.feeds.contains_key(room);
        fits.then(|| all.open(room))
    }

    /// Lets everybody read what was appended to `feeds`, and wakes each one's readers once.
    pub fn show(&self, feeds: impl IntoIterator<Item = Arc<Feed>>) {
        let shown = feeds.into_iter().filter_map(|feed| {
            let (last, bytes) = feed.show()?;
            Some(Held { feed, last, bytes })
        });
        // Each shown before the lock is taken: its readers have begun while others still wait to be woken.
        let shown: Vec<_> = shown.collect();
        let mut all = self.lock();
        all.bytes += shown.iter().map(|held| held.bytes).sum::<usize>();
        all.held.extend(shown);
        while all.bytes > self.bytes_max
            && let Some(oldest) = all.held.pop_front()
        {
            all.bytes -= oldest.bytes;
            oldest.feed.let_go(oldest.last);
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn open(&mut self, room: &str) -> Arc<Feed> {
        if let Some(feed) = self.feeds.get(room) {
            return Arc::clone(feed);
        }
        let feed = Arc::new(Feed::after(room.into(), 0));
        self.feeds.insert(Arc::clone(&feed.room), Arc::clone(&feed));
        feed
    }
}

impl Feed {
    /// A feed of what comes after the event `head`.
    fn after(room: Arc<str>, head: u64) -> Self {
        Self {
            room,
            head: AtomicU64::new(head),
            state: Mutex::new(State {
                first: head + 1,
                start: 0,
                ends: VecDeque::new(),
                chunks: VecDeque::new(),
                gathered: Vec::new(),
                gathered_bytes: 0,
                unshown_bytes: 0,
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

    /// The last event that can be read; 0 for none.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Appends the event `sequence`, to be read once the feed is shown ([`Feeds::show`]). Whether it is the first since.
    pub fn append(&self, sequence: u64, frame: Frame) -> bool {
        let mut state = self.lock();
        debug_assert_eq!(sequence, state.next(), "the order leaves no gap");
        state.append(frame);
        sequence == self.head() + 1
    }

    /// Lets everybody read what was appended. The last event of that, and how many bytes it holds.
    fn show(&self) -> Option<(u64, usize)> {
        let (last, bytes, wakers) = {
            let mut state = self.lock();
            let last = state.next() - 1;
            if last == self.head() {
                return None;
            }
            state.seal();
            self.head.store(last, Ordering::Release);
            let wakers: Vec<Waker> = state.readers.iter_mut().filter_map(Option::take).collect();
            (last, std::mem::take(&mut state.unshown_bytes), wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        Some((last, bytes))
    }

    /// Lets go of everything up to the event `sequence`, and of what shares a chunk with it.
    fn let_go(&self, sequence: u64) {
        let mut state = self.lock();
        while state.first <= sequence && state.let_go_of_a_chunk() {}
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The sequence of the next event.
    fn next(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// Where the next event starts.
    fn end(&self) -> u64 {
        self.ends.back().copied().unwrap_or(self.start)
    }

    fn append(&mut self, frame: Frame) {
        if self.gathered_bytes + frame.len() > CHUNK_BYTES_MAX {
            self.seal();
        }
        self.ends.push_back(self.end() + frame.len() as u64);
        self.gathered_bytes += frame.len();
        self.gathered.push(frame);
    }

    /// Makes a chunk of what has gathered.
    fn seal(&mut self) {
        let bytes = match self.gathered.as_slice() {
            [] => return,
            [only] => only.bytes(),
            several => concatenate(several.iter().map(Frame::as_bytes)),
        };
        self.gathered = Vec::new();
        self.gathered_bytes = 0;
        self.unshown_bytes += bytes.len() + CHUNK_OVERHEAD;
        let start = self.end() - bytes.len() as u64;
        self.chunks.push_back(Chunk { start, bytes });
    }

    fn let_go_of_a_chunk(&mut self) -> bool {
        let Some(chunk) = self.chunks.pop_front() else {
            return false;
        };
        self.start = chunk.end();
        let gone = self.ends.partition_point(|end| *end <= self.start);
        self.ends.drain(..gone);
        self.first += gone as u64;
        true
    }

    /// The frames of the events from `next` on, at most up to `last`; both are held.
    fn read(&mut self, next: u64, last: u64) -> (Bytes, u64) {
        let start = match self.index(next) {
            0 => self.start,
            index => self.ends[index - 1],
        };
        let whole = self.ends[self.index(last)];
        let chunk = self.joined(start, whole.min(start + CHUNK_BYTES_MAX as u64));
        let end = whole.min(chunk.end());
        let (from, until) = (start - chunk.start, end - chunk.start);
        // Both lie in a chunk, whose length is a usize.
        let bytes = chunk.bytes.slice(from as usize..until as usize);
        let read = self.ends.partition_point(|other| *other <= end);
        (bytes, self.first + read as u64 - 1)
    }

    fn index(&self, sequence: u64) -> usize {
        usize::try_from(sequence - self.first).unwrap_or(usize::MAX)
    }

    /// The chunk that `start` lies in, joined with those after it that begin before `end`, as many as fit into one.
    fn joined(&mut self, start: u64, end: u64) -> &Chunk {
        let index = self.chunks.partition_point(|chunk| chunk.start <= start) - 1;
        let begin = self.chunks[index].start;
        let after = (self.chunks.iter().skip(index + 1))
            .take_while(|chunk| chunk.start < end && chunk.end() <= begin + CHUNK_BYTES_MAX as u64)
            .count();
        if after > 0 {
            let parts = self.chunks.range(index..=index + after);
            let bytes = concatenate(parts.map(|chunk| &chunk.bytes));
            self.chunks.drain(index + 1..=index + after);
            self.chunks[index].bytes = bytes;
        }
        &self.chunks[index]
    }
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

fn concatenate<'a>(parts: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let mut whole = BytesMut::with_capacity(parts.clone().map(Bytes::len).sum());
    parts.for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

impl Reader {
    /// The room.
    #[must_use]
    pub fn room(&self) -> &Arc<str> {
        &self.feed.room
    }

    /// The last event that can be read; 0 for none.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.feed.head()
    }

    /// Takes what is there after the event `cursor`, at most up to `last`, which can be read.
    #[must_use]
    pub fn read(&self, cursor: u64, last: u64) -> Read {
        let mut state = self.feed.lock();
        if cursor + 1 < state.first {
            return Read::Behind;
        }
        let (bytes, last) = state.read(cursor + 1, last);
        Read::Events(bytes, last)
    }

    /// Waits for an event after `head`, by which `context` is woken.
    pub fn poll_beyond(&self, head: u64, context: &Context<'_>) -> Poll<()> {
        let mut state = self.feed.lock();
        // Looked at under the lock: between this and the waker's place nothing can be shown.
        if self.feed.head() > head {
            return Poll::Ready(());
        }
        match &mut state.readers[self.slot] {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
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
    use std::{sync::atomic::AtomicUsize, task::Wake};

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The frame of an event: a function of its sequence, with a length of its own.
    fn frame(sequence: u64) -> Frame {
        sized(sequence, 100 + sequence as usize % 7)
    }

    fn sized(sequence: u64, bytes: usize) -> Frame {
        Frame::of_encoded(&vec![sequence as u8; bytes - 5])
    }

    fn feeds(bytes_max: usize) -> Feeds {
        Feeds::new(2, bytes_max)
    }

    fn publish(feeds: &Feeds, feed: &Arc<Feed>, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            feed.append(sequence, frame(sequence));
        }
        feeds.show([Arc::clone(feed)]);
    }

    fn bytes(sequences: std::ops::RangeInclusive<u64>) -> Bytes {
        let frames: Vec<_> = sequences.map(frame).collect();
        concatenate(frames.iter().map(Frame::as_bytes))
    }

    #[test]
    fn a_reader_takes_all_that_is_there_and_is_woken_once_by_what_is_shown_together() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let feeds = feeds(1_000_000);
        let feed = feeds.open("lobby");
        let reader = feed.subscribe();
        assert_eq!(reader.head(), 0);

        publish(&feeds, &feed, 1..=3);
        assert_eq!(reader.head(), 3);
        assert_eq!(count.0.load(Ordering::SeqCst), 0, "nobody waited");
        assert_eq!(reader.read(1, 3), Read::Events(bytes(2..=3), 3));
        assert_eq!(reader.read(1, 2), Read::Events(bytes(2..=2), 2));
        assert!(reader.poll_beyond(2, &context).is_ready());
        assert!(reader.poll_beyond(3, &context).is_pending());
        publish(&feeds, &feed, 4..=5);
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "woken once for both");
        assert_eq!(reader.read(3, 5), Read::Events(bytes(4..=5), 5));
    }

    #[test]
    fn what_is_appended_cannot_be_read_before_it_is_shown() {
        let feeds = feeds(1_000_000);
        let feed = feeds.open("lobby");
        let reader = feed.subscribe();
        assert!(
            feed.append(1, frame(1)),
            "the first since nothing was shown"
        );
        assert!(!feed.append(2, frame(2)));
        assert_eq!(reader.head(), 0);
        feeds.show([Arc::clone(&feed)]);
        assert_eq!(reader.head(), 2);
        assert!(feed.append(3, frame(3)), "the first since");
    }

    #[test]
    fn batches_that_a_reader_left_behind_are_one_piece_for_it_and_for_others() {
        let feeds = feeds(1_000_000);
        let feed = feeds.open("lobby");
        let reader = feed.subscribe();
        for sequence in 1..=10 {
            publish(&feeds, &feed, sequence..=sequence);
        }
        assert_eq!(reader.read(3, 7), Read::Events(bytes(4..=7), 7));
        assert_eq!(feed.lock().chunks.len(), 7, "four became one");
        assert_eq!(reader.read(0, 10), Read::Events(bytes(1..=10), 10));
        assert_eq!(feed.lock().chunks.len(), 1);
        publish(&feeds, &feed, 11..=11);
        assert_eq!(reader.read(10, 11), Read::Events(bytes(11..=11), 11));
        assert_eq!(feed.lock().chunks.len(), 2, "who keeps up joins nothing");
    }

    #[test]
    fn a_piece_is_at_most_a_chunk_and_an_event_that_is_longer_is_a_piece_of_its_own() {
        let feeds = feeds(1_000_000);
        let feed = feeds.open("lobby");
        let reader = feed.subscribe();
        let sizes = [
            CHUNK_BYTES_MAX - 100,
            100,
            101,
            CHUNK_BYTES_MAX,
            CHUNK_BYTES_MAX + 1,
            100,
        ];
        for (size, sequence) in sizes.into_iter().zip(1..) {
            feed.append(sequence, sized(sequence, size));
        }
        feeds.show([Arc::clone(&feed)]);
        let mut cursor = 0;
        let mut pieces = Vec::new();
        while cursor < 6 {
            let Read::Events(bytes, last) = reader.read(cursor, 6) else {
                panic!("all of it is held");
            };
            pieces.push((last - cursor, bytes.len()));
            cursor = last;
        }
        let expected = [
            (2, CHUNK_BYTES_MAX),
            (1, 101),
            (1, CHUNK_BYTES_MAX),
            (1, CHUNK_BYTES_MAX + 1),
            (1, 100),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_reader_behind_what_the_feed_holds_is_told_so() {
        let feeds = feeds(1_000);
        let feed = feeds.open("lobby");
        let reader = feed.subscribe();
        publish(&feeds, &feed, 1..=2);
        assert_ne!(reader.read(0, 2), Read::Behind);
        publish(&feeds, &feed, 3..=9);
        assert_eq!(reader.read(0, 9), Read::Behind);
        assert_eq!(reader.read(1, 9), Read::Behind);
        assert_eq!(reader.read(2, 9), Read::Events(bytes(3..=9), 9));
    }

    #[test]
    fn all_feeds_together_hold_no_more_than_is_allowed_and_what_was_shown_first_goes_first() {
        let feeds = feeds(1_000);
        let (quiet, busy) = (feeds.open("quiet"), feeds.open("busy"));
        publish(&feeds, &quiet, 1..=1);
        publish(&feeds, &busy, 1..=1);
        assert_ne!(quiet.subscribe().read(0, 1), Read::Behind);
        for sequence in 2..=100 {
            publish(&feeds, &busy, sequence..=sequence);
            let held: usize = [&quiet, &busy].into_iter().map(held).sum();
            assert!(held <= 1_000, "{held}");
        }
        assert_eq!(quiet.subscribe().read(0, 1), Read::Behind);
        assert_eq!(busy.subscribe().read(95, 100), Read::Behind);
        assert_ne!(busy.subscribe().read(97, 100), Read::Behind);
    }

    /// What a feed holds, as it is counted.
    fn held(feed: &Arc<Feed>) -> usize {
        let chunks = &feed.lock().chunks;
        chunks
            .iter()
            .map(|chunk| chunk.bytes.len() + CHUNK_OVERHEAD)
            .sum()
    }

    #[test]
    fn a_reader_that_goes_leaves_its_place_to_the_next() {
        let feed = feeds(1).open("lobby");
        drop(feed.subscribe());
        drop(feed.subscribe());
        assert_eq!(feed.lock().readers.len(), 1);
    }

    #[test]
    fn rooms_that_nobody_reads_and_that_have_no_history_make_place_for_others() {
        let feeds = feeds(1_000);
        let watched = feeds.watch("watched").map(|feed| feed.subscribe());
        assert!(feeds.watch("forgotten").is_some());
        assert!(feeds.watch("new").is_some());
        assert!(feeds.watch("watched").is_some());
        publish(&feeds, &feeds.open("new"), 1..=1);
        assert!(feeds.watch("one more").is_none(), "both are in use");
        drop(watched);
        assert!(feeds.watch("one more").is_some());
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// So many events, of these sizes, in one batch.
        Publish(Vec<usize>),
        /// A reader, and how far behind the head it stops.
        Read(usize, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let size = prop_oneof![9 => 10..400usize, 1 => 4_000..40_000usize];
        prop_oneof![
            prop::collection::vec(size, 1..40).prop_map(Step::Publish),
            (0..3usize, 0..5u64).prop_map(|(reader, short)| Step::Read(reader, short)),
        ]
    }

    proptest! {
        /// Against the plain list of all frames: whoever reads, at whatever pace, reads exactly that, or is told to read
        /// the journal; and what is held stays within its bound.
        #[test]
        fn whatever_is_published_and_read_each_reader_reads_the_log(
            steps in prop::collection::vec(step(), 1..80),
            bytes_max in 1_000..100_000usize,
        ) {
            let feeds = feeds(bytes_max);
            let feed = feeds.open("lobby");
            let readers: Vec<_> = (0..3).map(|_| feed.subscribe()).collect();
            let mut cursors = [0u64; 3];
            let mut log: Vec<Frame> = Vec::new();
            for step in steps {
                match step {
                    Step::Publish(sizes) => {
                        for size in sizes {
                            let sequence = log.len() as u64 + 1;
                            log.push(sized(sequence, size));
                            feed.append(sequence, log[log.len() - 1].clone());
                        }
                        feeds.show([Arc::clone(&feed)]);
                    }
                    Step::Read(reader, short) => {
                        let until = readers[reader].head().saturating_sub(short);
                        let cursor = &mut cursors[reader];
                        if *cursor >= until {
                            continue;
                        }
                        match readers[reader].read(*cursor, until) {
                            Read::Behind => *cursor = until,
                            Read::Events(bytes, last) => {
                                let frames = &log[*cursor as usize..last as usize];
                                prop_assert!(last > *cursor && last <= until);
                                prop_assert!(bytes.len() <= CHUNK_BYTES_MAX || frames.len() == 1);
                                prop_assert_eq!(bytes, concatenate(frames.iter().map(Frame::as_bytes)));
                                *cursor = last;
                            }
                        }
                    }
                }
                prop_assert!(held(&feed) <= bytes_max);
            }
        }
    }
}
