//! How long one message takes from its sender to the sender's own screen, with nobody else about.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use super::{
    Target, disk, publish,
    report::publish::{Fsync, Published},
    turns::Extent,
};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Messages, one after the other.
    pub messages: u64,
    /// Characters of each text.
    pub text_chars: usize,
    /// How long it goes on before anything is measured.
    pub warm_up: Duration,
    /// Where to measure what one fsync takes: a directory on the disk that the server's history is on.
    pub fsync_directory: Option<PathBuf>,
}

/// Publishes one message at a time, and measures the disk before and after that.
///
/// # Errors
/// As [`publish::run`]; the directory cannot be written to.
pub async fn run(plan: &Plan) -> anyhow::Result<Published> {
    let directory = plan.fsync_directory.as_deref();
    let before = fsync(directory).await?;
    let published = publish::run(&publish::Plan {
        target: plan.target.clone(),
        streams: 1,
        rooms: 1,
        streams_per_connection: 1,
        in_flight: 1,
        text_chars: plan.text_chars,
        extent: Extent::Messages(plan.messages),
        warm_up: plan.warm_up,
        rate: None,
        unary: false,
    })
    .await?;
    let after = fsync(directory).await?;
    let measured = directory.zip(before).zip(after);
    let fsync = measured.map(|((directory, before), after)| Fsync {
        directory: directory.display().to_string(),
        before,
        after,
    });
    Ok(Published {
        mode: "echo",
        fsync,
        ..published
    })
}

async fn fsync(directory: Option<&Path>) -> anyhow::Result<Option<Duration>> {
    let Some(directory) = directory else {
        return Ok(None);
    };
    let written_to = directory.to_owned();
    let median = tokio::task::spawn_blocking(move || disk::fsync(&written_to))
        .await
        .context("the measuring of the disk panicked")?
        .with_context(|| format!("cannot measure an fsync in {}", directory.display()))?;
    Ok(Some(median))
}
