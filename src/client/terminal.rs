//! The interactive client: a person at a terminal.
//!
//! ```text
//!   person ⇄ Screen (the line editor, on a thread of its own) ⇄ Visit (here) ⇄ Session ⇄ server
//! ```
//!
//! A visit begins when there is somebody (`attach`), asks for a name, waits for the server, and ends with `exit`,
//! Ctrl-C, Ctrl-D, SIGTERM, or when the terminal is taken away: each time the room is left properly, and the terminal
//! is as it was before.

mod attach;
mod command;
mod editor;
mod questions;
mod raw;
mod screen;
mod traces;

use std::{collections::VecDeque, io, path::Path};

use anyhow::{Context as _, anyhow};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    backoff::Backoff,
    reading::{PAGE, Reader},
    render::{self, Style},
    session::{Ending, JoinError, Options, Received, Session, Update},
    status::{is_held, is_id_held},
    stdio::PATIENCE,
};
use crate::{
    config::{self, Client, Limits},
    room::text,
    telemetry::{Environment, Telemetry},
};
use command::Command;
use editor::Input;
use questions::{Answer, Questions};
use raw::Raw;
use screen::Screen;
use traces::{Traces, hyperlinks};

/// Events whose sums `/clock` shows when it is switched on.
const RECENT: usize = 20;

/// Lines that may be typed before they can be said: before one has joined, and while the session has no room.
///
/// When full: before one has joined further ones are refused, and the person is told so; later the terminal keeps them.
/// Source: a join takes milliseconds, and ten seconds at the most; nobody types as much, but a page may be pasted.
const EARLY_CAPACITY: usize = 100;

/// Who visits, and how.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// Server, name, id, room, backlog. Without a name the person is asked.
    pub client: Client,
    /// What is too long to be sent.
    pub limits: Limits,
    /// Where traces go.
    pub telemetry: config::Telemetry,
}

/// Lets the person at the terminal take part until it leaves, or `stop` is cancelled.
///
/// Prints nothing and joins nothing before there is a sign of a person: a size of its terminal, or a key press.
///
/// # Errors
/// The person gave up waiting for the server; the service refused the participant, or did not take it back; the
/// terminal failed. Leaving, by whatever means, is none, nor is going away at the question for the name.
pub async fn run(visitor: Visitor, stop: CancellationToken) -> anyhow::Result<()> {
    let contained = attach::nobody() || in_container();
    let raw = tokio::select! {
        there = attach::somebody() => there.context("cannot use the terminal")?,
        () = stop.cancelled() => return Ok(()),
    };
    let mut visit = Visit::begin(visitor, raw, stop.child_token())?;
    let stop = visit.stop.clone();
    let outcome = tokio::select! {
        outcome = visit.run(contained) => outcome,
        never = stop_when_hung_up(stop) => match never {},
    };
    visit.screen.close().await;
    // Last, because it may take its time: the person has the terminal back.
    visit.telemetry.shutdown();
    outcome
}

/// Whether this is a container, whose terminal one leaves by detaching from it.
fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"]
        .into_iter()
        .any(|sign| Path::new(sign).exists())
}

async fn stop_when_hung_up(stop: CancellationToken) -> std::convert::Infallible {
    // That it cannot be watched is no reason to stop.
    if attach::hung_up().await.is_ok() {
        stop.cancel();
    }
    std::future::pending().await
}

/// A person's visit.
struct Visit {
    visitor: Visitor,
    screen: Screen,
    style: Style,
    /// Under the name of the participant; the default until there is one.
    telemetry: Telemetry,
    /// What was typed and cannot be said yet.
    early: VecDeque<Input>,
    stop: CancellationToken,
}

impl Visit {
    fn begin(visitor: Visitor, raw: Option<Raw>, stop: CancellationToken) -> anyhow::Result<Self> {
        let variable = |name| std::env::var(name).ok();
        let terminal = io::IsTerminal::is_terminal(&io::stdout());
        Ok(Self {
            visitor,
            screen: Screen::open("", raw).context("cannot use the terminal")?,
            style: Style::wanted(
                variable("NO_COLOR").as_deref(),
                variable("TERM").as_deref(),
                terminal,
            ),
            telemetry: Telemetry::default(),
            early: VecDeque::new(),
            stop,
        })
    }

    async fn run(&mut self, contained: bool) -> anyhow::Result<()> {
        self.aside("Chit Chat. /help lists the commands, exit leaves.")
            .await?;
        if contained {
            self.aside("Ctrl-P Ctrl-Q detaches from this container and stays in the chat.")
                .await?;
        }
        let Some(session) = self.join().await? else {
            return Ok(());
        };
        let reader = Reader::new(&self.visitor.client.server, session.room())?;
        let jaeger = self.visitor.client.jaeger.clone();
        let stay = Stay {
            prompt: String::new(),
            text: None,
            sums: false,
            recent: VecDeque::with_capacity(RECENT),
            traces: Traces::new(jaeger, hyperlinks(self.style)),
            questions: Questions::new(reader, self.style),
            leaving: false,
            failed: None,
            session,
            visit: self,
        };
        stay.run().await
    }

    /// Asks for a name where none is given, until somebody has joined under it; `None` when the person went away.
    async fn join(&mut self) -> anyhow::Result<Option<Session>> {
        let mut given = self.visitor.client.name.clone();
        loop {
            let name = match given.take() {
                Some(name) => name,
                None => match self.ask_name().await? {
                    Some(name) => name,
                    None => return Ok(None),
                },
            };
            match self.reach(&name).await? {
                Ok(session) => return Ok(Some(session)),
                Err(status) => {
                    let said = render::clean(status.message()).into_owned();
                    let advice = if is_held(&status) {
                        "\nChoose another name, or this one again in a moment: it may come free."
                    } else {
                        " Choose another name."
                    };
                    self.aside(&format!("{said}.{advice}")).await?;
                }
            }
        }
    }

    async fn ask_name(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            unless_late(&self.stop, self.screen.ask("Enter your name: ")).await?;
            let input = tokio::select! {
                input = self.screen.next() => input?,
                () = self.stop.cancelled() => return Ok(None),
            };
            match input {
                Input::Line(line) if line.trim().is_empty() => {}
                Input::Line(line) => {
                    self.prompt("").await?;
                    return Ok(Some(line.trim().to_owned()));
                }
                Input::NotText => self.aside("That is no text.").await?,
                Input::Quit => return Ok(None),
            }
        }
    }

    /// Joins as `name`, waiting for the server if need be. The inner error is that the name cannot be had.
    async fn reach(&mut self, name: &str) -> anyhow::Result<Result<Session, Status>> {
        self.telemetry =
            Telemetry::start(&self.visitor.telemetry, name, &Environment::of_process());
        let options = Options {
            tracer: self.telemetry.tracer(),
            ..Options::new(&self.visitor.client, name)
        };
        let (mut backoff, mut told) = (Backoff::default(), false);
        loop {
            let attempt = Session::join(options.clone());
            let result = tokio::select! {
                result = attempt => result,
                gave_up = self.give_up(told) => return Err(gave_up),
            };
            match result {
                Ok(session) => return Ok(Ok(session)),
                Err(JoinError::Held(status)) if !is_id_held(&status) => return Ok(Err(status)),
                Err(JoinError::Refused(status)) if status.code() == Code::InvalidArgument => {
                    return Ok(Err(status));
                }
                Err(JoinError::Unreachable { server, .. }) => {
                    if !told {
                        told = true;
                        let server = render::clean(&server).into_owned();
                        self.aside(&format!(
                            "Cannot reach {server}. Waiting for it; Ctrl-C gives up."
                        ))
                        .await?;
                        // So that who attaches meanwhile sees what is the matter.
                        self.prompt("waiting> ").await?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                gave_up = self.give_up(told) => return Err(gave_up),
            }
        }
    }

    /// Returns when the person no longer wants to wait. What is typed is kept, or refused once `told` that one waits.
    async fn give_up(&mut self, told: bool) -> anyhow::Error {
        loop {
            let input = tokio::select! {
                input = self.screen.next() => input,
                () = self.stop.cancelled() => Ok(Input::Quit),
            };
            let shown = match input {
                Err(error) => Err(error),
                Ok(Input::Line(line)) if !told && self.early.len() < EARLY_CAPACITY => {
                    self.early.push_back(Input::Line(line));
                    Ok(())
                }
                Ok(Input::Line(line)) if Command::parse(&line) != Command::Leave => {
                    self.not_yet().await
                }
                Ok(Input::NotText) => self.not_yet().await,
                Ok(Input::Line(_) | Input::Quit) => {
                    return anyhow!("gave up waiting for {}", self.visitor.client.server);
                }
            };
            if let Err(error) = shown {
                return error.into();
            }
        }
    }

    async fn not_yet(&mut self) -> io::Result<()> {
        self.aside("Not in the chat yet; this was not sent.").await
    }

    /// A word of the client itself.
    async fn aside(&mut self, text: &str) -> io::Result<()> {
        let text = self.style.aside(text);
        self.print(&text).await
    }

    async fn print(&mut self, lines: &str) -> io::Result<()> {
        unless_late(&self.stop, self.screen.print(lines)).await
    }

    async fn prompt(&mut self, prompt: &str) -> io::Result<()> {
        unless_late(&self.stop, self.screen.prompt(prompt)).await
    }
}

/// Waits for the terminal; once the visit is to end, for a limited time.
async fn unless_late(
    stop: &CancellationToken,
    shown: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        biased;
        result = shown => result,
        () = late => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The part of a visit that is in a room.
struct Stay<'a> {
    visit: &'a mut Visit,
    session: Session,
    /// What stands before the input line.
    prompt: String,
    /// A text that the session has no room for yet.
    text: Option<String>,
    /// Whether each event is followed by its sum.
    sums: bool,
    recent: VecDeque<Received>,
    traces: Traces,
    questions: Questions,
    leaving: bool,
    /// Why the terminal can no longer be used.
    failed: Option<io::Error>,
}

/// What happens next to somebody in a room.
enum Next {
    Heard(Option<Box<Update>>),
    Did(io::Result<Input>),
    Said,
    Answered(Answer),
    Stopped,
}

impl Stay<'_> {
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.show_prompt().await;
            match self.next().await {
                Next::Heard(None) => return self.end(&Ending::Crashed),
                Next::Heard(Some(update)) => match *update {
                    Update::Ended(ending) => return self.end(&ending),
                    update => self.hear(update).await,
                },
                Next::Did(Ok(Input::Quit)) if self.leaving => self.session.crash(),
                Next::Did(Ok(_)) if self.leaving => {}
                Next::Did(Ok(input)) => self.obey(input).await,
                Next::Did(Err(error)) => self.fail(error),
                Next::Said => self.text = None,
                Next::Answered(answer) => self.show_answer(answer).await,
                Next::Stopped => self.leave().await,
            }
        }
    }

    async fn next(&mut self) -> Next {
        if self.text.is_none()
            && let Some(input) = self.visit.early.pop_front()
        {
            return Next::Did(Ok(input));
        }
        let speaker = self.session.speaker();
        let text = self.text.clone().unwrap_or_default();
        let reads = self.failed.is_none() && self.visit.early.len() < EARLY_CAPACITY;
        tokio::select! {
            update = self.session.next() => Next::Heard(update.map(Box::new)),
            input = self.visit.screen.next(), if reads => Next::Did(input),
            // That it was not taken because the session ended is heard in its turn.
            _ = speaker.say(text), if self.text.is_some() => Next::Said,
            Some(answer) = self.questions.answered() => Next::Answered(answer),
            () = self.visit.stop.cancelled(), if !self.leaving => Next::Stopped,
        }
    }

    async fn show_prompt(&mut self) {
        let prompt = format!(
            "{} L={}> ",
            render::clean(self.session.name()),
            self.session.clock()
        );
        if prompt != self.prompt && !self.leaving && self.failed.is_none() {
            if let Err(error) = self.visit.prompt(&prompt).await {
                self.fail(error);
            }
            self.prompt = prompt;
        }
    }

    async fn hear(&mut self, update: Update) {
        match update {
            Update::Event(received) | Update::Notice(received) => self.show(received).await,
            Update::Disconnected { reason } => {
                self.aside(&render::disconnected(&reason)).await;
            }
            Update::Reconnected(back) => {
                if back.new_history {
                    self.traces.begin_anew();
                }
                self.aside(&render::reconnected(back)).await;
            }
            // Handled where the stay ends.
            Update::Ended(_) => {}
        }
    }

    async fn show(&mut self, received: Received) {
        let line = self.visit.style.line(&received.message, received.own);
        let lines = if self.sums {
            self.with_sum(&line, &received)
        } else {
            line
        };
        self.print(&lines).await;
        self.traces.heard(&received.message);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(received);
    }

    async fn show_answer(&mut self, answer: Answer) {
        self.print(&answer.lines).await;
        // Logical time means something within one history.
        if answer.epoch == self.session.epoch() {
            answer
                .events
                .iter()
                .for_each(|event| self.traces.listed(event));
        }
    }

    fn with_sum(&self, line: &str, received: &Received) -> String {
        format!(
            "{line}\n{}",
            self.visit
                .style
                .aside(&format!("  {}", render::sum(received)))
        )
    }

    /// Does what the person wants, in its turn: after what is still to be said. Ctrl-C twice does not wait.
    async fn obey(&mut self, input: Input) {
        let impatient = input == Input::Quit && self.visit.early.contains(&input);
        if self.text.is_some() && !impatient {
            return self.visit.early.push_back(input);
        }
        let line = match input {
            Input::Line(line) => line,
            Input::NotText => return self.aside("That is no text and was not sent.").await,
            Input::Quit => return self.leave().await,
        };
        match Command::parse(&line) {
            Command::Nothing => {}
            Command::Say(text) => match text::outgoing(&text, &self.visit.visitor.limits) {
                Ok(text) => self.text = Some(text),
                Err(refusal) => self.aside(&refusal.to_string()).await,
            },
            Command::Help => self.aside(command::HELP).await,
            Command::Who | Command::History(_) if self.questions.are_too_many() => {
                self.aside("The server has not answered yet.").await;
            }
            Command::Who => self.questions.who(),
            Command::History(count) => {
                let count = count.unwrap_or(self.visit.visitor.client.backlog);
                self.questions.history(count.clamp(1, PAGE));
            }
            Command::Clock => self.switch_sums().await,
            Command::Trace(time) => {
                let told = self.traces.tell(time, self.visit.style);
                self.print(&told).await;
            }
            Command::Leave => self.leave().await,
            Command::Mistake(told) => self.aside(&told).await,
        }
    }

    async fn switch_sums(&mut self) {
        self.sums = !self.sums;
        if !self.sums {
            return self.aside("Sums are off.").await;
        }
        let style = self.visit.style;
        let lines = self.recent.iter().map(|received| {
            let line = style.line(&received.message, received.own);
            format!("\n{}", self.with_sum(&line, received))
        });
        let lines: String = lines.collect();
        self.print(&format!(
            "{}{lines}",
            style.aside("Sums are on; /clock again switches them off.")
        ))
        .await;
    }

    async fn leave(&mut self) {
        self.leaving = true;
        self.session.leave();
        self.aside("Leaving chat...").await;
    }

    async fn aside(&mut self, text: &str) {
        let text = self.visit.style.aside(text);
        self.print(&text).await;
    }

    async fn print(&mut self, lines: &str) {
        if self.failed.is_none()
            && let Err(error) = self.visit.print(lines).await
        {
            self.fail(error);
        }
    }

    /// Without a terminal there is nobody to stay for.
    fn fail(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.leaving = true;
        self.session.leave();
    }

    fn end(self, ending: &Ending) -> anyhow::Result<()> {
        match self.failed {
            // With the terminal gone there is nobody to tell.
            Some(_) if self.visit.stop.is_cancelled() => Ok(()),
            Some(error) => Err(error).context("the terminal failed"),
            None => super::verdict(ending),
        }
    }
}
