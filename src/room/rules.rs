//! The rules: what becomes of a command.

use std::{sync::Arc, time::SystemTime};

use super::{
    Action, Answer, Command, Digest, Event, Incarnation, Join, Kind, Member, Outcome, Poster,
    Refusal, Refused, Rejection, Room, Service, outcome, recent::First, text,
};

/// Applies `command` to `service`.
pub(super) fn apply(service: &mut Service, command: Command) -> Outcome {
    let Command {
        room,
        timestamp,
        action,
        accepted_at,
        traceparent,
    } = command;
    let mut step = Step {
        service,
        room,
        timestamp,
        accepted_at,
        traceparent,
    };
    let outcome = match action {
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
        Action::Leave { id, incarnation } => Ok(step.leave(id, incarnation)),
        Action::Trim { first } => Ok(step.trim(first)),
    };
    outcome.unwrap_or_else(Outcome::rejected)
}

/// One command on its way through the rules.
struct Step<'a> {
    service: &'a mut Service,
    room: Arc<str>,
    timestamp: Option<i64>,
    accepted_at: SystemTime,
    traceparent: String,
}

/// Who an event is about.
struct Sender {
    id: i32,
    name: Arc<str>,
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
    fn join(&mut self, join: Join) -> Result<Outcome, Rejection> {
        self.check_room()?;
        // Another history is another world: its times mean nothing here, and must not lock an honest client out.
        let foreign = join
            .resume
            .as_ref()
            .is_some_and(|resume| resume.epoch != self.service.epoch);
        if foreign {
            self.timestamp = None;
        }
        if !self.timestamp_is_possible() {
            return Err(self.impossible_timestamp());
        }
        let holder = join.session_held.and_then(|session| {
            let room = self.service.rooms.get(&*self.room)?;
            room.sessions.get(&session).copied()
        });
        match holder {
            Some(id) if join.resume.is_some() => Ok(self.resume(id, &join)),
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
            // The span is the JOIN's and has its time; a delivery of the LEAVE must not hang under it.
            events.push(Event {
                traceparent: String::new(),
                ..self.event(Kind::Leave, &sender, String::new(), String::new())
            });
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
    fn enter(&mut self, join: Join) -> Result<Outcome, Rejection> {
        let name = self.name(&join.name)?;
        if join.id < 1 {
            return Err(Rejection::BadId);
        }
        self.check_free(join.id, &name)?;
        self.open_room()?;
        let reading = self
            .service
            .reading(&self.room, join.resume.as_ref(), join.backlog);
        let incarnation = self.next_incarnation();
        let sender = Sender {
            id: join.id,
            name: name.as_str().into(),
            bot: join.bot,
        };
        let event = self.event(Kind::Join, &sender, String::new(), String::new());
        self.opened().insert(Member {
            id: join.id,
            name: Arc::clone(&sender.name),
            bot: join.bot,
            session: join.session_given,
            incarnation,
            joined_sequence: event.sequence,
            joined_timestamp: event.timestamp,
        });
        Ok(Outcome {
            answer: Answer::Joined {
                id: join.id,
                name: sender.name,
                incarnation,
                resumed: false,
                reading,
                timestamp: event.timestamp,
            },
            events: vec![event],
        })
    }

    fn say(
        &mut self,
        id: i32,
        incarnation: Incarnation,
        text: &str,
        message_id: String,
    ) -> Result<Outcome, Rejection> {
        match self.speaker(id, incarnation) {
            Some(sender) => self.publish(&sender, text, message_id),
            None => Ok(Outcome::void()),
        }
    }

    fn post(
        &mut self,
        poster: Poster,
        text: &str,
        message_id: String,
    ) -> Result<Outcome, Rejection> {
        self.check_room()?;
        let sender = match poster {
            Poster::Participant { id, session } => match self.member(id) {
                None => return Err(Rejection::NotInRoom { id }),
                Some(member) if member.session != Some(session) => {
                    return Err(Rejection::NotYourSession { id });
                }
                Some(member) => Sender::of(member),
            },
            Poster::Outsider { id, name, bot } => {
                let name = self.name(&name)?;
                if let Err(held) = self.check_free(id, &name) {
                    // A retry is no new claim to the name: somebody may have taken it since the first sending.
                    return self.retry(&name, text, message_id).ok_or(held);
                }
                Sender {
                    id,
                    name: name.into(),
                    bot,
                }
            }
        };
        self.publish(&sender, text, message_id)
    }

    /// Content that somebody wants in the room's history: checked, remembered, stored once.
    fn publish(
        &mut self,
        sender: &Sender,
        text: &str,
        message_id: String,
    ) -> Result<Outcome, Rejection> {
        check_message_id(&message_id)?;
        if !self.timestamp_is_possible() {
            return Ok(self.refuse(sender, Refusal::ImpossibleTimestamp, message_id));
        }
        let text = match text::message(text, &self.service.limits) {
            Ok(text) => text,
            Err(refusal) => return Ok(self.refuse(sender, refusal, message_id)),
        };
        let mark = Mark::of(&message_id, &sender.name, &text);
        match mark.and_then(|mark| self.first_result(mark)) {
            Some(Ok(first)) => return Ok(first.again(message_id)),
            Some(Err(reused)) => return Err(reused),
            None => {}
        }
        self.open_room()?;
        let event = self.event(Kind::Message, sender, text, message_id);
        if let Some(Mark { key, content }) = mark {
            let first = First {
                content,
                timestamp: event.timestamp,
                sequence: event.sequence,
            };
            self.opened().recent.remember(key, first);
        }
        Ok(Outcome {
            answer: Answer::Stored {
                timestamp: event.timestamp,
                sequence: event.sequence,
            },
            events: vec![event],
        })
    }

    /// The answer to a message that repeats one that is known.
    fn retry(&self, name: &str, text: &str, message_id: String) -> Option<Outcome> {
        let text = text::message(text, &self.service.limits).ok()?;
        let first = self.first_result(Mark::of(&message_id, name, &text)?)?;
        Some(first.ok()?.again(message_id))
    }

    /// What became of the message with this mark when it came first, if it did; an error if that was another one.
    fn first_result(&self, mark: Mark) -> Option<Result<First, Rejection>> {
        let room = self.service.rooms.get(&*self.room)?;
        let first = room.recent.get(mark.key)?;
        Some(match first.content == mark.content {
            true => Ok(first),
            false => Err(Rejection::MessageIdReused),
        })
    }

    fn refuse_from(
        &mut self,
        id: i32,
        incarnation: Incarnation,
        refusal: Refusal,
        message_id: String,
    ) -> Result<Outcome, Rejection> {
        let Some(sender) = self.speaker(id, incarnation) else {
            return Ok(Outcome::void());
        };
        check_message_id(&message_id)?;
        Ok(self.refuse(&sender, refusal, message_id))
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
        self.opened().remove(id);
        Outcome {
            answer: Answer::Left {
                timestamp: event.timestamp,
                sequence: event.sequence,
            },
            events: vec![event],
        }
    }

    fn trim(&mut self, first: u64) -> Outcome {
        if let Some(room) = self.service.rooms.get_mut(&*self.room) {
            room.first = first.clamp(room.first, room.head + 1);
            room.let_go(self.service.limits.dedup_events as u64);
        }
        Outcome::void()
    }

    /// The participant, if this incarnation of it is the one that counts.
    fn speaker(&mut self, id: i32, incarnation: Incarnation) -> Option<Sender> {
        let member = self.member(id)?;
        (member.incarnation == incarnation).then(|| Sender::of(member))
    }

    fn member(&mut self, id: i32) -> Option<&mut Member> {
        self.service
            .rooms
            .get_mut(&*self.room)?
            .members
            .get_mut(&id)
    }

    fn check_room(&self) -> Result<(), Rejection> {
        if text::is_room(&self.room) {
            Ok(())
        } else {
            Err(Rejection::BadRoom)
        }
    }

    fn name(&self, raw: &str) -> Result<String, Rejection> {
        text::name(raw, self.service.limits.name_chars).map_err(Rejection::BadName)
    }

    /// Nobody present holds the id or the name.
    fn check_free(&self, id: i32, name: &str) -> Result<(), Rejection> {
        let Some(room) = self.service.rooms.get(&*self.room) else {
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
        if !rooms.contains_key(&*self.room) {
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
            .get_mut(&*self.room)
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
        let kept = self.service.limits.history_events;
        let room = self.opened();
        room.head += 1;
        room.recent
            .forget_before((room.head + 1).saturating_sub(window));
        room.keep(kept);
        room.let_go(window);
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

/// What a message is recognized by when it comes again.
#[derive(Clone, Copy)]
struct Mark {
    key: Digest,
    content: Digest,
}

impl Mark {
    /// None for a message without an id: that one is new each time.
    fn of(message_id: &str, name: &str, text: &str) -> Option<Self> {
        (!message_id.is_empty()).then(|| Self {
            key: key(message_id),
            content: content(name, text),
        })
    }
}

fn check_message_id(message_id: &str) -> Result<(), Rejection> {
    if message_id.len() > text::MESSAGE_ID_BYTES_MAX {
        return Err(Rejection::BadMessageId);
    }
    Ok(())
}

/// What a message id is remembered by.
pub(super) fn key(message_id: &str) -> Digest {
    Digest::of(&[message_id.as_bytes()])
}

/// What makes two messages the same.
pub(super) fn content(name: &str, text: &str) -> Digest {
    Digest::of(&[name.as_bytes(), text.as_bytes()])
}
