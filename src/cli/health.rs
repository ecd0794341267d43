//! `chitchat health`: is the server well? For health checks of containers, whose image has no shell.

use std::time::Duration;

use anyhow::Context as _;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{Context, exit::Exit, flags, print};
use crate::client::reading;

/// How long the server may take to answer.
///
/// When it is over the answer is no. Source: health checks of containers commonly allow 5 s, the start of this process
/// included.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a server whether it serves (grpc.health.v1): exit code 0 if so, otherwise 1
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: flags::Server,
}

/// Prints one word, the status, if the server answers within 3 s.
///
/// # Errors
/// It does not answer.
pub async fn run(_: Args, context: Context) -> anyhow::Result<Exit> {
    let server = context.config.client.server;
    let status = reading::health(&server, PATIENCE).await.context(server)?;
    print(&format!("{}\n", status.as_str_name()))?;
    Ok(match status {
        ServingStatus::Serving => Exit::Good,
        ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown => {
            Exit::Failed
        }
    })
}
