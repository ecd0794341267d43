//! A participant's session: its clock, its connection, its sends, whatever the network does.

use crate::{telemetry::Tracer, wire::v1::ServerMessage};

/// Who joins, where, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server, `http://host:port`.
    pub server: String,
    /// The room.
    pub room: String,
    /// The participant's name.
    pub name: String,
    /// The wanted id; 0: the server picks.
    pub id: i32,
    /// Whether the participant is a program.
    pub bot: bool,
    /// Events of the past to read first.
    pub backlog: u32,
    /// Whether the clock merges what it receives, as Lamport's rule demands. `false` plays the report's clients.
    pub merge: bool,
    /// Makes the `join`, `send`, `leave` and `deliver` spans.
    pub tracer: Tracer,
}

/// What a participant hears.
#[derive(Debug, Clone)]
pub enum Update {
    /// An event of the room, each once and in order, the own ones included (the own JOIN is the first that is live).
    Event(Received),
    /// A private word from the service about something that was sent.
    Notice(Received),
    /// The connection broke; the session is on its way back. Said once per break.
    Disconnected {
        /// Why, for a person.
        reason: String,
    },
    /// The session is back. `recovered`: nothing was missed. Otherwise reading starts anew after this update.
    Reconnected {
        /// As in `Welcome.recovered`.
        recovered: bool,
    },
    /// The last update: how the session ended.
    Ended(Ending),
}

/// A message as it arrived, with the step of the own clock that it was.
#[derive(Debug, Clone)]
pub struct Received {
    /// What arrived.
    pub message: ServerMessage,
    /// Whether this participant sent it.
    pub own: bool,
    /// Whether it is from before the join (backlog) and so moved no clock.
    pub past: bool,
    /// The own clock before.
    pub before: i64,
    /// The own clock after: `max(before, message.timestamp) + 1`; equal to `before` where the clock does not merge.
    pub after: i64,
}

/// How a session ended.
#[derive(Debug, Clone)]
pub enum Ending {
    /// By [`Session::leave`].
    Left,
    /// By [`Session::crash`].
    Crashed,
    /// The service does not want it back: superseded, refused ...
    Refused(tonic::Status),
}

/// Why a join failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Name or id is held: choose another, or wait.
    #[error("{}", .0.message())]
    Held(tonic::Status),
    /// The service refused the join for another reason that will not pass.
    #[error("the server refused the join: {}", .0.message())]
    Refused(tonic::Status),
    /// The server cannot be reached (now).
    #[error("cannot reach {server}")]
    Unreachable {
        /// The address.
        server: String,
        /// Why.
        #[source]
        source: tonic::Status,
    },
}

/// A participant in a room.
///
/// Owns a task that reads and writes the connection; dropping the session ends it like [`Session::crash`].
#[derive(Debug)]
pub struct Session {}
