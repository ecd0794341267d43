//! `chitchat serve`: the server.

use std::io;

use super::{Context, exit::Exit, flags};
use crate::{
    config::{self, Data},
    server::Server,
    shutdown,
    telemetry::{Environment, Telemetry, log::Logs},
};

/// What the server is called in traces.
const SERVICE: &str = "chitchat-server";

/// Serves until SIGTERM or Ctrl-C, then tells everybody and ends.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    serving: flags::Serving,
}

/// Serves until it is told to stop.
///
/// # Errors
/// The address cannot be listened on, or the transport failed.
pub async fn run(_: Args, context: Context) -> anyhow::Result<Exit> {
    let Context { config, entries } = context;
    let _logs = Logs::start(&config.log, io::stderr());
    let telemetry = Telemetry::start(&config.telemetry, SERVICE, &Environment::of_process());
    tracing::info!("{}", config::summary(&entries));
    let stop = shutdown::on_signal()?;
    let server = Server::bind(&config, telemetry.tracer()).await?;
    if let Data::Directory(directory) = &config.server.data {
        tracing::warn!(
            "history is kept in memory (limits.memory_bytes) and not in {}",
            directory.display()
        );
    }
    let served = server.run(stop).await;
    telemetry.shutdown();
    served?;
    Ok(Exit::Good)
}
