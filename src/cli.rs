//! The command line: one file per subcommand, each with its `Args` and its `run`.
//!
//! A new subcommand is one file in `cli/` and two lines here: its entry in [`Command`] and in [`Command::run`].

pub mod audit;
pub mod bench;
pub mod chat;
pub mod check;
pub mod config;
pub mod demo;
pub mod diagram;
pub mod exit;
pub mod flags;
pub mod health;
pub mod history;
pub mod play;
pub mod recording;
pub mod serve;
pub mod who;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    client::stdio::written,
    config::{Config, Entry, Faults, Sources},
};
use exit::Exit;

/// A chat service whose history can be proven.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP, after_long_help = exit::HELP)]
pub struct Cli {
    /// Read settings from this TOML file
    ///
    /// Settings are built-in defaults, then this file, then variables such as CHITCHAT_LIMITS__RATE (section and key,
    /// two underscores between them), then flags; the later wins. `chitchat config` shows every setting and where it
    /// comes from. The file may also be named by the variable CHITCHAT_CONFIG.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(serve::Args),

    /// Take part: at a terminal, or with lines on a pipe
    Chat(chat::Args),

    /// Carry out a script: a participant for demonstrations, tests and bots
    Play(play::Args),

    /// Replay the report's session here: a server and three scripted participants
    Demo(demo::Args),

    /// Print a room's history, and follow it
    History(history::Args),

    /// List who is in a room
    Who(who::Args),

    /// Ask a server whether it serves: exit code 0 or 1
    Health(health::Args),

    /// Prove from recorded spans that a run kept Lamport's rules and the contract
    Audit(audit::Args),

    /// Draw a recorded run: a space-time diagram by logical time
    Diagram(diagram::Args),

    /// Put load on a server, and measure it
    Bench(bench::Args),

    /// Check a server, of whatever make, against the assignment's rules
    Check(check::Args),

    /// Print the effective configuration, and where each value comes from
    Config(config::Args),
}

/// What a subcommand is given beside its own arguments.
#[derive(Debug)]
pub struct Context {
    /// The settings, all of them within their limits.
    pub config: Config,
    /// The same settings one by one, with their origins.
    pub entries: Vec<Entry>,
}

impl Command {
    /// Runs the subcommand to its end.
    ///
    /// # Errors
    /// What stopped it, to be printed once; [`exit::of`] tells its exit code.
    pub async fn run(self, context: Context) -> anyhow::Result<Exit> {
        match self {
            Self::Serve(args) => serve::run(args, context).await,
            Self::Chat(args) => chat::run(args, context).await,
            Self::Play(args) => play::run(args, context).await,
            Self::Demo(args) => demo::run(args, context).await,
            Self::History(args) => history::run(args, context).await,
            Self::Who(args) => who::run(args, context).await,
            Self::Health(args) => health::run(args, context).await,
            Self::Audit(args) => audit::run(args, context).await,
            Self::Diagram(args) => diagram::run(args, context).await,
            Self::Bench(args) => bench::run(args, context).await,
            Self::Check(args) => check::run(args, context).await,
            Self::Config(args) => config::run(args, context).await,
        }
    }
}

impl Cli {
    /// Reads the command line, and the configuration that it, the environment and the file make together.
    ///
    /// A command line that is no such thing, `--help` and `--version` are answered here: the process ends.
    ///
    /// # Errors
    /// Every fault in the configuration, wherever it comes from.
    pub fn read() -> Result<(Command, Context), Faults> {
        let matches = Self::command().get_matches();
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let sources = Sources {
            file: cli.config,
            variables: std::env::vars_os().collect(),
            flags: flags::settings(&matches),
        };
        let (config, entries) = crate::config::load(sources)?;
        Ok((cli.command, Context { config, entries }))
    }
}

/// Writes to standard output. That its reader has gone (`chitchat config | head -1`) is no failure.
///
/// # Errors
/// Standard output cannot be written for another reason.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}
