//! `chitchat bench`: a load generator. One file per mode.

mod connections;
mod echo;
mod fanout;
mod publish;

use std::{io::Write as _, time::Duration};

use clap::builder::NonEmptyStringValueParser;

use super::{Context, exit::Exit, flags, print};
use crate::{
    bench::{Report, Target, with_own_server},
    client::render,
    config::duration,
};

/// Put load on a server, and measure it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, clap::Subcommand)]
enum Mode {
    /// How many messages a second are acknowledged: stored, and back at their sender
    Publish(publish::Args),

    /// How long one message takes to come back to its sender, with nobody else about
    Echo(echo::Args),

    /// How many deliveries a second reach the readers of a room, and what each costs
    Fanout(fanout::Args),

    /// What silent participants cost the server: memory, and the time to join
    Connections(connections::Args),
}

/// What all modes take: who is put under load, and how the figures are shown.
#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    server: flags::Server,

    /// The server's process: measure the processor time and memory that it uses
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,

    /// Start a server for this run, with its history in this directory or `memory`, measure it, and stop it
    ///
    /// It is a process of its own on a free port of 127.0.0.1, with the settings that this one is given; unless they are
    /// among those, limits.rate is 0 and log.level is warn.
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["client.server", "server_pid"], value_parser = NonEmptyStringValueParser::new())]
    data: Option<String>,

    /// The figures as one line of JSON; times are in microseconds or seconds, as the names say
    #[arg(long)]
    json: bool,
}

impl Common {
    /// Measures the server that was asked for, and shows what came of it.
    async fn run<R: Report>(
        &self,
        context: Context,
        measure: impl AsyncFnOnce(Target) -> anyhow::Result<R>,
    ) -> anyhow::Result<Exit> {
        let report = match &self.data {
            Some(data) => with_own_server(data, &context.entries, measure).await?,
            None => {
                let target = Target {
                    url: context.config.client.server,
                    pid: self.server_pid,
                };
                measure(target).await?
            }
        };
        show(&report, self.json)
    }
}

/// Runs one mode.
///
/// # Errors
/// The server cannot be reached, refuses, or stops answering.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    match args.mode {
        Mode::Publish(args) => publish::run(args, context).await,
        Mode::Echo(args) => echo::run(args, context).await,
        Mode::Fanout(args) => fanout::run(args, context).await,
        Mode::Connections(args) => connections::run(args, context).await,
    }
}

/// Prints the figures; [`Exit::Failed`] if something was not as promised, which standard error says in words.
fn show(report: &impl Report, json: bool) -> anyhow::Result<Exit> {
    print(&if json { report.json() } else { report.table() })?;
    if report.is_good() {
        return Ok(Exit::Good);
    }
    let violations = report.violations();
    let mut words = format!(
        "chitchat: the server broke its promise {} times",
        violations.count()
    );
    for example in &violations.examples {
        words.push_str("\n  ");
        words.push_str(&render::clean(example));
    }
    // With standard error gone there is nobody left to tell; the exit code still does.
    let _ = writeln!(std::io::stderr(), "{words}");
    Ok(Exit::Failed)
}

fn long(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text).ok_or("a duration needs a unit, such as 10s or 500ms")
}
