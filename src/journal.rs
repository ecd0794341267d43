//! The history of every room: what was said stays readable here.
//!
//! Two forms. On disk (`sqlite`, the default): an event is safe before anybody sees it, and the history goes on where
//! it ended when the server starts again. In memory (`memory`, `server.data = "memory"`): gone when the server stops.
//!
//! One [`Writer`] stores, the order's own; any number of readers read through a [`Journal`].

mod fault;
mod memory;
mod sqlite;

use std::{path::Path, sync::Arc};

pub use self::fault::Fault;
use self::memory::Memory;
use crate::{
    room::{Member, Past, Snapshot},
    wire::Frame,
};

/// What one page of history holds at most, in bytes of frames (and one event at least).
///
/// gRPC clients refuse a response above 4 MiB unless told otherwise. When reached: the page is shorter and says `more`.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// The reading end. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Journal(Form<memory::Reader, sqlite::Readers>);

/// The writing end. There is one, and it is not shared.
#[derive(Debug)]
pub struct Writer(Form<memory::Writer, Box<sqlite::Writer>>);

#[derive(Debug, Clone)]
enum Form<M, S> {
    Memory(M),
    Sqlite(S),
}

/// An opened history: both ends, and the state that it ended with.
#[derive(Debug)]
pub struct Opened {
    /// For the order.
    pub writer: Writer,
    /// For everybody.
    pub journal: Journal,
    /// The state of the service as of the last batch that was stored.
    pub snapshot: Snapshot,
}

/// What some commands have changed, to be stored as one: all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// New events, in order.
    pub entries: Vec<Entry>,
    /// Rooms that have new events, or have let go of old ones.
    pub rooms: Vec<Extent>,
    /// Participants that have come, changed or (`None`) gone.
    pub members: Vec<(Arc<str>, i32, Option<Member>)>,
    /// What the service's clock shows now.
    pub clock: i64,
    /// How many incarnations were given out by now.
    pub incarnations: u64,
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

/// What a room keeps: the events from `first` to `head`, and of those from `oldest` on the message ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The room.
    pub room: Arc<str>,
    /// The last sequence given out.
    pub head: u64,
    /// The oldest sequence that can be read.
    pub first: u64,
    /// The oldest sequence of which anything is kept: of what is older than `first`, what recognizes a retry.
    pub oldest: u64,
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

/// What a page may hold at most; one event at least, however long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Events.
    pub events: usize,
    /// Bytes of frames.
    pub bytes: usize,
}

impl From<usize> for Limit {
    /// So many events, and no more than `PAGE_BYTES_MAX`.
    fn from(events: usize) -> Self {
        Self {
            events,
            bytes: PAGE_BYTES_MAX,
        }
    }
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

/// A history in memory, of at most `bytes_max` bytes over all rooms; beyond that the oldest events are dropped. `epoch`
/// is its identity.
#[must_use]
pub fn in_memory(epoch: String, bytes_max: usize) -> Opened {
    let memory = Memory::new(bytes_max);
    Opened {
        writer: Writer(Form::Memory(memory.writer())),
        journal: Journal(Form::Memory(memory.reader())),
        snapshot: Snapshot::new(epoch),
    }
}

/// The history in `directory`, which is made if it is missing. `epoch` becomes the identity of a history that begins.
///
/// # Errors
///
/// Every [`Fault`]; nothing has been changed then.
pub fn in_directory(directory: &Path, epoch: String) -> Result<Opened, Fault> {
    let (writer, readers, snapshot) = sqlite::open(directory, epoch)?;
    Ok(Opened {
        writer: Writer(Form::Sqlite(Box::new(writer))),
        journal: Journal(Form::Sqlite(readers)),
        snapshot,
    })
}

impl Writer {
    /// Whether [`Writer::store`] waits for a disk, so that it needs a thread of its own.
    #[must_use]
    pub fn blocks(&self) -> bool {
        matches!(self.0, Form::Sqlite(_))
    }

    /// Stores `batch`. When this returns, it is as safe as it will be, and may be told to everybody. Returns where
    /// history was dropped to make room, once for each room.
    ///
    /// # Errors
    ///
    /// [`Fault::Failed`], [`Fault::Damaged`]. Whether the batch is stored is then not known and must not be tried again
    /// (a disk that has refused to write may say yes the second time, and not have written): the process is to end.
    pub fn store(&mut self, batch: Batch) -> Result<Vec<Dropped>, Fault> {
        match &mut self.0 {
            Form::Memory(writer) => Ok(writer.store(batch)),
            Form::Sqlite(writer) => writer.store(&batch).map(|()| Vec::new()),
        }
    }

    /// Reads what is kept of the messages of `room` after the sequence `after`, for the rules to recognize retries of
    /// them.
    ///
    /// # Errors
    ///
    /// [`Fault::Failed`], [`Fault::Damaged`]
    pub fn past(&mut self, room: &str, after: u64) -> Result<Vec<Past>, Fault> {
        match &mut self.0 {
            // Nothing is older than the service itself.
            Form::Memory(_) => Ok(Vec::new()),
            Form::Sqlite(writer) => writer.past(room, after),
        }
    }

    /// Leaves everything in order for the next start; what was stored is safe without it too.
    ///
    /// # Errors
    ///
    /// [`Fault::Failed`]
    pub fn close(self) -> Result<(), Fault> {
        match self.0 {
            Form::Memory(_) => Ok(()),
            Form::Sqlite(writer) => writer.close(),
        }
    }
}

impl Journal {
    /// Reads in the task that asks: see [`Server::without_threads`](crate::server::Server::without_threads).
    pub(crate) fn stay_in_task(&mut self) {
        if let Form::Sqlite(readers) = &mut self.0 {
            readers.stay_in_task();
        }
    }

    /// Reads a page of `room`, of so many events or of a [`Limit`]. A room without history is empty.
    ///
    /// # Errors
    ///
    /// [`Fault::Failed`]; [`Fault::Damaged`] if what is stored is not what was written.
    pub async fn read(
        &self,
        room: &str,
        range: Range,
        limit: impl Into<Limit>,
    ) -> Result<Page, Fault> {
        let limit = limit.into();
        match &self.0 {
            Form::Memory(reader) => Ok(reader.read(room, range, limit)),
            Form::Sqlite(readers) => readers.read(room, range, limit).await,
        }
    }
}

impl Range {
    /// The sequences that are asked for of a room that keeps `first` to `head`: from the first number up to, not
    /// including, the second.
    fn within(self, first: u64, head: u64) -> (u64, u64) {
        let end = head + 1;
        match self {
            Self::After { after, before } => {
                let from = after.saturating_add(1).clamp(first, end);
                let until = if before == 0 { end } else { before };
                (from, until.clamp(from, end))
            }
            Self::Before(before) => (first, before.clamp(first, end)),
        }
    }

    /// Whether the newest events are wanted, rather than the oldest.
    fn is_backwards(self) -> bool {
        matches!(self, Self::Before(_))
    }

    /// The page of a room that keeps `first` to `head`, of the events that `next` gives one after the other in the
    /// direction of reading.
    fn page<E>(
        self,
        (first, head): (u64, u64),
        limit: Limit,
        mut next: impl FnMut(u64) -> Result<Frame, E>,
    ) -> Result<Page, E> {
        let (from, until) = self.within(first, head);
        let mut space = Space::of_page(limit);
        let mut events = Vec::new();
        for distance in 0..until - from {
            let sequence = if self.is_backwards() {
                until - 1 - distance
            } else {
                from + distance
            };
            if space.events == 0 {
                break;
            }
            let frame = next(sequence)?;
            if !space.take(&frame) {
                break;
            }
            events.push((sequence, frame));
        }
        if self.is_backwards() {
            events.reverse();
        }
        Ok(Page {
            more: (events.len() as u64) < until - from,
            events,
        })
    }
}

/// How much more fits on a page.
#[derive(Debug)]
struct Space {
    events: usize,
    bytes: usize,
    is_empty: bool,
}

impl Space {
    fn of_page(limit: Limit) -> Self {
        Self {
            events: limit.events,
            bytes: limit.bytes,
            is_empty: true,
        }
    }

    /// Whether `frame` fits; if so, it has taken its place.
    fn take(&mut self, frame: &Frame) -> bool {
        let fits = self.events > 0 && (self.is_empty || frame.len() <= self.bytes);
        if fits {
            self.events -= 1;
            self.bytes = self.bytes.saturating_sub(frame.len());
            self.is_empty = false;
        }
        fits
    }
}
