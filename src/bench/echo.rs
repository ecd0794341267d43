//! How long one message takes from its sender to the sender's own screen, with nobody else about.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use super::{
    disk, publish,
    report::{Fsync, Report},
    turns::Extent,
};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server: `http://host:port`.
    pub server: String,
    /// Messages, one after the other.
    pub messages: u64,
    /// Characters of each text.
    pub text_chars: usize,
    /// How long it goes on before anything is measured.
    pub warm_up: Duration,
    /// Where to measure what one fsync takes: a directory on the disk that the server's history is on.
    pub fsync_directory: Option<PathBuf>,
    /// The server's process, to measure what it uses.
    pub server_pid: Option<u32>,
}

/// Publishes one message at a time, and before that measures the disk.
///
/// # Errors
/// As [`publish::run`]; the directory cannot be written to.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let fsync = match &plan.fsync_directory {
        Some(directory) => Some(fsync(directory).await?),
        None => None,
    };
    let published = publish::run(&publish::Plan {
        server: plan.server.clone(),
        streams: 1,
        rooms: 1,
        streams_per_connection: 1,
        in_flight: 1,
        text_chars: plan.text_chars,
        extent: Extent::Messages(plan.messages),
        warm_up: plan.warm_up,
        rate: None,
        unary: false,
        server_pid: plan.server_pid,
    })
    .await?;
    Ok(Report {
        mode: "echo",
        fsync,
        ..published
    })
}

async fn fsync(directory: &Path) -> anyhow::Result<Fsync> {
    let written_to = directory.to_owned();
    let median = tokio::task::spawn_blocking(move || disk::fsync(&written_to))
        .await
        .context("the measuring of the disk panicked")?
        .with_context(|| format!("cannot measure an fsync in {}", directory.display()))?;
    Ok(Fsync {
        directory: directory.display().to_string(),
        median,
    })
}
