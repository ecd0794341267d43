//! The input line, and what is printed above it.
//!
//! The line editor writes to the terminal and so may have to wait for it; it has a thread of its own, so that nothing
//! else waits. The thread ends when its [`Editor`] is dropped, and the terminal is as it was before, also after a panic
//! on either side.

use std::io::{self, Write as _};

use rustyline_async::{Readline, ReadlineError, ReadlineEvent, SharedWriter};
use tokio::sync::{mpsc, oneshot};

use super::raw::{self, Raw};
use crate::client::stdio::PATIENCE;

/// Things to show that may wait for the terminal.
///
/// When full: [`Editor::print`] waits, and with it whoever reads the room; see `session::UPDATES_CAPACITY`.
const SHOWS_CAPACITY: usize = 64;

/// Lines that may be typed ahead, as when a page is pasted.
///
/// When full: further lines are not taken, and the person is told so.
const INPUTS_CAPACITY: usize = 1_000;

/// What the person did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Typed a line.
    Line(String),
    /// Typed what is no text: not UTF-8, or without end.
    NotText,
    /// Pressed Ctrl-C or Ctrl-D.
    Quit,
}

/// The line editor on its thread.
#[derive(Debug)]
pub(super) struct Editor {
    shows: Option<mpsc::Sender<Show>>,
    inputs: mpsc::Receiver<Input>,
    ended: Option<oneshot::Receiver<io::Result<()>>>,
    // Last, so that the terminal is restored when all else is gone.
    _raw: Raw,
}

#[derive(Debug)]
enum Show {
    Lines(String),
    Prompt(String),
}

impl Editor {
    /// Takes the terminal, if it is not taken yet, and shows `prompt`.
    pub(super) fn open(prompt: &str, raw: Option<Raw>) -> io::Result<Self> {
        let (show, shows) = mpsc::channel(SHOWS_CAPACITY);
        let (input, inputs) = mpsc::channel(INPUTS_CAPACITY);
        let (end, ended) = oneshot::channel();
        let raw = match raw {
            Some(raw) => raw,
            None => {
                for line in raw::typed_ahead()? {
                    // Nothing that a terminal holds fills it.
                    let _ = input.try_send(Input::Line(line));
                }
                Raw::take()?
            }
        };
        let prompt = prompt.to_owned();
        std::thread::Builder::new()
            .name("editor".into())
            .spawn(move || {
                let _ = end.send(edit(prompt, shows, &input));
            })?;
        Ok(Self {
            shows: Some(show),
            inputs,
            ended: Some(ended),
            _raw: raw,
        })
    }

    /// Prints `lines` above the input line.
    pub(super) async fn print(&mut self, lines: String) -> io::Result<()> {
        self.show(Show::Lines(lines)).await
    }

    /// Changes the prompt; what is being typed stays.
    pub(super) async fn prompt(&mut self, prompt: String) -> io::Result<()> {
        self.show(Show::Prompt(prompt)).await
    }

    /// What the person does next. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Input> {
        match self.inputs.recv().await {
            Some(input) => Ok(input),
            None => Err(self.failure().await),
        }
    }

    /// Prints what waits, takes the input line away and gives the terminal back.
    pub(super) async fn close(mut self) {
        self.shows = None;
        let _ = tokio::time::timeout(PATIENCE, self.failure()).await;
    }

    async fn show(&mut self, show: Show) -> io::Result<()> {
        if let Some(shows) = &self.shows
            && shows.send(show).await.is_ok()
        {
            return Ok(());
        }
        Err(self.failure().await)
    }

    async fn failure(&mut self) -> io::Error {
        self.shows = None;
        let result = match &mut self.ended {
            Some(ended) => ended.await,
            None => Ok(Ok(())),
        };
        self.ended = None;
        match result {
            Ok(Err(error)) => error,
            // In the second case with a panic, whose message is on standard error.
            Ok(Ok(())) | Err(_) => io::Error::other("the line editor has ended"),
        }
    }
}

/// The thread.
fn edit(
    prompt: String,
    shows: mpsc::Receiver<Show>,
    inputs: &mpsc::Sender<Input>,
) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .build()?
        .block_on(async {
            let (mut readline, writer) = Readline::new(prompt).map_err(plain)?;
            // What was typed stays on the screen as a record of what was sent when; what was abandoned does not.
            readline.should_print_line_on(true, false);
            let result = converse(&mut readline, writer, shows, inputs).await;
            let flushed = readline.flush();
            result.and(flushed).map_err(plain)
        })
}

async fn converse(
    readline: &mut Readline,
    mut writer: SharedWriter,
    mut shows: mpsc::Receiver<Show>,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), ReadlineError> {
    loop {
        // The editor first: it prints what was written before it is given more, so that its own queue stays short.
        tokio::select! {
            biased;
            event = readline.readline() => {
                let input = match event? {
                    ReadlineEvent::Line(line) => {
                        readline.add_history_entry(line.clone());
                        Input::Line(line)
                    }
                    ReadlineEvent::Eof | ReadlineEvent::Interrupted => Input::Quit,
                };
                if let Err(mpsc::error::TrySendError::Full(_)) = inputs.try_send(input) {
                    writeln!(writer, "Too much at once: this line was not taken.")?;
                }
            }
            show = shows.recv() => match show {
                Some(Show::Lines(lines)) => writeln!(writer, "{lines}")?,
                Some(Show::Prompt(prompt)) => readline.update_prompt(&prompt)?,
                None => return Ok(()),
            },
        }
    }
}

fn plain(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::IO(error) => error,
        ReadlineError::Closed => io::Error::other(error),
    }
}
