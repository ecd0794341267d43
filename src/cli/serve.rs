//! `chitchat serve`: the server.

use std::io;

use super::{Context, exit::Exit, flags};
use crate::{
    config,
    journal::Fault,
    server::{ServeError, Server},
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
/// The address cannot be listened on, the transport failed, or the history cannot be kept: as the exit code says.
pub async fn run(_: Args, context: Context) -> anyhow::Result<Exit> {
    let Context { config, entries } = context;
    let _logs = Logs::start(&config.log, io::stderr());
    let telemetry = Telemetry::start(&config.telemetry, SERVICE, &Environment::of_process());
    tracing::info!("{}", config::summary(&entries));
    let stop = shutdown::on_signal()?;
    let served = match Server::bind(&config, telemetry.tracer()).await {
        Ok(server) => server.run(stop).await,
        Err(error) => Err(error),
    };
    telemetry.shutdown();
    served.map_err(|error| exit_code(&error).because(error))?;
    Ok(Exit::Good)
}

/// What the process ends with because of `error`.
fn exit_code(error: &ServeError) -> Exit {
    match error {
        ServeError::Listen { .. } => Exit::Failed,
        ServeError::History(fault) => match fault {
            Fault::InUse { .. } => Exit::DataInUse,
            Fault::Damaged { .. } => Exit::Damaged,
            Fault::Newer { .. } => Exit::NewerSchema,
            Fault::Unsuitable { .. } => Exit::Usage,
            Fault::Failed { .. } => Exit::StorageFailed,
        },
    }
}
