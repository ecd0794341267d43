//! A person who attaches to the container of the interactive client.

use std::num::NonZeroU16;

use pty_process::{Command, Pty, Size};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Child,
    time::timeout,
};

use crate::{PATIENCE, within};

/// Rows enough that nothing scrolls out of sight.
const ROWS: NonZeroU16 = NonZeroU16::new(200).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(100).unwrap();

/// `docker attach chitchat-chat` on a terminal of its own.
pub struct Attached {
    pty: Pty,
    child: Child,
    screen: vt100::Parser,
}

impl Attached {
    pub fn attach() -> Self {
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(Size::new(ROWS.get(), COLUMNS.get())).unwrap();
        let child = Command::new("docker")
            .args(["attach", "chitchat-chat"])
            .env("TERM", "xterm-256color")
            .kill_on_drop(true)
            .spawn(pts)
            .expect("docker should start");
        Self {
            pty,
            child,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }
    }

    /// Attaches to a container that is about to start again, and reads until `text` stands on the screen. Docker refuses
    /// whoever comes too early.
    pub async fn attach_and_see(text: &str) -> Self {
        let trying = async {
            loop {
                let mut attached = Self::attach();
                if attached.reads(text, 1).await {
                    return attached;
                }
            }
        };
        within(text, trying).await
    }

    pub async fn types(&mut self, keys: &str) {
        let typing = self.pty.write_all(keys.as_bytes());
        within("the terminal to take keys", typing).await.unwrap();
    }

    /// Reads until `text` stands on the screen.
    pub async fn sees(&mut self, text: &str) {
        self.sees_times(text, 1).await;
    }

    /// Reads until `text` stands on the screen so many times.
    pub async fn sees_times(&mut self, text: &str, times: usize) {
        let seen = timeout(PATIENCE, self.reads(text, times)).await;
        let screen = self.screen.screen().contents();
        assert_eq!(seen, Ok(true), "{text:?} is not on the screen:\n{screen}");
    }

    /// How often `text` stands on the screen.
    pub fn count(&self, text: &str) -> usize {
        self.screen.screen().contents().matches(text).count()
    }

    /// As [`Self::sees_times`]; false if docker ends first.
    async fn reads(&mut self, text: &str, times: usize) -> bool {
        while self.count(text) < times {
            if !self.read().await {
                return false;
            }
        }
        true
    }

    /// Reads until docker has ended.
    pub async fn ends(&mut self) {
        let reading = async { while self.read().await {} };
        within("docker attach to end", reading).await;
        within("docker attach to end", self.child.wait())
            .await
            .unwrap();
    }

    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // A terminal whose other side has gone is an error on Linux.
        let read = self.pty.read(&mut bytes).await.unwrap_or(0);
        self.screen.process(&bytes[..read]);
        read > 0
    }
}
