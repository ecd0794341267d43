//! A person at a terminal: the program on a pseudo-terminal, and what a person would see there.

use std::num::NonZeroU16;

use pty_process::{Command, Pty, Size};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{LocalModes, tcgetattr},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Child,
};

use super::within;

/// Rows of a terminal that nothing has scrolled out of at the end of a test.
pub const TALL: u16 = 300;

/// A run of `chitchat` on a terminal.
pub struct Terminal {
    pty: Pty,
    child: Child,
    seen: vt100::Parser,
    /// All that was ever sent to the terminal.
    pub raw: Vec<u8>,
}

/// How a terminal is before the program starts on it.
pub struct Setup {
    arguments: Vec<String>,
    variables: Vec<(&'static str, &'static str)>,
    size: Option<(u16, u16)>,
    piped: bool,
}

/// `chitchat chat --server URL` with more arguments, on a tall terminal with colours.
pub fn chat(server: &str, more: &[&str]) -> Setup {
    run(&[&["chat", "--server", server], more].concat())
}

/// `chitchat` with these arguments, on the same.
pub fn run(arguments: &[&str]) -> Setup {
    Setup {
        arguments: arguments.iter().copied().map(str::to_owned).collect(),
        variables: vec![("TERM", "xterm-256color")],
        size: Some((TALL, 80)),
        piped: false,
    }
}

impl Setup {
    /// With this variable in its environment.
    pub fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// With a terminal that has no size, as that of a container that nobody is attached to.
    pub fn unattached(mut self) -> Self {
        self.size = None;
        self
    }

    /// With a terminal of this size.
    pub fn size(mut self, rows: u16, columns: u16) -> Self {
        self.size = Some((rows, columns));
        self
    }

    /// With its output through a pipe to the terminal, as `chitchat chat | cat`.
    pub fn through_a_pipe(mut self) -> Self {
        self.piped = true;
        self
    }

    /// Starts the program.
    pub fn start(self) -> Terminal {
        let (pty, pts) = pty_process::open().expect("a pseudo-terminal");
        let (rows, columns) = self.size.unwrap_or((TALL, 80));
        if self.size.is_some() {
            resize(&pty, rows, columns);
        }
        let program = env!("CARGO_BIN_EXE_chitchat");
        let command = if self.piped {
            Command::new("/bin/sh").args(["-c", r#""$0" "$@" | /bin/cat"#, program])
        } else {
            Command::new(program)
        };
        let child = command
            .args(self.arguments)
            .env_clear()
            .envs(self.variables)
            .kill_on_drop(true)
            .spawn(pts)
            .expect("chitchat should start");
        Terminal {
            pty,
            child,
            seen: fresh(rows, columns),
            raw: Vec::new(),
        }
    }
}

impl Terminal {
    /// Types `text`.
    pub async fn keys(&mut self, text: &str) {
        let typed = self.pty.write_all(text.as_bytes());
        within("the terminal to take keys", typed)
            .await
            .expect("the terminal is there");
    }

    /// Types `text` and presses Enter.
    pub async fn line(&mut self, text: &str) {
        self.keys(&format!("{text}\r")).await;
    }

    /// Reads until the screen shows `text` somewhere.
    pub async fn see(&mut self, text: &str) {
        self.until(&format!("{text:?}"), |lines| {
            lines.iter().any(|line| line.contains(text))
        })
        .await;
    }

    /// Reads until the last line that is not empty is `text`, but for white space at its end.
    pub async fn see_last(&mut self, text: &str) {
        let what = format!("{text:?} as the last line");
        self.until(&what, |lines| {
            lines.last().is_some_and(|last| last == text.trim_end())
        })
        .await;
    }

    /// Reads until the lines of the screen, without what is empty at its end, are as `wanted`.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&[String]) -> bool) {
        let reading = async {
            while !wanted(&self.lines()) {
                if !self.read().await {
                    return false;
                }
            }
            true
        };
        let limit = tokio::time::timeout(super::PATIENCE, reading).await;
        assert_eq!(
            limit,
            Ok(true),
            "waited for {what}; the screen shows:\n{}",
            self.lines().join("\n")
        );
    }

    /// The lines of the screen, without what is empty at its end.
    pub fn lines(&self) -> Vec<String> {
        let screen = self.seen.screen();
        let rows = screen.rows(0, screen.size().1.get());
        let mut lines: Vec<_> = rows.map(|row| row.trim_end().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    /// The row of the screen that holds `text`, and whether its first letter is bold.
    pub fn is_bold(&self, text: &str) -> bool {
        let row = self
            .lines()
            .iter()
            .position(|line| line.contains(text))
            .expect(text);
        let cell = self
            .seen
            .screen()
            .cell(u16::try_from(row).expect("few rows"), 0);
        cell.expect("a cell").bold()
    }

    /// The line the cursor is in, up to the cursor.
    pub fn before_cursor(&self) -> String {
        let (row, column) = self.seen.screen().cursor_position();
        let line = self
            .lines()
            .get(usize::from(row))
            .cloned()
            .unwrap_or_default();
        line.chars().take(usize::from(column)).collect()
    }

    /// Gives the terminal this size and an empty screen, as attaching to a container does.
    pub fn attach(&mut self, rows: u16, columns: u16) {
        self.seen = fresh(rows, columns);
        resize(&self.pty, rows, columns);
    }

    /// Takes the terminal's size away.
    pub fn no_size(&self) {
        resize(&self.pty, 0, 0);
    }

    /// Changes the size and keeps the screen.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        let size = |length| NonZeroU16::new(length).expect("a length");
        self.seen.screen_mut().set_size(size(rows), size(columns));
        resize(&self.pty, rows, columns);
    }

    /// Whether nothing was ever sent to the terminal.
    pub fn is_silent(&self) -> bool {
        let mut output = [PollFd::new(&self.pty, PollFlags::IN)];
        let waiting = poll(&mut output, Some(&Timespec::default())).expect("the terminal is there");
        self.raw.is_empty() && waiting == 0
    }

    /// Whether the terminal is as a shell expects it: it echoes, and gives lines.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.pty)
            .expect("the terminal's modes")
            .local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Returns when the program has taken the terminal.
    pub async fn raw_mode(&self) {
        let taken = async {
            // There is no event for this.
            while self.is_cooked() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        within("the program to take the terminal", taken).await;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        super::signal(&self.child, signal);
    }

    /// Takes the terminal away, and returns the exit code.
    pub async fn hang_up(self) -> Option<i32> {
        let Self { pty, mut child, .. } = self;
        drop(pty);
        within("chitchat to end", child.wait())
            .await
            .expect("an exit status")
            .code()
    }

    /// Reads until the program has ended; its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        within("chitchat to end", async { while self.read().await {} }).await;
        within("chitchat to end", self.child.wait())
            .await
            .expect("an exit status")
            .code()
    }

    /// Whether there was more.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.pty.read(&mut bytes).await {
            // An error is how a terminal tells that nobody has it open any more.
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.raw.extend_from_slice(&bytes[..count]);
                self.seen.process(&bytes[..count]);
                true
            }
        }
    }
}

fn fresh(rows: u16, columns: u16) -> vt100::Parser {
    let size = |length| NonZeroU16::new(length).expect("a length");
    vt100::Parser::new(size(rows), size(columns), 0)
}

fn resize(pty: &Pty, rows: u16, columns: u16) {
    pty.resize(Size::new(rows, columns))
        .expect("the terminal takes a size");
}
