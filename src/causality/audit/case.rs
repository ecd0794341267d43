//! The run as the rules look at it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::super::{
    run::{Index, Run},
    step::{Act, Process, Step},
};
use crate::telemetry::EventName;

/// A run, and what several rules need of it.
pub(super) struct Case<'a> {
    pub(super) run: &'a Run,
    pub(super) rooms: Vec<Room<'a>>,
}

/// One room in one history.
pub(super) struct Room<'a> {
    pub(super) name: &'a str,
    /// The orderings of its events, by sequence and then by time.
    pub(super) orders: Vec<Index>,
    /// Their sequences, each once.
    pub(super) sequences: Vec<u64>,
    /// The first sequence of which anything was recorded: the recording begins there.
    pub(super) first: u64,
    /// What each process received, as the process did it.
    pub(super) streams: Vec<Stream<'a>>,
}

/// The deliveries of one room to one process.
pub(super) struct Stream<'a> {
    pub(super) process: &'a Process,
    /// Each with the sequence of its event.
    pub(super) deliveries: Vec<(u64, Index)>,
}

impl<'a> Case<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        let mut rooms: BTreeMap<(&str, &str), Room<'a>> = BTreeMap::new();
        for (index, step) in run.steps.iter().enumerate() {
            if step.act == Act::Order && step.sequence.is_some() {
                open(&mut rooms, step).orders.push(index);
            }
        }
        for (process, steps) in &run.processes {
            // Which stream of its room a process's is: a process is seldom in more than one room.
            let mut streams: HashMap<(&str, &str), usize> = HashMap::new();
            for &index in steps {
                let Some((event, sequence)) = delivered(run, index) else {
                    continue;
                };
                let room = open(&mut rooms, event);
                let stream = *streams
                    .entry((&event.epoch, &event.room))
                    .or_insert_with(|| {
                        room.streams.push(Stream {
                            process,
                            deliveries: Vec::new(),
                        });
                        room.streams.len() - 1
                    });
                room.streams[stream].deliveries.push((sequence, index));
            }
        }
        let mut rooms: Vec<Room<'a>> = rooms.into_values().collect();
        for room in &mut rooms {
            let place = |&index: &Index| (run.steps[index].sequence, run.steps[index].time);
            room.orders.sort_by_key(place);
            let sequences = room
                .orders
                .iter()
                .filter_map(|&index| run.steps[index].sequence);
            room.sequences = sequences.collect();
            room.sequences.dedup();
            room.first = room.first_recorded();
        }
        Self { run, rooms }
    }

    pub(super) fn step(&self, index: Index) -> &'a Step {
        &self.run.steps[index]
    }

    /// The step that caused this one, if it was recorded and is a `act`.
    pub(super) fn cause(&self, index: Index, act: Act) -> Option<Index> {
        self.run.causes[index].filter(|&cause| self.step(cause).act == act)
    }

    /// The process whose send this ordering is of.
    pub(super) fn sender(&self, order: Index) -> Option<&'a Process> {
        let send = self.cause(order, Act::Send)?;
        Some(&self.step(send).process)
    }

    /// How many spans between two of the same program were lost; none where the spans are not numbered.
    pub(super) fn lost_between(&self, one: &Step, other: &Step) -> Option<u64> {
        let (one_number, other_number) = (one.number?, other.number?);
        Some(
            self.run
                .lost_between(&one.instance, one_number, other_number),
        )
    }
}

/// The event that a delivery is of, and its sequence: as the ordering says if that was recorded, else as the delivery does.
/// None for what is no delivery of an event.
fn delivered(run: &Run, index: Index) -> Option<(&Step, u64)> {
    let step = &run.steps[index];
    if step.act != Act::Deliver || step.event == EventName::Refusal {
        return None;
    }
    let order = run.causes[index].map(|cause| &run.steps[cause]);
    match order.filter(|order| order.act == Act::Order) {
        Some(order) => Some((order, order.sequence?)),
        None => Some((step, step.sequence?)),
    }
}

fn open<'r, 'a>(
    rooms: &'r mut BTreeMap<(&'a str, &'a str), Room<'a>>,
    step: &'a Step,
) -> &'r mut Room<'a> {
    let (epoch, name) = (&*step.epoch, &*step.room);
    rooms.entry((epoch, name)).or_insert_with(|| Room {
        name,
        orders: Vec::new(),
        sequences: Vec::new(),
        first: 1,
        streams: Vec::new(),
    })
}

impl Room<'_> {
    fn first_recorded(&self) -> u64 {
        let heard = self.streams.iter().filter_map(|stream| {
            let sequences = stream.deliveries.iter().map(|&(sequence, _)| sequence);
            sequences.min()
        });
        let first = heard.chain(self.sequences.first().copied()).min();
        first.unwrap_or(1)
    }

    /// How many events from `from` up to `to`, without that one, have a recorded ordering.
    pub(super) fn ordered_within(&self, from: u64, to: u64) -> u64 {
        let below = |bound| self.sequences.partition_point(|&sequence| sequence < bound);
        (below(to).saturating_sub(below(from))) as u64
    }
}

/// `alex (id 3300)`, `the service`.
pub(super) struct Who<'a>(pub(super) &'a Step);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step) = self;
        if step.process.is_service() {
            return f.write_str("the service");
        }
        match &*step.service {
            "" => write!(f, "id {}", step.process.id),
            service => write!(f, "{service} (id {})", step.process.id),
        }
    }
}

/// What a step did, in words: `bob (id 7) received Alex's message at L=6, #3 in lobby`.
pub(super) struct Did<'a>(pub(super) &'a Step);

impl fmt::Display for Did<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step) = self;
        let did = match step.act {
            Act::Send => "sent",
            Act::Order => "ordered",
            Act::Deliver => "received",
        };
        let what = match step.event {
            EventName::Join => "the join",
            EventName::Message => "a message",
            EventName::Leave => "the leave",
            EventName::Refusal => "a refusal",
        };
        write!(
            f,
            "{} {did} {what} of {} at L={} (",
            Who(step),
            step.participant,
            step.time
        )?;
        if let Some(sequence) = step.sequence {
            write!(f, "#{sequence} in ")?;
        }
        write!(f, "{})", step.room)
    }
}
