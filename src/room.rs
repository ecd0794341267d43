//! The rules of the chat, as a pure fold: [`Service::apply`] takes one [`Command`] after the other and says what became
//! of each.
//!
//! No I/O, no wall clock, no randomness, no hash-map order: the same commands give the same result, on every replica
//! and on every replay. What is not a function of the commands (a picked id, the time of acceptance, a span's ids, a
//! session's hash) is put into the command by the server that received it.

mod command;
mod identity;
mod outcome;
mod recent;
pub mod text;

use std::collections::BTreeMap;

pub use self::{
    command::{Action, Command, Join, Poster, Resume},
    identity::{Digest, Incarnation},
    outcome::{Answer, Event, Kind, Outcome, Refusal, Refused, Rejection},
};
use self::{
    recent::{First, Recent},
    text::NameKey,
};
use crate::{clock::LamportClock, config::Limits};

/// The most events of the past that a newcomer may ask for (`backlog`), and that one page of history holds.
///
/// Unit: events. At `limits.message_bytes` each that is 8 MiB for one request; asking for more gives this many.
pub const PAGE_EVENTS_MAX: usize = 1_000;

/// The whole state of the service: one Lamport clock (in Lamport's terms the service is one process, however many rooms
/// and servers it has) and its rooms.
#[derive(Debug, Clone)]
pub struct Service {
    epoch: String,
    limits: Limits,
    clock: LamportClock,
    incarnations: u64,
    rooms: BTreeMap<String, Room>,
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
    recent: Recent,
}

/// Somebody in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique in the room.
    pub id: i32,
    /// As shown.
    pub name: String,
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
    pub name: String,
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
        Self {
            epoch,
            limits,
            clock: LamportClock::default(),
            incarnations: 0,
            rooms: BTreeMap::new(),
        }
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
            name: name.clone(),
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
        let Command {
            room,
            timestamp,
            action,
            accepted_at,
            traceparent,
        } = command;
        let mut step = Step {
            service: self,
            room,
            timestamp,
            accepted_at,
            traceparent,
        };
        match action {
            Action::Join(join) => step.join(join),
            Action::Say {
                id,
                incarnation,
                text,
                message_id,
            } => step.say(id, incarnation, &text, message_id),
            Action::Post {
                poster,
                text,
                message_id,
            } => step.post(poster, &text, message_id),
            Action::Refuse {
                id,
                incarnation,
                refusal,
                message_id,
            } => step.refuse_from(id, incarnation, refusal, message_id),
            Action::Leave { id, incarnation } => step.leave(id, incarnation),
            Action::Trim { first } => step.trim(first),
        }
    }

    fn extent(&self, room: &str) -> (u64, u64) {
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

/// One command on its way through the rules.
struct Step<'a> {
    service: &'a mut Service,
    room: String,
    timestamp: Option<i64>,
    accepted_at: std::time::SystemTime,
    traceparent: String,
}

/// Who an event is about.
struct Sender {
    id: i32,
    name: String,
    bot: bool,
}

impl Sender {
    fn of(member: &Member) -> Self {
        Self {
            id: member.id,
            name: member.name.clone(),
            bot: member.bot,
        }
    }
}

impl Step<'_> {
    fn join(&mut self, join: Join) -> Outcome {
        if !text::is_room(&self.room) {
            return Outcome::rejected(Rejection::BadRoom);
        }
        // Another history is another world: its times mean nothing here, and must not lock an honest client out.
        let foreign = join
            .resume
            .as_ref()
            .is_some_and(|resume| resume.epoch != self.service.epoch);
        if foreign {
            self.timestamp = None;
        }
        if !self.timestamp_is_possible() {
            return Outcome::rejected(self.impossible_timestamp());
        }
        let holder = join.session_held.and_then(|session| {
            let room = self.service.rooms.get(&self.room)?;
            room.sessions.get(&session).copied()
        });
        match holder {
            Some(id) if join.resume.is_some() => self.resume(id, &join),
            _ => self.enter(join),
        }
    }

    /// The session lives: the participant continues, with a new incarnation.
    fn resume(&mut self, id: i32, join: &Join) -> Outcome {
        let reading = self
            .service
            .reading(&self.room, join.resume.as_ref(), join.backlog);
        let incarnation = self.next_incarnation();
        let mut events = Vec::new();
        if !reading.recovered {
            // What it has missed is gone: for everybody it left, and is new.
            let member = self.member(id).expect("the session's holder is a member");
            let sender = Sender::of(member);
            events.push(self.event(Kind::Leave, &sender, String::new(), String::new()));
            events.push(self.event(Kind::Join, &sender, String::new(), String::new()));
        }
        let rejoined = events.last().map(|join| (join.sequence, join.timestamp));
        let member = self.member(id).expect("the session's holder is a member");
        member.incarnation = incarnation;
        if let Some((sequence, timestamp)) = rejoined {
            member.joined_sequence = sequence;
            member.joined_timestamp = timestamp;
        }
        let name = member.name.clone();
        Outcome {
            answer: Answer::Joined {
                id,
                name,
                incarnation,
                resumed: true,
                reading,
                timestamp: self.service.now(),
            },
            events,
        }
    }

    /// A fresh participant.
    fn enter(&mut self, join: Join) -> Outcome {
        let name = match text::name(&join.name, self.service.limits.name_chars) {
            Ok(name) => name,
            Err(fault) => return Outcome::rejected(Rejection::BadName(fault)),
        };
        if join.id < 1 {
            return Outcome::rejected(Rejection::BadId);
        }
        if let Err(rejection) = self.is_free(join.id, &name) {
            return Outcome::rejected(rejection);
        }
        if let Err(rejection) = self.open_room() {
            return Outcome::rejected(rejection);
        }
        let reading = self
            .service
            .reading(&self.room, join.resume.as_ref(), join.backlog);
        let incarnation = self.next_incarnation();
        let sender = Sender {
            id: join.id,
            name: name.clone(),
            bot: join.bot,
        };
        let event = self.event(Kind::Join, &sender, String::new(), String::new());
        let room = self.opened();
        room.names.insert(text::name_key(&name), join.id);
        if let Some(session) = join.session_given {
            room.sessions.insert(session, join.id);
        }
        room.members.insert(
            join.id,
            Member {
                id: join.id,
                name: name.clone(),
                bot: join.bot,
                session: join.session_given,
                incarnation,
                joined_sequence: event.sequence,
                joined_timestamp: event.timestamp,
            },
        );
        Outcome {
            answer: Answer::Joined {
                id: join.id,
                name,
                incarnation,
                resumed: false,
                reading,
                timestamp: event.timestamp,
            },
            events: vec![event],
        }
    }

    fn say(
        &mut self,
        id: i32,
        incarnation: Incarnation,
        text: &str,
        message_id: String,
    ) -> Outcome {
        match self.speaker(id, incarnation) {
            Some(sender) => self.publish(&sender, text, message_id),
            None => Outcome::void(),
        }
    }

    fn post(&mut self, poster: Poster, text: &str, message_id: String) -> Outcome {
        if !text::is_room(&self.room) {
            return Outcome::rejected(Rejection::BadRoom);
        }
        let sender = match poster {
            Poster::Participant { id, session } => match self.member(id) {
                None => return Outcome::rejected(Rejection::NotInRoom { id }),
                Some(member) if member.session != Some(session) => {
                    return Outcome::rejected(Rejection::NotYourSession { id });
                }
                Some(member) => Sender::of(member),
            },
            Poster::Outsider { id, name, bot } => {
                let name = match text::name(&name, self.service.limits.name_chars) {
                    Ok(name) => name,
                    Err(fault) => return Outcome::rejected(Rejection::BadName(fault)),
                };
                if let Err(rejection) = self.is_free(id, &name) {
                    // A retry is no new claim to the name: somebody may have taken it since the first sending.
                    return self
                        .first_result(&name, text, &message_id)
                        .unwrap_or_else(|| Outcome::rejected(rejection));
                }
                Sender { id, name, bot }
            }
        };
        self.publish(&sender, text, message_id)
    }

    /// Content that somebody wants in the room's history: checked, remembered, stored once.
    fn publish(&mut self, sender: &Sender, text: &str, message_id: String) -> Outcome {
        if message_id.len() > text::MESSAGE_ID_BYTES_MAX {
            return Outcome::rejected(Rejection::BadMessageId);
        }
        if !self.timestamp_is_possible() {
            return self.refuse(sender, Refusal::ImpossibleTimestamp, message_id);
        }
        let text = match text::message(text, &self.service.limits) {
            Ok(text) => text,
            Err(refusal) => return self.refuse(sender, refusal, message_id),
        };
        let content = content(&sender.name, &text);
        match self.known(&message_id) {
            Some(first) if first.content == content => return first.again(message_id),
            Some(_) => return Outcome::rejected(Rejection::MessageIdReused),
            None => {}
        }
        if let Err(rejection) = self.open_room() {
            return Outcome::rejected(rejection);
        }
        let event = self.event(Kind::Message, sender, text, message_id);
        if !event.message_id.is_empty() {
            let first = First {
                content,
                timestamp: event.timestamp,
                sequence: event.sequence,
            };
            self.opened().recent.remember(key(&event.message_id), first);
        }
        Outcome {
            answer: Answer::Stored {
                timestamp: event.timestamp,
                sequence: event.sequence,
            },
            events: vec![event],
        }
    }

    /// The answer to a message that repeats one that is known.
    fn first_result(&self, name: &str, text: &str, message_id: &str) -> Option<Outcome> {
        let text = text::message(text, &self.service.limits).ok()?;
        let first = self.known(message_id)?;
        (first.content == content(name, &text)).then(|| first.again(message_id.into()))
    }

    fn known(&self, message_id: &str) -> Option<First> {
        if message_id.is_empty() {
            return None;
        }
        self.service
            .rooms
            .get(&self.room)?
            .recent
            .get(key(message_id))
    }

    fn refuse_from(
        &mut self,
        id: i32,
        incarnation: Incarnation,
        refusal: Refusal,
        message_id: String,
    ) -> Outcome {
        match self.speaker(id, incarnation) {
            Some(_) if message_id.len() > text::MESSAGE_ID_BYTES_MAX => {
                Outcome::rejected(Rejection::BadMessageId)
            }
            Some(sender) => self.refuse(&sender, refusal, message_id),
            None => Outcome::void(),
        }
    }

    /// Content that is not taken: it ticks, is told to its sender alone, and leaves no event.
    fn refuse(&mut self, sender: &Sender, refusal: Refusal, message_id: String) -> Outcome {
        let after = self.service.extent(&self.room).1;
        let sent_timestamp = self.possible_timestamp();
        Outcome {
            answer: Answer::Refused(Refused {
                room: self.room.clone(),
                id: sender.id,
                participant: sender.name.clone(),
                words: refusal.to_string(),
                refusal,
                timestamp: self.tick(),
                message_id,
                sent_timestamp,
                traceparent: self.traceparent.clone(),
                after,
            }),
            events: vec![],
        }
    }

    fn leave(&mut self, id: i32, incarnation: Incarnation) -> Outcome {
        let Some(sender) = self.speaker(id, incarnation) else {
            return Outcome::void();
        };
        let event = self.event(Kind::Leave, &sender, String::new(), String::new());
        let room = self.opened();
        let member = room.members.remove(&id).expect("the speaker is a member");
        room.names.remove(&text::name_key(&member.name));
        if let Some(session) = member.session {
            room.sessions.remove(&session);
        }
        Outcome {
            answer: Answer::Left {
                timestamp: event.timestamp,
                sequence: event.sequence,
            },
            events: vec![event],
        }
    }

    fn trim(&mut self, first: u64) -> Outcome {
        if let Some(room) = self.service.rooms.get_mut(&self.room) {
            room.first = first.clamp(room.first, room.head + 1);
        }
        Outcome::void()
    }

    /// The participant, if this incarnation of it is the one that counts.
    fn speaker(&mut self, id: i32, incarnation: Incarnation) -> Option<Sender> {
        let member = self.member(id)?;
        (member.incarnation == incarnation).then(|| Sender::of(member))
    }

    fn member(&mut self, id: i32) -> Option<&mut Member> {
        self.service.rooms.get_mut(&self.room)?.members.get_mut(&id)
    }

    fn is_free(&self, id: i32, name: &str) -> Result<(), Rejection> {
        let Some(room) = self.service.rooms.get(&self.room) else {
            return Ok(());
        };
        if room.members.contains_key(&id) {
            return Err(Rejection::IdHeld { id });
        }
        if room.names.contains_key(&text::name_key(name)) {
            return Err(Rejection::NameHeld { name: name.into() });
        }
        Ok(())
    }

    fn open_room(&mut self) -> Result<(), Rejection> {
        let rooms = &mut self.service.rooms;
        if !rooms.contains_key(&self.room) {
            if rooms.len() >= self.service.limits.rooms {
                return Err(Rejection::TooManyRooms {
                    limit: self.service.limits.rooms,
                });
            }
            rooms.insert(self.room.clone(), Room::new());
        }
        Ok(())
    }

    fn opened(&mut self) -> &mut Room {
        self.service
            .rooms
            .get_mut(&self.room)
            .expect("the caller has opened the room")
    }

    fn next_incarnation(&mut self) -> Incarnation {
        self.service.incarnations += 1;
        Incarnation(self.service.incarnations)
    }

    fn timestamp_is_possible(&self) -> bool {
        let latest = self
            .service
            .now()
            .saturating_add(self.service.limits.clock_jump);
        (0..=latest).contains(&self.timestamp.unwrap_or(0))
    }

    fn possible_timestamp(&self) -> Option<i64> {
        self.timestamp.filter(|_| self.timestamp_is_possible())
    }

    fn impossible_timestamp(&self) -> Rejection {
        Rejection::ImpossibleTimestamp {
            timestamp: self.timestamp.unwrap_or(0),
            clock: self.service.now(),
            jump: self.service.limits.clock_jump,
        }
    }

    /// The service's step for this command: merges the timestamp that came with it, unless that is impossible.
    fn tick(&mut self) -> i64 {
        match self.possible_timestamp() {
            Some(received) => self.service.clock.merge(received),
            None => self.service.clock.tick(),
        }
    }

    /// The next event of the (opened) room.
    fn event(&mut self, kind: Kind, sender: &Sender, text: String, message_id: String) -> Event {
        let sent_timestamp = self.possible_timestamp();
        let timestamp = self.tick();
        let window = self.service.limits.dedup_events as u64;
        let room = self.opened();
        room.head += 1;
        room.recent
            .forget_before((room.head + 1).saturating_sub(window));
        Event {
            sequence: room.head,
            timestamp,
            kind,
            sender_id: sender.id,
            text: match kind {
                Kind::Message => text,
                Kind::Join => outcome::announcement(&sender.name, "joined", timestamp),
                Kind::Leave => outcome::announcement(&sender.name, "left", timestamp),
            },
            sender_name: sender.name.clone(),
            bot: sender.bot,
            message_id,
            sent_timestamp,
            room: self.room.clone(),
            accepted_at: self.accepted_at,
            traceparent: self.traceparent.clone(),
        }
    }
}

/// What a message id is remembered by.
fn key(message_id: &str) -> Digest {
    Digest::of(&[message_id.as_bytes()])
}

/// What makes two messages the same.
fn content(name: &str, text: &str) -> Digest {
    Digest::of(&[name.as_bytes(), text.as_bytes()])
}

impl Room {
    fn new() -> Self {
        Self {
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            sessions: BTreeMap::new(),
            head: 0,
            first: 1,
            recent: Recent::default(),
        }
    }
}
