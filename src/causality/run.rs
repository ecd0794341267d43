//! A recorded run: its steps by process, each linked to what caused it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    lost::Lost,
    step::{Intake, Process, Recording, Step, StepId},
};

/// Where a step stands in [`Run::steps`].
pub type Index = usize;

/// A recorded run. Nothing in it is taken to be right: it is what the spans say.
#[derive(Debug, Default)]
pub struct Run {
    /// All steps.
    pub steps: Vec<Step>,
    /// Of each step, the one that its span names as its parent, if that was recorded.
    pub causes: Vec<Option<Index>>,
    /// Of each step, those that name it as their parent.
    pub effects: Vec<Vec<Index>>,
    /// Each process's steps in the order in which the process made them, as far as its numbers or else its wall clock tell.
    pub processes: BTreeMap<Process, Vec<Index>>,
    /// Of each program (`service.instance.id`), the numbers of the spans that were lost.
    pub missing: BTreeMap<Arc<str>, Missing>,
    /// What was read beside the steps.
    pub intake: Intake,
}

/// The numbers of one program's spans that were lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// First and last number of each hole, ascending.
    ranges: Vec<(u64, u64)>,
    /// Of each hole, how many are missing before it.
    before: Vec<u64>,
}

impl Missing {
    /// First and last number of each hole, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// How many are missing.
    #[must_use]
    pub fn total(&self) -> u64 {
        let (Some((first, last)), Some(before)) = (self.ranges.last(), self.before.last()) else {
            return 0;
        };
        before + (last - first + 1)
    }

    /// How many are missing below `number`.
    fn below(&self, number: u64) -> u64 {
        let holes = self.ranges.partition_point(|&(first, _)| first < number);
        let Some(last_hole) = holes.checked_sub(1) else {
            return 0;
        };
        let (first, last) = self.ranges[last_hole];
        self.before[last_hole] + (last.min(number - 1) - first + 1)
    }

    /// Adds a hole after those that are known.
    fn add(&mut self, first: u64, last: u64) {
        if first <= last && self.ranges.last().is_none_or(|&(_, end)| end < first) {
            self.before.push(self.total());
            self.ranges.push((first, last));
        }
    }
}

impl Run {
    /// Links the steps of `recording`.
    #[must_use]
    pub fn new(recording: Recording) -> Self {
        let steps = recording.steps;
        let missing = missing(recording.lost);
        let known: HashMap<StepId, Index> = steps
            .iter()
            .enumerate()
            .map(|(index, step)| (step.id, index))
            .collect();
        let cause = |step: &Step| {
            let trace = step.id.trace;
            let id = step.parent.map(|span| StepId { trace, span })?;
            known.get(&id).copied()
        };
        let causes: Vec<Option<Index>> = steps.iter().map(cause).collect();
        let mut effects = vec![Vec::new(); steps.len()];
        let mut processes: BTreeMap<Process, Vec<Index>> = BTreeMap::new();
        for (index, step) in steps.iter().enumerate() {
            if let Some(cause) = causes[index] {
                effects[cause].push(index);
            }
            match processes.get_mut(&step.process) {
                Some(of_process) => of_process.push(index),
                None => {
                    processes.insert(step.process.clone(), vec![index]);
                }
            }
        }
        for of_process in processes.values_mut() {
            in_process_order(&steps, of_process);
        }
        Self {
            steps,
            causes,
            effects,
            processes,
            missing,
            intake: recording.intake,
        }
    }

    /// How many spans of the program `instance` were lost, of those between two numbers of it.
    #[must_use]
    pub fn lost_between(&self, instance: &str, number: u64, other: u64) -> u64 {
        let (low, high) = (number.min(other), number.max(other));
        let missing = self.missing.get(instance);
        missing.map_or(0, |missing| {
            missing
                .below(high)
                .saturating_sub(missing.below(low.saturating_add(1)))
        })
    }
}

/// Which numbers of each program are missing.
fn missing(mut lost: Vec<Lost>) -> BTreeMap<Arc<str>, Missing> {
    lost.sort_by_key(|hole| *hole.numbers.start());
    let mut programs: BTreeMap<Arc<str>, Missing> = BTreeMap::new();
    for hole in lost {
        let missing = programs.entry(hole.instance).or_default();
        missing.add(*hole.numbers.start(), *hole.numbers.end());
    }
    programs
}

/// Sorts one process's steps as the process made them: by what it says of itself, not by their logical times, which
/// are to be judged by it.
///
/// The numbers tell it, where spans have them. Otherwise the process's own wall clock does: two of its steps of which one
/// ended before the other began are in that order.
fn in_process_order(steps: &[Step], of_process: &mut [Index]) {
    // A service that was started again counts from 1 again: its starts follow each other by the wall clock.
    let mut started: HashMap<Arc<str>, u64> = HashMap::new();
    for step in of_process.iter().map(|&index| &steps[index]) {
        let start = started
            .entry(Arc::clone(&step.instance))
            .or_insert(u64::MAX);
        *start = step.start.min(*start);
    }
    of_process.sort_by_key(|&index| {
        let step = &steps[index];
        let begun = started.get(&step.instance).copied();
        (begun, step.number, step.end, step.start)
    });
}
