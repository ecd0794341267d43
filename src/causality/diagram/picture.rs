//! What a diagram shows, whatever its format: lifelines, and on them the events with their points and arrows.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use opentelemetry::TraceId;

use super::lifeline::{Lifeline, Lifelines};
use crate::{
    causality::{
        happened_before::HappenedBefore,
        run::{Index, Run},
        step::{Act, Step},
    },
    client::render::clean,
    telemetry::EventName,
};

/// A logical time, in the history that it is a time of: a service whose history was wiped counts from 1 again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Moment {
    /// Which history: 0 is the first that was recorded.
    pub(super) epoch: usize,
    /// The logical time.
    pub(super) time: i64,
}

/// All that is drawn.
#[derive(Debug)]
pub(super) struct Picture<'r> {
    pub(super) run: &'r Run,
    pub(super) order: &'r HappenedBefore,
    /// The service's first, then the participants' as they appeared.
    pub(super) lifelines: Vec<Lifeline>,
    /// By the service's logical time.
    pub(super) events: Vec<Event>,
    /// The ends of the arrows.
    pub(super) points: Vec<Point>,
}

/// Where a point stands in [`Picture::points`].
pub(super) type PointId = usize;

/// A point on a lifeline: a step, or one that must have been but was not recorded.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// The step; none where its span was lost.
    pub(super) step: Option<Index>,
    /// Where in [`Picture::lifelines`].
    pub(super) lifeline: usize,
    pub(super) act: Act,
    /// The process's clock after the step; of a lost one, the timestamp that its message carried.
    pub(super) at: Moment,
    /// It was read in the replay of what was missed while the connection was lost, as its participant says.
    pub(super) replayed: bool,
    /// How much later than usual this participant received this, if that is [`LATE`] or more and no replay.
    pub(super) late: Option<Duration>,
}

/// What happened to one message, from its sending to its deliveries: one trace.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) trace: TraceId,
    pub(super) kind: EventName,
    pub(super) room: String,
    /// Its place in its room; none for a refusal, and where it was not recorded.
    pub(super) sequence: Option<u64>,
    /// Who it is about; clean.
    pub(super) name: String,
    /// What was said, if that was recorded; clean.
    pub(super) text: String,
    /// Why it was refused, if it was: the reason and, if recorded, the words; clean.
    pub(super) refusal: String,
    /// The service's logical time of it; the sender's, where the service never had it.
    pub(super) at: Moment,
    /// Its points, in the order send, order, deliveries.
    pub(super) points: Vec<PointId>,
    pub(super) arrows: Vec<Arrow>,
    /// Streams that it was handed to, if recorded.
    pub(super) recipients: Option<u64>,
    /// The service announced it by itself: a departure without a word.
    pub(super) gone: bool,
    /// Events that were ordered before this one and that its sender had not read when it sent this: concurrent ones. The
    /// nearest first, [`UNREAD_MAX`] at most; where in [`Picture::events`].
    pub(super) unread: Vec<usize>,
}

/// A message under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrow {
    pub(super) from: PointId,
    /// None: it was sent, and nobody recorded that it arrived.
    pub(super) to: Option<PointId>,
    /// One of its ends was not recorded.
    pub(super) lost: bool,
    /// It arrives at a time that is not later than it left: Lamport's rule is broken.
    pub(super) backwards: bool,
}

/// From when on a delivery is marked as late.
///
/// Unit: wall-clock time beyond that participant's own fastest delivery, so that clocks of machines that differ do not
/// matter. Source: a client that lost its connection first waits 50 to 100 ms and needs a new connection; a machine under
/// load may delay a delivery by some 100 ms. A replay is told by its participant and is not late; that of a client which
/// does not tell is.
pub(super) const LATE: Duration = Duration::from_millis(500);

/// How many concurrent events are named with a mark, at most.
pub(super) const UNREAD_MAX: usize = 3;

/// How far back events are searched for concurrent ones. More than this many in a row that are the sender's own are a
/// burst, and what is before them is not looked for.
const LOOK_BACK: usize = 256;

impl<'r> Picture<'r> {
    pub(super) fn new(run: &'r Run, order: &'r HappenedBefore) -> Self {
        let epochs = epochs(run);
        let mut traces: BTreeMap<[u8; 16], Vec<Index>> = BTreeMap::new();
        for (index, step) in run.steps.iter().enumerate() {
            let trace = traces.entry(step.id.trace.to_bytes()).or_default();
            trace.push(index);
        }
        let mut moments = vec![Moment { epoch: 0, time: 0 }; run.steps.len()];
        for trace in traces.values() {
            let epoch = epoch(run, trace, &epochs);
            for &index in trace {
                let time = run.steps[index].time;
                moments[index] = Moment { epoch, time };
            }
        }
        let mut lifelines = Lifelines::new(run, &moments);
        let lates = lates(run);
        let mut points = Vec::with_capacity(run.steps.len());
        let mut events: Vec<Event> = Vec::with_capacity(traces.len());
        for trace in traces.values_mut() {
            trace.sort_by_key(|&index| {
                let step = &run.steps[index];
                (step.act, step.time, lifelines.of(index), step.number)
            });
            let telling = Telling {
                run,
                moments: &moments,
                lates: &lates,
                lifelines: &mut lifelines,
                points: &mut points,
                by_step: HashMap::new(),
            };
            events.push(telling.event(trace));
        }
        events.sort_by_key(|event| (event.at, event.sequence, event.trace.to_bytes()));
        for event in &events {
            lifelines.end(event);
        }
        let mut picture = Self {
            run,
            order,
            lifelines: lifelines.finish(run, &moments),
            events,
            points,
        };
        picture.mark_unread();
        picture
    }

    /// The step of a point, if it was recorded.
    pub(super) fn step(&self, point: PointId) -> Option<&'r Step> {
        self.points[point].step.map(|index| &self.run.steps[index])
    }

    /// The steps of an event that `act`.
    fn recorded(&self, event: &Event, act: Act) -> Option<Index> {
        let mut of_act = event.points.iter().map(|&point| &self.points[point]);
        of_act.find_map(|point| point.step.filter(|_| point.act == act))
    }

    /// Finds the events whose sender had not read what was ordered before.
    fn mark_unread(&mut self) {
        let mut rooms: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut found = Vec::new();
        for (event, told) in self.events.iter().enumerate() {
            let room = rooms.entry(told.room.as_str()).or_default();
            found.push(self.unread(told, room));
            if self.recorded(told, Act::Order).is_some() {
                room.push(event);
            }
        }
        for (event, unread) in self.events.iter_mut().zip(found) {
            event.unread = unread;
        }
    }

    /// Of the events `earlier` in the same room, those that the sender of `event` had not read. Who has read nothing yet,
    /// because it only joins, is not marked; nor who may have read what was not recorded.
    fn unread(&self, event: &Event, earlier: &[usize]) -> Vec<usize> {
        let mut unread = Vec::new();
        let Some(send) = self.recorded(event, Act::Send) else {
            return unread;
        };
        if self.recorded(event, Act::Order).is_none() || !self.order.knows_all(send) {
            return unread;
        }
        for &other in earlier.iter().rev().take(LOOK_BACK) {
            let told = &self.events[other];
            let ordered = self.recorded(told, Act::Order);
            if told.at.epoch != event.at.epoch
                || unread.len() == UNREAD_MAX
                || ordered.is_some_and(|ordered| self.order.before(ordered, send))
            {
                break;
            }
            let origin = self.recorded(told, Act::Send).or(ordered);
            if origin.is_some_and(|origin| self.order.concurrent(origin, send)) {
                unread.push(other);
            }
        }
        unread
    }
}

/// Tells one event, step by step.
struct Telling<'a, 'r> {
    run: &'r Run,
    moments: &'a [Moment],
    lates: &'a [Option<Duration>],
    lifelines: &'a mut Lifelines,
    points: &'a mut Vec<Point>,
    by_step: HashMap<Index, PointId>,
}

impl Telling<'_, '_> {
    /// The event whose steps these are: at least one, sends first, deliveries last.
    fn event(mut self, trace: &[Index]) -> Event {
        let mut points: Vec<PointId> = trace.iter().map(|&index| self.point(index)).collect();
        let mut arrows = Vec::new();
        // What was lost, by its span's id.
        let mut lost = HashMap::new();
        for &index in trace {
            let step = &self.run.steps[index];
            let to = self.by_step[&index];
            let from = match (self.run.causes[index], step.parent) {
                (Some(cause), _) => self.by_step[&cause],
                (None, Some(parent)) => *lost.entry(parent).or_insert_with(|| {
                    points.push(self.ghost(index));
                    self.points.len() - 1
                }),
                (None, None) => continue,
            };
            arrows.push(self.arrow(from, to));
        }
        for &index in trace {
            let point = self.by_step[&index];
            let step = &self.run.steps[index];
            if step.act == Act::Send && self.run.effects[index].is_empty() {
                // Its one way on may have been lost between two that are there.
                let ordered = lost.values().copied().find(|&ghost: &PointId| {
                    self.points[ghost].act == Act::Order
                        && self.points[ghost].at > self.points[point].at
                });
                arrows.push(Arrow {
                    from: point,
                    to: ordered,
                    lost: true,
                    backwards: false,
                });
            }
        }
        points.sort_by_key(|&point| {
            let Point { act, at, .. } = self.points[point];
            (act, at, self.points[point].lifeline)
        });
        self.told(trace, points, arrows)
    }

    fn told(&self, trace: &[Index], points: Vec<PointId>, arrows: Vec<Arrow>) -> Event {
        let steps = || trace.iter().map(|&index| &self.run.steps[index]);
        let first = |act: Act| steps().find(|step| step.act == act);
        let (send, order) = (first(Act::Send), first(Act::Order));
        let teller = order
            .or(first(Act::Deliver))
            .or(send)
            .expect("a trace was made by one of its steps");
        let text = |step: Option<&Step>| {
            step.map(|step| clean(&step.text).into_owned())
                .filter(|text| !text.is_empty())
        };
        let refused = teller.event == EventName::Refusal;
        let said = match order {
            Some(order) if !refused => text(Some(order)).or_else(|| text(send)),
            _ if refused => text(send),
            _ => text(send).or_else(|| text(first(Act::Deliver))),
        };
        let ordered = points
            .iter()
            .map(|&point| &self.points[point])
            .find(|point| point.act == Act::Order);
        let at = ordered.or(points.first().map(|&point| &self.points[point]));
        Event {
            trace: teller.id.trace,
            kind: teller.event,
            room: clean(&teller.room).into_owned(),
            sequence: steps().find_map(|step| step.sequence),
            name: clean(&teller.participant).into_owned(),
            text: said
                .filter(|_| matches!(teller.event, EventName::Message | EventName::Refusal))
                .unwrap_or_default(),
            refusal: order.map(refusal).unwrap_or_default(),
            at: at.expect("each step has its point").at,
            points,
            arrows,
            recipients: order.and_then(|order| order.recipients),
            gone: order.is_some_and(|order| {
                order.event == EventName::Leave
                    && order.parent.is_none()
                    && order.message_time.is_none()
            }),
            unread: Vec::new(),
        }
    }

    fn point(&mut self, index: Index) -> PointId {
        self.points.push(Point {
            step: Some(index),
            lifeline: self.lifelines.of(index),
            act: self.run.steps[index].act,
            at: self.moments[index],
            replayed: self.run.steps[index].replayed,
            late: self.lates[index],
        });
        self.by_step.insert(index, self.points.len() - 1);
        self.points.len() - 1
    }

    /// The point of the lost step that caused `index`: at the time that the message carried.
    fn ghost(&mut self, index: Index) -> PointId {
        let step = &self.run.steps[index];
        let at = Moment {
            time: step.message_time.unwrap_or(step.time.saturating_sub(1)),
            ..self.moments[index]
        };
        let (act, lifeline) = match step.act {
            Act::Order => {
                let sender = self.lifelines.named(&step.participant, self.moments[index]);
                (Act::Send, sender)
            }
            Act::Send | Act::Deliver => (Act::Order, Lifelines::SERVICE),
        };
        self.points.push(Point {
            step: None,
            lifeline,
            act,
            at,
            replayed: false,
            late: None,
        });
        self.points.len() - 1
    }

    fn arrow(&self, from: PointId, to: PointId) -> Arrow {
        let (start, end) = (&self.points[from], &self.points[to]);
        Arrow {
            from,
            to: Some(to),
            lost: start.step.is_none() || end.step.is_none(),
            backwards: end.at <= start.at,
        }
    }
}

fn refusal(order: &Step) -> String {
    if order.event != EventName::Refusal {
        return String::new();
    }
    match (order.error.as_str(), order.text.as_str()) {
        ("", "") => "refused".to_owned(),
        (reason, "") | ("", reason) => clean(reason).into_owned(),
        (reason, words) => format!("{}: {}", clean(reason), clean(words)),
    }
}

/// When each history began, by the wall clock of the service, in that order.
fn epochs(run: &Run) -> Vec<(u64, &str)> {
    let mut began: HashMap<&str, u64> = HashMap::new();
    for step in run.steps.iter().filter(|step| !step.epoch.is_empty()) {
        let start = began.entry(&step.epoch).or_insert(u64::MAX);
        *start = step.start.min(*start);
    }
    let mut epochs: Vec<(u64, &str)> = began.into_iter().map(|(epoch, at)| (at, epoch)).collect();
    epochs.sort_unstable();
    epochs
}

/// Which of the `epochs` a trace is of: what its steps say, the service's first; else the last that had begun.
fn epoch(run: &Run, trace: &[Index], epochs: &[(u64, &str)]) -> usize {
    let steps = || trace.iter().map(|&index| &run.steps[index]);
    let named = steps()
        .filter(|step| !step.epoch.is_empty())
        .min_by_key(|step| step.act != Act::Order);
    if let Some(step) = named {
        let known = epochs.iter().position(|(_, epoch)| **epoch == *step.epoch);
        return known.unwrap_or(0);
    }
    let start = steps().map(|step| step.start).min().unwrap_or(0);
    let begun = epochs.partition_point(|&(began, _)| began <= start);
    begun.saturating_sub(1)
}

/// Of each delivery that was late ([`LATE`]), how late.
fn lates(run: &Run) -> Vec<Option<Duration>> {
    let mut lates = vec![None; run.steps.len()];
    for of_process in run.processes.values() {
        let took = |index: Index| {
            let order = &run.steps[run.causes[index]?];
            let step = &run.steps[index];
            (step.act == Act::Deliver).then(|| i128::from(step.start) - i128::from(order.end))
        };
        let fastest = of_process.iter().filter_map(|&index| took(index)).min();
        let replayed = |index: Index| run.steps[index].replayed;
        for &index in of_process.iter().filter(|&&index| !replayed(index)) {
            let late = took(index).zip(fastest).map(|(took, least)| took - least);
            let nanoseconds = late.and_then(|late| u64::try_from(late).ok());
            lates[index] = nanoseconds
                .map(Duration::from_nanos)
                .filter(|&late| late >= LATE);
        }
    }
    lates
}
