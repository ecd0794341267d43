//! `chitchat who`: who is in a room.

use anyhow::anyhow;

use super::{Context, exit::Exit, flags, print};
use crate::client::{reading::Reader, render};

/// List who is in a room, those included whose connection broke and who may still return
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object a line: `id`, `name`, `bot`, `joined_sequence`, `joined_timestamp`
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: flags::Server,

    #[command(flatten)]
    room: flags::Room,
}

/// Prints a line for each, by id.
///
/// # Errors
/// The server cannot be reached or refuses; standard output cannot be written.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let client = context.config.client;
    let mut reader = Reader::new(&client.server, &client.room)?;
    let there = reader
        .participants()
        .await
        .map_err(|status| anyhow!("{}: {}", client.server, render::clean(status.message())))?;
    let line = if args.json {
        render::participant_json
    } else {
        render::participant
    };
    print(&there.iter().map(|who| line(who) + "\n").collect::<String>())?;
    Ok(Exit::Good)
}
