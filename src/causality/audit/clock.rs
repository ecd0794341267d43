//! The rules of the clocks: clock-condition, carried-time, rising-clock.

use std::collections::{BTreeMap, HashMap};

use super::{
    super::{
        run::Index,
        step::{Act, Step},
    },
    Rule,
    case::{Case, Did, Who},
    verdict::{Judged, Verdict},
};
use crate::telemetry::EventName;

pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    for index in 0..case.run.steps.len() {
        clock_condition(case, index, verdict);
        carried_time(case, index, verdict);
    }
    let rising = verdict.rule(Rule::RisingClock);
    lost(case, rising);
    one_number_each(case, rising);
    for (process, steps) in &case.run.processes {
        for steps in by(steps, |index| &*case.step(index).epoch).into_values() {
            shared_times(case, &steps, rising);
            let starts = by(&steps, |index| &*case.step(index).instance);
            for steps in starts.values() {
                rising_by_number(case, steps, rising);
                rising_by_wall_clock(case, steps, rising);
            }
            if process.is_service() {
                rising_over_starts(case, starts.into_values().collect(), rising);
            }
        }
    }
}

fn by<'a>(steps: &[Index], key: impl Fn(Index) -> &'a str) -> BTreeMap<&'a str, Vec<Index>> {
    let mut parts: BTreeMap<&str, Vec<Index>> = BTreeMap::new();
    for &index in steps {
        parts.entry(key(index)).or_default().push(index);
    }
    parts
}

/// Where a step's cause stands.
enum Cause {
    /// It has none.
    None,
    /// Its span was not recorded.
    Missing,
    /// Recorded, and of the act that causes such a step.
    Known(Index),
    /// Recorded, but of another act: that is another rule's.
    Wrong,
}

fn cause(case: &Case<'_>, index: Index) -> Cause {
    let step = case.step(index);
    let act = match step.act {
        Act::Send => return Cause::None,
        Act::Order => Act::Send,
        Act::Deliver => Act::Order,
    };
    match (step.parent, case.run.causes[index]) {
        (None, _) => Cause::None,
        (Some(_), None) => Cause::Missing,
        (Some(_), Some(cause)) if case.step(cause).act == act => Cause::Known(cause),
        (Some(_), Some(_)) => Cause::Wrong,
    }
}

/// Whether the service rightly did not look at the timestamp of what `cause` sent: it was impossible, or came from another
/// history.
///
/// A message with such a timestamp is refused, so of what became an event only joins and leaves have this. A time that the
/// service's clock had reached is not impossible; and only a join comes from another history.
fn is_exempt(case: &Case<'_>, cause: Index, order: &Step) -> bool {
    let unseen = order.message_time.is_none() && order.event != EventName::Message;
    let possible = (0..order.time).contains(&case.step(cause).time);
    unseen && (order.event == EventName::Join || !possible)
}

fn clock_condition(case: &Case<'_>, index: Index, verdict: &mut Verdict) {
    let step = case.step(index);
    let cause = cause(case, index);
    if let Cause::Known(sent) = cause
        && step.act == Act::Order
        && is_exempt(case, sent, step)
    {
        verdict.apart.refused_timestamps += 1;
        return;
    }
    let rule = verdict.rule(Rule::ClockCondition);
    let carried = step.message_time.filter(|_| step.act != Act::Send);
    let late = carried.filter(|&carried| step.time <= carried);
    match cause {
        Cause::Known(cause) if step.time <= case.step(cause).time => {
            rule.checked += 1;
            rule.broken.add(1, &[cause, index], || {
                format!(
                    "{}, which is not later than this: {}",
                    Did(step),
                    Did(case.step(cause))
                )
            });
        }
        Cause::Missing if late.is_none() => rule.undecided.add(1, &[index], || {
            format!("{}, and what caused it is not recorded", Did(step))
        }),
        _ => {
            let Some(carried) = carried else { return };
            rule.checked += 1;
            if late.is_some() {
                rule.broken.add(1, &[index], || {
                    format!(
                        "{}, which is not later than the L={carried} that it carried",
                        Did(step)
                    )
                });
            }
        }
    }
}

fn carried_time(case: &Case<'_>, index: Index, verdict: &mut Verdict) {
    let step = case.step(index);
    let rule = verdict.rule(Rule::CarriedTime);
    match cause(case, index) {
        Cause::Known(cause) if step.act == Act::Order && is_exempt(case, cause, step) => {}
        Cause::Known(cause) => {
            rule.checked += 1;
            let sent = case.step(cause).time;
            if step.message_time != Some(sent) {
                rule.broken
                    .add(1, &[cause, index], || match step.message_time {
                        Some(carried) => format!(
                            "{}; it carried L={carried}, but {}",
                            Did(step),
                            Did(case.step(cause))
                        ),
                        None => format!("{}; no time that it carried is recorded", Did(step)),
                    });
            }
        }
        Cause::Missing => rule.undecided.add(1, &[index], || {
            format!("{}, and what caused it is not recorded", Did(step))
        }),
        Cause::None | Cause::Wrong => {}
    }
}

/// What a clock did in a step whose span was lost, nobody knows.
fn lost(case: &Case<'_>, rule: &mut Judged) {
    for (instance, missing) in &case.run.missing {
        rule.undecided.add(missing.total(), &[], || {
            let mut steps = case.run.steps.iter();
            let of_program = steps.find(|step| step.instance == *instance);
            let service = of_program.map_or("a program", |step| &*step.service);
            format!(
                "{} span(s) of {service} ({instance}) were lost, and with them what its clock did there",
                missing.total()
            )
        });
    }
}

/// A program gives each number once: of two steps that share one, nobody knows which came first.
fn one_number_each(case: &Case<'_>, rule: &mut Judged) {
    let mut numbered: HashMap<(&str, &str, u64), Index> = HashMap::new();
    for (index, step) in case.run.steps.iter().enumerate() {
        let Some(number) = step.number.filter(|_| !step.instance.is_empty()) else {
            continue;
        };
        let first = *numbered
            .entry((&step.service, &step.instance, number))
            .or_insert(index);
        if first != index {
            rule.undecided.add(1, &[first, index], || {
                format!(
                    "Two steps have the number {number}, so their order is not known: {}, and {}",
                    Did(case.step(first)),
                    Did(step)
                )
            });
        }
    }
}

/// No two steps of a process have the same time, whatever their order.
fn shared_times(case: &Case<'_>, steps: &[Index], rule: &mut Judged) {
    let mut at: HashMap<i64, Index> = HashMap::with_capacity(steps.len());
    for &index in steps {
        let step = case.step(index);
        rule.checked += 1;
        match at.get(&step.time) {
            None => {
                at.insert(step.time, index);
            }
            Some(&other) => rule.broken.add(1, &[other, index], || {
                format!("{} at the same time: {}", Did(step), Did(case.step(other)))
            }),
        }
    }
}

/// Numbered steps of one start of a program: a higher number is a later step.
///
/// Except for a JOIN: its span ends when it is answered, but its tick is as early as its beginning.
fn rising_by_number(case: &Case<'_>, steps: &[Index], rule: &mut Judged) {
    let mut latest: Option<Index> = None;
    for &index in steps {
        let step = case.step(index);
        if step.number.is_none() {
            continue;
        }
        if let Some(before) = latest {
            let other = case.step(before);
            let joined = step.act == Act::Send && step.event == EventName::Join;
            if step.time < other.time && joined && other.start >= step.start {
                continue;
            }
            if step.time < other.time {
                rule.broken
                    .add(1, &[before, index], || went_back(other, step));
            }
        }
        latest = Some(index);
    }
}

fn went_back(before: &Step, after: &Step) -> String {
    format!(
        "The clock went back: {}, and after that {}",
        Did(before),
        Did(after)
    )
}

/// Steps without numbers: of two of which one ended before the other began, by the process's own wall clock.
fn rising_by_wall_clock(case: &Case<'_>, steps: &[Index], rule: &mut Judged) {
    let bare = steps.iter().copied();
    let mut by_end: Vec<Index> = bare
        .filter(|&index| case.step(index).number.is_none())
        .collect();
    let mut by_start = by_end.clone();
    by_end.sort_by_key(|&index| case.step(index).end);
    by_start.sort_by_key(|&index| case.step(index).start);
    let mut ended = by_end.into_iter().peekable();
    let mut latest: Option<Index> = None;
    for index in by_start {
        let step = case.step(index);
        while let Some(before) = ended.next_if(|&before| case.step(before).end < step.start) {
            if latest.is_none_or(|latest| case.step(latest).time < case.step(before).time) {
                latest = Some(before);
            }
        }
        if let Some(before) = latest.filter(|&before| case.step(before).time > step.time) {
            rule.broken
                .add(1, &[before, index], || went_back(case.step(before), step));
        }
    }
}

/// One start of the service after the other: the clock goes on.
///
/// That one came after the other is believed if the wall clocks say so and a room's sequence does, too: they may have run
/// on machines whose clocks differ.
fn rising_over_starts(case: &Case<'_>, starts: Vec<Vec<Index>>, rule: &mut Judged) {
    let mut starts: Vec<Start<'_>> = starts
        .iter()
        .filter_map(|steps| Start::of(case, steps))
        .collect();
    starts.sort_by_key(|start| start.began);
    for pair in starts.windows(2) {
        let [one, next] = pair else { continue };
        if !one.is_before(next) {
            continue;
        }
        let (before, after) = (case.step(one.latest), case.step(next.earliest));
        if before.time > after.time {
            rule.broken.add(1, &[one.latest, next.earliest], || {
                format!(
                    "{} was started again and its clock went back: {}, and after that {}",
                    Who(before),
                    Did(before),
                    Did(after)
                )
            });
        }
    }
}

/// The steps of one start of the service, in one epoch.
struct Start<'a> {
    began: u64,
    ended: u64,
    /// Its steps with the lowest and the highest logical time.
    earliest: Index,
    latest: Index,
    /// The first and the last sequence in each room.
    rooms: HashMap<&'a str, (u64, u64)>,
}

impl<'a> Start<'a> {
    fn of(case: &Case<'a>, steps: &[Index]) -> Option<Self> {
        let time = |&&index: &&Index| case.step(index).time;
        let mut rooms: HashMap<&str, (u64, u64)> = HashMap::new();
        for step in steps.iter().map(|&index| case.step(index)) {
            let Some(sequence) = step.sequence else {
                continue;
            };
            let (first, last) = rooms.entry(&step.room).or_insert((sequence, sequence));
            *first = sequence.min(*first);
            *last = sequence.max(*last);
        }
        Some(Self {
            began: steps.iter().map(|&index| case.step(index).start).min()?,
            ended: steps.iter().map(|&index| case.step(index).end).max()?,
            earliest: *steps.iter().min_by_key(time)?,
            latest: *steps.iter().max_by_key(time)?,
            rooms,
        })
    }

    fn is_before(&self, other: &Self) -> bool {
        let goes_on = |room: &str| {
            let (Some((_, last)), Some((first, _))) = (self.rooms.get(room), other.rooms.get(room))
            else {
                return false;
            };
            last < first
        };
        self.ended < other.began && other.rooms.keys().any(|room| goes_on(room))
    }
}
