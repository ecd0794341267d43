//! `chitchat history`: a room's history, and what is added to it.

use std::io;

use anyhow::{Context as _, anyhow};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Context, exit::Exit, flags};
use crate::{
    client::{
        backoff::Backoff,
        reading::{PAGE, Reader},
        render,
        status::asks_to_resume,
        stdio::{Output, PATIENCE, tell, written},
    },
    shutdown,
    wire::v1::ServerMessage,
};

/// Print a room's history
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with what happens, as it happens, until Ctrl-C
    #[arg(long, short)]
    follow: bool,

    /// Only the last so many events (at most 1000)
    #[arg(long, short = 'n', value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..=i64::from(PAGE)))]
    last: Option<u32>,

    /// One JSON object a line: `kind`, `room`, `sequence`, `logical_time`, `sender_name`, `text` ...
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: flags::Server,

    #[command(flatten)]
    room: flags::Room,
}

/// Prints the events in order, each once.
///
/// # Errors
/// The server cannot be reached or refuses (while following, only if trying again is of no use); standard output
/// cannot be written.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let client = context.config.client;
    let stop = shutdown::on_signal()?;
    let mut reading = Reading {
        reader: Reader::new(&client.server, &client.room)?,
        output: Output::of_stdout().context("cannot write to standard output")?,
        json: args.json,
        epoch: String::new(),
        last: 0,
    };
    let read = tokio::select! {
        read = reading.run(&args) => read,
        () = stop.cancelled() => Ok(()),
    };
    // First what was read, then why there is no more.
    let finished = reading.finish(stop).await;
    match read {
        Ok(()) => finished.map(|()| Exit::Good),
        Err(Stop::Output(error)) => written(Err(error)).map(|()| Exit::Good),
        Err(Stop::Status(status)) => Err(anyhow!(
            "{}: {}",
            client.server,
            render::clean(status.message())
        )),
    }
}

struct Reading {
    reader: Reader,
    output: Output,
    json: bool,
    /// The history that was read, and how far.
    epoch: String,
    last: u64,
}

impl Reading {
    async fn run(&mut self, args: &Args) -> Result<(), Stop> {
        match args.last {
            Some(count) => self.newest(count).await,
            None => self.rest().await,
        }?;
        if !args.follow {
            return Ok(());
        }
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            match self.follow().await {
                Err(Stop::Status(status)) if asks_to_resume(&status) => {}
                Err(stop) => return Err(stop),
                Ok(()) => {}
            }
            backoff.held(began.elapsed());
            sleep(backoff.pause()).await;
        }
    }

    async fn newest(&mut self, count: u32) -> Result<(), Stop> {
        let page = self.reader.last(count).await?;
        self.epoch = page.epoch;
        for event in &page.events {
            self.show(event).await?;
        }
        Ok(())
    }

    /// What there is after the last event shown.
    async fn rest(&mut self) -> Result<(), Stop> {
        loop {
            let page = self.reader.after(self.last).await?;
            if page.epoch != self.epoch {
                let first = self.epoch.is_empty();
                self.epoch = page.epoch;
                if !first {
                    // The figures of another history say nothing about this one.
                    tell("the server has a new history: from its beginning");
                    self.last = 0;
                    continue;
                }
            }
            for event in &page.events {
                self.show(event).await?;
            }
            if !page.more || page.events.is_empty() {
                return Ok(());
            }
        }
    }

    /// Watches until the connection breaks, or something is missing.
    async fn follow(&mut self) -> Result<(), Stop> {
        let mut events = self.reader.watch(self.epoch.clone(), self.last).await?;
        let Some(welcome) = events.message().await?.and_then(|first| first.welcome) else {
            return Ok(());
        };
        if !welcome.recovered {
            if welcome.epoch == self.epoch {
                tell(&format!("events after {} are no longer kept", self.last));
            }
            return self.rest().await;
        }
        while let Some(event) = events.message().await? {
            self.show(&event).await?;
        }
        Ok(())
    }

    async fn show(&mut self, event: &ServerMessage) -> Result<(), Stop> {
        // Neither a notice nor what was shown before.
        if event.sequence <= self.last {
            return Ok(());
        }
        let line = if self.json {
            render::event_json(event)
        } else {
            render::line(event)
        };
        self.output
            .write(&(line + "\n"))
            .await
            .map_err(Stop::Output)?;
        self.last = event.sequence;
        Ok(())
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
    Output(io::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}
