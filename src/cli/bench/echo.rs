//! `chitchat bench echo`

use std::{path::PathBuf, time::Duration};

use super::{Common, Context, Exit, long};
use crate::bench::echo;

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

    /// Characters of each text; the server allows 128 unless told otherwise (limits.text_chars)
    #[arg(long, value_name = "CHARACTERS", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=8192))]
    text_chars: u16,

    /// How long to go on before anything is measured
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = long)]
    warm_up: Duration,

    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let measure = async |target| {
        let plan = echo::Plan {
            target,
            messages: args.messages,
            text_chars: args.text_chars.into(),
            warm_up: args.warm_up,
            fsync_directory: args.fsync_dir,
        };
        echo::run(&plan).await
    };
    args.common.run(context, measure).await
}
