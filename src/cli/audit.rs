//! `chitchat audit`: whether a recorded run kept the rules.

use super::{Context, exit::Exit, print, recording};
use crate::causality::{
    audit::{State, audit, report::Report},
    run::Run,
};

/// What `chitchat audit --help` says beside its flags.
const HELP: &str = "\
Each rule is judged apart: held, broken (with the spans that say so), or not decidable, because what would tell was not
recorded: not sampled, or lost on its way.

Examples:
  chitchat audit --spans spans.jsonl
  chitchat audit --jaeger http://localhost:16686 --since 1h

Exit codes:
  0  all rules held
  1  a rule is broken
  2  none is broken, but not everything can be decided; or the input cannot be used";

/// Prove from recorded spans that a run kept Lamport's rules and the contract
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    recording: recording::Recording,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Reads the recording, judges it, and prints what was found.
///
/// # Errors
/// The recording cannot be read, or standard output cannot be written.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let jaeger = args.recording.pages(context.config.client.jaeger.as_ref());
    let run = Run::new(args.recording.load().await?);
    let verdict = audit(&run);
    let report = Report {
        run: &run,
        verdict: &verdict,
        jaeger: jaeger.as_ref(),
    };
    if args.json {
        print(&report.json()?)?;
    } else {
        print(&report.to_string())?;
    }
    Ok(match report.state() {
        State::Held => Exit::Good,
        State::Broken => Exit::Failed,
        State::NotDecidable => Exit::Usage,
    })
}
