//! The checker: what every client was told and read, held against the history that was stored.
//!
//! One function, [`check`], for every test that makes something fail. It knows no server and no network: a [`Run`] is
//! all it is given, so that whether it would notice can be tested too (`tests/spec/checker.rs`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use chitchat::{
    client::render,
    wire::v1::{EventType, ServerMessage},
};
use prost::Message as _;
use serde_json::Value;

/// Everything that clients did and heard, and what is stored when all is over.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// One for each client; names are unique, and so are the texts said.
    pub transcripts: Vec<Transcript>,
    /// One for each room.
    pub rooms: Vec<Stored>,
}

/// A room's history after the run, as `GetHistory` gives it, page after page.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The room.
    pub room: String,
    /// The epoch of each page.
    pub epochs: BTreeSet<String>,
    /// All events.
    pub events: Vec<ServerMessage>,
}

/// What one client did and heard, in its own order, over all its connections.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// Its name.
    pub client: String,
    /// Where it was.
    pub room: String,
    /// What it did and heard.
    pub steps: Vec<Step>,
    /// How it ended.
    pub end: End,
}

/// One step of a client.
#[derive(Debug, Clone)]
pub enum Step {
    /// It joined, and its reading of the history `epoch` begins; none where it does not say which.
    Joined { epoch: Option<String> },
    /// It came back after a break; `recovered`: it was told that nothing is missing.
    Returned {
        epoch: Option<String>,
        recovered: bool,
    },
    /// It was to say `text`. Everything before this step may have been the cause.
    Said { text: String },
    /// It was told that its message is stored, and where.
    Acknowledged {
        message_id: String,
        sequence: u64,
        timestamp: i64,
    },
    /// It was told that its message is refused, at this logical time.
    Refused {
        text: String,
        timestamp: i64,
        clock: Clock,
    },
    /// It read an event.
    Read { heard: Heard, clock: Clock },
}

/// A client's own clock around a step.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Where it can be told.
    pub before: Option<i64>,
    pub after: i64,
}

/// An event as a client read it.
#[derive(Debug, Clone)]
pub enum Heard {
    /// From the wire.
    Message(Box<ServerMessage>),
    /// From the output of `chitchat chat --json`.
    Json(Value),
}

/// How a client's part ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It left, and its stream ended well.
    Left,
    /// It was killed, or gave up: what it did last is not known to it.
    Lost,
    /// It was never in the room: it posted from outside.
    Outside,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// All clients and all rooms speak of one history.
    OneEpoch,
    /// A room's sequence is 1, 2, 3 ... without a gap.
    SequenceIsDense,
    /// Logical time rises with the sequence.
    TimeRises,
    /// No logical time is given twice, in whatever room, refusals included.
    TimeIsGivenOnce,
    /// A message is stored once.
    StoredOnce,
    /// Nothing is stored that nobody said.
    StoredWasSaid,
    /// What was refused is not stored.
    RefusedIsNotStored,
    /// What one client says is stored in the order in which it said it.
    StoredInOrderSaid,
    /// Who is in the room has joined; each departure is announced once, and in the end everybody's is.
    DepartedOnce,
    /// What was acknowledged is stored, where and when the acknowledgement says.
    AcknowledgedIsStored,
    /// Who left in good order had an answer to everything it said.
    SaidIsAnswered,
    /// What a client read is stored.
    ReadIsStored,
    /// And it is the same, byte for byte.
    ReadAsStored,
    /// A client reads each event once.
    ReadOnce,
    /// Everybody reads in the one order.
    ReadInOrder,
    /// A client's reading has no gap.
    ReadWithoutGap,
    /// A client reads from its own JOIN until just before its own LEAVE.
    ReadFromJoinToLeave,
    /// As long as nothing was dropped from the history, who comes back is told that nothing is missing.
    RecoveredIsTold,
    /// What a client had read before it said something has the smaller logical time.
    CauseBeforeEffect,
    /// A client's clock never goes back, and is later than what it received.
    ClockRises,
}

/// A rule that does not hold: where, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub rule: Rule,
    /// Whose transcript shows it; empty where the stored history alone does.
    pub client: String,
    pub room: String,
    /// 0 where it is not about one event.
    pub sequence: u64,
    pub seen: String,
}

/// What was checked when every rule held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    pub clients: usize,
    pub rooms: usize,
    pub stored: usize,
    pub said: usize,
    pub acknowledged: usize,
    pub refused: usize,
    pub read: usize,
    /// How often a client came back after a break.
    pub returned: usize,
    /// Departures in the stored histories.
    pub departed: usize,
}

/// Whether every [`Rule`] holds.
///
/// # Errors
/// What does not. Of each client (and of each stored room) every rule is named at most once, where it was first broken:
/// what follows is mostly its consequence.
pub fn check(run: &Run) -> Result<Proof, Vec<Fault>> {
    let mut faults = Faults::default();
    let rooms: BTreeMap<&str, Room> = (run.rooms.iter())
        .map(|stored| (stored.room.as_str(), Room::of(stored)))
        .collect();

    check_epochs(run, &mut faults);
    check_times(run, &mut faults);
    for stored in &run.rooms {
        let members: Vec<&Transcript> = (run.transcripts.iter())
            .filter(|transcript| transcript.room == stored.room)
            .collect();
        check_stored(stored, &members, &mut faults);
        check_presence(stored, &members, &mut faults);
    }
    for transcript in &run.transcripts {
        let Some(room) = rooms.get(transcript.room.as_str()) else {
            faults.of_client(transcript, Rule::ReadIsStored, 0, "the room is not stored");
            continue;
        };
        check_answers(transcript, room, &mut faults);
        check_causes(transcript, room, &mut faults);
        check_clock(transcript, &mut faults);
        if transcript.end != End::Outside {
            check_reading(transcript, room, &mut faults);
        }
    }

    if faults.list.is_empty() {
        Ok(proof(run))
    } else {
        Err(faults.list)
    }
}

/// The same, for a test: fails it with everything that was found.
pub fn prove(run: &Run) -> Proof {
    check(run).unwrap_or_else(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        panic!("{} faults:\n{}", faults.len(), lines.join("\n"))
    })
}

fn check_epochs(run: &Run, faults: &mut Faults) {
    let mut the_epoch: Option<&str> = None;
    for stored in &run.rooms {
        for epoch in &stored.epochs {
            if *the_epoch.get_or_insert(epoch) != epoch {
                faults.of_room(stored, Rule::OneEpoch, 0, format!("history {epoch}"));
            }
        }
    }
    for transcript in &run.transcripts {
        for step in &transcript.steps {
            if let Step::Joined { epoch } | Step::Returned { epoch, .. } = step
                && let Some(epoch) = epoch
                && *the_epoch.get_or_insert(epoch) != epoch
            {
                faults.of_client(transcript, Rule::OneEpoch, 0, format!("history {epoch}"));
            }
        }
    }
}

/// The service has one clock: what it gave to one event or refusal it gives to nothing else.
fn check_times(run: &Run, faults: &mut Faults) {
    let mut given = HashMap::new();
    for stored in &run.rooms {
        for event in &stored.events {
            let this = (stored.room.as_str(), event.sequence);
            if let Some((room, sequence)) = given.insert(event.timestamp, this) {
                let seen = format!("L={} is event {sequence} of {room} too", event.timestamp);
                faults.of_room(stored, Rule::TimeIsGivenOnce, event.sequence, seen);
            }
        }
    }
    for transcript in &run.transcripts {
        for step in &transcript.steps {
            let Step::Refused { timestamp, .. } = step else {
                continue;
            };
            let this = (transcript.room.as_str(), 0);
            if let Some((room, sequence)) = given.insert(*timestamp, this) {
                let seen = format!("refused at L={timestamp}, which is event {sequence} of {room}");
                faults.of_client(transcript, Rule::TimeIsGivenOnce, sequence, seen);
            }
        }
    }
}

fn check_stored(stored: &Stored, members: &[&Transcript], faults: &mut Faults) {
    let said = said_by(members);
    let refused = refused_by(members);
    let (mut texts, mut ids) = (HashMap::new(), HashMap::new());
    let mut last_said: HashMap<&str, usize> = HashMap::new();
    let (mut sequence, mut time) = (0, 0);
    for event in &stored.events {
        let here = event.sequence;
        if here != sequence + 1 {
            let seen = format!("after {sequence}");
            faults.of_room(stored, Rule::SequenceIsDense, here, seen);
        }
        if event.timestamp <= time {
            let seen = format!("L={} after L={time}", event.timestamp);
            faults.of_room(stored, Rule::TimeRises, here, seen);
        }
        (sequence, time) = (here, event.timestamp);
        if event.r#type() != EventType::Message {
            continue;
        }
        let (text, id) = (event.msg_stream.as_str(), event.message_id.as_str());
        let twice = (texts.insert(text, here)).or(ids.insert(id, here).filter(|_| !id.is_empty()));
        if let Some(first) = twice {
            let seen = format!("{text:?} ({id}) is event {first} too");
            faults.of_room(stored, Rule::StoredOnce, here, seen);
        }
        let Some((who, number)) = said.get(text).filter(|(who, _)| *who == event.sender_name)
        else {
            let seen = format!("{:?} of {}", text, event.sender_name);
            faults.of_room(stored, Rule::StoredWasSaid, here, seen);
            continue;
        };
        if refused.contains(text) {
            let seen = format!("{text:?} of {who}");
            faults.of_room(stored, Rule::RefusedIsNotStored, here, seen);
        }
        if let Some(before) = last_said.insert(who, *number)
            && before > *number
        {
            let seen = format!("{text:?} of {who}, who had said it before the one before");
            faults.of_room(stored, Rule::StoredInOrderSaid, here, seen);
        }
    }
}

/// What was said, by whom, and as which of its texts.
fn said_by<'a>(members: &[&'a Transcript]) -> HashMap<&'a str, (&'a str, usize)> {
    let mut said = HashMap::new();
    for member in members {
        let texts = member.steps.iter().filter_map(|step| match step {
            Step::Said { text } => Some(text.as_str()),
            _ => None,
        });
        for (number, text) in texts.enumerate() {
            let other = said.insert(text, (member.client.as_str(), number));
            assert!(other.is_none(), "{text:?} cannot be told from another text");
        }
    }
    said
}

fn refused_by<'a>(members: &[&'a Transcript]) -> HashSet<&'a str> {
    let steps = members.iter().flat_map(|member| &member.steps);
    let refused = steps.filter_map(|step| match step {
        Step::Refused { text, .. } => Some(text.as_str()),
        _ => None,
    });
    refused.collect()
}

fn check_presence(stored: &Stored, members: &[&Transcript], faults: &mut Faults) {
    let outside: HashSet<&str> = (members.iter())
        .filter(|member| member.end == End::Outside)
        .map(|member| member.client.as_str())
        .collect();
    let known: HashSet<&str> = (members.iter())
        .map(|member| member.client.as_str())
        .collect();
    let mut present: BTreeMap<i32, &str> = BTreeMap::new();
    for event in &stored.events {
        let (id, name) = (event.sender_id, event.sender_name.as_str());
        let was_present = present.get(&id) == Some(&name);
        let wrong = match event.r#type() {
            EventType::Join if !known.contains(name) => Some("joined, and nobody is called so"),
            EventType::Join if was_present => Some("joined, and had not left"),
            EventType::Join if present.contains_key(&id) => Some("joined as somebody present"),
            EventType::Join if present.values().any(|other| *other == name) => {
                Some("joined under the name of somebody present")
            }
            EventType::Message if !was_present && !outside.contains(name) => {
                Some("spoke, and was not there")
            }
            EventType::Leave if !was_present => Some("left, and was not there"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let seen = format!("{name} (ID={id}) {wrong}");
            faults.of_room(stored, Rule::DepartedOnce, event.sequence, seen);
        }
        match event.r#type() {
            EventType::Join => drop(present.insert(id, name)),
            EventType::Leave => drop(present.remove(&id)),
            EventType::Message => {}
        }
    }
    if let Some((id, name)) = present.first_key_value() {
        let seen = format!("{name} (ID={id}) is gone, and never left");
        faults.of_room(stored, Rule::DepartedOnce, 0, seen);
    }
}

fn check_answers(transcript: &Transcript, room: &Room<'_>, faults: &mut Faults) {
    let mut unanswered: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, step) in transcript.steps.iter().enumerate() {
        match step {
            Step::Said { text } => drop(unanswered.insert(text, number)),
            Step::Refused { text, .. } => drop(unanswered.remove(text.as_str())),
            Step::Acknowledged {
                message_id,
                sequence,
                timestamp,
            } => match room.event(*sequence) {
                Some(event)
                    if event.message_id == *message_id
                        && event.timestamp == *timestamp
                        && event.sender_name == transcript.client =>
                {
                    unanswered.remove(event.msg_stream.as_str());
                }
                other => {
                    let seen = format!("{message_id} at L={timestamp}, where there is {other:?}");
                    faults.of_client(transcript, Rule::AcknowledgedIsStored, *sequence, seen);
                }
            },
            _ => {}
        }
    }
    if transcript.end != End::Lost
        && let Some(text) = unanswered.keys().next()
    {
        let seen = format!("{text:?} and {} others", unanswered.len() - 1);
        faults.of_client(transcript, Rule::SaidIsAnswered, 0, seen);
    }
}

/// `max(what was read) < sent_timestamp < timestamp`, for everything that was said and is stored.
fn check_causes(transcript: &Transcript, room: &Room<'_>, faults: &mut Faults) {
    let mut read = 0;
    for step in &transcript.steps {
        match step {
            Step::Read { heard, .. } => read = read.max(heard.timestamp()),
            Step::Acknowledged { timestamp, .. } | Step::Refused { timestamp, .. } => {
                read = read.max(*timestamp);
            }
            Step::Said { text } => {
                let Some(event) = room.texts.get(text.as_str()) else {
                    continue;
                };
                if event.sent_timestamp <= read || event.timestamp <= event.sent_timestamp {
                    let seen = format!(
                        "{text:?} sent at L={}, stored at L={}, after L={read} was read",
                        event.sent_timestamp, event.timestamp
                    );
                    faults.of_client(transcript, Rule::CauseBeforeEffect, event.sequence, seen);
                }
            }
            Step::Joined { .. } | Step::Returned { .. } => {}
        }
    }
}

fn check_clock(transcript: &Transcript, faults: &mut Faults) {
    let mut stood = 0;
    let mut history = None;
    for step in &transcript.steps {
        let (clock, timestamp, sequence) = match step {
            // A new history is a new world, where clocks start anew.
            Step::Joined { epoch } | Step::Returned { epoch, .. } => {
                if history.replace(epoch) != Some(epoch) {
                    stood = 0;
                }
                continue;
            }
            Step::Read { heard, clock } => (clock, heard.timestamp(), heard.sequence()),
            Step::Refused {
                clock, timestamp, ..
            } => (clock, *timestamp, 0),
            Step::Said { .. } | Step::Acknowledged { .. } => continue,
        };
        let before = clock.before.unwrap_or(stood);
        if before < stood || clock.after <= before || clock.after <= timestamp {
            let seen = format!(
                "{before} to {} on L={timestamp}, after {stood}",
                clock.after
            );
            faults.of_client(transcript, Rule::ClockRises, sequence, seen);
        }
        stood = clock.after;
    }
}

fn check_reading(transcript: &Transcript, room: &Room<'_>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    let mut last: Option<u64> = None;
    for step in &transcript.steps {
        let heard = match step {
            Step::Read { heard, .. } => heard,
            Step::Returned {
                recovered: false, ..
            } => {
                faults.of_client(
                    transcript,
                    Rule::RecoveredIsTold,
                    last.unwrap_or(0),
                    "it was not",
                );
                last = None;
                continue;
            }
            _ => continue,
        };
        let here = heard.sequence();
        if !seen.insert(here) {
            faults.of_client(transcript, Rule::ReadOnce, here, "read before");
        } else if let Some(last) = last.filter(|last| here < *last) {
            faults.of_client(transcript, Rule::ReadInOrder, here, format!("after {last}"));
        } else if let Some(last) = last.filter(|last| here > *last + 1) {
            faults.of_client(
                transcript,
                Rule::ReadWithoutGap,
                here,
                format!("after {last}"),
            );
        }
        if last.is_none() && !heard.is_of(EventType::Join, &transcript.client) {
            let seen = format!("reading began with {heard:?}");
            faults.of_client(transcript, Rule::ReadFromJoinToLeave, here, seen);
        }
        last = Some(here);
        match room.event(here) {
            None => {
                let seen = format!("read, and is not there: {heard:?}");
                faults.of_client(transcript, Rule::ReadIsStored, here, seen);
            }
            Some(event) if !heard.equals(event) => {
                let seen = format!("{heard:?}, and stored is {event:?}");
                faults.of_client(transcript, Rule::ReadAsStored, here, seen);
            }
            Some(_) => {}
        }
    }
    if transcript.end == End::Left {
        let left = room.stored.events.iter().rev().find(|event| {
            event.r#type() == EventType::Leave && event.sender_name == transcript.client
        });
        let left = left.map(|event| event.sequence);
        if left != last.map(|last| last + 1) {
            let seen = format!("its LEAVE is {left:?}, and it read until {last:?}");
            faults.of_client(
                transcript,
                Rule::ReadFromJoinToLeave,
                left.unwrap_or(0),
                seen,
            );
        }
    }
}

fn proof(run: &Run) -> Proof {
    let events = run.rooms.iter().flat_map(|stored| &stored.events);
    let mut proof = Proof {
        clients: run.transcripts.len(),
        rooms: run.rooms.len(),
        stored: run.rooms.iter().map(|stored| stored.events.len()).sum(),
        departed: events
            .filter(|event| event.r#type() == EventType::Leave)
            .count(),
        ..Proof::default()
    };
    for step in run.transcripts.iter().flat_map(|one| &one.steps) {
        let count = match step {
            Step::Joined { .. } => continue,
            Step::Returned { .. } => &mut proof.returned,
            Step::Said { .. } => &mut proof.said,
            Step::Acknowledged { .. } => &mut proof.acknowledged,
            Step::Refused { .. } => &mut proof.refused,
            Step::Read { .. } => &mut proof.read,
        };
        *count += 1;
    }
    proof
}

/// A stored room with what is looked up in it.
struct Room<'a> {
    stored: &'a Stored,
    sequences: HashMap<u64, &'a ServerMessage>,
    texts: HashMap<&'a str, &'a ServerMessage>,
}

impl<'a> Room<'a> {
    fn of(stored: &'a Stored) -> Self {
        let messages = (stored.events.iter()).filter(|event| event.r#type() == EventType::Message);
        Self {
            stored,
            sequences: (stored.events.iter())
                .map(|event| (event.sequence, event))
                .collect(),
            texts: messages
                .map(|event| (event.msg_stream.as_str(), event))
                .collect(),
        }
    }

    fn event(&self, sequence: u64) -> Option<&'a ServerMessage> {
        self.sequences.get(&sequence).copied()
    }
}

impl Heard {
    /// The event's sequence.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Message(message) => message.sequence,
            Self::Json(json) => json["sequence"].as_u64().unwrap_or(0),
        }
    }

    /// The event's logical time.
    pub fn timestamp(&self) -> i64 {
        match self {
            Self::Message(message) => message.timestamp,
            Self::Json(json) => json["logical_time"].as_i64().unwrap_or(0),
        }
    }

    fn is_of(&self, kind: EventType, name: &str) -> bool {
        match self {
            Self::Message(message) => message.r#type() == kind && message.sender_name == name,
            Self::Json(json) => {
                json["kind"] == kind.as_str_name().to_lowercase() && json["sender_name"] == name
            }
        }
    }

    /// Whether it is `stored`, but for the welcome on one's own JOIN; and in JSON, for what is the reader's own.
    fn equals(&self, stored: &ServerMessage) -> bool {
        match self {
            Self::Message(message) => {
                let event = ServerMessage {
                    welcome: None,
                    ..(**message).clone()
                };
                event.encode_to_vec() == stored.encode_to_vec()
            }
            Self::Json(json) => {
                let mut event = json.clone();
                if let Some(fields) = event.as_object_mut() {
                    fields.retain(|name, _| !["own", "past", "clock"].contains(&name.as_str()));
                }
                let stored = serde_json::from_str::<Value>(&render::event_json(stored));
                stored.is_ok_and(|stored| stored == event)
            }
        }
    }
}

/// The faults so far: the first of each rule for each client and each stored room.
#[derive(Default)]
struct Faults {
    list: Vec<Fault>,
    named: HashSet<(Rule, String, String)>,
}

impl Faults {
    fn of_client(
        &mut self,
        transcript: &Transcript,
        rule: Rule,
        sequence: u64,
        seen: impl Into<String>,
    ) {
        self.add(Fault {
            rule,
            client: transcript.client.clone(),
            room: transcript.room.clone(),
            sequence,
            seen: seen.into(),
        });
    }

    fn of_room(&mut self, stored: &Stored, rule: Rule, sequence: u64, seen: impl Into<String>) {
        self.add(Fault {
            rule,
            client: String::new(),
            room: stored.room.clone(),
            sequence,
            seen: seen.into(),
        });
    }

    fn add(&mut self, fault: Fault) {
        let key = (fault.rule, fault.client.clone(), fault.room.clone());
        if self.named.insert(key) {
            self.list.push(fault);
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}", self.rule, self.room)?;
        if self.sequence > 0 {
            write!(f, ", event {}", self.sequence)?;
        }
        if !self.client.is_empty() {
            write!(f, ", by {}", self.client)?;
        }
        write!(f, ": {}", self.seen)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            clients,
            rooms,
            stored,
            said,
            acknowledged,
            refused,
            read,
            returned,
            departed,
        } = self;
        write!(
            f,
            "{clients} clients in {rooms} rooms: {said} said, {acknowledged} acknowledged, {refused} refused; {stored} \
             stored, {read} read; {returned} returns, {departed} departures"
        )
    }
}
