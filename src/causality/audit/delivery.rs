//! The rule of what each participant receives: gap-free-delivery; and that it is present when it does: one-departure.

use std::collections::{BTreeMap, HashMap};

use super::{
    super::{
        run::Index,
        step::{Act, Process, Step},
    },
    Rule,
    case::{Case, Did, Room, Stream, Who},
    presence::{Left, Participation, Presence, heard_after},
    verdict::{Judged, Verdict},
};
use crate::telemetry::EventName;

pub(super) fn judge<'a>(
    case: &Case<'a>,
    room: &Room<'a>,
    presence: &Presence<'a>,
    all_sampled: bool,
    verdict: &mut Verdict,
) {
    let mut of_process: BTreeMap<&Process, Vec<&Participation<'a>>> = BTreeMap::new();
    for one in &presence.participations {
        match one.process {
            Some(process) => of_process.entry(process).or_default().push(one),
            None => unrecorded(case, room, one, verdict.rule(Rule::GapFreeDelivery)),
        }
    }
    if presence.unknown > 0 {
        verdict
            .rule(Rule::GapFreeDelivery)
            .undecided
            .add(presence.unknown, &[], || {
                format!(
                    "At least {} who were in {} left no span at all",
                    presence.unknown, room.name
                )
            });
    }
    for stream in &room.streams {
        in_order_and_once(case, stream, verdict.rule(Rule::GapFreeDelivery));
        let mut heard = stream.deliveries.clone();
        heard.sort_unstable();
        heard.dedup_by_key(|&mut (sequence, _)| sequence);
        let participations = of_process.remove(stream.process).unwrap_or_default();
        let listener = Listener {
            case,
            room,
            presence,
            all_sampled,
            process: stream.process,
        };
        listener.judge(&heard, &participations, verdict);
    }
    // They sent, but nothing that they received was recorded.
    for (process, participations) in of_process {
        let listener = Listener {
            case,
            room,
            presence,
            all_sampled,
            process,
        };
        listener.judge(&[], &participations, verdict);
    }
}

/// A participant of whom no span can be found.
fn unrecorded(case: &Case<'_>, room: &Room<'_>, one: &Participation<'_>, rule: &mut Judged) {
    let steps: Vec<Index> = one.joined.map(|(_, order)| order).into_iter().collect();
    let untraced = steps
        .first()
        .is_some_and(|&order| case.step(order).parent.is_none());
    rule.undecided.add(1, &steps, || {
        let why = if untraced {
            "it does not trace"
        } else {
            "its spans are missing"
        };
        let name = one.name;
        match one.joined {
            Some((sequence, _)) => {
                format!(
                    "What {name} received, who joined {} with #{sequence}: {why}",
                    room.name
                )
            }
            None => format!("What {name} received in {}: {why}", room.name),
        }
    });
}

/// As the process received them, by its own numbers or its wall clock.
fn in_order_and_once(case: &Case<'_>, stream: &Stream<'_>, rule: &mut Judged) {
    let mut known: HashMap<u64, Index> = HashMap::with_capacity(stream.deliveries.len());
    let mut last: Option<(u64, Index)> = None;
    for &(sequence, index) in &stream.deliveries {
        let step = case.step(index);
        rule.checked += 1;
        if let Some(&first) = known.get(&sequence) {
            rule.broken
                .add(1, &[first, index], || format!("{} twice", Did(step)));
            continue;
        }
        known.insert(sequence, index);
        match last {
            Some((before, earlier)) if before > sequence => {
                let earlier_step = case.step(earlier);
                if is_after(step, earlier_step) {
                    rule.broken.add(1, &[earlier, index], || {
                        format!(
                            "Out of order: {}, and after that {}",
                            Did(earlier_step),
                            Did(step)
                        )
                    });
                }
            }
            _ => last = Some((sequence, index)),
        }
    }
}

fn is_after(step: &Step, earlier: &Step) -> bool {
    match (step.number, earlier.number) {
        (Some(number), Some(earlier)) => number > earlier,
        _ => step.start > earlier.end,
    }
}

/// A process that takes part in a room.
struct Listener<'l, 'a> {
    case: &'l Case<'a>,
    room: &'l Room<'a>,
    presence: &'l Presence<'a>,
    /// Whether all events of all rooms are known.
    all_sampled: bool,
    process: &'a Process,
}

/// What was heard, each with its sequence, ascending, each once.
type Heard = [(u64, Index)];

impl Listener<'_, '_> {
    /// Each participation has what was received from its JOIN to the next one of the same process: a replay to one who
    /// comes back after its departure was announced goes on where it stopped reading.
    fn judge(&self, heard: &Heard, participations: &[&Participation<'_>], verdict: &mut Verdict) {
        let below = |bound: u64| heard.partition_point(|&(sequence, _)| sequence < bound);
        let joins = participations.iter().filter_map(|one| one.joined);
        let first_join = joins.map(|(sequence, _)| sequence).min();
        let stray = match first_join {
            Some(join) => &heard[..below(join)],
            None => heard,
        };
        // Of one whose JOIN is not known there is one participation at the most that begins without.
        let earlier = participations.iter().find(|one| one.joined.is_none());
        if earlier.is_none() {
            self.never_joined(stray, verdict);
        }
        self.window(stray, earlier.copied(), None, first_join, verdict);

        let joined: Vec<&Participation<'_>> = participations
            .iter()
            .copied()
            .filter(|one| one.joined.is_some())
            .collect();
        for (place, one) in joined.iter().enumerate() {
            let next = joined.get(place + 1).and_then(|next| next.joined);
            let from = one.joined.map_or(0, |(sequence, _)| below(sequence));
            let to = next.map_or(heard.len(), |(sequence, _)| below(sequence));
            let next_join = next.map(|(sequence, _)| sequence);
            self.window(
                &heard[from..to.max(from)],
                Some(one),
                next,
                next_join,
                verdict,
            );
        }
    }

    /// Received before any JOIN of the process that is known.
    fn never_joined(&self, stray: &Heard, verdict: &mut Verdict) {
        let Some(&(first, index)) = stray.first() else {
            return;
        };
        let rule = verdict.rule(Rule::OneDeparture);
        if self.presence.is_complete_before(self.room, first + 1) {
            rule.broken.add(stray.len() as u64, &[index], || {
                format!(
                    "{}, but {} had not joined",
                    self.did(index),
                    self.who(index)
                )
            });
        } else if self.presence.holes(self.room, self.room.first, first + 1) > 0 {
            rule.undecided.add(1, &[index], || {
                format!(
                    "{}, and the join of {} is not recorded",
                    self.did(index),
                    self.who(index)
                )
            });
        }
    }

    /// What belongs to one participation; `next` is the process's next JOIN.
    fn window(
        &self,
        heard: &Heard,
        one: Option<&Participation<'_>>,
        next: Option<(u64, Index)>,
        next_join: Option<u64>,
        verdict: &mut Verdict,
    ) {
        let left = one.and_then(|one| one.left);
        let mut owed = heard;
        if let Some(left) = left {
            let until = heard.partition_point(|&(sequence, _)| sequence < left.sequence);
            let replayed = !left.own && next_join.is_some();
            if !replayed {
                owed = &heard[..until];
            }
            let (before, after) = heard.split_at(until);
            let before = before.last().map(|&(_, index)| index);
            self.after_leave(before, after, left, next, verdict);
        }
        let rule = verdict.rule(Rule::GapFreeDelivery);
        let join = one.and_then(|one| one.joined);
        let mut before = join.map(|(sequence, order)| Edge {
            after: sequence.saturating_sub(1),
            step: self.case.cause(order, Act::Send),
        });
        for &(sequence, index) in owed {
            if let Some(edge) = before {
                self.gap(edge, sequence, index, rule);
            }
            before = Some(Edge {
                after: sequence,
                step: Some(index),
            });
        }
        if let (Some(edge), Some(left)) = (before, left.filter(|left| left.own)) {
            self.tail(edge, left, next, rule);
        }
    }

    /// Nothing is received after the own departure, but in the replay to one who comes back.
    fn after_leave(
        &self,
        before: Option<Index>,
        heard: &Heard,
        left: Left,
        next: Option<(u64, Index)>,
        verdict: &mut Verdict,
    ) {
        let rule = verdict.rule(Rule::OneDeparture);
        let may_return = !left.own && next.is_none() && !heard.is_empty() && self.joins_unordered();
        for &(sequence, index) in heard {
            let step = self.case.step(index);
            rule.checked += 1;
            let decidable = match next {
                _ if left.own => {
                    self.presence
                        .holes(self.room, left.sequence + 1, sequence + 1)
                        == 0
                }
                Some((_, join)) => {
                    if self.is_replayed(step, join) {
                        continue;
                    }
                    true
                }
                None => {
                    let before = before.map(|before| self.case.step(before));
                    let lost = before.and_then(|before| self.case.lost_between(before, step));
                    self.all_sampled && !may_return && lost == Some(0)
                }
            };
            if decidable {
                let steps: Vec<Index> = left.order.into_iter().chain([index]).collect();
                rule.broken.add(1, &steps, || heard_after(step, left));
            } else {
                rule.undecided.add(1, &[index], || {
                    format!(
                        "{}; a join after that may be unrecorded",
                        heard_after(step, left)
                    )
                });
            }
        }
    }

    /// Whether it was received after the answer to the JOIN, as far as can be told.
    fn is_replayed(&self, receipt: &Step, join: Index) -> bool {
        let Some(send) = self.case.cause(join, Act::Send) else {
            return true;
        };
        match (receipt.number, self.case.step(send).number) {
            (Some(receipt), Some(join)) => receipt > join,
            _ => true,
        }
    }

    /// Whether the process sent a JOIN to this room whose ordering is not recorded.
    fn joins_unordered(&self) -> bool {
        let steps = self.case.run.processes.get(self.process);
        steps.into_iter().flatten().any(|&index| {
            let step = self.case.step(index);
            let joins = step.act == Act::Send && step.event == EventName::Join;
            joins && *step.room == *self.room.name && self.case.run.effects[index].is_empty()
        })
    }

    /// What is missing between two receipts, if anything is.
    fn gap(&self, before: Edge, sequence: u64, index: Index, rule: &mut Judged) {
        let from = before.after + 1;
        let missing = self.room.ordered_within(from, sequence);
        if missing == 0 {
            return;
        }
        let first = self.room.sequences.partition_point(|&one| one < from);
        let first = self.room.sequences[first];
        let step = self.case.step(index);
        let lost = before
            .step
            .and_then(|earlier| self.case.lost_between(self.case.step(earlier), step));
        let places = self.places(from, sequence);
        let steps: Vec<Index> = before.step.into_iter().chain([index]).collect();
        let missed = || format!("{} has no receipt of {places}", Who(step));
        match lost {
            Some(0) if self.presence.holes(self.room, first, sequence + 1) == 0 => {
                rule.broken.add(missing, &steps, || {
                    format!(
                        "{}, though none of its spans there was lost; then {}",
                        missed(),
                        Did(step)
                    )
                });
            }
            Some(0) => rule.undecided.add(missing, &steps, || {
                format!(
                    "{}; it may have been away, for not all events there are recorded",
                    missed()
                )
            }),
            Some(lost) => rule.undecided.add(missing, &steps, || {
                format!("{}; {lost} of its spans there were lost", missed())
            }),
            None => rule.undecided.add(missing, &steps, || {
                let why = match step.number {
                    Some(_) => "the sending of its join is not recorded either",
                    None => "its spans have no numbers, so they may have been lost",
                };
                format!("{}; {why}", missed())
            }),
        }
    }

    /// What is missing before an own LEAVE. Of spans at the end of a program nobody can tell whether they were lost, unless
    /// it did something later that shows its number.
    fn tail(&self, before: Edge, left: Left, next: Option<(u64, Index)>, rule: &mut Judged) {
        let from = before.after + 1;
        let missing = self.room.ordered_within(from, left.sequence);
        if missing == 0 {
            return;
        }
        let later = next.and_then(|(_, order)| self.case.cause(order, Act::Send));
        let lost = later.zip(before.step).and_then(|(later, earlier)| {
            let (earlier, later) = (self.case.step(earlier), self.case.step(later));
            self.case.lost_between(earlier, later)
        });
        let places = self.places(from, left.sequence);
        let steps: Vec<Index> = before.step.into_iter().chain(left.order).collect();
        let who = left
            .order
            .and_then(|order| self.case.cause(order, Act::Send));
        let missed = || {
            let who = who.map_or_else(|| self.process.id.to_string(), |send| self.who(send));
            format!(
                "{who} has no receipt of {places} before it left with #{}",
                left.sequence
            )
        };
        if lost == Some(0) {
            rule.broken.add(missing, &steps, || {
                format!("{}, though none of its spans there was lost", missed())
            });
        } else {
            rule.undecided.add(missing, &steps, || {
                format!("{}; the last of its spans may have been lost", missed())
            });
        }
    }

    /// `#3`, `3 events from #3 to #7`: what was ordered there.
    fn places(&self, from: u64, to: u64) -> String {
        let first = self
            .room
            .sequences
            .partition_point(|&sequence| sequence < from);
        let last = self
            .room
            .sequences
            .partition_point(|&sequence| sequence < to);
        let room = self.room.name;
        match &self.room.sequences[first..last] {
            [] => format!("nothing in {room}"),
            [one] => format!("#{one} in {room}"),
            [one, .., other] => format!("{} events, #{one} to #{other} in {room}", last - first),
        }
    }

    fn did(&self, index: Index) -> String {
        Did(self.case.step(index)).to_string()
    }

    fn who(&self, index: Index) -> String {
        Who(self.case.step(index)).to_string()
    }
}

/// Where a gap may begin.
#[derive(Clone, Copy)]
struct Edge {
    /// Everything up to this sequence is there, or not owed.
    after: u64,
    /// The process's step there: a receipt, or the sending of its JOIN; none if that is not recorded.
    step: Option<Index>,
}
