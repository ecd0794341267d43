use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::UNIX_EPOCH,
};

use chitchat::{
    config::Limits,
    room::{
        Action, Answer, Command, Digest, Event, Incarnation, Join, Kind, Member, Outcome, Poster,
        Refusal, Rejection, Resume, Service, text::MESSAGE_ID_BYTES_MAX,
    },
};
use proptest::{
    collection::vec, option, prelude::*, sample::select, strategy::ValueTree,
    test_runner::TestRunner,
};

const EPOCH: &str = "this";

/// Small limits, so that a short run meets all of them.
fn limits() -> Limits {
    Limits {
        text_chars: 8,
        clock_jump: 100,
        dedup_events: 2,
        rooms: 2,
        ..Limits::default()
    }
}

fn service() -> Service {
    Service::new(EPOCH.into(), limits())
}

// ---- What may happen: steps that find their members, sessions and times in the state they meet.

/// A command to be.
#[derive(Debug, Clone)]
struct Step {
    room: &'static str,
    stamp: Stamp,
    deed: Deed,
}

/// A timestamp, as seen from the service's clock.
#[derive(Debug, Clone, Copy)]
enum Stamp {
    None,
    Zero,
    Behind(i64),
    Ahead(i64),
    Negative(i64),
    End,
}

#[derive(Debug, Clone)]
enum Deed {
    Join {
        id: i32,
        name: &'static str,
        session: Option<Held>,
        resume: Option<Position>,
        backlog: usize,
    },
    Say(Stream, Words),
    PostAs(Held, usize, Words),
    PostFromOutside(i32, &'static str, Words),
    Refuse(Stream, Refusal),
    Leave(Stream),
    Trim(i64),
}

#[derive(Debug, Clone, Copy)]
struct Words {
    text: &'static str,
    message_id: &'static str,
}

/// A session that somebody shows.
#[derive(Debug, Clone, Copy)]
enum Held {
    /// That of a participant; see [`somebody`].
    Of(usize),
    /// One that was given out at this step, to whomever, or never.
    GivenAt(u8),
}

/// A participant's stream.
#[derive(Debug, Clone, Copy)]
struct Stream {
    /// See [`somebody`].
    who: usize,
    /// How many incarnations of the service ago; 0 for the participant's own newest.
    age: u64,
}

/// Where an earlier reading ended, as seen from the room's head.
#[derive(Debug, Clone, Copy)]
struct Position {
    own_epoch: bool,
    from_head: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..60)
}

fn step() -> impl Strategy<Value = Step> {
    let room = prop_oneof![
        8 => Just("lobby"), 2 => Just("attic"), 1 => Just("cellar"), 1 => Just("no room"),
    ];
    (room, stamp(), deed()).prop_map(|(room, stamp, deed)| Step { room, stamp, deed })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    prop_oneof![
        1 => Just(Stamp::None),
        4 => Just(Stamp::Zero),
        4 => (0..20_i64).prop_map(Stamp::Behind),
        4 => (0..=100_i64).prop_map(Stamp::Ahead),
        1 => (101..1_000_i64).prop_map(Stamp::Ahead),
        1 => (i64::MIN..0).prop_map(Stamp::Negative),
        1 => Just(Stamp::End),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let name = || {
        prop_oneof![
            6 => select(vec!["Ada", "ada ", "Bob", "BOB", "Zoë", "ZOË", "Cleo", "Dan"]),
            1 => select(vec!["Server", ""]),
        ]
    };
    let position =
        (prop::bool::weighted(0.8), -6..3_i64).prop_map(|(own_epoch, from_head)| Position {
            own_epoch,
            from_head,
        });
    let held = || {
        prop_oneof![
            4 => who().prop_map(Held::Of),
            1 => any::<u8>().prop_map(Held::GivenAt),
        ]
    };
    let refusal = select(vec![Refusal::AlreadyJoined, Refusal::UnknownType(7)]);
    prop_oneof![
        6 => (0..5, name(), option::of(held()), option::of(position), 0..4_usize).prop_map(
            |(id, name, session, resume, backlog)| Deed::Join { id, name, session, resume, backlog }
        ),
        8 => (stream(), words()).prop_map(|(stream, words)| Deed::Say(stream, words)),
        3 => (held(), who(), words()).prop_map(|(held, who, words)| Deed::PostAs(held, who, words)),
        3 => (1..5, name(), words())
            .prop_map(|(id, name, words)| Deed::PostFromOutside(id, name, words)),
        1 => (stream(), refusal).prop_map(|(stream, refusal)| Deed::Refuse(stream, refusal)),
        1 => stream().prop_map(Deed::Leave),
        1 => (-4..3_i64).prop_map(Deed::Trim),
    ]
}

fn stream() -> impl Strategy<Value = Stream> {
    (who(), prop_oneof![6 => Just(0), 1 => 1..4_u64]).prop_map(|(who, age)| Stream { who, age })
}

fn who() -> impl Strategy<Value = usize> {
    prop_oneof![20 => 0..4_usize, 1 => Just(NOBODY)]
}

const NOBODY: usize = usize::MAX;

/// The id of the participant that `who` means in the room as it is; an id that nobody has if there is none.
fn somebody(service: &Service, room: &str, who: usize) -> i32 {
    match service.population(room) {
        0 => 77,
        _ if who == NOBODY => 77,
        count => service
            .participants(room)
            .nth(who % count)
            .map_or(77, |member| member.id),
    }
}

fn words() -> impl Strategy<Value = Words> {
    let text = prop_oneof![
        8 => select(vec!["hi", " hi ", "12345678"]), 2 => select(vec!["123456789", " ", "a\u{1b}b"]),
    ];
    let message_id = prop_oneof![
        4 => Just(""), 4 => select(vec!["a", "b"]), 1 => Just(LONG_ID),
    ];
    (text, message_id).prop_map(|(text, message_id)| Words { text, message_id })
}

/// One byte longer than a message id may be.
const LONG_ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdefX";
const _: () = assert!(LONG_ID.len() == MESSAGE_ID_BYTES_MAX + 1);

impl Step {
    /// The command that this step is in the state that `service` has now.
    fn command(&self, service: &Service, at: usize) -> Command {
        let now = service.now();
        let timestamp = match self.stamp {
            Stamp::None => None,
            Stamp::Zero => Some(0),
            Stamp::Behind(by) => Some((now - by).max(0)),
            Stamp::Ahead(by) => Some(now + by),
            Stamp::Negative(timestamp) => Some(timestamp),
            Stamp::End => Some(i64::MAX),
        };
        Command {
            room: self.room.into(),
            timestamp,
            accepted_at: UNIX_EPOCH,
            traceparent: format!("step {at}"),
            action: self.action(service, at),
        }
    }

    fn action(&self, service: &Service, at: usize) -> Action {
        let id = |who| somebody(service, self.room, who);
        let member = |who| service.participants(self.room).find(|m| m.id == id(who));
        let session = |held| match held {
            Held::Of(who) => member(who).and_then(|member| member.session),
            Held::GivenAt(step) => Some(session_given_at(step.into())),
        };
        let incarnation = |stream: Stream| {
            let newest = member(stream.who).map_or(1, |member| member.incarnation.0);
            Incarnation(newest.saturating_sub(stream.age))
        };
        let by_head = |by: i64| head(service, self.room).saturating_add_signed(by);
        match self.deed.clone() {
            Deed::Join {
                id,
                name,
                session: held,
                resume,
                backlog,
            } => Action::Join(Join {
                id,
                name: name.into(),
                bot: false,
                // Every third is of those that cannot return.
                session_given: (!at.is_multiple_of(3)).then(|| session_given_at(at)),
                session_held: held.and_then(session),
                resume: resume.map(|position| Resume {
                    epoch: if position.own_epoch { EPOCH } else { "another" }.into(),
                    after_sequence: by_head(position.from_head),
                }),
                backlog,
            }),
            Deed::Say(stream, words) => Action::Say {
                id: id(stream.who),
                incarnation: incarnation(stream),
                text: words.text.into(),
                message_id: words.message_id.into(),
            },
            Deed::PostAs(held, who, words) => Action::Post {
                poster: Poster::Participant {
                    id: id(who),
                    session: session(held).unwrap_or(Digest([0; 16])),
                },
                text: words.text.into(),
                message_id: words.message_id.into(),
            },
            Deed::PostFromOutside(id, name, words) => Action::Post {
                poster: Poster::Outsider {
                    id,
                    name: name.into(),
                    bot: true,
                },
                text: words.text.into(),
                message_id: words.message_id.into(),
            },
            Deed::Refuse(stream, refusal) => Action::Refuse {
                id: id(stream.who),
                incarnation: incarnation(stream),
                refusal,
                message_id: String::new(),
            },
            Deed::Leave(stream) => Action::Leave {
                id: id(stream.who),
                incarnation: incarnation(stream),
            },
            Deed::Trim(by) => Action::Trim { first: by_head(by) },
        }
    }
}

fn session_given_at(step: usize) -> Digest {
    Digest::of(&[b"session", &step.to_le_bytes()])
}

fn extent(service: &Service, room: &str) -> (u64, u64) {
    let summary = service.rooms().find(|summary| &*summary.name == room);
    summary.map_or((1, 0), |summary| (summary.first, summary.head))
}

fn head(service: &Service, room: &str) -> u64 {
    extent(service, room).1
}

// ---- What did happen.

/// A command, what became of it, and the state on both sides of it.
#[derive(Debug)]
struct Done {
    before: Rc<Service>,
    command: Command,
    outcome: Outcome,
    after: Rc<Service>,
}

fn run(steps: &[Step]) -> Vec<Done> {
    let mut now = Rc::new(service());
    let done = steps.iter().enumerate().map(|(at, step)| {
        let command = step.command(&now, at);
        let done = Done::of(&now, command);
        now = Rc::clone(&done.after);
        done
    });
    done.collect()
}

impl Done {
    fn of(before: &Rc<Service>, command: Command) -> Self {
        let mut after = Service::clone(before);
        let outcome = after.apply(command.clone());
        Self {
            before: Rc::clone(before),
            command,
            outcome,
            after: Rc::new(after),
        }
    }

    /// The logical times that it gave out, in order.
    fn ticks(&self) -> Vec<i64> {
        let refused = match &self.outcome.answer {
            Answer::Refused(refused) => Some(refused.timestamp),
            _ => None,
        };
        let events = self.outcome.events.iter().map(|event| event.timestamp);
        events.chain(refused).collect()
    }

    fn timestamp_is_possible(&self) -> bool {
        let latest = self.before.now() + limits().clock_jump;
        (0..=latest).contains(&self.command.timestamp.unwrap_or(0))
    }

    fn join(&self) -> Option<&Join> {
        match &self.command.action {
            Action::Join(join) => Some(join),
            _ => None,
        }
    }

    /// It names a history that is not this one.
    fn is_foreign(&self) -> bool {
        let resume = self.join().and_then(|join| join.resume.as_ref());
        resume.is_some_and(|resume| resume.epoch != EPOCH)
    }

    /// The session that it shows is that of somebody in the room.
    fn session_lives(&self) -> bool {
        let held = self.join().and_then(|join| join.session_held);
        held.is_some() && members(&self.before, &self.command.room).any(|m| m.session == held)
    }

    /// Message id and text, if it wants to say something.
    fn words(&self) -> Option<(&str, &str)> {
        match &self.command.action {
            Action::Say {
                text, message_id, ..
            }
            | Action::Post {
                text, message_id, ..
            } => Some((message_id, text)),
            _ => None,
        }
    }
}

fn members<'a>(service: &'a Service, room: &str) -> impl Iterator<Item = &'a Member> {
    service.participants(room)
}

fn events(done: &[Done]) -> impl Iterator<Item = &Event> {
    done.iter().flat_map(|done| &done.outcome.events)
}

/// All of it, as text: equal for equal states, since nothing in it depends on the order of a hash map.
fn whole(service: &Service) -> String {
    format!("{service:?}")
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 250,
        // The shrunk steps are printed; they become a test of their own, with a name.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Without this, the properties below might hold because nothing happens.
#[test]
fn the_runs_below_meet_every_answer_that_there_is() {
    let mut met = BTreeSet::new();
    let mut runner = TestRunner::deterministic();

    for _ in 0..250 {
        let steps = steps()
            .new_tree(&mut runner)
            .expect("steps are made")
            .current();
        met.extend(run(&steps).iter().map(|done| kind(&done.outcome)));
    }

    let all = [
        "ALREADY_JOINED",
        "EMPTY",
        "FORBIDDEN_CHARACTERS",
        "IMPOSSIBLE_TIMESTAMP",
        "TOO_LONG",
        "UNKNOWN_TYPE",
        "bad id",
        "bad message id",
        "bad name",
        "bad room",
        "duplicate",
        "id held",
        "impossible timestamp",
        "joined",
        "joined with all",
        "left",
        "message id reused",
        "name held",
        "not in room",
        "not your session",
        "resumed anew",
        "resumed with all",
        "stored",
        "too many rooms",
        "void",
    ];
    assert_eq!(met.into_iter().collect::<Vec<_>>(), all);
}

fn kind(outcome: &Outcome) -> &'static str {
    match &outcome.answer {
        Answer::Joined {
            resumed, reading, ..
        } => match (resumed, reading.recovered) {
            (true, true) => "resumed with all",
            (true, false) => "resumed anew",
            (false, true) => "joined with all",
            (false, false) => "joined",
        },
        Answer::Stored { .. } => "stored",
        Answer::Duplicate { .. } => "duplicate",
        Answer::Refused(refused) => refused.refusal.name(),
        Answer::Rejected(rejection) => match rejection {
            Rejection::BadName(_) => "bad name",
            Rejection::BadId => "bad id",
            Rejection::BadRoom => "bad room",
            Rejection::BadMessageId => "bad message id",
            Rejection::ImpossibleTimestamp { .. } => "impossible timestamp",
            Rejection::IdHeld { .. } => "id held",
            Rejection::NameHeld { .. } => "name held",
            Rejection::MessageIdReused => "message id reused",
            Rejection::NotInRoom { .. } => "not in room",
            Rejection::NotYourSession { .. } => "not your session",
            Rejection::TooManyRooms { .. } => "too many rooms",
        },
        Answer::Left { .. } => "left",
        Answer::Void => "void",
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_same_commands_give_the_same_result(steps in steps()) {
        let done = run(&steps);
        let mut replica = service();

        for done in &done {
            prop_assert_eq!(&replica.apply(done.command.clone()), &done.outcome);
            prop_assert_eq!(whole(&replica), whole(&done.after));
        }
    }

    #[test]
    fn lamport_time_strictly_rises_with_every_tick_of_all_rooms(steps in steps()) {
        let mut last = 0;

        for done in run(&steps) {
            for tick in done.ticks() {
                prop_assert!(tick > last, "{tick} after {last}: {done:?}");
                last = tick;
            }
            prop_assert_eq!(done.after.now(), last, "the clock shows the last tick");
        }
    }

    #[test]
    fn sequence_is_dense_in_each_room(steps in steps()) {
        let mut heads = BTreeMap::new();
        let done = run(&steps);

        for event in events(&done) {
            let head = heads.entry(event.room.clone()).or_insert(0);
            *head += 1;
            prop_assert_eq!(event.sequence, *head);
        }
        let after = &done.last().expect("there is a step").after;
        let listed: BTreeMap<_, _> = after.rooms().map(|room| (room.name, room.head)).collect();
        prop_assert_eq!(listed, heads, "a room is listed if it has a history, with its last sequence");
    }

    #[test]
    fn every_arrival_has_one_departure(steps in steps()) {
        let mut done = run(&steps);

        // Whoever is still there leaves; and whoever tells it twice changes nothing.
        for room in ["lobby", "attic", "cellar"] {
            let now = &done.last().expect("there is a step").after;
            let there: Vec<_> = members(now, room).map(|m| (m.id, m.incarnation)).collect();
            for (id, incarnation) in there {
                for expected in [true, false] {
                    let leave = command(room, Action::Leave { id, incarnation });
                    let now = &done.last().expect("there is a step").after;
                    let left = Done::of(now, leave);
                    prop_assert_eq!(matches!(left.outcome.answer, Answer::Left { .. }), expected);
                    done.push(left);
                }
            }
        }

        let mut present = BTreeSet::new();
        for event in events(&done) {
            let who = (&event.room, event.sender_id, &event.sender_name);
            match event.kind {
                Kind::Join => prop_assert!(present.insert(who), "came twice: {event:?}"),
                Kind::Leave => prop_assert!(present.remove(&who), "left without being there: {event:?}"),
                Kind::Message => {}
            }
        }
        prop_assert!(present.is_empty(), "never left: {present:?}");
    }

    #[test]
    fn those_listed_are_those_who_joined_and_did_not_leave(steps in steps()) {
        let mut present = BTreeMap::new();

        for done in run(&steps) {
            for event in &done.outcome.events {
                let who = (event.room.clone(), event.sender_id);
                match event.kind {
                    Kind::Join => {
                        let joined = (event.sender_name.clone(), event.sequence, event.timestamp);
                        present.insert(who, joined);
                    }
                    Kind::Leave => { present.remove(&who); }
                    Kind::Message => {}
                }
            }
            let listed: BTreeMap<(Arc<str>, i32), _> = ["lobby", "attic", "cellar"].into_iter().flat_map(|room| {
                let one = |m: &Member| {
                    let joined = (m.name.clone(), m.joined_sequence, m.joined_timestamp);
                    ((room.into(), m.id), joined)
                };
                members(&done.after, room).map(one).collect::<Vec<_>>()
            }).collect();
            prop_assert_eq!(&listed, &present);
        }
    }

    #[test]
    fn a_name_without_case_and_an_id_are_held_once_in_a_room(steps in steps()) {
        for done in run(&steps) {
            let room = &done.command.room;
            let names: BTreeSet<_> = members(&done.after, room).map(|m| m.name.to_lowercase()).collect();
            let ids: BTreeSet<_> = members(&done.after, room).map(|m| m.id).collect();
            let count = done.after.population(room);
            prop_assert_eq!((names.len(), ids.len()), (count, count));
        }
    }

    #[test]
    fn a_refusal_ticks_once_and_leaves_no_event(steps in steps()) {
        for done in run(&steps) {
            let Answer::Refused(refused) = &done.outcome.answer else { continue };
            let merged = if done.timestamp_is_possible() { done.command.timestamp } else { None };
            let expected = done.before.now().max(merged.unwrap_or(0)) + 1;
            prop_assert!(done.outcome.events.is_empty());
            prop_assert_eq!((refused.timestamp, done.after.now()), (expected, expected));
            prop_assert_eq!(refused.sent_timestamp, merged);
            prop_assert_eq!(refused.after, head(&done.before, &done.command.room));
            let unmoved = whole(&done.after).replace(&format!("LamportClock({expected})"), "");
            let before = whole(&done.before).replace(&format!("LamportClock({})", done.before.now()), "");
            prop_assert_eq!(unmoved, before, "nothing but the clock has changed");
        }
    }

    #[test]
    fn duplicates_rejections_and_what_is_out_of_date_change_nothing(steps in steps()) {
        for done in run(&steps) {
            let unchanged = match &done.outcome.answer {
                Answer::Duplicate { .. } | Answer::Rejected(_) => true,
                Answer::Void => !matches!(done.command.action, Action::Trim { .. }),
                _ => false,
            };
            if unchanged {
                prop_assert!(done.outcome.events.is_empty());
                prop_assert_eq!(whole(&done.after), whole(&done.before));
            }
        }
    }

    #[test]
    fn an_event_is_later_than_what_its_sender_s_clock_showed(steps in steps()) {
        for done in run(&steps) {
            for event in &done.outcome.events {
                let carried = done.command.timestamp.filter(|_| done.timestamp_is_possible() && !done.is_foreign());
                prop_assert_eq!(event.sent_timestamp, carried);
                prop_assert!(event.timestamp > carried.unwrap_or(0), "{event:?}");
            }
        }
    }

    #[test]
    fn an_impossible_timestamp_never_drags_the_clock(steps in steps()) {
        for done in run(&steps) {
            let ticks = done.ticks().len() as i64;
            let moved = done.after.now() - done.before.now();
            if !done.timestamp_is_possible() || done.is_foreign() {
                prop_assert_eq!(moved, ticks, "it ticked, and no more");
            }
            prop_assert!(moved <= limits().clock_jump + ticks.max(1));
        }
    }

    #[test]
    fn whoever_is_not_the_newest_incarnation_is_not_heard(steps in steps()) {
        for done in run(&steps) {
            let (Action::Say { id, incarnation, .. }
            | Action::Refuse { id, incarnation, .. }
            | Action::Leave { id, incarnation }) = done.command.action
            else {
                continue;
            };
            let newest = members(&done.before, &done.command.room)
                .any(|member| (member.id, member.incarnation) == (id, incarnation));
            prop_assert_eq!(done.outcome.answer == Answer::Void, !newest);
        }
    }

    #[test]
    fn an_arrival_or_a_return_is_a_new_incarnation_and_the_one_that_counts(steps in steps()) {
        let mut newest = Incarnation(0);

        for done in run(&steps) {
            if let Answer::Joined { id, incarnation, .. } = done.outcome.answer {
                prop_assert!(incarnation > newest);
                newest = incarnation;
                let member = members(&done.after, &done.command.room).find(|member| member.id == id);
                prop_assert_eq!(member.map(|member| member.incarnation), Some(incarnation));
            }
        }
    }

    #[test]
    fn recovered_means_the_same_history_not_beyond_its_end_and_nothing_after_it_dropped(steps in steps()) {
        for done in run(&steps) {
            let (Some(join), Answer::Joined { resumed, reading, .. }) = (done.join(), &done.outcome.answer) else {
                continue;
            };
            let (first, head) = extent(&done.before, &done.command.room);
            let all_there = |resume: &Resume| {
                resume.epoch == EPOCH && resume.after_sequence <= head && resume.after_sequence + 1 >= first
            };
            let recovered = join.resume.as_ref().is_some_and(all_there);
            prop_assert_eq!(reading.recovered, recovered);
            prop_assert_eq!(reading.head, head);
            let start = match &join.resume {
                Some(resume) if recovered => resume.after_sequence,
                _ => head.saturating_sub(join.backlog as u64).max(first - 1),
            };
            prop_assert_eq!(reading.after, start);

            // The session decides who it is; the history decides what is missing.
            prop_assert_eq!(*resumed, join.resume.is_some() && done.session_lives());
            let kinds: Vec<_> = done.outcome.events.iter().map(|event| event.kind).collect();
            let expected: &[Kind] = match (resumed, recovered) {
                (true, true) => &[],
                (true, false) => &[Kind::Leave, Kind::Join],
                (false, _) => &[Kind::Join],
            };
            prop_assert_eq!(kinds, expected);
        }
    }

    #[test]
    fn a_message_id_is_stored_once_among_the_last_events_of_its_room(steps in steps()) {
        let mut stored: BTreeMap<(Arc<str>, String), Event> = BTreeMap::new();

        for done in run(&steps) {
            let Some((message_id, _)) = done.words().filter(|(id, _)| !id.is_empty()) else { continue };
            let key = (done.command.room.clone(), message_id.to_owned());
            let oldest = (head(&done.before, &key.0) + 1).saturating_sub(limits().dedup_events as u64);
            let known = stored.get(&key).filter(|first| first.sequence >= oldest);
            match (&done.outcome.answer, known) {
                (Answer::Stored { .. }, None) => {
                    stored.insert(key, done.outcome.events[0].clone());
                }
                (Answer::Duplicate { timestamp, sequence, message_id }, Some(first)) => {
                    prop_assert_eq!((*timestamp, *sequence), (first.timestamp, first.sequence));
                    prop_assert_eq!(message_id, &key.1);
                }
                (Answer::Rejected(Rejection::MessageIdReused), known) => prop_assert!(known.is_some()),
                (Answer::Stored { .. } | Answer::Duplicate { .. }, _) => {
                    prop_assert!(false, "{known:?}, and then {done:?}");
                }
                _ => {}
            }
        }
    }
}

// ---- Single cases: the edges, one by one.

fn command(room: &str, action: Action) -> Command {
    Command {
        room: room.into(),
        timestamp: Some(0),
        accepted_at: UNIX_EPOCH,
        traceparent: String::new(),
        action,
    }
}

/// A service, spoken to in words; everything happens in the lobby.
struct Lobby(Service);

impl Lobby {
    fn new() -> Self {
        Self(service())
    }

    fn apply(&mut self, action: Action) -> Outcome {
        self.0.apply(command("lobby", action))
    }

    fn join(&mut self, id: i32, name: &str) -> Outcome {
        self.apply(Action::Join(join(id, name)))
    }

    fn resume(&mut self, id: i32, name: &str, epoch: &str, after_sequence: u64) -> Outcome {
        self.apply(resume(id, name, epoch, after_sequence))
    }

    fn post(&mut self, name: &str, text: &str, message_id: &str) -> Answer {
        let poster = Poster::Outsider {
            id: 1_000,
            name: name.into(),
            bot: false,
        };
        let (text, message_id) = (text.into(), message_id.into());
        self.apply(Action::Post {
            poster,
            text,
            message_id,
        })
        .answer
    }

    /// So many events pass.
    fn pass(&mut self, events: usize) {
        for _ in 0..events {
            let answer = self.post("Passer-by", "hi", "");
            assert!(matches!(answer, Answer::Stored { .. }), "{answer:?}");
        }
    }
}

fn join(id: i32, name: &str) -> Join {
    Join {
        id,
        name: name.into(),
        bot: false,
        session_given: Some(session_of(id)),
        session_held: None,
        resume: None,
        backlog: 0,
    }
}

/// `id` comes back with its session.
fn resume(id: i32, name: &str, epoch: &str, after_sequence: u64) -> Action {
    Action::Join(Join {
        session_held: Some(session_of(id)),
        resume: Some(Resume {
            epoch: epoch.into(),
            after_sequence,
        }),
        ..join(id, name)
    })
}

fn session_of(id: i32) -> Digest {
    Digest::of(&[&id.to_le_bytes()])
}

fn reading(outcome: &Outcome) -> (bool, bool, u64) {
    match &outcome.answer {
        Answer::Joined {
            resumed, reading, ..
        } => (*resumed, reading.recovered, reading.after),
        other => panic!("{other:?}"),
    }
}

fn told(outcome: &Outcome) -> Vec<&str> {
    outcome
        .events
        .iter()
        .map(|event| event.text.as_str())
        .collect()
}

#[test]
fn a_retry_within_the_window_is_a_duplicate_and_one_event_later_it_is_new() {
    for (passed, known) in [
        (limits().dedup_events - 1, true),
        (limits().dedup_events, false),
    ] {
        let mut lobby = Lobby::new();
        let first = lobby.post("Ada", "once", "m1");
        assert_eq!(
            first,
            Answer::Stored {
                timestamp: 1,
                sequence: 1
            }
        );

        // Events of any kind count, also those that carry no id.
        lobby.join(1, "Bob");
        lobby.pass(passed - 1);

        let again = lobby.post("Ada", "once", "m1");
        let head = passed as u64 + 2;
        let expected = if known {
            Answer::Duplicate {
                timestamp: 1,
                sequence: 1,
                message_id: "m1".into(),
            }
        } else {
            Answer::Stored {
                timestamp: head as i64,
                sequence: head,
            }
        };
        assert_eq!(again, expected, "after {passed} further events");
    }
}

#[test]
fn a_message_id_is_its_room_s_own() {
    let mut lobby = Lobby::new();
    lobby.post("Ada", "hi", "m1");
    let poster = Poster::Outsider {
        id: 7,
        name: "Ada".into(),
        bot: false,
    };

    let elsewhere = lobby.0.apply(command(
        "attic",
        Action::Post {
            poster,
            text: "hi".into(),
            message_id: "m1".into(),
        },
    ));

    assert_eq!(
        elsewhere.answer,
        Answer::Stored {
            timestamp: 2,
            sequence: 1
        }
    );
}

#[test]
fn a_retry_repeats_name_and_text_and_anything_else_is_a_reuse() {
    let mut lobby = Lobby::new();
    lobby.post("Ada", "hi", "m1");

    let same = lobby.post(" Ada ", "\thi\n", "m1");
    assert!(matches!(same, Answer::Duplicate { .. }), "{same:?}");
    for (name, text) in [("Ada", "ho"), ("Bob", "hi"), ("ada", "hi"), ("Adah", "i")] {
        let reused = lobby.post(name, text, "m1");
        assert_eq!(
            reused,
            Answer::Rejected(Rejection::MessageIdReused),
            "{name}: {text}"
        );
    }
}

/// Between the first sending and the retry somebody may have taken the name.
#[test]
fn a_retry_from_outside_gets_its_first_result_even_if_the_name_is_held_now() {
    let mut lobby = Lobby::new();
    lobby.post("Ada", "hi", "m1");
    lobby.join(1, "Ada");

    let again = lobby.post("Ada", "hi", "m1");
    let other = lobby.post("Ada", "ho", "m2");

    assert_eq!(
        again,
        Answer::Duplicate {
            timestamp: 1,
            sequence: 1,
            message_id: "m1".into()
        }
    );
    assert_eq!(
        other,
        Answer::Rejected(Rejection::NameHeld { name: "Ada".into() })
    );
}

#[test]
fn a_message_id_of_64_bytes_is_taken_and_a_longer_one_is_rejected_before_all_else() {
    let mut lobby = Lobby::new();

    let longest = lobby.post("Ada", "hi", &LONG_ID[1..]);
    let mut too_long = |text| lobby.post("Ada", text, LONG_ID);

    assert!(matches!(longest, Answer::Stored { .. }), "{longest:?}");
    // A refusal would tick, and carry the id back.
    for text in ["hi", "", "far too long"] {
        assert_eq!(
            too_long(text),
            Answer::Rejected(Rejection::BadMessageId),
            "{text:?}"
        );
    }
}

#[test]
fn a_timestamp_at_the_limit_is_merged_and_one_beyond_is_not() {
    let jump = limits().clock_jump;
    let post = |timestamp| {
        let mut lobby = Lobby::new();
        lobby.pass(3);
        let poster = Poster::Outsider {
            id: 1,
            name: "Ada".into(),
            bot: false,
        };
        let action = Action::Post {
            poster,
            text: "hi".into(),
            message_id: String::new(),
        };
        let outcome = lobby.0.apply(Command {
            timestamp: Some(timestamp),
            ..command("lobby", action)
        });
        (outcome, lobby.0.now())
    };

    let (at_the_limit, now) = post(3 + jump);
    assert_eq!(
        (at_the_limit.events[0].timestamp, now),
        (4 + jump, 4 + jump)
    );
    for impossible in [4 + jump, i64::MAX, -1, i64::MIN] {
        let (refused, now) = post(impossible);
        let Answer::Refused(refused) = refused.answer else {
            panic!("{impossible}: {refused:?}")
        };
        assert_eq!(refused.refusal, Refusal::ImpossibleTimestamp);
        assert_eq!(
            (refused.timestamp, refused.sent_timestamp, now),
            (4, None, 4),
            "{impossible}"
        );
    }
}

#[test]
fn a_leave_is_obeyed_whatever_its_timestamp() {
    for timestamp in [i64::MIN, -1, i64::MAX] {
        let mut lobby = Lobby::new();
        lobby.join(1, "Ada");
        let leave = command(
            "lobby",
            Action::Leave {
                id: 1,
                incarnation: Incarnation(1),
            },
        );

        let left = lobby.0.apply(Command {
            timestamp: Some(timestamp),
            ..leave
        });

        assert_eq!(
            left.answer,
            Answer::Left {
                timestamp: 2,
                sequence: 2
            },
            "{timestamp}"
        );
        assert_eq!(
            told(&left),
            ["Participant Ada left Chit Chat at logical time L=2"]
        );
    }
}

/// The wiped service's clock starts anew, so every honest client of the history before is far ahead of it.
#[test]
fn a_newcomer_from_another_history_is_let_in_whatever_its_clock_shows() {
    for timestamp in [i64::MAX, 5_000, -1] {
        let mut lobby = Lobby::new();
        let join = command("lobby", resume(1, "Ada", "another", 17));

        let joined = lobby.0.apply(Command {
            timestamp: Some(timestamp),
            ..join
        });

        assert_eq!(reading(&joined), (false, false, 0), "{timestamp}");
        let event = &joined.events[0];
        assert_eq!(
            (event.timestamp, event.sent_timestamp),
            (1, None),
            "{timestamp}"
        );
    }
}

#[test]
fn a_session_that_lives_continues_without_an_event() {
    let mut lobby = Lobby::new();
    lobby.join(1, "Ada");
    lobby.pass(2);

    let back = lobby.resume(1, "Ada", EPOCH, 1);

    assert_eq!((reading(&back), told(&back)), ((true, true, 1), vec![]));
    assert_eq!(lobby.0.now(), 3, "nothing ticked");
}

/// A grace that ends, or a message still on its way, when the participant is back already.
#[test]
fn what_an_older_stream_leaves_behind_is_void() {
    let mut lobby = Lobby::new();
    lobby.join(1, "Ada");
    lobby.resume(1, "Ada", EPOCH, 1);
    let (id, incarnation) = (1, Incarnation(1));
    let (text, message_id) = ("hi".to_owned(), String::new());

    let said = lobby.apply(Action::Say {
        id,
        incarnation,
        text,
        message_id,
    });
    let left = lobby.apply(Action::Leave { id, incarnation });

    assert_eq!((said.answer, left.answer), (Answer::Void, Answer::Void));
    assert_eq!((lobby.0.population("lobby"), lobby.0.now()), (1, 1));
}

#[test]
fn a_session_that_is_over_joins_anew_and_still_misses_nothing() {
    let mut lobby = Lobby::new();
    lobby.join(1, "Ada");
    lobby.apply(Action::Leave {
        id: 1,
        incarnation: Incarnation(1),
    });

    let back = lobby.resume(1, "Ada", EPOCH, 1);

    assert_eq!(reading(&back), (false, true, 1));
    assert_eq!(
        told(&back),
        ["Participant Ada joined Chit Chat at logical time L=3"]
    );
}

#[test]
fn a_session_that_lives_while_its_history_is_gone_leaves_and_joins_in_one_command() {
    let mut lobby = Lobby::new();
    lobby.join(1, "Ada");
    lobby.pass(3);
    lobby.apply(Action::Trim { first: 4 });

    let back = lobby.resume(1, "Ada", EPOCH, 2);

    assert_eq!(reading(&back), (true, false, 4));
    assert_eq!(
        told(&back),
        [
            "Participant Ada left Chit Chat at logical time L=5",
            "Participant Ada joined Chit Chat at logical time L=6"
        ]
    );
    let again = lobby.resume(1, "Ada", EPOCH, 6);
    assert_eq!(
        reading(&again),
        (true, true, 6),
        "its session is still the same"
    );
}

#[test]
fn a_reader_of_everything_up_to_the_oldest_kept_event_misses_nothing() {
    let mut lobby = Lobby::new();
    lobby.join(1, "Ada");
    lobby.pass(9);
    lobby.apply(Action::Trim { first: 5 });

    let mut after = |sequence| reading(&lobby.resume(1, "Ada", EPOCH, sequence)).1;

    assert!(after(4), "the next is the oldest kept");
    assert!(after(10), "all is read");
    assert!(!after(11), "nobody can have read that");
}

#[test]
fn history_never_comes_back_once_it_is_dropped() {
    let mut lobby = Lobby::new();
    lobby.pass(5);
    for (first, expected) in [(3, 3), (2, 3), (0, 3), (u64::MAX, 6)] {
        lobby.apply(Action::Trim { first });
        assert_eq!(extent(&lobby.0, "lobby"), (expected, 5), "{first}");
    }
}

#[test]
fn names_that_differ_in_case_alone_are_one_name() {
    for (one, other) in [
        ("Ada", "aDA"),
        ("Zoë", "ZOE\u{308}"),
        ("Νίκος", "ΝΊΚΟΣ"),
        ("\u{390}", "\u{399}\u{308}\u{301}"),
        ("Weiß", "WEISS"),
    ] {
        let mut lobby = Lobby::new();
        lobby.join(1, one);
        let second = lobby.join(2, other).answer;
        assert!(
            matches!(second, Answer::Rejected(Rejection::NameHeld { .. })),
            "{one} {other}: {second:?}"
        );
    }
}

#[test]
fn nobody_is_called_server_in_any_case_or_spelling() {
    for name in ["Server", "sERVER", " server\n", "\u{17f}erver"] {
        let answer = Lobby::new().join(1, name).answer;
        assert!(
            matches!(answer, Answer::Rejected(Rejection::BadName(_))),
            "{name}: {answer:?}"
        );
    }
}

/// Two names that look alike because one has a letter that leaves nothing to see.
#[test]
fn every_character_of_a_name_can_be_seen() {
    for hidden in [
        '\u{3164}',
        '\u{115f}',
        '\u{ffa0}',
        '\u{fe0f}',
        '\u{34f}',
        '\u{e0101}',
    ] {
        for name in [hidden.to_string(), format!("Ada{hidden}")] {
            let answer = Lobby::new().join(1, &name).answer;
            assert!(
                matches!(answer, Answer::Rejected(Rejection::BadName(_))),
                "{name:?}: {answer:?}"
            );
        }
    }
}

#[test]
fn the_last_room_is_opened_and_one_more_is_not() {
    let mut service = service();
    let join = |room: &str| command(room, Action::Join(join(1, "Ada")));
    let opened = (1..=limits().rooms).map(|n| service.apply(join(&format!("room{n}"))).answer);
    assert!(
        opened
            .into_iter()
            .all(|answer| matches!(answer, Answer::Joined { .. }))
    );

    let limit = limits().rooms;
    let one_more = service.apply(join("one-more")).answer;
    assert_eq!(
        one_more,
        Answer::Rejected(Rejection::TooManyRooms { limit })
    );
    assert_eq!(service.rooms().count(), limit);
}
