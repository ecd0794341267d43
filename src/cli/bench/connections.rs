//! `chitchat bench connections`

use std::time::Duration;

use super::{Common, Context, Exit, long};
use crate::bench::connections;

/// Participants in a room, unless something else is asked for.
const IN_A_ROOM: u32 = 100;

/// Participants join and stay silent, and the server's memory is read before and after that (--server-pid or --data). At
/// the end one message is published in each room, and everybody must have got it. Exit code 1 if one has not, or if the
/// server ends a stream.
///
/// Each JOIN is delivered to all who are in the room already: 10,000 in one room hear 50 million of them. One local address
/// can have about 28,000 connections to a server, and each takes a file descriptor on either side. With --data memory what
/// the server keeps as history is part of its memory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Participants, each with a connection of its own
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,

    /// Rooms that they are dealt to [default: so many that a room has about 100]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rooms: Option<u32>,

    /// How long to keep them before the message
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = long)]
    hold: Duration,

    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let rooms = (args.rooms).unwrap_or_else(|| args.connections.div_ceil(IN_A_ROOM));
    let measure = async |target| {
        let plan = connections::Plan {
            target,
            connections: args.connections as usize,
            rooms: rooms.min(args.connections) as usize,
            hold: args.hold,
        };
        connections::run(&plan).await
    };
    args.common.run(context, measure).await
}
