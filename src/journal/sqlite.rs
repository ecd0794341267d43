//! The history on disk: one SQLite database, `chitchat.db`, and beside it the [`Witness`].
//!
//! WAL with `synchronous=FULL`: a transaction that was committed survives a crash of the process and of the machine. One
//! connection writes, a few others read, and neither waits for the other.
//!
//! What is read is checked: each row carries a checksum, sequences must be dense, and the database must have come at
//! least as far as its witness says. So damage is told and never served, nor taken for a history that is merely shorter.

mod filesystem;
mod read;
mod row;
mod schema;
mod witness;
mod write;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

pub(super) use self::{read::Readers, write::Writer};
use self::{row::Service, witness::Witness};
use super::{Fault, fault::Cause};
use crate::room::{Snapshot, text::is_deceptive};

/// The database, in the data directory. SQLite puts `-wal` and `-shm` beside it.
const DATABASE: &str = "chitchat.db";

/// How long a connection waits for a lock of another one.
///
/// Only a foreign program that has the database open can make us wait. When it is over: the reading or writing fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the history in `directory`.
pub(super) fn open(directory: &Path, epoch: String) -> Result<(Writer, Readers, Snapshot), Fault> {
    let place = Place(directory.into());
    fs::create_dir_all(directory)
        .map_err(|error| place.failed("make the data directory", error))?;
    filesystem::check(&place)?;
    let witness = Witness::lock(&place)?;
    refuse_to_begin_again(&place, &witness)?;

    check_writable(&place)?;

    let mut connection =
        place.connect(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    keep_log(&place, &connection, true)?;
    schema::bring_up_to_date(&place, &mut connection, &epoch)?;
    let (service, mut snapshot) = row::load(&place, &connection)?;
    if let Some(seen) = &witness.seen {
        seen.check(&place, &service)?;
    }
    place.check_length(&connection)?;
    // It is the history, and whole as far as a start can tell.
    keep_log(&place, &connection, false)?;

    let readers = Readers::new(Arc::new(place.clone()))?;
    let mut writer = Writer::new(place, connection, readers.clone(), witness, service);
    if !writer.has_witness() {
        snapshot.epoch = writer.begin_epoch(epoch)?;
    }
    Ok((writer, readers, snapshot))
}

/// A database that we may not write is told now, in the system's words, and not by the first event.
fn check_writable(place: &Place) -> Result<(), Fault> {
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(place.database());
    match opened {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(place.failed("open the database", error))
        }
        _ => Ok(()),
    }
}

/// Whether the write-ahead log stays as it is when the connection is closed. SQLite would bring into the database what
/// it can read of a damaged log, and remove the rest of it, which somebody may still want to look at.
fn keep_log(place: &Place, connection: &Connection, keep: bool) -> Result<(), Fault> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        .map(drop)
        .map_err(|error| place.fault("open the database", error))
}

/// A witness, or a write-ahead log, without its database: what it belonged to is gone, and must not be mistaken for a
/// history that begins.
fn refuse_to_begin_again(place: &Place, witness: &Witness) -> Result<(), Fault> {
    let bytes = |file: PathBuf| fs::metadata(file).map_or(0, |file| file.len());
    if bytes(place.database()) > 0 {
        return Ok(());
    }
    let log = format!("{DATABASE}-wal");
    let left = match &witness.seen {
        Some(_) => witness::FILE,
        None if bytes(place.directory().join(&log)) > 0 => &log,
        None => return Ok(()),
    };
    Err(place.damaged(format!(
        "{DATABASE} is missing or empty, and {left} says that a history was kept in it. To begin a new history, remove {left} \
         as well"
    )))
}

/// Where the history lives; makes errors that say so.
#[derive(Debug, Clone)]
struct Place(PathBuf);

impl Place {
    fn directory(&self) -> &Path {
        &self.0
    }

    fn database(&self) -> PathBuf {
        self.0.join(DATABASE)
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection, Fault> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(self.database(), flags).and_then(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            // A page that cannot be right is an error when it is read, not when it is written again.
            connection.pragma_update(None, "cell_size_check", true)?;
            Ok(connection)
        });
        opened.map_err(|error| self.fault("open the database", error))
    }

    /// Forces the directory's entries to the disk, and its own in the one above: without them there are no files.
    fn sync_directory(&self) -> io::Result<()> {
        let directory = fs::canonicalize(&self.0)?;
        for place in directory.ancestors().take(2) {
            File::open(place)?.sync_all()?;
        }
        Ok(())
    }

    /// The database must be as long as it says. SQLite finds out that it is shorter only when it comes to a page that
    /// is missing, and that it is longer never: it would write over what is beyond.
    ///
    /// Cannot be told while another program reads the database, and so keeps pages in the write-ahead log.
    fn check_length(&self, connection: &Connection) -> Result<(), Fault> {
        let doing = "measure the database";
        let pragma =
            |name: &str| connection.pragma_query_value(None, name, |row| row::unsigned(row, 0));
        if !self.empty_log(connection)? {
            tracing::warn!(
                "{DATABASE} is in use by another program, a backup for instance: its length is not checked"
            );
            return Ok(());
        }
        let expected = pragma("page_count")
            .and_then(|pages| Ok(pages * pragma("page_size")?))
            .map_err(|error| self.fault(doing, error))?;
        let found = fs::metadata(self.database())
            .map_err(|error| self.failed(doing, error))?
            .len();
        if found != expected {
            return Err(self.damaged(format!("{DATABASE} has {found} bytes of {expected}")));
        }
        Ok(())
    }

    /// Brings the write-ahead log into the database, so that all pages are in the one file. False if another program
    /// reads an older state of it.
    fn empty_log(&self, connection: &Connection) -> Result<bool, Fault> {
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map(|busy: bool| !busy)
            .map_err(|error| self.fault("bring the write-ahead log into the database", error))
    }

    fn damaged(&self, what: impl Into<String>) -> Fault {
        Fault::Damaged {
            directory: self.0.clone(),
            what: what.into(),
        }
    }

    fn failed(&self, doing: &'static str, cause: impl Into<Cause>) -> Fault {
        Fault::Failed {
            directory: self.0.clone(),
            doing,
            source: cause.into(),
        }
    }

    /// What an error of SQLite means.
    fn fault(&self, doing: &'static str, error: rusqlite::Error) -> Fault {
        let is_damage = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => matches!(
                failure.code,
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    // A row is in the way where none was written.
                    | ErrorCode::ConstraintViolation
                    | ErrorCode::TooBig
                    // The file may be written, as was seen: it is its header that says otherwise.
                    | ErrorCode::ReadOnly
                    // The statements are right, so that it is the file that they do not fit.
                    | ErrorCode::Unknown
            ),
            // What a column holds is not what was put there, or a row is missing.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows
            | rusqlite::Error::StatementChangedRows(..) => true,
            _ => false,
        };
        if is_damage {
            self.damaged(harmless(&error.to_string()))
        } else {
            self.failed(doing, error)
        }
    }
}

/// SQLite's words on one line: they may quote what is in the file, and nobody's terminal shall obey that.
fn harmless(words: &str) -> String {
    let shown = |c| if is_deceptive(c) { '\u{FFFD}' } else { c };
    let words: Vec<_> = words.split_whitespace().collect();
    words.join(" ").chars().map(shown).collect()
}

/// What the service's row is to be when a history begins.
fn beginning(epoch: &str) -> Service {
    Service {
        epoch: epoch.into(),
        clock: 0,
        incarnations: 0,
        commits: 0,
        rooms: 0,
        members: 0,
    }
}
