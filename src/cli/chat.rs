//! `chitchat chat`: taking part, at a terminal or through pipes.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::anyhow;

use super::{Context, exit::Exit, flags};
use crate::{
    client::{
        pipe::{self, Form},
        session::Options,
        terminal::{self, Visitor},
    },
    config, shutdown,
    telemetry::{Environment, Telemetry, log::Logs},
};

/// What `chitchat chat --help` says beside its flags.
const HELP: &str = "\
At a terminal: /help lists what one can type. A terminal of no size (a container
that nobody is attached to) stays silent until it gets one, or a key is pressed.
Exit code 0 after leaving; 1 after giving up to wait for the server, or when the
server ends the session.

Where standard input is no terminal: each line of it is a text, there are no
commands, and at its end, once all is answered, the room is left. What is heard
goes to standard output, a line each. A name must be given (exit code 2). Exit
code 1 if a line was not accepted, or the server cannot be reached.";

/// Take part: at a terminal, or with lines on a pipe
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Lines in, JSON out: one object a line with `kind`, `room`, `sequence`, `logical_time`, `sender_name`, `text` ...
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: flags::Server,

    #[command(flatten)]
    room: flags::Room,

    #[command(flatten)]
    participant: flags::Participant,
}

/// Takes part until the input ends, the person leaves, or a signal comes.
///
/// # Errors
/// As [`terminal::run`] and [`pipe::run`]; on a pipe without a name, [`Exit::Usage`].
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let config = context.config;
    let stop = shutdown::on_signal()?;
    if io::stdin().is_terminal() && !args.json {
        let visitor = Visitor {
            client: config.client,
            limits: config.limits,
            telemetry: config.telemetry,
        };
        let faults = Later::default();
        let logs = Logs::start(&faults_alone(config.log), faults.clone());
        let visited = terminal::run(visitor, stop).await;
        drop(logs);
        faults.tell();
        return visited.map(|()| Exit::Good);
    }
    let _logs = Logs::start(&faults_alone(config.log), io::stderr());
    let Some(name) = config.client.name.clone() else {
        let asked =
            anyhow!("on a pipe nobody can be asked for a name: give --name, or client.name");
        return Err(Exit::Usage.because(asked));
    };
    let telemetry = Telemetry::start(&config.telemetry, &name, &Environment::of_process());
    let options = Options {
        tracer: telemetry.tracer(),
        ..Options::new(&config.client, &name)
    };
    let form = if args.json { Form::Json } else { Form::Lines };
    let outcome = pipe::run(options, &config.limits, form, stop).await;
    telemetry.shutdown();
    outcome?;
    Ok(Exit::Good)
}

/// What goes wrong beside the chat: that traces are not taken, for instance. What is heard is shown anyway.
fn faults_alone(log: config::Log) -> config::Log {
    config::Log {
        level: "chitchat=warn".into(),
        ..log
    }
}

/// How much of the log is kept for the end of a visit.
///
/// Unit: bytes. When full: further lines are dropped. Source: some hundred lines, of which there is one for each change of
/// a destination's state.
const LATER_BYTES: usize = 16 * 1024;

/// A log that is told at the end, when the person has the terminal back: nothing may be written beside the input line.
#[derive(Debug, Clone, Default)]
struct Later(Arc<Mutex<Vec<u8>>>);

impl Later {
    fn tell(&self) {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // With standard error gone there is nobody left to tell.
        let _ = io::stderr().write_all(&lines);
    }
}

impl Write for Later {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() + line.len() <= LATER_BYTES {
            lines.extend_from_slice(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
