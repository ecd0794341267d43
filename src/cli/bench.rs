//! `chitchat bench`: a load generator. One file per mode.

mod echo;
mod publish;

use std::{io::Write as _, time::Duration};

use super::{Context, exit::Exit, print};
use crate::{
    bench::{Report, Target},
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
}

/// What all modes take.
#[derive(Debug, clap::Args)]
struct Common {
    /// Characters of each text; the server allows 128 unless told otherwise (limits.text_chars)
    #[arg(long, value_name = "CHARACTERS", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=8192))]
    text_chars: u16,

    /// How long to go on before anything is measured
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = long)]
    warm_up: Duration,

    /// The server's process: measure the processor time and memory that it uses
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,

    /// The figures as one line of JSON; times are in microseconds or seconds, as the names say
    #[arg(long)]
    json: bool,
}

impl Common {
    /// What is to be put under load.
    fn target(&self, context: Context) -> Target {
        Target {
            url: context.config.client.server,
            pid: self.server_pid,
        }
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
