//! `chitchat bench publish`

use std::time::Duration;

use super::{Common, Context, Exit, long};
use crate::bench::{Extent, publish};

/// Each stream joins as a participant of its own, keeps so many messages in flight, and counts those whose own event has
/// come back. Exit code 1 if one is lost, misordered, or comes twice.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Participants, each with a stream of its own
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    streams: u16,

    /// Messages that each may have unacknowledged
    #[arg(long, value_name = "MESSAGES", default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,

    /// Rooms that the streams are dealt to [default: one for each]
    #[arg(long, conflicts_with = "unary", value_parser = clap::value_parser!(u16).range(1..))]
    rooms: Option<u16>,

    /// Streams that share a connection; a server allows 16
    #[arg(long, value_name = "STREAMS", default_value = "1", conflicts_with = "unary", value_parser = clap::value_parser!(u16).range(1..=i64::from(publish::STREAMS_PER_CONNECTION_MAX)))]
    streams_per_connection: u16,

    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = long)]
    duration: Duration,

    /// Measure so many messages instead, over all streams
    #[arg(long, conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,

    /// Send so many messages a second, over all streams, whether or not the server keeps up; latency counts from when a
    /// message was to be sent
    #[arg(long, value_name = "PER SECOND", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,

    /// Publish by SendMessage, as posters outside of the rooms, each with its own connections and so many calls at a
    /// time
    #[arg(long)]
    unary: bool,

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
    let streams = usize::from(args.streams);
    let rooms = args.rooms.map_or(streams, usize::from);
    let measure = async |target| {
        let plan = publish::Plan {
            target,
            streams,
            rooms: rooms.min(streams),
            streams_per_connection: args.streams_per_connection.into(),
            in_flight: args.in_flight.into(),
            text_chars: args.text_chars.into(),
            extent: match args.messages {
                Some(messages) => Extent::Messages(messages),
                None => Extent::Duration(args.duration),
            },
            warm_up: args.warm_up,
            rate: args.rate,
            unary: args.unary,
        };
        publish::run(&plan).await
    };
    args.common.run(context, measure).await
}
