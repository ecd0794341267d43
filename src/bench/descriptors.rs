//! File descriptors: each connection takes one, on either side.

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the program itself has open: standard streams, the runtime's own, a configuration, and some.
const SPARE: u64 = 64;

/// Lets this process, and those that it starts, open as many as the system allows it.
///
/// # Errors
/// The system does not.
pub(super) fn raise() -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit on open files")
}

/// Makes sure that this process can have so many connections.
///
/// # Errors
/// It cannot, even with all that the system allows it.
pub(super) fn allow(connections: usize) -> anyhow::Result<()> {
    let needed = connections as u64 + SPARE;
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if enough(current) {
        return Ok(());
    }
    if !enough(maximum) {
        bail!(
            "{connections} connections take {needed} file descriptors, and this process may have {}: allow it more \
             (`ulimit -Hn` as root, or LimitNOFILE), or let streams share connections (--streams-per-connection 16)",
            maximum.unwrap_or(0)
        );
    }
    raise()
}
