//! The part of a recording that was asked for.

use std::{collections::HashMap, sync::Arc};

use opentelemetry::TraceId;

use crate::causality::step::{Act, Recording, Step};

/// What to keep of a recording; all of it by default.
///
/// An event, which is all steps of its trace, is kept or left out as a whole: no part of it can look lost because of what
/// was asked for. What cannot be told of an event, because the steps that say it were not recorded, is no reason to leave
/// it out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Events of this room alone.
    pub room: Option<String>,
    /// Events of which a step began at this time or later, in nanoseconds since 1970, by the clock of that step's machine.
    pub since: Option<u64>,
    /// Events from this sequence on, in each room. A refusal has none: it is kept if its logical time is after that of its
    /// room's first event that is kept.
    pub from_sequence: Option<u64>,
    /// Events whose logical time, the one that the service gave them, is at most this.
    pub until_time: Option<i64>,
}

/// What is known of an event.
#[derive(Debug, Default)]
struct Event {
    rooms: Vec<Arc<str>>,
    sequence: Option<u64>,
    /// The one that the service gave it.
    time: Option<i64>,
    /// When its sender sent it, in logical time: it was given a later one.
    sent: Option<i64>,
    /// When its last step began.
    latest: u64,
}

impl Selection {
    /// Leaves out of `recording` what was not asked for, and counts it.
    pub fn apply(&self, recording: &mut Recording) {
        if *self == Self::default() {
            return;
        }
        let mut events: HashMap<TraceId, Event> = HashMap::new();
        for step in &recording.steps {
            events.entry(step.id.trace).or_default().learn(step);
        }
        let firsts = self.first_times(&events);
        let before = recording.steps.len();
        recording
            .steps
            .retain(|step| self.keeps(&events[&step.id.trace], &firsts));
        recording.intake.left_out += (before - recording.steps.len()) as u64;
    }

    /// The logical time of each room's first event that [`Selection::from_sequence`] keeps.
    fn first_times(&self, events: &HashMap<TraceId, Event>) -> HashMap<Arc<str>, i64> {
        let mut firsts = HashMap::new();
        for event in events.values() {
            if let (Some(time), true) = (event.time, event.sequence >= self.from_sequence) {
                for room in &event.rooms {
                    let first = firsts.entry(Arc::clone(room)).or_insert(time);
                    *first = time.min(*first);
                }
            }
        }
        firsts
    }

    fn keeps(&self, event: &Event, firsts: &HashMap<Arc<str>, i64>) -> bool {
        let in_room = |room: &String| event.rooms.iter().any(|of_event| **of_event == **room);
        let from = |from: u64| match (event.sequence, event.time) {
            (Some(sequence), _) => sequence >= from,
            (None, Some(time)) => event
                .rooms
                .iter()
                .any(|room| firsts.get(room).is_some_and(|first| time > *first)),
            (None, None) => true,
        };
        let until = |until: i64| match (event.time, event.sent) {
            (Some(time), _) => time <= until,
            (None, Some(sent)) => sent < until,
            (None, None) => true,
        };
        self.room.as_ref().is_none_or(in_room)
            && self.since.is_none_or(|since| event.latest >= since)
            && self.from_sequence.is_none_or(from)
            && self.until_time.is_none_or(until)
    }
}

impl Event {
    fn learn(&mut self, step: &Step) {
        if !self.rooms.contains(&step.room) {
            self.rooms.push(Arc::clone(&step.room));
        }
        self.latest = step.start.max(self.latest);
        self.sequence = self.sequence.or(step.sequence);
        match step.act {
            Act::Send => self.sent = Some(step.time),
            Act::Order => self.time = Some(step.time),
            // It carries the event's time.
            Act::Deliver => self.time = self.time.or(step.message_time),
        }
    }
}
