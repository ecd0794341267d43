//! Taking part through pipes: lines in, lines out, nothing else on standard output.
//!
//! Every line of input is a text; there are no commands. What goes wrong is told on standard error.

use std::{
    collections::{HashMap, VecDeque},
    io,
};

use anyhow::{Context as _, anyhow};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    TOO_FAST_PAUSE, render,
    session::{Closed, Ending, Options, Session, Update},
    stdio::{Line, Lines, Output, PATIENCE, tell},
};
use crate::{
    config::Limits,
    room::text,
    wire::v1::{NoticeCode, ServerMessage},
};

/// Lines that may be said and not yet be answered by the service.
///
/// When reached: the next line waits. Source: at 1 ms from here to there and back, 64,000 lines a second.
const UNANSWERED_MAX: usize = 64;

/// How lines out look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As people read them, without colours: `[Server @ L=5] Alex: text`.
    Lines,
    /// As [`render`] describes.
    Json,
}

/// Joins, says each line of standard input, writes what is heard to standard output, and leaves at the end of input,
/// once all that was said has been answered. A reader that has gone is such an end too, as is `stop`.
///
/// A line that comes too fast for the service is said again until it is taken. From then on a line is said when the one
/// before has been answered; only lines that were under way at that moment may change places.
///
/// # Errors
/// The server could not be reached or refused the participant (there is one try: on a pipe nobody sees the waiting);
/// lines that were not accepted; the service did not take the participant back; standard input or output failed.
pub async fn run(
    options: Options,
    limits: &Limits,
    form: Form,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let session = tokio::select! {
        joined = Session::join(options) => joined?,
        () = stop.cancelled() => return Ok(()),
    };
    let mut talk = Talk {
        session,
        limits,
        form,
        input: Some(Lines::of_stdin().context("cannot read standard input")?),
        output: Output::of_stdout().context("cannot write to standard output")?,
        number: 0,
        said: None,
        unanswered: HashMap::new(),
        again: VecDeque::new(),
        pause: None,
        ended: false,
        heard: None,
        refused: 0,
        late: None,
        failed: None,
        stop,
    };
    let ending = talk.run().await;
    talk.finish(ending).await
}

struct Talk<'a> {
    session: Session,
    limits: &'a Limits,
    form: Form,
    /// `None` once it has ended.
    input: Option<Lines>,
    output: Output,
    /// The line of input that was read last.
    number: u64,
    /// A text the session has no room for yet.
    said: Option<String>,
    /// What was said and not answered yet, by `message_id`.
    unanswered: HashMap<String, String>,
    /// What is to be said again, because it came too fast.
    again: VecDeque<String>,
    /// When the next line may be said; set once something came too fast.
    pause: Option<Instant>,
    /// The input has ended; what was said is to be answered before one leaves.
    ended: bool,
    /// A line that output has no room for yet.
    heard: Option<String>,
    /// Lines of input that were not accepted.
    refused: u64,
    /// When what is heard is no longer worth waiting for output; set by `stop`.
    late: Option<Instant>,
    /// What went wrong with input or output.
    failed: Option<anyhow::Error>,
    stop: CancellationToken,
}

enum Next {
    Heard(Option<Box<Update>>),
    Written(io::Result<()>),
    Read(Option<io::Result<Line>>),
    Said(Result<String, Closed>),
    AllSaid,
    Stopped,
    Late,
}

impl Talk<'_> {
    async fn run(&mut self) -> Ending {
        loop {
            match self.next().await {
                Next::Heard(None) => return Ending::Crashed,
                Next::Heard(Some(update)) => match *update {
                    Update::Ended(ending) => return ending,
                    update => self.hear(update),
                },
                Next::Written(Ok(())) => self.heard = None,
                Next::Written(Err(error)) => {
                    self.fail(error, "cannot write to standard output");
                    return self.unread().await;
                }
                Next::Late => return self.unread().await,
                Next::Read(Some(Ok(line))) => self.say(line),
                Next::Read(Some(Err(error))) => self.fail(error, "cannot read standard input"),
                Next::Read(None) => self.ended = true,
                Next::Said(said) => self.note_said(said),
                Next::AllSaid => self.leave(),
                Next::Stopped => {
                    self.late = Some(Instant::now() + PATIENCE);
                    self.leave();
                }
            }
        }
    }

    async fn next(&mut self) -> Next {
        if self.said.is_none() {
            self.said = self.again.pop_front();
        }
        let all_said = self.ended && self.said.is_none() && self.unanswered.is_empty();
        let in_turn = match self.pause {
            None => self.unanswered.len() < UNANSWERED_MAX,
            Some(_) => self.unanswered.is_empty(),
        };
        let Self {
            session,
            input,
            output,
            said,
            heard,
            late,
            pause,
            stop,
            ..
        } = self;
        let speaker = session.speaker();
        let say = async {
            // Not for a moment that has passed: the shortest sleep takes a millisecond.
            if let Some(pause) = pause.filter(|pause| *pause > Instant::now()) {
                sleep_until(pause).await;
            }
            speaker.say(said.clone().unwrap_or_default()).await
        };
        let reads = input.is_some() && !self.ended && said.is_none();
        tokio::select! {
            update = session.next(), if heard.is_none() => Next::Heard(update.map(Box::new)),
            written = write(output, heard.as_deref()) => Next::Written(written),
            said = say, if said.is_some() && in_turn && input.is_some() => Next::Said(said),
            line = next_line(input), if reads => Next::Read(line),
            () = std::future::ready(()), if all_said && input.is_some() => Next::AllSaid,
            () = stop.cancelled(), if late.is_none() => Next::Stopped,
            () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() && heard.is_some() => Next::Late,
        }
    }

    fn note_said(&mut self, said: Result<String, Closed>) {
        // That it was not taken because the session ended is heard in its turn.
        if let (Ok(message_id), Some(text)) = (said, self.said.take()) {
            self.unanswered.insert(message_id, text);
        }
    }

    /// Whether `message` is to be told: not that something came too fast, which will be said again.
    fn note_answer(&mut self, message: &ServerMessage) -> bool {
        let Some(notice) = &message.notice else {
            self.unanswered.remove(&message.message_id);
            return true;
        };
        let text = self.unanswered.remove(&notice.message_id);
        match (notice.code(), text) {
            (NoticeCode::TooFast, Some(text)) => {
                self.again.push_back(text);
                self.pause = Some(Instant::now() + TOO_FAST_PAUSE);
                false
            }
            (NoticeCode::Draining | NoticeCode::Duplicate, _) => true,
            _ => {
                self.refused += 1;
                true
            }
        }
    }

    fn hear(&mut self, update: Update) {
        self.heard = match (update, self.form) {
            (Update::Event(received) | Update::Notice(received), form) => {
                self.note_answer(&received.message).then(|| match form {
                    Form::Lines => render::line(&received.message),
                    Form::Json => render::received_json(&received),
                })
            }
            (Update::Disconnected { reason }, Form::Json) => {
                Some(render::disconnected_json(&reason))
            }
            (Update::Reconnected(back), Form::Json) => Some(render::reconnected_json(back)),
            (Update::Disconnected { reason }, Form::Lines) => {
                tell(&render::disconnected(&reason));
                None
            }
            (Update::Reconnected(back), Form::Lines) => {
                tell(&render::reconnected(back));
                None
            }
            // Handled where the talk ends.
            (Update::Ended(_), _) => None,
        }
        .map(|line| line + "\n");
    }

    fn say(&mut self, line: Line) {
        self.number += 1;
        let text = match line {
            Line::Text(line) => {
                text::outgoing(&line, self.limits).map_err(|refusal| refusal.to_string())
            }
            Line::NotText => Err("Not UTF-8.".into()),
            Line::Endless => Err(format!(
                "Message too long. Limit is {}.",
                self.limits.text_chars
            )),
        };
        match text {
            // There is nothing in it to say.
            Ok(text) if text.is_empty() => {}
            Ok(text) => self.said = Some(text),
            Err(refusal) => {
                self.refused += 1;
                tell(&format!("line {}: {refusal}", self.number));
            }
        }
    }

    fn leave(&mut self) {
        self.input = None;
        self.session.leave();
    }

    fn fail(&mut self, error: io::Error, what: &'static str) {
        // That the reader has gone (`| head`) is an end like another.
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.failed = Some(anyhow::Error::new(error).context(what));
        }
        self.leave();
    }

    /// Hears the rest without writing it.
    async fn unread(&mut self) -> Ending {
        loop {
            match self.session.next().await {
                Some(Update::Ended(ending)) => return ending,
                Some(_) => {}
                None => return Ending::Crashed,
            }
        }
    }

    async fn finish(mut self, ending: Ending) -> anyhow::Result<()> {
        let late = async {
            self.stop.cancelled().await;
            sleep_until(self.late.unwrap_or_else(Instant::now) + PATIENCE).await;
        };
        tokio::select! {
            written = self.output.finish() => {
                if let Err(error) = written {
                    self.fail(error, "cannot write to standard output");
                }
            }
            () = late => {}
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        super::verdict(&ending)?;
        if self.refused > 0 {
            return Err(anyhow!("{} message(s) were not accepted", self.refused));
        }
        Ok(())
    }
}

async fn next_line(input: &mut Option<Lines>) -> Option<io::Result<Line>> {
    match input {
        Some(lines) => lines.next().await,
        None => None,
    }
}

/// Writes `line`; without one, waits for what may have become of the lines before.
async fn write(output: &mut Output, line: Option<&str>) -> io::Result<()> {
    match line {
        Some(line) => output.write(line).await,
        None => Err(output.failure().await),
    }
}
