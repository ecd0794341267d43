//! `chitchat bench fanout`

use std::time::Duration;

use anyhow::anyhow;

use super::{Common, Context, Exit, long};
use crate::bench::{
    fanout::{self, Pace, TEXT_CHARS_MIN},
    publish::STREAMS_PER_CONNECTION_MAX,
};

/// Messages of a room that may be outstanding, unless something else is asked for.
const WINDOW: u32 = 16;

/// Publishers and subscribers share rooms; every delivery to every one of them is counted, and checked for order, loss and
/// repetition. A publisher reads its room as well, so a message to 100 subscribers makes 101 deliveries. Exit code 1 if one
/// is lost, misordered, or comes twice.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Participants that only read
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    subscribers: u32,

    /// Participants that publish, and read as well
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    publishers: u16,

    /// Rooms that all of them are dealt to; each needs a publisher and a subscriber
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    rooms: u16,

    /// Messages of a room that may be outstanding, which means that not all of its readers have them; they are sent in
    /// bursts of half as many. With 1 no two messages can share a packet, with 256 the server has all it can do
    /// [default: 16]
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: Option<u32>,

    /// Send so many messages a second instead, over all publishers, whether or not the server keeps up; latency counts
    /// from when a message was to be sent
    #[arg(long, value_name = "PER SECOND", conflicts_with = "window", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,

    /// Characters of each text; the server allows 128 unless told otherwise (limits.text_chars)
    #[arg(long, value_name = "CHARACTERS", default_value = "100", value_parser = clap::value_parser!(u16).range(i64::from(TEXT_CHARS_MIN)..=8192))]
    text_chars: u16,

    /// Subscribers that share a connection; a server allows 16
    #[arg(long, value_name = "STREAMS", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=i64::from(STREAMS_PER_CONNECTION_MAX)))]
    streams_per_connection: u16,

    /// Subscribers read by Watch instead of taking part
    #[arg(long)]
    watch: bool,

    /// Further subscribers that join, answer pings, and do not read; they are not counted, and the server may end them
    /// (limits.stall), which is told
    #[arg(long, value_name = "SUBSCRIBERS", default_value = "0", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    stalled: u32,

    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = long)]
    duration: Duration,

    /// How long to go on before anything is measured
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = long)]
    warm_up: Duration,

    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    if args.rooms > args.publishers || u32::from(args.rooms) > args.subscribers {
        let why = "--rooms may be at most --publishers, and at most --subscribers: each room needs one of both";
        return Err(Exit::Usage.because(anyhow!(why)));
    }
    let measure = async |target| {
        let plan = fanout::Plan {
            target,
            subscribers: args.subscribers as usize,
            publishers: args.publishers.into(),
            rooms: args.rooms.into(),
            pace: match args.rate {
                Some(rate) => Pace::Rate(rate),
                None => Pace::Window(args.window.unwrap_or(WINDOW)),
            },
            text_chars: args.text_chars.into(),
            streams_per_connection: args.streams_per_connection.into(),
            watch: args.watch,
            stalled: args.stalled as usize,
            duration: args.duration,
            warm_up: args.warm_up,
        };
        fanout::run(&plan).await
    };
    args.common.run(context, measure).await
}
