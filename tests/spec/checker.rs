//! The checker that all fault tests use would notice: a good run passes, and each kind of fault, planted in it, is
//! caught under its name, with its place.

use std::collections::BTreeSet;

use chitchat::{
    client::render,
    clock::LamportClock,
    wire::v1::{EventType, ServerMessage, Welcome},
};

use crate::support::checker::{
    Clock, End, Fault, Heard, Proof, Rule, Run, Step, Stored, Transcript, check, prove,
};

/// The room of the run.
const ROOM: &str = "red";

#[test]
fn a_good_run_passes_and_the_proof_says_what_was_checked() {
    let proof = prove(&good());
    assert_eq!(
        proof,
        Proof {
            clients: 4,
            rooms: 2,
            stored: 11,
            said: 6,
            acknowledged: 5,
            refused: 1,
            read: 15,
            returned: 1,
            departed: 3,
        }
    );
}

#[test]
fn what_a_process_wrote_as_json_is_checked_like_what_came_from_the_wire() {
    let in_json = |run: &mut Run| {
        for step in steps(run, "Ada") {
            if let Step::Read { heard, .. } = step
                && let Heard::Message(message) = &*heard
            {
                let json = render::event_json(message);
                *heard = Heard::Json(serde_json::from_str(&json).unwrap());
            }
        }
    };
    let mut run = good();
    in_json(&mut run);
    check(&run).unwrap();

    caught(Rule::ReadAsStored, "Ada", 3, |run| {
        in_json(run);
        let (Heard::Json(json), _) = reading(run, "Ada", 3) else {
            panic!("it was made JSON");
        };
        json["text"] = "Ada 2".into();
    });
}

#[test]
fn an_acknowledged_message_that_is_not_stored() {
    caught(Rule::AcknowledgedIsStored, "Bot", 4, |run| {
        let event = event(run, 4);
        event.message_id = "another".into();
    });
}

#[test]
fn an_acknowledged_message_that_is_stored_elsewhere() {
    caught(Rule::AcknowledgedIsStored, "Bot", 6, |run| {
        for step in steps(run, "Bot") {
            if let Step::Acknowledged { sequence, .. } = step {
                *sequence = 6;
            }
        }
    });
}

#[test]
fn an_acknowledgement_with_another_logical_time() {
    caught(Rule::AcknowledgedIsStored, "Bot", 4, |run| {
        for step in steps(run, "Bot") {
            if let Step::Acknowledged { timestamp, .. } = step {
                *timestamp += 1;
            }
        }
    });
}

#[test]
fn a_message_that_is_stored_twice_under_one_message_id() {
    caught(Rule::StoredOnce, "", 10, |run| {
        let first = event(run, 3).clone();
        let rooms = &mut run.rooms[0].events;
        let (sequence, timestamp) = (rooms.len() as u64 + 1, 1_000);
        rooms.push(ServerMessage {
            sequence,
            timestamp,
            msg_stream: "another text".into(),
            ..first
        });
    });
}

#[test]
fn a_message_that_is_stored_twice_under_two_message_ids() {
    caught(Rule::StoredOnce, "", 5, |run| {
        event(run, 5).msg_stream = "Ada 1".into();
    });
}

#[test]
fn a_message_that_nobody_said() {
    caught(Rule::StoredWasSaid, "", 5, |run| {
        event(run, 5).msg_stream = "a third voice".into();
    });
}

#[test]
fn a_message_that_another_said() {
    caught(Rule::StoredWasSaid, "", 5, |run| {
        event(run, 5).sender_name = "Ada".into();
    });
}

#[test]
fn a_refused_message_that_is_stored_all_the_same() {
    caught(Rule::RefusedIsNotStored, "", 5, |run| {
        let timestamp = 1_000;
        let clock = after(1_001);
        steps(run, "Bob").push(Step::Refused {
            text: "Bob 1".into(),
            timestamp,
            clock,
        });
    });
}

#[test]
fn two_messages_of_one_client_in_the_wrong_order() {
    caught(Rule::StoredInOrderSaid, "", 6, |run| {
        event(run, 3).msg_stream = "Ada 2".into();
        event(run, 6).msg_stream = "Ada 1".into();
    });
}

#[test]
fn a_sequence_that_is_missing_from_the_history() {
    caught(Rule::SequenceIsDense, "", 6, |run| {
        run.rooms[0].events.remove(4);
    });
}

#[test]
fn a_history_whose_beginning_is_gone() {
    caught(Rule::SequenceIsDense, "", 2, |run| {
        run.rooms[0].events.remove(0);
    });
}

#[test]
fn a_logical_time_that_goes_back() {
    caught(Rule::TimeRises, "", 6, |run| {
        event(run, 6).timestamp = 2;
    });
}

#[test]
fn a_logical_time_that_is_given_to_events_of_two_rooms() {
    caught_in("blue", Rule::TimeIsGivenOnce, "", 1, |run| {
        let red = event(run, 9).timestamp;
        run.rooms[1].events[0].timestamp = red;
    });
}

/// As a server would that forgets in a crash what it refused.
#[test]
fn a_logical_time_that_was_given_to_a_refusal_before() {
    caught(Rule::TimeIsGivenOnce, "Ada", 8, |run| {
        let stored = event(run, 8).timestamp;
        for step in steps(run, "Ada") {
            if let Step::Refused { timestamp, .. } = step {
                *timestamp = stored;
            }
        }
    });
}

#[test]
fn a_departure_that_is_announced_twice() {
    caught(Rule::DepartedOnce, "", 10, |run| {
        let last = event(run, 9).clone();
        run.rooms[0].events.push(ServerMessage {
            sequence: last.sequence + 1,
            timestamp: 1_000,
            ..last
        });
    });
}

#[test]
fn a_departure_that_is_never_announced() {
    caught(Rule::DepartedOnce, "", 0, |run| {
        run.rooms[0].events.pop();
    });
}

#[test]
fn a_participant_that_joins_again_and_never_left() {
    caught(Rule::DepartedOnce, "", 5, |run| {
        event(run, 5).r#type = EventType::Join.into();
    });
}

#[test]
fn a_message_of_somebody_who_is_not_there() {
    caught(Rule::DepartedOnce, "", 5, |run| {
        event(run, 5).sender_id = 99;
    });
}

#[test]
fn something_said_that_was_never_answered() {
    caught(Rule::SaidIsAnswered, "Ada", 0, |run| {
        steps(run, "Ada").push(Step::Said {
            text: "never heard of".into(),
        });
    });
}

/// As a server would that shows what it has not stored yet, and then crashes.
#[test]
fn an_event_that_was_read_and_is_not_stored() {
    caught(Rule::ReadIsStored, "Bob", 9, |run| {
        run.rooms[0].events.truncate(8);
        let (time, unstored) = (900, 9);
        let message = ServerMessage {
            sequence: unstored,
            timestamp: time,
            ..ServerMessage::default()
        };
        let heard = Heard::Message(Box::new(message));
        let clock = after(901);
        steps(run, "Bob").push(Step::Read { heard, clock });
    });
}

#[test]
fn an_event_that_was_read_otherwise_than_it_is_stored() {
    let changes: [fn(&mut ServerMessage); 6] = [
        |read| read.msg_stream.push('!'),
        |read| read.timestamp += 1,
        |read| read.message_id.clear(),
        |read| read.sender_id += 1,
        |read| read.bot = true,
        |read| read.accepted_at = None,
    ];
    for change in changes {
        caught(Rule::ReadAsStored, "Bob", 5, |run| {
            change(message(run, "Bob", 5))
        });
    }
}

#[test]
fn two_clients_that_read_in_two_orders() {
    caught(Rule::ReadInOrder, "Bob", 5, |run| {
        let steps = steps(run, "Bob");
        let five = steps.iter().position(|step| reads(step, 5));
        let six = steps.iter().position(|step| reads(step, 6));
        steps.swap(five.unwrap(), six.unwrap());
    });
}

#[test]
fn an_event_that_was_read_twice() {
    caught(Rule::ReadOnce, "Bob", 6, |run| {
        let steps = steps(run, "Bob");
        let six = steps.iter().find(|step| reads(step, 6));
        let again = six.unwrap().clone();
        steps.push(again);
    });
}

#[test]
fn a_gap_in_the_reading_of_a_participant() {
    caught(Rule::ReadWithoutGap, "Bob", 7, |run| {
        steps(run, "Bob").retain(|step| !reads(step, 6));
    });
}

#[test]
fn a_reading_that_begins_after_the_own_join() {
    caught(Rule::ReadFromJoinToLeave, "Bob", 3, |run| {
        steps(run, "Bob").retain(|step| !reads(step, 2));
    });
}

#[test]
fn a_leaver_that_did_not_get_everything_before_its_leave() {
    caught(Rule::ReadFromJoinToLeave, "Bob", 9, |run| {
        steps(run, "Bob").retain(|step| !reads(step, 8));
    });
}

#[test]
fn a_return_that_misses_something_though_nothing_was_dropped() {
    caught(Rule::RecoveredIsTold, "Ada", 5, |run| {
        for step in steps(run, "Ada") {
            if let Step::Returned { recovered, .. } = step {
                *recovered = false;
            }
        }
    });
}

#[test]
fn an_effect_that_is_stored_with_a_smaller_logical_time_than_its_cause() {
    caught(Rule::CauseBeforeEffect, "Ada", 6, |run| {
        let said = |step: &Step| matches!(step, Step::Said { text } if text == "Ada 2");
        let steps = steps(run, "Ada");
        let said = steps.remove(steps.iter().position(said).unwrap());
        steps.push(said);
    });
}

#[test]
fn a_send_that_carried_a_time_at_which_its_cause_was_not_read_yet() {
    caught(Rule::CauseBeforeEffect, "Ada", 6, |run| {
        let cause = event(run, 5).timestamp;
        event(run, 6).sent_timestamp = cause;
        for name in ["Ada", "Bob"] {
            message(run, name, 6).sent_timestamp = cause;
        }
    });
}

#[test]
fn a_client_whose_clock_goes_back() {
    caught(Rule::ClockRises, "Bob", 6, |run| {
        *reading(run, "Bob", 6).1 = Clock {
            before: Some(1),
            after: 1_000,
        };
    });
}

#[test]
fn a_client_whose_clock_is_not_later_than_what_it_read() {
    caught(Rule::ClockRises, "Bob", 6, |run| {
        let received = event(run, 6).timestamp;
        reading(run, "Bob", 6).1.after = received;
    });
}

#[test]
fn a_client_that_came_back_to_another_history() {
    caught(Rule::OneEpoch, "Ada", 0, |run| {
        for step in steps(run, "Ada") {
            if let Step::Returned { epoch, .. } = step {
                *epoch = Some("another".into());
            }
        }
    });
}

#[test]
fn a_room_whose_history_changed_while_it_was_read() {
    caught(Rule::OneEpoch, "", 0, |run| {
        run.rooms[0].epochs.insert("another".into());
    });
}

/// Plants a fault in the good run; the checker names `rule`, `client` and `sequence`.
fn caught(rule: Rule, client: &str, sequence: u64, plant: impl FnOnce(&mut Run)) {
    caught_in(ROOM, rule, client, sequence, plant);
}

fn caught_in(room: &str, rule: Rule, client: &str, sequence: u64, plant: impl FnOnce(&mut Run)) {
    let mut run = good();
    plant(&mut run);
    let faults = check(&run).expect_err("it should be noticed");
    let named = |fault: &Fault| {
        fault.rule == rule
            && fault.client == client
            && fault.room == room
            && fault.sequence == sequence
    };
    assert!(faults.iter().any(named), "{faults:#?}");
}

/// In `red`, Ada and Bob talk while Bot posts from outside; Ada's connection breaks once, a text of hers is refused.
/// Meanwhile Cleo looks into `blue`.
fn good() -> Run {
    let mut world = World::default();
    world.joins("Ada", ROOM);
    world.joins("Bob", ROOM);
    world.begins("Bot", ROOM, End::Outside);
    world.says("Ada", "Ada 1");
    world.says("Bot", "Bot 1");
    world.says("Bob", "Bob 1");
    world.breaks("Ada");
    world.joins("Cleo", "blue");
    world.says("Ada", "Ada 2");
    world.is_refused("Ada", "Ada 3");
    world.says("Bob", "Bob 2");
    world.leaves("Cleo");
    world.leaves("Ada");
    world.leaves("Bob");
    world.run
}

/// A service without a fault, and what its clients saw of it.
#[derive(Default)]
struct World {
    run: Run,
    clock: LamportClock,
    /// Of each client, in the order of the transcripts.
    clients: Vec<Client>,
}

#[derive(Default)]
struct Client {
    clock: LamportClock,
    present: bool,
}

impl World {
    /// `name` is a client of `room` from here on.
    fn begins(&mut self, name: &str, room: &str, end: End) {
        self.clients.push(Client::default());
        self.run.transcripts.push(Transcript {
            client: name.into(),
            room: room.into(),
            steps: Vec::new(),
            end,
        });
        if self.run.rooms.iter().all(|stored| stored.room != room) {
            self.run.rooms.push(Stored {
                room: room.into(),
                epochs: BTreeSet::from(["the epoch".into()]),
                events: Vec::new(),
            });
        }
    }

    fn joins(&mut self, name: &str, room: &str) {
        self.begins(name, room, End::Left);
        let who = self.number(name);
        let epoch = Some("the epoch".into());
        self.run.transcripts[who].steps.push(Step::Joined { epoch });
        self.clients[who].present = true;
        self.happens(who, EventType::Join, "");
    }

    fn breaks(&mut self, name: &str) {
        let who = self.number(name);
        self.run.transcripts[who].steps.push(Step::Returned {
            epoch: Some("the epoch".into()),
            recovered: true,
        });
    }

    fn says(&mut self, name: &str, text: &str) {
        let who = self.number(name);
        let said = Step::Said { text: text.into() };
        self.run.transcripts[who].steps.push(said);
        let event = self.happens(who, EventType::Message, text);
        self.run.transcripts[who].steps.push(Step::Acknowledged {
            message_id: event.message_id,
            sequence: event.sequence,
            timestamp: event.timestamp,
        });
    }

    fn is_refused(&mut self, name: &str, text: &str) {
        let who = self.number(name);
        let sent = self.clients[who].clock.tick();
        let timestamp = self.clock.merge(sent);
        let steps = &mut self.run.transcripts[who].steps;
        steps.push(Step::Said { text: text.into() });
        steps.push(Step::Refused {
            text: text.into(),
            timestamp,
            clock: self.clients[who].receives(timestamp),
        });
    }

    fn leaves(&mut self, name: &str) {
        let who = self.number(name);
        self.clients[who].present = false;
        self.happens(who, EventType::Leave, "");
    }

    /// An event: stored, and read by everybody who is there.
    fn happens(&mut self, who: usize, kind: EventType, text: &str) -> ServerMessage {
        let transcripts = &mut self.run.transcripts;
        let room = transcripts[who].room.clone();
        let stored = self.run.rooms.iter_mut().find(|stored| stored.room == room);
        let events = &mut stored.expect("it was made when the client began").events;
        let sent_timestamp = self.clients[who].clock.tick();
        let event = ServerMessage {
            sender_id: who as i32 + 1,
            sender_name: transcripts[who].client.clone(),
            msg_stream: text.into(),
            r#type: kind.into(),
            timestamp: self.clock.merge(sent_timestamp),
            sequence: events.len() as u64 + 1,
            sent_timestamp,
            message_id: text.replace(' ', "-").to_lowercase(),
            room,
            accepted_at: Some(prost_types::Timestamp::default()),
            ..ServerMessage::default()
        };
        events.push(event.clone());
        for (number, client) in self.clients.iter_mut().enumerate() {
            if !client.present || transcripts[number].room != event.room {
                continue;
            }
            let own_join = number == who && kind == EventType::Join;
            let heard = ServerMessage {
                welcome: own_join.then(Welcome::default),
                ..event.clone()
            };
            transcripts[number].steps.push(Step::Read {
                heard: Heard::Message(Box::new(heard)),
                clock: client.receives(event.timestamp),
            });
        }
        event
    }

    fn number(&self, name: &str) -> usize {
        let mut transcripts = self.run.transcripts.iter();
        let number = transcripts.position(|transcript| transcript.client == name);
        number.expect("it has begun")
    }
}

impl Client {
    fn receives(&mut self, timestamp: i64) -> Clock {
        Clock {
            before: Some(self.clock.now()),
            after: self.clock.merge(timestamp),
        }
    }
}

/// Event `sequence` as it is stored in the room.
fn event(run: &mut Run, sequence: usize) -> &mut ServerMessage {
    &mut run.rooms[0].events[sequence - 1]
}

fn steps<'a>(run: &'a mut Run, client: &str) -> &'a mut Vec<Step> {
    let mut transcripts = run.transcripts.iter_mut();
    let transcript = transcripts.find(|transcript| transcript.client == client);
    &mut transcript.expect("it takes part").steps
}

/// Event `sequence` as `client` read it, and its clock.
fn reading<'a>(run: &'a mut Run, client: &str, sequence: u64) -> (&'a mut Heard, &'a mut Clock) {
    let mut steps = steps(run, client).iter_mut();
    let reading = steps.find_map(|step| match step {
        Step::Read { heard, clock } if heard.sequence() == sequence => Some((heard, clock)),
        _ => None,
    });
    reading.expect("it read that")
}

fn message<'a>(run: &'a mut Run, client: &str, sequence: u64) -> &'a mut ServerMessage {
    match reading(run, client, sequence).0 {
        Heard::Message(message) => message,
        Heard::Json(_) => panic!("it came from the wire"),
    }
}

/// Whether a step is the reading of this event.
fn reads(step: &Step, sequence: u64) -> bool {
    matches!(step, Step::Read { heard, .. } if heard.sequence() == sequence)
}

/// A clock that stands at `time`; from where it came nobody says.
fn after(time: i64) -> Clock {
    Clock {
        before: None,
        after: time,
    }
}
