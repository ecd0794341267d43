//! Why a history cannot be opened, read or written.

use std::{io, path::PathBuf};

use rusqlite::ErrorCode;

/// Why a history cannot be opened, read or written: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Another server has it open.
    #[error(
        "the history in {} is in use by another server; give each server a directory of its own (server.data)",
        directory.display()
    )]
    InUse {
        /// `server.data`
        directory: PathBuf,
    },
    /// It is not what was written.
    #[error(
        "the history in {} is damaged: {what}. Keep a copy of the directory, and put a backup in its place",
        directory.display()
    )]
    Damaged {
        /// `server.data`
        directory: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// It was written by a newer version of this program.
    #[error(
        "the history in {} has schema version {found}, and this program knows versions up to {known}; use a newer one",
        directory.display()
    )]
    Newer {
        /// `server.data`
        directory: PathBuf,
        /// The version that it has.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// A file system on which SQLite's write-ahead log is not safe.
    #[error(
        "the history cannot live in {}: on {filesystem} several machines may have a file open, or its locks and shared \
         memory are not reliable, and SQLite's write-ahead log would be damaged; choose a local disk or a named volume \
         (server.data)",
        directory.display()
    )]
    Unsuitable {
        /// `server.data`
        directory: PathBuf,
        /// The file system's name.
        filesystem: &'static str,
    },
    /// The system did not let us.
    #[error("cannot {doing} in {} ({})", directory.display(), source.advice())]
    Failed {
        /// `server.data`
        directory: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Cause,
    },
}

/// What the system said.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// About a file.
    #[error(transparent)]
    System(#[from] io::Error),
    /// About the database. It says all in one line, so that nothing is left for a source.
    #[error("{0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Cause {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Cause {
    /// What to do about it.
    fn advice(&self) -> &'static str {
        let full = "make room on the disk and start again; what was acknowledged is kept";
        let forbidden = "server.data must be a directory that the server's user may write";
        let other = "see to the disk and start again; what was acknowledged is kept";
        match self {
            Self::System(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full,
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory => forbidden,
                _ => other,
            },
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => full,
                Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => forbidden,
                _ => other,
            },
        }
    }
}
