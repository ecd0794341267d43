//! Whether anybody is there.
//!
//! A container that was started with a terminal, but with nobody attached to it, has one of no columns and no rows:
//! that is the sign. Its size is set when somebody attaches. Nothing is printed before, because it would be gone when
//! somebody comes, and nobody joins, because nobody would read. A key press counts as well: there are ways to attach
//! that set no size. When the container was restarted after an `exit`, its terminal is new and the same holds again;
//! should it have a size already, somebody may be there, and the name is asked for.

use std::io;

use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use tokio::signal::unix::{SignalKind, signal};

use super::raw::Raw;
use crate::client::stdio::Watch;

/// The size of a terminal that has none of its own, that of a VT100.
const SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// Whether the terminal at standard output is one that nobody is attached to (yet).
pub(super) fn nobody() -> bool {
    tcgetwinsize(io::stdout()).is_ok_and(|size| size.ws_col == 0 || size.ws_row == 0)
}

/// Returns when there is a sign of a person: at once if the terminal has a size. The terminal has one then. A key that
/// was pressed is still there to be read, in the raw mode that is returned. Cancel safe.
pub(super) async fn somebody() -> io::Result<Option<Raw>> {
    let mut resized = signal(SignalKind::window_change())?;
    if !nobody() {
        return Ok(None);
    }
    // In cooked mode a key would only be seen after a whole line of them.
    let raw = Raw::take()?;
    let mut keys = Watch::for_input()?;
    while nobody() {
        tokio::select! {
            _ = resized.recv() => {}
            () = keys.seen() => {
                // The line editor must know where a line ends.
                if nobody() {
                    tcsetwinsize(io::stdout(), SIZE)?;
                }
            }
        }
    }
    Ok(Some(raw))
}

/// Returns when the terminal has been taken away: its window closed, its connection cut. Cancel safe.
///
/// The line editor does not notice by itself until it writes.
pub(super) async fn hung_up() -> io::Result<()> {
    let mut signals = signal(SignalKind::hangup())?;
    let mut end = Watch::for_end()?;
    tokio::select! {
        _ = signals.recv() => {}
        () = end.seen() => {}
    }
    Ok(())
}
