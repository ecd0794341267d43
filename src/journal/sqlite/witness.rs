//! What bears witness to a history from outside of it: which one it is, and how far it has come.
//!
//! A database that lost its end looks like one that never had it. So a small file beside it says how many transactions
//! were acknowledged; a database with fewer is not the one that they were made in.
//!
//! The same file is the lock of the data directory: whoever holds it is the one server.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Read as _,
    os::unix::fs::FileExt as _,
};

use super::{Place, row::Service};
use crate::journal::Fault;

/// The file, in the data directory: one line of text, the epoch and the number of transactions.
pub(super) const FILE: &str = "chitchat.lock";

/// How many digits the number of transactions is written with, so that each line takes the place of the last one.
const DIGITS: usize = 20;

/// The witness, held for as long as the server lives.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    /// What it said when it was opened; none of a history that begins, or whose witness was taken away.
    pub(super) seen: Option<Seen>,
}

/// What the witness has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) epoch: String,
    /// Transactions that were acknowledged; there may have been one more.
    pub(super) commits: u64,
}

impl Witness {
    /// Locks the data directory.
    pub(super) fn lock(place: &Place) -> Result<Self, Fault> {
        let doing = "open chitchat.lock";
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(place.directory().join(FILE))
            .map_err(|error| place.failed(doing, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Fault::InUse {
                    directory: place.directory().into(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(place.failed("lock", error)),
        }
        let mut line = Vec::new();
        file.read_to_end(&mut line)
            .map_err(|error| place.failed(doing, error))?;
        let seen = match Seen::read(&line) {
            Ok(seen) => seen,
            Err(()) => {
                return Err(place.damaged(format!(
                    "{FILE} does not say which history it is of and how far that came. If {} is whole, remove {FILE}: the \
                     history then goes on under a new epoch",
                    super::DATABASE
                )));
            }
        };
        Ok(Self { file, seen })
    }

    /// Notes that `commits` transactions of `epoch` are stored. Not forced to the disk: it need not survive what the
    /// database does, it only must never be ahead.
    pub(super) fn note(&self, epoch: &str, commits: u64) -> std::io::Result<()> {
        self.file
            .write_all_at(format!("{epoch} {commits:0DIGITS$}\n").as_bytes(), 0)
    }

    /// The same, forced to the disk: a history must not lose its witness, or it would go on under a new epoch.
    pub(super) fn begin(&self, epoch: &str, commits: u64) -> std::io::Result<()> {
        self.note(epoch, commits)?;
        self.file.sync_all()
    }
}

impl Drop for Witness {
    /// By hand, and not only by closing the file: a process that is just being started from this one has it open too.
    fn drop(&mut self) {
        // If it fails, closing does it.
        let _ = self.file.unlock();
    }
}

impl Seen {
    /// What was found must be the history that the witness has seen, and have come at least as far.
    pub(super) fn check(&self, place: &Place, found: &Service) -> Result<(), Fault> {
        let database = super::DATABASE;
        if self.epoch != found.epoch {
            return Err(place.damaged(format!(
                "{database} holds the history {} and {FILE} was written for {}. If {database} is a backup to go on with, \
                 remove {FILE}: it then goes on under a new epoch",
                found.epoch, self.epoch
            )));
        }
        if self.commits > found.commits {
            return Err(place.damaged(format!(
                "{database} and its write-ahead log end after {} transactions, and {} were acknowledged. If {database} \
                 is a backup to go on with, remove {FILE}: it then goes on under a new epoch",
                found.commits, self.commits
            )));
        }
        Ok(())
    }

    fn read(line: &[u8]) -> Result<Option<Self>, ()> {
        if line.is_empty() {
            return Ok(None);
        }
        let line = std::str::from_utf8(line).map_err(|_| ())?;
        let (epoch, commits) = line
            .strip_suffix('\n')
            .and_then(|line| line.split_once(' '))
            .ok_or(())?;
        let is_epoch = epoch.len() == 32 && epoch.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_epoch || commits.len() != DIGITS {
            return Err(());
        }
        Ok(Some(Self {
            epoch: epoch.into(),
            commits: commits.parse().map_err(|_| ())?,
        }))
    }
}
