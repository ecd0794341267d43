//! `chitchat history`: a room's history, and what is added to it.

use std::{io, mem};

use anyhow::{Context as _, anyhow};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Context, exit::Exit, flags};
use crate::{
    client::{
        backoff::Backoff,
        reading::{END, Reader},
        render,
        status::{asks_to_resume, because},
        stdio::{Output, PATIENCE, tell, written},
    },
    shutdown,
    telemetry::{JaegerUi, trace_id},
    wire::v1::ServerMessage,
};

/// What `chitchat history --help` says beside its flags.
const HELP: &str = "\
Events are printed in their order, oldest first. Without a range: all that are
kept. To read backwards: --last 50, then --last 50 --before the first sequence
of these, and so on; --json shows sequences.

Standard output has events alone. Standard error says which of the events asked
for are no longer kept and, with --follow, that the connection is lost, that it
is back, and whether something was missed.";

/// Print a room's history
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Go on with what happens, as it happens, until Ctrl-C
    #[arg(long, short)]
    follow: bool,

    /// Only events after this sequence
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(..=END))]
    after: Option<u64>,

    /// Only events before this sequence
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "follow", value_parser = clap::value_parser!(u64).range(1..=END))]
    before: Option<u64>,

    /// Only the last so many of these
    #[arg(long, short = 'n', value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    last: Option<u64>,

    /// One JSON object a line: `kind`, `room`, `sequence`, `logical_time`, `sender_name`, `text` ...
    #[arg(long)]
    json: bool,

    /// Below each event, where its trace can be seen
    ///
    /// An address if client.jaeger is set (CHITCHAT_CLIENT__JAEGER=http://localhost:16686, say), else the trace's id. With
    /// --json each event that has a trace has `trace_id` anyway.
    #[arg(long, conflicts_with = "json")]
    traces: bool,

    #[command(flatten)]
    server: flags::Server,

    #[command(flatten)]
    room: flags::Room,
}

/// Prints the events in order, each once.
///
/// # Errors
/// The server cannot be reached (with `--follow`, only if it never could) or refuses; without `--follow`, it began a new
/// history meanwhile; standard output cannot be written.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let client = context.config.client;
    let stop = shutdown::on_signal()?;
    let mut reading = Reading {
        reader: Reader::new(&client.server, &client.room)?,
        output: Output::of_stdout().context("cannot write to standard output")?,
        form: match (args.json, args.traces) {
            (true, _) => Form::Json,
            (false, false) => Form::Lines,
            (false, true) => Form::Traces(client.jaeger),
        },
        follows: args.follow,
        before: args.before.unwrap_or(END),
        epoch: String::new(),
        last: args.after.unwrap_or(0),
        away: false,
    };
    let read = tokio::select! {
        read = reading.run(args.last) => read,
        () = stop.cancelled() => Ok(()),
    };
    // First what was read, then why there is no more.
    let finished = reading.finish(stop).await;
    match read {
        Ok(()) => finished.map(|()| Exit::Good),
        Err(Stop::Output(error)) => written(Err(error)).map(|()| Exit::Good),
        Err(Stop::NewHistory) => Err(anyhow!(
            "{}: a new history has begun; what was printed is of the old one",
            client.server
        )),
        Err(Stop::Status(status)) => Err(anyhow!(
            "{}: {}",
            client.server,
            render::clean(status.message())
        )),
    }
}

/// How events are printed.
enum Form {
    /// For people, a line each.
    Lines,
    /// The same, and below each line where the event's trace is. Not beside it: a text can look like an address, but
    /// holds no line break.
    Traces(Option<JaegerUi>),
    /// For programs, a line each.
    Json,
}

impl Form {
    fn of(&self, event: &ServerMessage) -> String {
        match self {
            Self::Json => render::event_json(event),
            Self::Lines => render::line(event),
            Self::Traces(jaeger) => {
                let trace = match (trace_id(&event.traceparent), jaeger) {
                    (None, _) => "no trace".to_owned(),
                    (Some(id), None) => format!("trace {id}"),
                    (Some(id), Some(jaeger)) => jaeger.trace(id),
                };
                format!("{}\n  {trace}", render::line(event))
            }
        }
    }
}

struct Reading {
    reader: Reader,
    output: Output,
    form: Form,
    follows: bool,
    /// Where to stop.
    before: u64,
    /// The history that is read; none before the first answer.
    epoch: String,
    /// The last sequence that was printed, or is not to be.
    last: u64,
    /// The connection is lost, and the person was told so.
    away: bool,
}

impl Reading {
    /// Reads the range, or its last `count` events, and then follows if that is wanted.
    async fn run(&mut self, count: Option<u64>) -> Result<(), Stop> {
        match self.range(count).await {
            Err(Stop::Status(status)) if self.resumes_after(&status) => self.lost(&status),
            read => read?,
        }
        if !self.follows {
            return Ok(());
        }
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            match self.follow().await {
                Err(Stop::Status(status)) if self.resumes_after(&status) => self.lost(&status),
                followed => followed?,
            }
            backoff.held(began.elapsed());
            sleep(backoff.pause()).await;
        }
    }

    /// A server that never answered may have a wrong address; one that did is waited for.
    fn resumes_after(&self, status: &Status) -> bool {
        self.follows && !self.epoch.is_empty() && asks_to_resume(status)
    }

    async fn range(&mut self, count: Option<u64>) -> Result<(), Stop> {
        if let Some(count) = count {
            let newest = self.reader.before(self.before, 1).await?;
            self.epoch = newest.epoch;
            // Sequences are dense, so this is where the last `count` begin.
            let end = newest.events.last().map_or(0, |event| event.sequence);
            self.last = self.last.max(end.saturating_sub(count));
        }
        self.rest().await
    }

    /// What there is after the last event shown.
    async fn rest(&mut self) -> Result<(), Stop> {
        while self.last + 1 < self.before {
            let wanted = self.before - 1 - self.last;
            let page = self.reader.after(self.last, wanted).await?;
            if self.epoch.is_empty() {
                self.epoch = page.epoch;
            } else if page.epoch != self.epoch {
                // The figures of another history say nothing about this one.
                self.begin_anew(page.epoch)?;
                continue;
            }
            for event in &page.events {
                self.miss_until(event.sequence);
                self.show(event).await?;
            }
            if !page.more || page.events.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn begin_anew(&mut self, epoch: String) -> Result<(), Stop> {
        if !self.follows {
            return Err(Stop::NewHistory);
        }
        self.say("the server has a new history: from its beginning");
        (self.epoch, self.last) = (epoch, 0);
        Ok(())
    }

    /// Watches until the connection breaks, or it is to be watched from elsewhere.
    async fn follow(&mut self) -> Result<(), Stop> {
        let mut events = self.reader.watch(self.epoch.clone(), self.last).await?;
        let Some(welcome) = events.message().await?.and_then(|first| first.welcome) else {
            return Err(ended());
        };
        if !welcome.recovered {
            if welcome.epoch == self.epoch && welcome.head < self.last {
                let lost = format!(
                    "the history ends with event {}, though event {} was read",
                    welcome.head, self.last
                );
                return Err(Status::data_loss(lost).into());
            }
            self.rest().await?;
            if welcome.epoch == self.epoch {
                // Nothing of it is kept.
                self.miss_until(welcome.head + 1);
            }
        }
        if mem::take(&mut self.away) {
            tell("Back. Nothing was missed.");
        }
        if !welcome.recovered {
            return Ok(());
        }
        while let Some(event) = events.message().await? {
            if event.sequence > self.last + 1 {
                let gap = format!("sequence {} came after {}", event.sequence, self.last);
                return Err(Status::unavailable(gap).into());
            }
            self.show(&event).await?;
        }
        Err(ended())
    }

    /// What comes next is `sequence`, or the end of the range: says what is missing before it.
    fn miss_until(&mut self, sequence: u64) {
        let next = sequence.min(self.before);
        let first = self.last + 1;
        if first >= next {
            return;
        }
        self.last = next - 1;
        if first == self.last {
            self.say(&format!("event {first} is no longer kept"));
        } else {
            self.say(&format!(
                "events {first} to {} are no longer kept",
                self.last
            ));
        }
    }

    /// Prints `event`, if it is one, lies in the range and was not printed before.
    async fn show(&mut self, event: &ServerMessage) -> Result<(), Stop> {
        if event.sequence <= self.last || event.sequence >= self.before {
            return Ok(());
        }
        self.output
            .write(&(self.form.of(event) + "\n"))
            .await
            .map_err(Stop::Output)?;
        self.last = event.sequence;
        Ok(())
    }

    /// Says once that the connection is lost.
    fn lost(&mut self, status: &Status) {
        if !mem::replace(&mut self.away, true) {
            let reason = because(status);
            tell(&format!(
                "Connection lost ({}). Coming back.",
                render::clean(&reason)
            ));
        }
    }

    /// Says that something is missing; if the connection was lost, this is the word that it is back, too.
    fn say(&mut self, what: &str) {
        if mem::take(&mut self.away) {
            tell(&format!("Back, but {what}."));
        } else {
            tell(what);
        }
    }

    async fn finish(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            finished = self.output.finish() => written(finished),
            // Whoever stops this does not wait for a reader that does not read.
            () = async { stop.cancelled().await; sleep(PATIENCE).await } => Ok(()),
        }
    }
}

/// Why reading does not go on.
enum Stop {
    Status(Status),
    /// Of which nothing was asked for.
    NewHistory,
    Output(io::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

fn ended() -> Stop {
    Status::unavailable("the stream ended").into()
}
