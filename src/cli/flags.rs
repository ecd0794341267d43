//! Flags that are settings: the last layer of the configuration.
//!
//! The id of such a flag is the setting's key; that is all that ties them together. A subcommand takes a group of them
//! with `#[command(flatten)]` and reads the outcome in its `Context`, not here: the values in these structs are as
//! written, unchecked.

use clap::{ArgMatches, Command, CommandFactory};

use crate::config::Given;

/// For what talks to a server.
#[derive(Debug, clap::Args)]
pub struct Server {
    /// The server to talk to
    #[arg(id = "client.server", long = "server", value_name = "URL")]
    pub server: Option<String>,
}

/// For what reads or enters a room.
#[derive(Debug, clap::Args)]
pub struct Room {
    /// The room
    #[arg(id = "client.room", long = "room", value_name = "ROOM")]
    pub room: Option<String>,
}

/// For what takes part.
#[derive(Debug, clap::Args)]
pub struct Participant {
    /// The name to be shown
    #[arg(id = "client.name", long = "name", value_name = "NAME")]
    pub name: Option<String>,

    /// The wanted id; 0: the server picks
    #[arg(id = "client.id", long = "id", value_name = "ID")]
    pub id: Option<String>,

    /// Events of the room's past to see first
    #[arg(id = "client.backlog", long = "backlog", value_name = "EVENTS")]
    pub backlog: Option<String>,
}

/// For what serves.
#[derive(Debug, clap::Args)]
pub struct Serving {
    /// The address and port to listen on
    #[arg(id = "server.listen", long = "listen", value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,

    /// Where history lives: a directory, made if missing, or `memory`
    #[arg(id = "server.data", long = "data", value_name = "DIRECTORY")]
    pub data: Option<String>,
}

/// The settings among the flags of the subcommand that `matches` holds, and of the subcommands of that.
pub(super) fn settings(matches: &ArgMatches) -> Vec<Given> {
    settings_below(&super::Cli::command(), matches)
}

fn settings_below(command: &Command, matches: &ArgMatches) -> Vec<Given> {
    let Some((name, matches)) = matches.subcommand() else {
        return Vec::new();
    };
    let Some(command) = command.find_subcommand(name) else {
        return Vec::new();
    };
    let mut settings: Vec<Given> = command
        .get_arguments()
        .filter(|argument| argument.get_id().as_str().contains('.'))
        .filter_map(|argument| {
            let key = argument.get_id().as_str();
            let value = matches.get_one::<String>(key)?;
            Some(Given::flag(argument.get_long()?, key, value))
        })
        .collect();
    settings.extend(settings_below(command, matches));
    settings
}
