//! `chitchat bench echo`

use std::path::PathBuf;

use super::{Common, Context, Exit, show};
use crate::{bench::echo, cli::flags};

/// One participant, alone in its room, has one message in flight.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Messages to measure, one after the other
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,

    /// Measure beside it what one fsync takes in this directory (which should be on the disk of the server's history):
    /// the median of 200 times 4 KiB
    #[arg(long, value_name = "DIRECTORY")]
    fsync_dir: Option<PathBuf>,

    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    server: flags::Server,
}

pub(super) async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let common = args.common;
    let report = echo::run(&echo::Plan {
        target: common.target(context),
        messages: args.messages,
        text_chars: common.text_chars.into(),
        warm_up: common.warm_up,
        fsync_directory: args.fsync_dir,
    })
    .await?;
    show(&report, common.json)
}
