//! Reading the history, beside the one who writes it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, OpenFlags, params};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{Place, row};
use crate::{
    journal::{Fault, Limit, Page, Range},
    wire::Frame,
};

/// Readings at one time.
///
/// When reached: a further one waits for its turn, which is a page (1 MiB) or a few away. Two, so that one who reads
/// everything is not in the way of one who has missed a little; a reader costs up to 2 MiB of SQLite's cache.
const CONNECTIONS: usize = 2;

const READING: &str = "read the history";

/// The reading end. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(in super::super) struct Readers {
    place: Arc<Place>,
    /// None once the history is closed.
    idle: Arc<Mutex<Option<Vec<Connection>>>>,
    turns: Arc<Semaphore>,
    /// Whether each reading has a thread of its own.
    threaded: bool,
}

impl Readers {
    pub(super) fn new(place: Arc<Place>) -> Result<Self, Fault> {
        let connections = (0..CONNECTIONS).map(|_| connect(&place));
        Ok(Self {
            idle: Arc::new(Mutex::new(Some(connections.collect::<Result<_, _>>()?))),
            turns: Arc::new(Semaphore::new(CONNECTIONS)),
            place,
            threaded: true,
        })
    }

    pub(in super::super) fn stay_in_task(&mut self) {
        self.threaded = false;
    }

    pub(in super::super) async fn read(
        &self,
        room: &str,
        range: Range,
        limit: Limit,
    ) -> Result<Page, Fault> {
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (readers, room) = (self.clone(), room.to_owned());
        let reading = move || {
            let _turn = turn;
            let mut connection = readers.take()?;
            let page = page(&readers.place, &mut connection, &room, range, limit);
            if let Some(idle) = &mut *readers.lock() {
                idle.push(connection);
            }
            page
        };
        if !self.threaded {
            return reading();
        }
        match spawn_blocking(reading).await {
            Ok(page) => page,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is being shut down, and nobody waits for the answer.
            Err(_) => std::future::pending().await,
        }
    }

    /// Closes all connections; one that reads closes when it has read its page. The last connection to a database is to
    /// be the one that writes: a connection that only reads leaves the write-ahead log behind.
    pub(super) fn close(&self) {
        self.lock().take();
    }

    /// An idle connection; there is one for each turn, unless a reading has panicked.
    fn take(&self) -> Result<Connection, Fault> {
        match &mut *self.lock() {
            Some(idle) => idle.pop().map_or_else(|| connect(&self.place), Ok),
            None => {
                let closed = io::Error::other("it is closed, because the server stops");
                Err(self.place.failed(READING, closed))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that reads, and has all its files open: later there may be no place for them, if clients have taken it.
fn connect(place: &Place) -> Result<Connection, Fault> {
    let connection = place.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection
        .query_row("SELECT epoch FROM service", [], |_| Ok(()))
        .map_err(|error| place.fault(READING, error))?;
    Ok(connection)
}

/// One page of `room`, from one snapshot of the database.
pub(super) fn page(
    place: &Place,
    connection: &mut Connection,
    room: &str,
    range: Range,
    limit: Limit,
) -> Result<Page, Fault> {
    let fault = |error| place.fault(READING, error);
    let snapshot = connection.transaction().map_err(fault)?;
    let Some(extent) = row::extent(&snapshot, room).map_err(fault)? else {
        return Ok(Page::default());
    };
    let extent = (extent.first, extent.head);
    let (from, until) = range.within(extent.0, extent.1);
    let mut statement = snapshot
        .prepare_cached(if range.is_backwards() {
            "SELECT room, sequence, message, checksum FROM event
             WHERE room = ?1 AND sequence >= ?2 AND sequence < ?3 ORDER BY sequence DESC"
        } else {
            ASCENDING
        })
        .map_err(fault)?;
    let mut rows = statement
        .query(params![room, row::signed(from), row::signed(until)])
        .map_err(fault)?;
    range.page(extent, limit, |sequence| {
        let row = rows.next().map_err(fault)?;
        let message = whole(place, row, room, sequence)?;
        Ok(Frame::of_encoded(message))
    })
}

const ASCENDING: &str = "SELECT room, sequence, message, checksum FROM event
             WHERE room = ?1 AND sequence >= ?2 AND sequence < ?3 ORDER BY sequence";

/// What is stored in each row of `room` from one sequence up to, not including, another.
pub(super) fn stored(
    place: &Place,
    connection: &Connection,
    room: &str,
    sequences: std::ops::Range<u64>,
) -> Result<Vec<(u64, Vec<u8>)>, Fault> {
    let fault = |error| place.fault(READING, error);
    let mut statement = connection.prepare_cached(ASCENDING).map_err(fault)?;
    let (from, until) = (row::signed(sequences.start), row::signed(sequences.end));
    let mut rows = statement.query(params![room, from, until]).map_err(fault)?;
    let next = |sequence| {
        let row = rows.next().map_err(fault)?;
        Ok((sequence, whole(place, row, room, sequence)?.to_vec()))
    };
    sequences.map(next).collect()
}

/// What is stored in a row, if that is the one of `sequence`, and as it was written.
fn whole<'a>(
    place: &Place,
    row: Option<&'a rusqlite::Row<'_>>,
    room: &str,
    sequence: u64,
) -> Result<&'a [u8], Fault> {
    let whole = row.and_then(|row| {
        // As it stands there, though only rows of this room were asked for: in a tree that is not in order others come.
        let found = (
            row.get_ref(0).ok()?.as_str().ok()?,
            row::unsigned(row, 1).ok()?,
        );
        let message = row.get_ref(2).ok()?.as_blob().ok()?;
        let checksum: u32 = row.get(3).ok()?;
        let is_whole =
            found == (room, sequence) && checksum == row::event_checksum(room, sequence, message);
        is_whole.then_some(message)
    });
    whole.ok_or_else(|| {
        place.damaged(format!(
            "event {sequence} of room {room:?} is missing or is not what was written"
        ))
    })
}
