//! Where the person is: a terminal with an input line, or one that cannot have one.

use std::io::{self, IsTerminal, Write as _};

use super::{
    editor::{Editor, Input},
    raw::Raw,
};
use crate::client::stdio::{Line, Lines, Output, PATIENCE};

/// What is shown to the person, and what the person types.
#[derive(Debug)]
pub(super) enum Screen {
    /// The line editor.
    Editor(Editor),
    /// A terminal that cannot move its cursor (`TERM=dumb`), or whose output goes elsewhere (`chitchat chat | tee`):
    /// lines are printed as they come, and typed as the terminal itself allows. No prompt but for questions.
    Plain { lines: Lines, output: Output },
}

impl Screen {
    pub(super) fn open(prompt: &str, raw: Option<Raw>) -> io::Result<Self> {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if dumb || !io::stdout().is_terminal() {
            drop(raw);
            return Ok(Self::Plain {
                lines: Lines::of_stdin()?,
                output: Output::of_stdout()?,
            });
        }
        Ok(Self::Editor(Editor::open(prompt, raw)?))
    }

    /// Shows lines.
    pub(super) async fn print(&mut self, lines: &str) -> io::Result<()> {
        match self {
            Self::Editor(editor) => editor.print(lines.to_owned()).await,
            Self::Plain { output, .. } => output.write(&format!("{lines}\n")).await,
        }
    }

    /// Asks for an answer.
    pub(super) async fn ask(&mut self, question: &str) -> io::Result<()> {
        match self {
            Self::Editor(editor) => editor.prompt(question.to_owned()).await,
            Self::Plain { .. } => {
                let mut out = io::stderr();
                out.write_all(question.as_bytes())
            }
        }
    }

    /// Changes what stands before the input line.
    pub(super) async fn prompt(&mut self, prompt: &str) -> io::Result<()> {
        match self {
            Self::Editor(editor) => editor.prompt(prompt.to_owned()).await,
            Self::Plain { .. } => Ok(()),
        }
    }

    /// What the person does next. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Input> {
        match self {
            Self::Editor(editor) => editor.next().await,
            Self::Plain { lines, .. } => Ok(match lines.next().await.transpose()? {
                None => Input::Quit,
                Some(Line::Text(line)) => Input::Line(line),
                Some(Line::NotText | Line::Endless) => Input::NotText,
            }),
        }
    }

    /// Gives the terminal back when what waits is printed, or when that takes too long.
    pub(super) async fn close(self) {
        match self {
            Self::Editor(editor) => editor.close().await,
            Self::Plain { mut output, .. } => {
                let _ = tokio::time::timeout(PATIENCE, output.finish()).await;
            }
        }
    }
}
