//! The program `chitchat`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context as _;
use chitchat::cli::{
    Cli,
    exit::{self, Exit},
};

fn main() -> ExitCode {
    match run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            // With standard error gone there is nobody left to tell; the exit code still does.
            let _ = writeln!(io::stderr(), "chitchat: {error:#}");
            exit::of(&error).into()
        }
    }
}

fn run() -> anyhow::Result<Exit> {
    let (command, context) = Cli::read()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(command.run(context));
    // Not waited for: a thread that reads the terminal cannot be interrupted. Everything that must end well has an
    // owner, inside the subcommand, that has awaited it.
    runtime.shutdown_background();
    outcome
}
