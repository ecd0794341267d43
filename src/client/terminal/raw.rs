//! Raw mode: the terminal hands over each key, and leaves showing it to the line editor.

use std::{io, os::fd::AsFd as _};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{InputModes, OptionalActions, tcgetattr, tcsetattr},
};

/// The most that a terminal in cooked mode holds, which is one line at most.
const LINE_BYTES: usize = 4096;

/// Raw mode, as long as this lives; then the terminal is as it was before, after a panic too.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    pub(super) fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        let raw = Self(());
        // Programs that type end their lines with LF, which is Ctrl-J to the line editor, and nothing.
        let mut terminal = tcgetattr(io::stdin())?;
        terminal.input_modes.insert(InputModes::INLCR);
        tcsetattr(io::stdin(), OptionalActions::Now, &terminal)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Without a terminal there is nothing to restore.
        let _ = disable_raw_mode();
    }
}

/// Lines that were typed, and shown, before raw mode; in it they would read as one.
pub(super) fn typed_ahead() -> io::Result<Vec<String>> {
    let stdin = io::stdin();
    let mut lines = Vec::new();
    loop {
        let mut input = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        // At once; in cooked mode there is input when there is a whole line.
        if poll(&mut input, Some(&Timespec::default()))? == 0 || input[0].revents() != PollFlags::IN
        {
            return Ok(lines);
        }
        let mut bytes = [0; LINE_BYTES];
        match rustix::io::read(&stdin, &mut bytes)? {
            0 => return Ok(lines),
            count => lines.push(
                String::from_utf8_lossy(&bytes[..count])
                    .trim_end()
                    .to_owned(),
            ),
        }
    }
}
