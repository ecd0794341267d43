//! The journal on disk does what a list would: whatever is stored, dropped and read, in whatever order, and however the
//! process ends in between.
//!
//! `PROPTEST_CASES=1000` tries more runs. The steps of one that fails are printed, as few as still fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
};

use chitchat::{
    journal::{self, Batch, Entry, Extent, Journal, Opened, Page, Range, Writer},
    room::{Digest, Incarnation, Member, Past, RoomSnapshot, Snapshot},
    wire::{
        Frame,
        v1::{EventType, ServerMessage},
    },
};
use proptest::{collection::vec, prelude::*};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::directory::{DATABASE, LOCK, LOG};

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

/// Runs, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 24;

/// The ids of so many of a room's last events are kept, also where the events are not.
const REMEMBERED: usize = 30;

/// What the journal is to hold.
#[derive(Debug, Clone, Default)]
struct Model {
    rooms: BTreeMap<String, Room>,
    clock: i64,
    incarnations: u64,
}

#[derive(Debug, Clone, Default)]
struct Room {
    /// Every event that there was; the first one has the sequence 1.
    events: Vec<ServerMessage>,
    /// How many of them are dropped.
    dropped: usize,
    /// The oldest one whose id is kept all the same.
    oldest: u64,
    members: BTreeMap<i32, Member>,
}

/// What a batch is made of; a room is one of `a`, `b`, `c`.
#[derive(Debug, Clone)]
enum Deed {
    /// A message of so many bytes, with or without an id.
    Say(char, usize, bool),
    /// Somebody comes, or comes back.
    Come(char, i32),
    Go(char, i32),
    /// So many of the oldest events are let go of.
    Drop(char, usize),
    /// Time passes, and nothing else.
    Tick,
}

#[derive(Debug, Clone)]
enum Step {
    Store(Vec<Deed>),
    Read(char, Range, usize),
    Past(char, u64),
    End(Ending),
}

/// How the process ends, before the next one begins.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Stop,
    /// By an error: it cleans nothing up, but its files are closed.
    Failure,
    /// By a kill: the files are as they were that moment.
    Kill,
}

fn room() -> impl Strategy<Value = char> {
    prop_oneof![4 => Just('a'), 2 => Just('b'), 1 => Just('c')]
}

fn deed() -> impl Strategy<Value = Deed> {
    // Some rows are too large for their page.
    let bytes = prop_oneof![8 => 0..300_usize, 1 => 900..6_000_usize];
    prop_oneof![
        12 => (room(), bytes, any::<bool>()).prop_map(|(room, bytes, id)| Deed::Say(room, bytes, id)),
        3 => (room(), 1..4_i32).prop_map(|(room, id)| Deed::Come(room, id)),
        2 => (room(), 1..4_i32).prop_map(|(room, id)| Deed::Go(room, id)),
        2 => (room(), 0..40_usize).prop_map(|(room, count)| Deed::Drop(room, count)),
        1 => Just(Deed::Tick),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    let place = || prop_oneof![8 => 0..120_u64, 1 => Just(u64::MAX)];
    prop_oneof![
        (place(), place()).prop_map(|(after, before)| Range::After { after, before }),
        place().prop_map(|after| Range::After { after, before: 0 }),
        place().prop_map(Range::Before),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ending = prop_oneof![
        Just(Ending::Stop),
        Just(Ending::Failure),
        Just(Ending::Kill)
    ];
    prop_oneof![
        6 => vec(deed(), 0..40).prop_map(Step::Store),
        4 => (room(), range(), 0..60_usize).prop_map(|(room, range, limit)| Step::Read(room, range, limit)),
        2 => (room(), 0..120_u64).prop_map(|(room, after)| Step::Past(room, after)),
        2 => ending.prop_map(Step::End),
    ]
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        step().boxed()
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        if let Step::Store(deeds) = step {
            model.batch(deeds);
        }
        model
    }
}

impl Model {
    /// Does the deeds, and says what of them is to be stored.
    fn batch(&mut self, deeds: &[Deed]) -> Batch {
        let (mut rooms, mut members) = (BTreeSet::new(), BTreeSet::new());
        let mut entries = Vec::new();
        for deed in deeds {
            self.clock += 1;
            match *deed {
                Deed::Tick => {}
                Deed::Say(room, bytes, has_id) => {
                    rooms.insert(room);
                    let id = if has_id {
                        format!("id {}", self.clock)
                    } else {
                        String::new()
                    };
                    entries.push(self.event(room, EventType::Message, "x".repeat(bytes), id));
                }
                Deed::Come(room, id) => {
                    let is_there = self.room(room).members.contains_key(&id);
                    if !is_there {
                        rooms.insert(room);
                        entries.push(self.event(
                            room,
                            EventType::Join,
                            String::new(),
                            String::new(),
                        ));
                    }
                    members.insert((room, id));
                    self.incarnations += 1;
                    let member = self.member(room, id);
                    self.room(room).members.insert(id, member);
                }
                Deed::Go(room, id) => {
                    members.insert((room, id));
                    if self.room(room).members.remove(&id).is_some() {
                        rooms.insert(room);
                        entries.push(self.event(
                            room,
                            EventType::Leave,
                            String::new(),
                            String::new(),
                        ));
                    }
                }
                Deed::Drop(room, count) => {
                    let at = self.room(room);
                    let dropped = (at.dropped + count).min(at.events.len());
                    if at.dropped != dropped {
                        at.dropped = dropped;
                        rooms.insert(room);
                    }
                }
            }
        }
        // A room without history is none.
        self.rooms.retain(|_, room| !room.events.is_empty());
        for room in self.rooms.values_mut() {
            let remembered = (room.events.len() + 1).saturating_sub(REMEMBERED);
            room.oldest = room
                .oldest
                .max(remembered.min(room.dropped + 1) as u64)
                .max(1);
        }
        Batch {
            entries,
            rooms: rooms.into_iter().map(|room| self.extent(room)).collect(),
            members: (members.into_iter())
                .map(|(room, id)| (name(room), id, self.kept(room, id)))
                .collect(),
            clock: self.clock,
            incarnations: self.incarnations,
        }
    }

    fn room(&mut self, room: char) -> &mut Room {
        self.rooms.entry(room.into()).or_default()
    }

    fn event(&mut self, room: char, kind: EventType, text: String, message_id: String) -> Entry {
        let timestamp = self.clock;
        let events = &mut self.room(room).events;
        let event = ServerMessage {
            sequence: events.len() as u64 + 1,
            timestamp,
            r#type: kind.into(),
            sender_name: "Ada".into(),
            room: room.into(),
            msg_stream: text,
            message_id,
            ..ServerMessage::default()
        };
        let entry = Entry {
            room: name(room),
            sequence: event.sequence,
            frame: Frame::of(&event),
        };
        events.push(event);
        entry
    }

    fn member(&self, room: char, id: i32) -> Member {
        let secret = self.incarnations.to_le_bytes();
        Member {
            id,
            name: format!("{room} {id}").into(),
            bot: id == 2,
            session: (id != 3).then(|| Digest::of(&[&secret])),
            incarnation: Incarnation(self.incarnations),
            joined_sequence: self.clock.unsigned_abs(),
            joined_timestamp: self.clock,
        }
    }

    fn kept(&self, room: char, id: i32) -> Option<Member> {
        self.rooms
            .get(&String::from(room))?
            .members
            .get(&id)
            .cloned()
    }

    fn extent(&self, room: char) -> Extent {
        let kept = &self.rooms[&String::from(room)];
        Extent {
            room: name(room),
            head: kept.events.len() as u64,
            first: kept.dropped as u64 + 1,
            oldest: kept.oldest,
        }
    }

    fn snapshot(&self) -> Snapshot {
        let rooms = self.rooms.iter().map(|(name, room)| RoomSnapshot {
            name: name.clone(),
            head: room.events.len() as u64,
            first: room.dropped as u64 + 1,
            oldest: room.oldest,
            members: room.members.values().cloned().collect(),
        });
        Snapshot {
            epoch: EPOCH.into(),
            clock: self.clock,
            incarnations: self.incarnations,
            rooms: rooms.collect(),
        }
    }

    /// The events of a room that are kept and whose sequence is `wanted`.
    fn events(&self, room: char, wanted: impl Fn(u64) -> bool) -> Vec<ServerMessage> {
        let room = self.rooms.get(&String::from(room));
        let kept = room.map_or(&[][..], |room| &room.events[room.dropped..]);
        kept.iter()
            .filter(|event| wanted(event.sequence))
            .cloned()
            .collect()
    }

    /// The page that is asked for, and whether there is more.
    fn page(&self, room: char, range: Range, limit: usize) -> (Vec<ServerMessage>, bool) {
        let mut events = match range {
            Range::Before(before) => self.events(room, |sequence| sequence < before),
            Range::After { after, before } => self.events(room, |sequence| {
                sequence > after && (before == 0 || sequence < before)
            }),
        };
        let beyond = events.len().saturating_sub(limit);
        match range {
            Range::Before(_) => drop(events.drain(..beyond)),
            Range::After { .. } => events.truncate(limit),
        }
        (events, beyond > 0)
    }

    fn past(&self, room: char, after: u64) -> Vec<Past> {
        let Some(room) = self.rooms.get(&String::from(room)) else {
            return Vec::new();
        };
        let known = |event: &&ServerMessage| {
            event.sequence > after && event.sequence >= room.oldest && !event.message_id.is_empty()
        };
        let with_id = room.events.iter().filter(known);
        with_id
            .map(|event| {
                Past::new(
                    &event.message_id,
                    &event.sender_name,
                    &event.msg_stream,
                    event.timestamp,
                    event.sequence,
                )
            })
            .collect()
    }
}

fn name(room: char) -> Arc<str> {
    room.to_string().into()
}

/// The journal, and what it needs.
struct OnDisk {
    directory: TempDir,
    opened: Option<(Writer, Journal)>,
    /// The model before the next step, from which its batch is made.
    model: Model,
    runtime: Runtime,
}

impl StateMachineTest for OnDisk {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let mut on_disk = Self {
            directory: directory(),
            opened: None,
            model: Model::default(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
        };
        on_disk.open();
        on_disk
    }

    fn apply(mut on_disk: Self, _: &Model, step: Step) -> Self {
        match step {
            Step::Store(deeds) => {
                let batch = on_disk.model.batch(&deeds);
                let stored = on_disk.writer().store(batch).expect("it is stored");
                assert!(
                    stored.is_empty(),
                    "nothing is dropped but what was asked for"
                );
            }
            Step::Read(room, range, limit) => on_disk.check_page(room, range, limit),
            Step::Past(room, after) => {
                let past = on_disk.writer().past(&room.to_string(), after);
                assert_eq!(past.expect("it is read"), on_disk.model.past(room, after));
            }
            Step::End(ending) => {
                on_disk.end(ending);
                on_disk.open();
            }
        }
        on_disk
    }

    /// Whatever the steps were: it ends, and all that is kept is there for the next process.
    fn teardown(mut on_disk: Self, _: Model) {
        on_disk.end(Ending::Kill);
        on_disk.open();
        for room in ['a', 'b', 'c'] {
            on_disk.check_page(
                room,
                Range::After {
                    after: 0,
                    before: 0,
                },
                100_000,
            );
            on_disk.check_page(room, Range::Before(u64::MAX), 100_000);
        }
    }
}

impl OnDisk {
    fn writer(&mut self) -> &mut Writer {
        &mut self.opened.as_mut().expect("it is open").0
    }

    fn check_page(&self, room: char, range: Range, limit: usize) {
        let (_, journal) = self.opened.as_ref().expect("it is open");
        let name = room.to_string();
        let reading = journal.read(&name, range, limit);
        let Page { events, more } = self.runtime.block_on(reading).expect("it is read");
        let (expected, expected_more) = self.model.page(room, range, limit);
        let read: Vec<ServerMessage> = (events.iter())
            .map(|(_, frame)| frame.decode().expect("it is an event"))
            .collect();
        assert!(read == expected, "{room} {range:?} {limit}");
        assert_eq!(more, expected_more, "{room} {range:?} {limit}");
        assert!(
            (events.iter().zip(&read)).all(|((sequence, _), event)| *sequence == event.sequence)
        );
    }

    fn end(&mut self, ending: Ending) {
        let (writer, journal) = self.opened.take().expect("it is open");
        match ending {
            Ending::Stop => {
                writer.close().expect("it is closed");
                drop(journal);
                assert!(
                    !self.directory.path().join(LOG).exists(),
                    "all is in one file"
                );
            }
            Ending::Failure => drop((writer, journal)),
            Ending::Kill => {
                let left = directory();
                for file in [DATABASE, LOG, LOCK] {
                    let from = self.directory.path().join(file);
                    fs::copy(from, left.path().join(file)).expect("it is copied");
                }
                self.directory = left;
            }
        }
    }

    fn open(&mut self) {
        let opened = journal::in_directory(self.directory.path(), EPOCH.into());
        let Opened {
            writer,
            journal,
            snapshot,
        } = opened.expect("it is whole");
        assert_eq!(snapshot, self.model.snapshot());
        assert_eq!(self.integrity(), "ok");
        self.opened = Some((writer, journal));
    }

    fn integrity(&self) -> String {
        let database = self.directory.path().join(DATABASE);
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let checked = connection.and_then(|connection| {
            connection.query_row("PRAGMA integrity_check", (), |row| row.get(0))
        });
        checked.expect("SQLite can check it")
    }
}

/// In memory where there is such a thing: what is tried here is what is in the files, not what a disk does with them.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory should be made")
}

fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    ProptestConfig {
        cases: match std::env::var_os("PROPTEST_CASES") {
            Some(_) => given.cases,
            None => CASES,
        },
        failure_persistence: None,
        // Enough to come from forty steps to a few.
        max_shrink_iters: 2_048,
        ..given
    }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_stored_dropped_and_read_the_journal_does_what_a_list_would(sequential 1..40 => OnDisk);
}
