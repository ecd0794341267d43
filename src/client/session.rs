//! A participant's session: its clock, its connection, its sends, whatever the network does.

use std::{fmt, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{
    backoff::Backoff,
    connection::{AddressError, Connection, Dial, Route},
    render::clean,
    status,
};
use crate::{
    config,
    telemetry::{Tracer, log::ClientLog},
    wire::v1::ServerMessage,
};

mod rules;
mod run;

use rules::Rules;
use run::Task;

/// Updates that may wait for [`Session::next`].
///
/// Unit: updates, of some hundred bytes each. When full: the session stops reading its connection, so that what follows
/// waits in the server; should that take too long for the server, it ends the stream and the session resumes later.
/// Nothing is lost either way. Source: a backlog of 20 and a burst of some pages of chat.
pub const UPDATES_CAPACITY: usize = 256;

/// Texts that may wait for the session to send them.
///
/// When full: [`Session::say`] waits. Behind this queue the session holds up to [`UNACKNOWLEDGED_MAX`] messages.
pub const SAYS_CAPACITY: usize = 16;

/// Messages that may be sent and not yet be seen as events, or be waiting for a connection.
///
/// Unit: messages, of about a kilobyte at most; they are kept to be sent again after a break. When reached: the session
/// takes no further text, so that [`Session::say`] comes to wait. Source: at 1 ms from here to there and back, enough
/// for 256,000 messages a second, far above what one participant may send.
pub const UNACKNOWLEDGED_MAX: usize = 256;

/// How long [`Session::leave`] goes on trying, at most, to have what was said acknowledged and the LEAVE answered.
///
/// When it is over the session ends with [`Ending::Abandoned`]. Source: a container is given 10 s between SIGTERM and
/// SIGKILL; half of it leaves time to flush telemetry.
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

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
    /// Whether the clock merges what it receives, as Lamport's rule demands. `false` plays the report's clients: the
    /// clock counts what they sent, and JOIN carries it as it stands.
    pub merge: bool,
    /// How long the connection may be silent before the server is asked whether it is still there (HTTP/2 PING), and
    /// how long its answer may take before the connection counts as broken.
    pub keepalive: Duration,
    /// How a connection to the server is made.
    pub dial: Dial,
    /// Makes the `join`, `send`, `leave` and `deliver` spans.
    pub tracer: Tracer,
    /// Writes a line for each event that is heard, and for the connection's own story.
    pub log: ClientLog,
}

impl Options {
    /// A person called `name` who joins as `client` says: merging clock, keepalive of 10 s, over TCP, no traces, no texts
    /// in the log.
    #[must_use]
    pub fn new(client: &config::Client, name: &str) -> Self {
        Self {
            server: client.server.clone(),
            room: client.room.clone(),
            name: name.to_owned(),
            id: client.id,
            bot: false,
            backlog: client.backlog,
            merge: true,
            keepalive: Duration::from_secs(10),
            dial: Dial::default(),
            tracer: Tracer::default(),
            log: ClientLog::default(),
        }
    }
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
    /// The session is back. Said once per return.
    Reconnected(Return),
    /// The last update: how the session ended.
    Ended(Ending),
}

/// Where a session that is back reads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return {
    /// Nothing was missed, as in `Welcome.recovered`; otherwise reading starts at a new point.
    pub recovered: bool,
    /// The server has another history than the one that was read: sequences, logical time and the own clock start anew.
    /// Otherwise, without `recovered`, it is the same one, and what is missing fell out of it.
    pub new_history: bool,
    /// The sequence of the first event that is read from here on.
    pub from_sequence: u64,
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
    /// By [`Session::leave`], but the connection was broken or the server silent: the others read of the departure
    /// when the grace is over.
    Abandoned {
        /// Messages that nobody may ever have seen.
        unacknowledged: usize,
    },
    /// By [`Session::crash`].
    Crashed,
    /// The service does not want it back: superseded, refused ...
    Refused(Status),
}

impl Ending {
    /// Whether it ended as it should: by the participant's own wish, with all that was said stored.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(
            self,
            Self::Left | Self::Crashed | Self::Abandoned { unacknowledged: 0 }
        )
    }
}

/// Why, for a person: `the session ended: {ending}`. Clean.
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => write!(f, "the room was left"),
            Self::Abandoned { unacknowledged: 0 } => write!(f, "the server did not answer"),
            Self::Abandoned { unacknowledged } => write!(
                f,
                "the server did not answer; {unacknowledged} message(s) may not have been stored"
            ),
            Self::Crashed => write!(f, "it was cut"),
            Self::Refused(status) => {
                write!(f, "the server ended it: {}", clean(status.message()))
            }
        }
    }
}

/// Why a join failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Name or id is held: choose another, or wait.
    #[error("{}", clean(.0.message()))]
    Held(Status),
    /// The service refused the join for another reason that will not pass.
    #[error("the server refused the join: {}", clean(.0.message()))]
    Refused(Status),
    /// The address of the server is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The server cannot be reached (now).
    #[error("cannot reach {server}")]
    Unreachable {
        /// The address.
        server: String,
        /// Why.
        #[source]
        source: Status,
    },
}

/// The session has ended, and what was to be said was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct Closed;

/// A participant in a room.
///
/// Owns a task that reads and writes the connection, and comes back to the server when it breaks; dropping the session
/// ends it like [`Session::crash`].
///
/// What it comes back as: in time, the same participant; after the grace, or in another history, a newcomer of the same
/// name and id. Should the answer to such a JOIN be lost, the next one finds both held by that ghost; the session then
/// waits for the end of the ghost's grace, a minute at most, and keeps its id: one that the server picked among 2^31 is
/// held by nobody else. Only when the minute is over does it take another id, if it did not ask for that one, and end as
/// refused if the name is held all the same.
///
/// What was said and not acknowledged before a break is sent again, byte for byte, once the replay has shown that it is
/// not there; where the replay is not to be had, under the same `message_id`, which the service knows for the room's last
/// 100,000 events (`limits.dedup_events`). Only where more than those have passed and the history in between is gone could
/// it be stored twice. In another history it is a new send.
///
/// Speaking takes `&self` and is never in the way of [`Session::next`]:
///
/// ```ignore
/// loop {
///     tokio::select! {
///         update = session.next() => match update { Some(update) => show(update), None => break },
///         line = input.next(), if !leaving => match line {
///             Some(line) => { session.say(line).await?; }
///             None => { session.leave(); leaving = true; }
///         },
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Session {
    speaker: Speaker,
    updates: mpsc::Receiver<Update>,
    standing: watch::Receiver<Standing>,
    name: String,
    room: String,
    _task: AbortOnDropHandle<()>,
}

/// The speaking half of a [`Session`], for another task. Does not keep the session alive.
#[derive(Debug, Clone)]
pub struct Speaker {
    says: mpsc::Sender<Say>,
    wish: watch::Sender<Wish>,
}

/// Where a participant stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Standing {
    clock: i64,
    id: i32,
    epoch: String,
}

/// A text on its way to the session's task.
#[derive(Debug)]
struct Say {
    text: String,
    message_id: String,
}

/// What the participant wants; only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Stay,
    Leave,
    Crash,
}

impl Session {
    /// Joins the room: returns once the service has welcomed the participant. What it then reads, its own JOIN
    /// included, comes from [`Session::next`].
    ///
    /// Tries once, for 10 s at most; whether to try again, and under which name, is the caller's decision. Cancel safe:
    /// dropping the future is leaving without a word.
    ///
    /// # Errors
    /// [`JoinError::Held`]: choose another name or id, or wait. [`JoinError::Unreachable`]: try later.
    /// [`JoinError::Refused`]: trying the same again is of no use.
    pub async fn join(options: Options) -> Result<Self, JoinError> {
        let route = Route::new(&options.server, options.keepalive, options.dial.clone())?;
        let (name, room) = (options.name.clone(), options.room.clone());
        let (server, log) = (options.server.clone(), options.log);
        let mut rules = Rules::new(options);
        let join = rules.join();
        let (connection, first) = Connection::open(&route, join, log)
            .await
            .map_err(|status| refusal(status, &server))?;
        let welcome = run::welcome(&first).map_err(JoinError::Refused)?;
        rules.welcome(&first, &welcome);

        let (speaker, says, wish) = Speaker::new();
        let (to_listener, updates) = mpsc::channel(UPDATES_CAPACITY);
        let (standing, standing_now) = watch::channel(Standing {
            clock: rules.clock(),
            id: rules.id(),
            epoch: rules.epoch().to_owned(),
        });
        let task = Task {
            route,
            rules,
            says,
            wish,
            updates: to_listener,
            standing,
            leaving: run::Leaving::default(),
            backoff: Backoff::default(),
            lost_joins: 0,
            log,
        };
        Ok(Self {
            speaker,
            updates,
            standing: standing_now,
            name,
            room,
            _task: AbortOnDropHandle::new(tokio::spawn(task.run(connection, first))),
        })
    }

    /// Says `text`, as it is, and returns its `message_id`, by which its event (or the notice that refuses it) is
    /// recognized. It is sent once, or again after a break, and stored once.
    ///
    /// Returns at once; waits only while [`UNACKNOWLEDGED_MAX`] messages are on their way. Works while the connection
    /// is broken too: the text is sent when the session is back. Cancel safe: either taken or not.
    ///
    /// # Errors
    /// [`Closed`] after [`Session::leave`], [`Session::crash`] or [`Update::Ended`].
    pub async fn say(&self, text: impl Into<String>) -> Result<String, Closed> {
        self.speaker.say(text).await
    }

    /// The next thing this participant hears; [`Update::Ended`] is the last, then `None`. Cancel safe.
    ///
    /// To be called until it has said so: a session that is not listened to stops reading at [`UPDATES_CAPACITY`].
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }

    /// Begins to leave: everything said before is acknowledged first, then LEAVE is sent. Returns at once; go on calling
    /// [`Session::next`], which gives what is still heard and [`Update::Ended`] within [`LEAVE_PATIENCE`].
    pub fn leave(&self) {
        self.speaker.leave();
    }

    /// Cuts the connection now, with neither LEAVE nor half-close, as a crash would. [`Update::Ended`] follows.
    pub fn crash(&self) {
        self.speaker.crash();
    }

    /// A handle that can say, leave and crash from elsewhere.
    #[must_use]
    pub fn speaker(&self) -> Speaker {
        self.speaker.clone()
    }

    /// The participant's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &str {
        &self.room
    }

    /// The participant's id, as given by the service. It may change when a session that was lost joins anew.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.standing.borrow().id
    }

    /// The participant's Lamport clock. It may be ahead of the updates read so far: [`Received::after`] is the clock at
    /// one of them.
    #[must_use]
    pub fn clock(&self) -> i64 {
        self.standing.borrow().clock
    }

    /// The identity of the history that is being read: `Welcome.epoch`.
    #[must_use]
    pub fn epoch(&self) -> String {
        self.standing.borrow().epoch.clone()
    }
}

impl Speaker {
    fn new() -> (Self, mpsc::Receiver<Say>, watch::Receiver<Wish>) {
        let (says, to_send) = mpsc::channel(SAYS_CAPACITY);
        let (wish, wished) = watch::channel(Wish::Stay);
        (Self { says, wish }, to_send, wished)
    }

    /// As [`Session::say`].
    ///
    /// # Errors
    /// As [`Session::say`].
    pub async fn say(&self, text: impl Into<String>) -> Result<String, Closed> {
        let message_id = format!("{:032x}", rand::random::<u128>());
        let say = Say {
            text: text.into(),
            message_id: message_id.clone(),
        };
        self.says.send(say).await.map_err(|_| Closed)?;
        Ok(message_id)
    }

    /// As [`Session::leave`].
    pub fn leave(&self) {
        self.wish(Wish::Leave);
    }

    /// As [`Session::crash`].
    pub fn crash(&self) {
        self.wish(Wish::Crash);
    }

    fn wish(&self, wish: Wish) {
        self.wish.send_if_modified(|standing| {
            let rises = wish > *standing;
            *standing = wish.max(*standing);
            rises
        });
    }
}

/// What a status in answer to a JOIN means.
fn refusal(status: Status, server: &str) -> JoinError {
    if status::is_held(&status) {
        JoinError::Held(status)
    } else if status::asks_to_resume(&status) {
        JoinError::Unreachable {
            server: server.to_owned(),
            source: status,
        }
    } else {
        JoinError::Refused(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_a_join_cannot_steer_a_terminal() {
        let deceiving = "taken\u{1b}[2J\u{202e}";
        for status in [
            Status::already_exists(deceiving),
            Status::permission_denied(deceiving),
            Status::unavailable(deceiving),
        ] {
            let told = format!("{:#}", anyhow::Error::new(refusal(status, "http://a:1")));
            assert_eq!(clean(&told), told);
        }
    }
}
