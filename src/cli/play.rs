//! `chitchat play`: a scripted client.

use std::{fs, io, path::PathBuf, time::Duration};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Context, exit::Exit, flags};
use crate::{
    client::{
        play::{Shown, Stage, play},
        render,
        script::Script,
        stdio::{Output, PATIENCE, written},
    },
    config::duration,
    shutdown,
    telemetry::{
        Environment, Telemetry,
        log::{ClientLog, Logs},
    },
};

/// Lines that may wait to be printed.
///
/// When full: the script waits. A terminal that is stopped stops its own client and nobody else.
const SHOWN_CAPACITY: usize = 64;

/// Carry out a script: a participant for demonstrations, tests and bots
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The script, in TOML
    #[arg(value_name = "SCRIPT")]
    script: PathBuf,

    /// Pause before each step, for watching (`2s`)
    #[arg(long, value_name = "DURATION", value_parser = pace, default_value = "0s")]
    pace: Duration,

    /// Print nothing but the connection's own story: what is heard stands in the log, on standard error
    #[arg(long, short)]
    quiet: bool,

    /// Never merge the clock, as the report's clients
    #[arg(long)]
    as_reported: bool,

    #[command(flatten)]
    server: flags::Server,

    #[command(flatten)]
    room: flags::Room,
}

fn pace(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text).ok_or("a duration needs a unit, such as 2s or 500ms")
}

/// Plays the script to its end, or, if it has rules, until SIGTERM or Ctrl-C, and prints what is heard.
///
/// # Errors
/// A script that is none ([`Exit::Usage`]); an `await` that ran out; the server refused, or could not be reached.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let config = context.config;
    let file = args.script.display().to_string();
    let text = fs::read_to_string(&args.script)
        .with_context(|| format!("cannot read {file}"))
        .map_err(|error| Exit::Usage.because(error))?;
    let script =
        Script::parse(&file, &text, &config.limits).map_err(|error| Exit::Usage.because(error))?;

    let _logs = Logs::start(&config.log, io::stderr());
    let telemetry = Telemetry::start(&config.telemetry, script.name(), &Environment::of_process());
    let stop = shutdown::on_signal()?;
    let (shown, lines) = mpsc::channel(SHOWN_CAPACITY);
    let stage = Stage {
        client: config.client,
        merge: !args.as_reported,
        pace: args.pace,
        tracer: telemetry.tracer(),
        log: ClientLog::new(&config.telemetry),
        stop: stop.clone(),
        shown,
    };
    let (played, printed) = tokio::join!(play(&script, stage), print(lines, args.quiet, stop));
    telemetry.shutdown();
    played?;
    printed?;
    Ok(Exit::Good)
}

/// Prints the transcript, or if `quiet` the asides alone, until the play ends. If nobody reads it any more, the play ends.
///
/// Once it is to end, a reader that does not read is waited for a limited time; dropping `lines` then lets the play go on
/// to leave.
async fn print(
    lines: mpsc::Receiver<Shown>,
    quiet: bool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        printed = print_all(lines, quiet, &stop) => printed,
        () = late => Ok(()),
    }
}

async fn print_all(
    mut lines: mpsc::Receiver<Shown>,
    quiet: bool,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut output = Output::of_stdout().context("cannot write to standard output")?;
    while let Some(shown) = lines.recv().await {
        let line = match shown {
            Shown::Heard(_) | Shown::Leaving if quiet => continue,
            Shown::Heard(received) => render::line(&received.message),
            Shown::Leaving => "Leaving chat...".into(),
            Shown::Aside(words) => words,
        };
        if output.write(&(line + "\n")).await.is_err() {
            stop.cancel();
            break;
        }
    }
    drop(lines);
    written(output.finish().await)
}
