//! A recorded run: its steps by process, each linked to what caused it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::step::{Process, Recording, Step, StepId};

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
    /// Each process's steps in the order in which the process made them (`in_process_order`).
    pub processes: BTreeMap<Process, Vec<Index>>,
}

impl Run {
    /// Links the steps of `recording`.
    #[must_use]
    pub fn new(recording: Recording) -> Self {
        let steps = recording.steps;
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
        }
    }
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
