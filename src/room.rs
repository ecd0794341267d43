//! The rules of the chat, as a pure fold: [`Service::apply`] takes one [`Command`] after the other and says what became
//! of each.
//!
//! No I/O, no wall clock, no randomness, no hash-map order: the same commands give the same result, on every replica
//! and on every replay. What is not a function of the commands (a picked id, the time of acceptance, a span's ids, a
//! session's hash) is put into the command by the server that received it.
//!
//! Here is the state, and what can be asked of it; how a command changes it stands in `rules`.

mod command;
mod identity;
mod outcome;
mod recent;
mod rules;
mod snapshot;
pub mod text;

use std::{collections::BTreeMap, sync::Arc};

pub use self::{
    command::{Action, Command, Join, Poster, Resume},
    identity::{Digest, Incarnation},
    outcome::{Answer, Event, Kind, Outcome, Refusal, Refused, Rejection},
    snapshot::{Past, RoomSnapshot, Snapshot},
};
use self::{recent::Recent, text::NameKey};
use crate::{clock::LamportClock, config::Limits};

/// The most events of the past that a newcomer may ask for (`backlog`), and that one page of history holds.
///
/// Unit: events; asking for more gives this many. A page of long events has fewer: the journal bounds it in bytes too.
pub const PAGE_EVENTS_MAX: usize = 1_000;

/// How many events a room lets go of with each new one, while it has more than `limits.history_events`.
const TRIMMED_PER_EVENT: u64 = 16;

/// The whole state of the service: one Lamport clock (in Lamport's terms the service is one process, however many rooms
/// and servers it has) and its rooms.
#[derive(Debug, Clone)]
pub struct Service {
    epoch: String,
    limits: Limits,
    clock: LamportClock,
    incarnations: u64,
    rooms: BTreeMap<Arc<str>, Room>,
}

/// One room: who is there, how far its sequence is, and which message ids it remembers.
#[derive(Debug, Clone)]
struct Room {
    members: BTreeMap<i32, Member>,
    names: BTreeMap<NameKey, i32>,
    sessions: BTreeMap<Digest, i32>,
    /// The last sequence given out; 0 before the first event.
    head: u64,
    /// The oldest sequence that can still be read.
    first: u64,
    /// The oldest sequence of which anything is kept: the message id at least, as long as it is remembered.
    oldest: u64,
    recent: Recent,
}

/// Somebody in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique in the room.
    pub id: i32,
    /// As shown.
    pub name: Arc<str>,
    /// A program.
    pub bot: bool,
    /// What its session hashes to; none for a client that was given no session and so cannot resume.
    pub session: Option<Digest>,
    /// Which of its streams counts.
    pub incarnation: Incarnation,
    /// The sequence of its JOIN.
    pub joined_sequence: u64,
    /// The logical time of its JOIN.
    pub joined_timestamp: i64,
}

/// Where a reader of a room starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The first event to read is the one after this sequence.
    pub after: u64,
    /// Asked to resume, and nothing is missing.
    pub recovered: bool,
    /// The room's last sequence now.
    pub head: u64,
}

/// A room as [`Service::rooms`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: Arc<str>,
    /// How many are in it.
    pub participants: usize,
    /// Its last sequence.
    pub head: u64,
    /// The oldest sequence that can be read.
    pub first: u64,
}

impl Service {
    /// A service with no history yet. `epoch` is the new history's identity.
    #[must_use]
    pub fn new(epoch: String, limits: Limits) -> Self {
        Self::restore(Snapshot::new(epoch), limits)
    }

    /// The identity of this history.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// What the service's clock shows.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    /// How many participants `room` has.
    #[must_use]
    pub fn population(&self, room: &str) -> usize {
        self.rooms.get(room).map_or(0, |room| room.members.len())
    }

    /// Who is in `room`, in ascending order of id.
    pub fn participants(&self, room: &str) -> impl Iterator<Item = &Member> {
        self.rooms
            .get(room)
            .into_iter()
            .flat_map(|room| room.members.values())
    }

    /// The rooms that have a history, in alphabetical order.
    pub fn rooms(&self) -> impl Iterator<Item = Summary> {
        self.rooms.iter().map(|(name, room)| Summary {
            name: Arc::clone(name),
            participants: room.members.len(),
            head: room.head,
            first: room.first,
        })
    }

    /// Where somebody starts who reads `room` from `resume` on, or else its last `backlog` events, or else what is live.
    #[must_use]
    pub fn reading(&self, room: &str, resume: Option<&Resume>, backlog: usize) -> Reading {
        let (first, head) = self.extent(room);
        match resume.filter(|resume| self.can_read_after(room, resume)) {
            Some(resume) => Reading {
                after: resume.after_sequence,
                recovered: true,
                head,
            },
            None => Reading {
                after: backlog_start(first, head, backlog),
                recovered: false,
                head,
            },
        }
    }

    /// Applies one command: the only way the state changes.
    pub fn apply(&mut self, command: Command) -> Outcome {
        rules::apply(self, command)
    }

    /// The oldest sequence of `room` that can be read, and the last one given out.
    #[must_use]
    pub fn extent(&self, room: &str) -> (u64, u64) {
        self.rooms
            .get(room)
            .map_or((1, 0), |room| (room.first, room.head))
    }

    /// Whether everything after `resume.after_sequence` can still be read: the same history, not beyond its end, and
    /// nothing after that point dropped.
    fn can_read_after(&self, room: &str, resume: &Resume) -> bool {
        let (first, head) = self.extent(room);
        resume.epoch == self.epoch
            && resume.after_sequence <= head
            && resume.after_sequence >= first - 1
    }
}

fn backlog_start(first: u64, head: u64, backlog: usize) -> u64 {
    let wanted = backlog.min(PAGE_EVENTS_MAX) as u64;
    head.saturating_sub(wanted).max(first - 1)
}

impl Room {
    fn new() -> Self {
        Self {
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            sessions: BTreeMap::new(),
            head: 0,
            first: 1,
            oldest: 1,
            recent: Recent::default(),
        }
    }

    /// Lets go of the oldest events beyond the last `kept`; 0 keeps all.
    ///
    /// Of a room that has many more (the setting was lowered) only some with each new event, so that no event waits for
    /// a million others to be removed.
    fn keep(&mut self, kept: u64) {
        if kept > 0 {
            let oldest = (self.head + 1).saturating_sub(kept);
            self.first = self.first.max(oldest.min(self.first + TRIMMED_PER_EVENT));
        }
    }

    /// Lets go of what is neither to be read nor needed to recognize a retry of one of the last `remembered` events.
    fn let_go(&mut self, remembered: u64) {
        let needed = (self.head + 1).saturating_sub(remembered);
        self.oldest = self.oldest.max(needed.min(self.first));
    }

    /// Takes in a participant whose id and name are free.
    fn insert(&mut self, member: Member) {
        self.names.insert(text::name_key(&member.name), member.id);
        if let Some(session) = member.session {
            self.sessions.insert(session, member.id);
        }
        self.members.insert(member.id, member);
    }

    fn remove(&mut self, id: i32) {
        if let Some(member) = self.members.remove(&id) {
            self.names.remove(&text::name_key(&member.name));
            if let Some(session) = member.session {
                self.sessions.remove(&session);
            }
        }
    }
}
