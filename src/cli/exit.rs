//! How a process ends: the exit codes, and which error means which.

use std::{fmt, process::ExitCode};

use crate::config::Faults;

/// The exit codes of every subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Good = 0,
    /// The answer is no, or the work failed.
    Failed = 1,
    /// The command line, a script or the configuration is wrong; nothing was started.
    Usage = 2,
    /// Another process uses the data directory.
    DataInUse = 3,
    /// The stored history is damaged.
    Damaged = 4,
    /// The stored history was written by a newer version.
    NewerSchema = 5,
    /// The storage failed while the server ran, a full disk for instance.
    StorageFailed = 6,
}

/// The exit codes as `--help` tells them.
pub const HELP: &str = "\
Exit codes:
  0  good
  1  no, or failed
  2  usage or configuration is wrong, nothing was started
  3  data in use by another process
  4  data damaged
  5  data written by a newer version
  6  storage failed";

impl Exit {
    /// Gives `cause` this exit code; what is printed stays the cause's own words.
    pub fn because(self, cause: impl Into<anyhow::Error>) -> anyhow::Error {
        Failure {
            exit: self,
            cause: cause.into(),
        }
        .into()
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit code of an error: the one it was given by [`Exit::because`], [`Exit::Usage`] for a faulty configuration,
/// otherwise [`Exit::Failed`].
#[must_use]
pub fn of(error: &anyhow::Error) -> Exit {
    error
        .chain()
        .find_map(|cause| {
            let given = cause.downcast_ref::<Failure>().map(|failure| failure.exit);
            given.or_else(|| cause.is::<Faults>().then_some(Exit::Usage))
        })
        .unwrap_or(Exit::Failed)
}

/// An error that knows its exit code; it speaks with its cause's words.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    cause: anyhow::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_keeps_its_words_and_its_exit_code_through_added_context() {
        let error = Exit::Damaged.because(anyhow!("page 7").context("cannot read the history"));
        let error = error.context("cannot serve");
        assert_eq!(
            format!("{error:#}"),
            "cannot serve: cannot read the history: page 7"
        );
        assert_eq!(of(&error), Exit::Damaged);
        assert_eq!(of(&anyhow!("whatever")), Exit::Failed);
    }
}
