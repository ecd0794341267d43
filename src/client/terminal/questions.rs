//! What a person asks the server beside the session: who is there, what was said before.

use tokio::task::JoinSet;
use tonic::Status;

use crate::{
    client::{
        reading::{END, Reader},
        render::{self, Style},
    },
    wire::v1::ServerMessage,
};

/// Answers that may be waited for, to `/who` and `/history`.
///
/// When reached: another question is refused, and the person is told so. Source: nobody is as curious.
const QUESTIONS_MAX: usize = 8;

/// The questions that the server has not answered yet.
#[derive(Debug)]
pub(super) struct Questions {
    reader: Reader,
    style: Style,
    asked: JoinSet<Answer>,
}

/// What the server answered.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// To be shown.
    pub(super) lines: String,
    /// The events among these.
    pub(super) events: Vec<ServerMessage>,
    /// The history that they are of.
    pub(super) epoch: String,
}

impl Questions {
    pub(super) fn new(reader: Reader, style: Style) -> Self {
        Self {
            reader,
            style,
            asked: JoinSet::new(),
        }
    }

    /// Whether no more can be asked before there is an answer.
    pub(super) fn are_too_many(&self) -> bool {
        self.asked.len() >= QUESTIONS_MAX
    }

    /// Asks who is there.
    pub(super) fn who(&mut self) {
        let (mut reader, style) = (self.reader.clone(), self.style);
        self.asked.spawn(async move {
            let there = match reader.participants().await {
                Ok(there) => there,
                Err(status) => return unanswered(&status, style),
            };
            let lines = there
                .iter()
                .map(|who| format!("\n  {}", render::participant(who)));
            let head = style.aside(&format!("{} here:", there.len()));
            Answer {
                lines: head + &lines.collect::<String>(),
                ..Answer::default()
            }
        });
    }

    /// Asks for the last `count` events.
    pub(super) fn history(&mut self, count: u32) {
        let (mut reader, style) = (self.reader.clone(), self.style);
        self.asked.spawn(async move {
            let answer = match reader.before(END, count).await {
                Ok(answer) => answer,
                Err(status) => return unanswered(&status, style),
            };
            let lines = answer
                .events
                .iter()
                .map(|event| format!("\n  {}", render::line(event)));
            let head = style.aside(&format!("The last {}:", answer.events.len()));
            Answer {
                lines: head + &lines.collect::<String>(),
                events: answer.events,
                epoch: answer.epoch,
            }
        });
    }

    /// The next answer; `None` if nothing was asked. Cancel safe.
    pub(super) async fn answered(&mut self) -> Option<Answer> {
        let answer = self.asked.join_next().await?;
        Some(answer.unwrap_or_else(|_| Answer {
            lines: "The question was lost.".into(),
            ..Answer::default()
        }))
    }
}

fn unanswered(status: &Status, style: Style) -> Answer {
    let reason = render::clean(status.message());
    Answer {
        lines: style.aside(&format!("The server did not answer: {reason}")),
        ..Answer::default()
    }
}
