//! Who was in a room from when to when, and the rule of that: one-departure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    super::{
        run::Index,
        step::{Process, Step},
    },
    Rule,
    case::{Case, Did, Room, Who},
    verdict::{Judged, Verdict},
};
use crate::{
    room::text::{NameKey, name_key},
    telemetry::EventName,
};

/// Who was in a room from when to when.
pub(super) struct Presence<'a> {
    /// In the order of joining; those who were there before the recording, as they show themselves.
    pub(super) participations: Vec<Participation<'a>>,
    /// Sequences without a span whose event is known all the same, ascending.
    explained: Vec<u64>,
    /// At one moment at least so many were in the room of whom nothing was recorded.
    pub(super) unknown: u64,
}

/// One participant from its JOIN to its departure.
pub(super) struct Participation<'a> {
    /// As the service shows it.
    pub(super) name: &'a str,
    /// Whose clock its steps move; none if that cannot be told.
    pub(super) process: Option<&'a Process>,
    /// The ordering of its JOIN and its sequence; none if that is not in the recording.
    pub(super) joined: Option<(u64, Index)>,
    /// Its departure.
    pub(super) left: Option<Left>,
}

/// A departure.
#[derive(Clone, Copy)]
pub(super) struct Left {
    /// The LEAVE's sequence.
    pub(super) sequence: u64,
    /// Its ordering; none for the LEAVE without a span that precedes a JOIN.
    pub(super) order: Option<Index>,
    /// Whether the participant sent it: then it had received everything before.
    pub(super) own: bool,
}

pub(super) fn judge<'a>(case: &Case<'a>, room: &Room<'a>, verdict: &mut Verdict) -> Presence<'a> {
    let streams = room.streams.iter().map(|stream| stream.process).collect();
    let mut walk = Walk {
        case,
        room,
        rule: verdict.rule(Rule::OneDeparture),
        presence: Presence {
            participations: Vec::new(),
            explained: Vec::new(),
            unknown: 0,
        },
        names: BTreeMap::new(),
        processes: HashMap::new(),
        ids: HashMap::new(),
        present: 0,
        strangers: streams,
    };
    let mut last = 0;
    for &order in &room.orders {
        let step = case.step(order);
        let sequence = step.sequence.unwrap_or(0);
        // Two events in one place are the sequence's fault; the first one counts here.
        if sequence != last {
            walk.take(sequence, order, step);
            last = sequence;
        }
    }
    let mut presence = walk.presence;
    presence.adopt(case, room);
    presence
}

impl<'a> Presence<'a> {
    /// Of how many events from `from` up to `to`, without that one, nothing is known.
    pub(super) fn holes(&self, room: &Room<'_>, from: u64, to: u64) -> u64 {
        let below = |bound| self.explained.partition_point(|&sequence| sequence < bound);
        let explained = below(to).saturating_sub(below(from)) as u64;
        to.saturating_sub(from)
            - room.ordered_within(from, to).min(to.saturating_sub(from))
            - explained
    }

    /// Whether all events before `sequence` are known, from the room's first on.
    pub(super) fn is_complete_before(&self, room: &Room<'_>, sequence: u64) -> bool {
        room.first == 1 && self.holes(room, 1, sequence) == 0
    }

    /// Whether all events are known from the room's first to the last that was recorded.
    pub(super) fn is_complete(&self, room: &Room<'_>) -> bool {
        let last = room.sequences.last().copied().unwrap_or(0);
        self.is_complete_before(room, last.saturating_add(1))
    }

    /// Finds the process of those whose JOIN's sending was not recorded: it begins to receive with that JOIN.
    fn adopt(&mut self, case: &Case<'a>, room: &Room<'a>) {
        let known: BTreeSet<&Process> = self
            .participations
            .iter()
            .filter_map(|one| one.process)
            .collect();
        let first_heard: BTreeMap<&'a Process, u64> = room
            .streams
            .iter()
            .filter(|stream| !known.contains(stream.process))
            .filter_map(|stream| {
                let first = stream.deliveries.iter().map(|&(sequence, _)| sequence);
                Some((stream.process, first.min()?))
            })
            .collect();
        for one in &mut self.participations {
            let (None, Some((sequence, order))) = (one.process, one.joined) else {
                continue;
            };
            let receipts = case.run.effects[order].iter();
            let mut begun = receipts
                .filter_map(|&receipt| first_heard.get_key_value(&case.step(receipt).process))
                .filter(|&(_, &first)| first == sequence);
            if let (Some((&process, _)), None) = (begun.next(), begun.next()) {
                one.process = Some(process);
            }
        }
    }
}

impl Participation<'_> {
    fn is_open(&self) -> bool {
        self.left.is_none()
    }
}

/// Follows a room's events.
struct Walk<'w, 'a> {
    case: &'w Case<'a>,
    room: &'w Room<'a>,
    rule: &'w mut Judged,
    presence: Presence<'a>,
    /// The last participation under each name, of each process, and with each id; open or not.
    names: BTreeMap<NameKey, usize>,
    processes: HashMap<&'a Process, usize>,
    ids: HashMap<&'a str, usize>,
    /// How many participations are open.
    present: u64,
    /// Processes that receive, and of whom no JOIN was met yet.
    strangers: BTreeSet<&'a Process>,
}

impl<'a> Walk<'_, 'a> {
    fn take(&mut self, sequence: u64, order: Index, step: &'a Step) {
        match step.event {
            EventName::Join => self.join(sequence, order, step),
            EventName::Message => self.message(sequence, order, step),
            EventName::Leave => self.leave(sequence, order, step),
            EventName::Refusal => return,
        }
        if !self.presence.is_complete_before(self.room, sequence) {
            let known = self.present + self.strangers.len() as u64;
            let unknown = step.recipients.unwrap_or(0).saturating_sub(known);
            self.presence.unknown = unknown.max(self.presence.unknown);
        }
    }

    fn join(&mut self, sequence: u64, order: Index, step: &'a Step) {
        self.rule.checked += 1;
        let process = self.case.sender(order);
        let name = name_key(&step.participant);
        if let Some(held) = self
            .names
            .get(&name)
            .copied()
            .filter(|&held| self.is_open(held))
        {
            self.join_of_one_present(held, sequence, order, step);
        }
        if let Some(process) = process {
            self.id_of(process, sequence, order, step);
        }
        self.enter(Participation {
            name: &step.participant,
            process,
            joined: Some((sequence, order)),
            left: None,
        });
    }

    /// Somebody of that name is there. Its LEAVE has no span if it is the same one, whose history is gone: the two are
    /// then one command.
    fn join_of_one_present(&mut self, held: usize, sequence: u64, order: Index, step: &Step) {
        let before = sequence - 1;
        let since = self.presence.participations[held].joined;
        let from = since.map_or(self.room.first, |(joined, _)| joined);
        if before > 0
            && self.presence.holes(self.room, before, sequence) > 0
            && before >= self.room.first
        {
            self.presence.explained.push(before);
        } else if self.presence.holes(self.room, from, sequence) > 0 {
            self.rule.undecided.add(1, &[order], || {
                format!(
                    "{}, who was there; the departure is not recorded",
                    Did(step)
                )
            });
        } else {
            let steps: Vec<Index> = since
                .map(|(_, join)| join)
                .into_iter()
                .chain([order])
                .collect();
            self.rule.broken.add(1, &steps, || {
                format!("{}, who had joined and not left", Did(step))
            });
        }
        let left = Left {
            sequence: before,
            order: None,
            own: false,
        };
        self.close(held, left);
    }

    /// Nobody else who is there has the same id.
    fn id_of(&mut self, process: &'a Process, sequence: u64, order: Index, step: &Step) {
        let Some(held) = self
            .ids
            .get(&*process.id)
            .copied()
            .filter(|&held| self.is_open(held))
        else {
            return;
        };
        let other = &self.presence.participations[held];
        let (from, join) = other
            .joined
            .map_or((self.room.first, None), |(from, join)| (from, Some(join)));
        if self.presence.holes(self.room, from, sequence) > 0 {
            return;
        }
        let steps: Vec<Index> = join.into_iter().chain([order]).collect();
        let held_by = other.name;
        self.rule.broken.add(1, &steps, || {
            format!(
                "{} under the id {} that {held_by} has",
                Did(step),
                process.id
            )
        });
    }

    fn message(&mut self, sequence: u64, order: Index, step: &'a Step) {
        // A root's sender may post without being in the room.
        let Some(process) = self.case.sender(order) else {
            return;
        };
        self.rule.checked += 1;
        if self.participation_of(process, &step.participant).is_none() {
            self.absent(Some(process), sequence, order, step);
        }
    }

    fn leave(&mut self, sequence: u64, order: Index, step: &'a Step) {
        self.rule.checked += 1;
        let process = self.case.sender(order);
        let name = name_key(&step.participant);
        let named = self
            .names
            .get(&name)
            .copied()
            .filter(|&one| self.is_open(one));
        let leaving = match named {
            Some(one) if self.is_of_another(one, process) => {
                self.leave_by_another(one, process, sequence, order, step)
            }
            Some(one) => {
                if let (None, Some(sender)) = (self.presence.participations[one].process, process) {
                    self.presence.participations[one].process = Some(sender);
                    self.processes.insert(sender, one);
                }
                Some(one)
            }
            None => self.absent(process, sequence, order, step),
        };
        if let Some(one) = leaving {
            let left = Left {
                sequence,
                order: Some(order),
                own: process.is_some(),
            };
            self.close(one, left);
        }
    }

    fn is_of_another(&self, one: usize, sender: Option<&Process>) -> bool {
        let whose = self.presence.participations[one].process;
        whose.zip(sender).is_some_and(|(own, sender)| own != sender)
    }

    /// A LEAVE under the name of one who is there, sent by somebody else: one left and the other came in between, if that
    /// may be for want of a recording.
    fn leave_by_another(
        &mut self,
        held: usize,
        sender: Option<&'a Process>,
        sequence: u64,
        order: Index,
        step: &'a Step,
    ) -> Option<usize> {
        let joined = self.presence.participations[held].joined;
        let from = joined.map_or(self.room.first, |(joined, _)| joined);
        if self.presence.holes(self.room, from, sequence) == 0 {
            let steps: Vec<Index> = joined
                .map(|(_, join)| join)
                .into_iter()
                .chain([order])
                .collect();
            self.rule.broken.add(1, &steps, || {
                format!("{}, but another process sent it than had joined", Did(step))
            });
            return Some(held);
        }
        let left = Left {
            sequence: sequence.saturating_sub(1),
            order: None,
            own: false,
        };
        self.close(held, left);
        self.rule.undecided.add(1, &[order], || {
            format!("{}, whose join is not recorded", Did(step))
        });
        Some(self.enter(Participation {
            name: &step.participant,
            process: sender,
            joined: None,
            left: None,
        }))
    }

    /// The open participation of `process`.
    fn participation_of(&mut self, process: &'a Process, name: &str) -> Option<usize> {
        let known = self.processes.get(process).copied();
        if let Some(one) = known.filter(|&one| self.is_open(one)) {
            return Some(one);
        }
        let named = self.names.get(&name_key(name)).copied()?;
        let whose = &mut self.presence.participations[named];
        if !whose.is_open() || whose.process.is_some() {
            return None;
        }
        whose.process = Some(process);
        self.processes.insert(process, named);
        Some(named)
    }

    /// Somebody speaks or leaves who is not there, as far as is known. If that may be for want of a recording it is there
    /// from now on.
    fn absent(
        &mut self,
        process: Option<&'a Process>,
        sequence: u64,
        order: Index,
        step: &'a Step,
    ) -> Option<usize> {
        let of_process = process.and_then(|process| self.processes.get(process));
        let last = of_process.or_else(|| self.names.get(&name_key(&step.participant)));
        let left = last.and_then(|&last| self.presence.participations[last].left);
        let from = left.map_or(self.room.first, |left| left.sequence + 1);
        if self.presence.holes(self.room, from, sequence) > 0 {
            self.rule.undecided.add(1, &[order], || {
                format!("{}, whose join is not recorded", Did(step))
            });
        } else if let Some(left) = left {
            let steps: Vec<Index> = left.order.into_iter().chain([order]).collect();
            self.rule.broken.add(1, &steps, || {
                format!("{}, who had left with #{}", Did(step), left.sequence)
            });
            return None;
        } else if self.room.first == 1 {
            self.rule
                .broken
                .add(1, &[order], || format!("{}, who had not joined", Did(step)));
            return None;
        }
        Some(self.enter(Participation {
            name: &step.participant,
            process,
            joined: None,
            left: None,
        }))
    }

    fn enter(&mut self, one: Participation<'a>) -> usize {
        let place = self.presence.participations.len();
        self.names.insert(name_key(one.name), place);
        if let Some(process) = one.process {
            self.processes.insert(process, place);
            self.ids.insert(&process.id, place);
            self.strangers.remove(process);
        }
        self.presence.participations.push(one);
        self.present += 1;
        place
    }

    fn close(&mut self, place: usize, left: Left) {
        let one = &mut self.presence.participations[place];
        if one.is_open() {
            one.left = Some(left);
            self.present -= 1;
        }
    }

    fn is_open(&self, place: usize) -> bool {
        self.presence.participations[place].is_open()
    }
}

/// Whoever received an event after it had left.
pub(super) fn heard_after(step: &Step, left: Left) -> String {
    format!(
        "{}, but {} had left with #{}",
        Did(step),
        Who(step),
        left.sequence
    )
}
