//! Lamport's happened-before, rebuilt from what was recorded: the order of each process, and each span's parent.
//!
//! A Lamport time says which of two events *cannot* have caused the other; this says which of them *can* have. Each
//! step gets a vector clock: of each process, how many steps it may know of. One step happened before another exactly if
//! the other's vector covers it; two that do not cover each other are concurrent.
//!
//! It is the order of what was *recorded*: where spans are lost, so is what they knew. [`HappenedBefore::knows_all`]
//! tells whether a step's knowledge can be trusted.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use super::{
    run::{Index, Run},
    step::Step,
};

/// Which of a run's steps happened before which.
#[derive(Debug)]
pub struct HappenedBefore {
    /// How many processes there are: the length of one vector clock.
    width: usize,
    /// Of each step, its process, counted as [`Run::processes`] lists them, and its place there, from 1.
    places: Vec<(usize, u32)>,
    /// One vector clock after the other, by step.
    clocks: Vec<u32>,
    /// Of each step, the cause that was believed.
    causes: Vec<Option<Index>>,
    /// Of each step, the last one of its process, itself included, that something caused.
    learned: Vec<Option<Index>>,
    /// Of each step, the unbroken row of its program's step numbers that it is in; none where it is not numbered.
    rows: Vec<Option<u64>>,
    /// All steps, each after all that happened before it.
    sequence: Vec<Index>,
    /// Steps whose parent contradicts the order of the processes.
    contradictions: Vec<Index>,
}

/// The run has too many steps of too many processes for vector clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{steps} steps of {processes} processes are too many to compare each with each: choose a room, a time or a range of sequences"
)]
pub struct TooMany {
    /// How many steps.
    pub steps: usize,
    /// Of how many processes.
    pub processes: usize,
}

impl HappenedBefore {
    /// Entries that all vector clocks together may have.
    ///
    /// Unit: entries of 4 bytes, so 256 MiB. When there would be more: [`TooMany`]. Source: 20 participants' 2,000 events
    /// have one million; a diagram of a hundred times as much cannot be read by anybody.
    pub const ENTRIES_MAX: usize = 64 << 20;

    /// Orders the steps of `run`.
    ///
    /// A parent that contradicts the order of the processes, so that a step would have happened before itself, is not
    /// believed: [`HappenedBefore::contradictions`].
    ///
    /// # Errors
    /// [`TooMany`], beyond [`HappenedBefore::ENTRIES_MAX`].
    pub fn new(run: &Run) -> Result<Self, TooMany> {
        let (steps, width) = (run.steps.len(), run.processes.len());
        if steps.saturating_mul(width) > Self::ENTRIES_MAX {
            return Err(TooMany {
                steps,
                processes: width,
            });
        }
        let mut places = vec![(0, 0); steps];
        for (process, of_process) in run.processes.values().enumerate() {
            for (&index, place) in of_process.iter().zip(1..) {
                places[index] = (process, place);
            }
        }
        let mut order = Self {
            width,
            places,
            clocks: vec![0; steps * width],
            causes: run.causes.clone(),
            learned: vec![None; steps],
            rows: rows(&run.steps),
            sequence: Vec::with_capacity(steps),
            contradictions: Vec::new(),
        };
        order.walk(run);
        Ok(order)
    }

    /// Visits each step after all that happened before it; among those that may come next, the one of the lowest time.
    fn walk(&mut self, run: &Run) {
        let processes: Vec<&[Index]> = run.processes.values().map(Vec::as_slice).collect();
        let mut done = vec![false; run.steps.len()];
        // Of each process, how many of its steps are done.
        let mut heads = vec![0; processes.len()];
        let places = &self.places;
        let key = |index: Index| Reverse((run.steps[index].time, places[index]));
        let mut ready: BinaryHeap<_> = BinaryHeap::new();
        let is_ready = |index: Index, causes: &[Option<Index>], done: &[bool]| {
            causes[index].is_none_or(|cause| done[cause])
        };
        for of_process in &processes {
            if let Some(&first) = of_process.first()
                && is_ready(first, &self.causes, &done)
            {
                ready.push((key(first), first));
            }
        }
        let mut visited = Vec::with_capacity(run.steps.len());
        loop {
            let Some((_, index)) = ready.pop() else {
                // Nothing may come next: either all is done, or parents and processes contradict each other.
                let stuck = heads
                    .iter()
                    .zip(&processes)
                    .filter_map(|(&head, of_process)| of_process.get::<usize>(head).copied())
                    .max_by_key(|&index| key(index));
                let Some(stuck) = stuck else { break };
                self.causes[stuck] = None;
                self.contradictions.push(stuck);
                ready.push((key(stuck), stuck));
                continue;
            };
            done[index] = true;
            visited.push(index);
            let (process, _) = self.places[index];
            heads[process] += 1;
            let next = processes[process].get(heads[process]).copied();
            let at_head = |index: Index| {
                let (process, place) = self.places[index];
                heads[process] + 1 == place as usize
            };
            // An effect in the same process may be the next one: it is looked at once.
            let effects = run.effects[index]
                .iter()
                .copied()
                .filter(|&effect| Some(effect) != next && !done[effect] && at_head(effect))
                .filter(|&effect| self.causes[effect] == Some(index));
            for candidate in effects.chain(next) {
                if is_ready(candidate, &self.causes, &done) {
                    ready.push((key(candidate), candidate));
                }
            }
        }
        for &index in &visited {
            self.learn(index, &processes);
        }
        self.sequence = visited;
    }

    /// Sets the vector clock of `index` from those of what came right before it.
    fn learn(&mut self, index: Index, processes: &[&[Index]]) {
        let (process, place) = self.places[index];
        let before = (place as usize)
            .checked_sub(2)
            .map(|position| processes[process][position]);
        let cause = self.causes[index];
        for entry in 0..self.width {
            let known = |of: Option<Index>| of.map_or(0, |of| self.clocks[of * self.width + entry]);
            self.clocks[index * self.width + entry] = known(before).max(known(cause));
        }
        self.clocks[index * self.width + process] = place;
        self.learned[index] = match cause {
            Some(_) => Some(index),
            None => before.and_then(|before| self.learned[before]),
        };
    }

    /// Whether `one` happened before `other`. No step happened before itself.
    #[must_use]
    pub fn before(&self, one: Index, other: Index) -> bool {
        let (process, place) = self.places[one];
        one != other && self.clock(other)[process] >= place
    }

    /// Whether neither of two different steps happened before the other.
    #[must_use]
    pub fn concurrent(&self, one: Index, other: Index) -> bool {
        one != other && !self.before(one, other) && !self.before(other, one)
    }

    /// The vector clock of a step: of each process, as [`Run::processes`] lists them, how many steps it may know of.
    #[must_use]
    pub fn clock(&self, step: Index) -> &[u32] {
        &self.clocks[step * self.width..(step + 1) * self.width]
    }

    /// A step's process, counted as [`Run::processes`] lists them, and its place there, from 1.
    #[must_use]
    pub fn place(&self, step: Index) -> (usize, u32) {
        self.places[step]
    }

    /// The step that caused this one, unless that is not believed.
    #[must_use]
    pub fn cause(&self, step: Index) -> Option<Index> {
        self.causes[step]
    }

    /// All steps, each after all that happened before it; by logical time, as far as that allows.
    #[must_use]
    pub fn sequence(&self) -> &[Index] {
        &self.sequence
    }

    /// Steps whose parent contradicts the order of the processes, and is not believed.
    #[must_use]
    pub fn contradictions(&self) -> &[Index] {
        &self.contradictions
    }

    /// Whether everything is there that the process of `step` can have learned up to it, since the last step by which it
    /// is known to have learned something: no number is missing between the two.
    ///
    /// False if it has learned nothing yet. True where steps are not numbered, for nothing speaks against it.
    #[must_use]
    pub fn knows_all(&self, step: Index) -> bool {
        self.learned[step].is_some_and(|learned| self.rows[learned] == self.rows[step])
    }
}

/// Which unbroken row of its program's numbers each step is in: its number, less how many lower ones there are.
fn rows(steps: &[Step]) -> Vec<Option<u64>> {
    let mut numbers: HashMap<Arc<str>, Vec<u64>> = HashMap::new();
    for step in steps {
        let of_program = numbers.entry(Arc::clone(&step.instance)).or_default();
        of_program.extend(step.number);
    }
    for of_program in numbers.values_mut() {
        of_program.sort_unstable();
        of_program.dedup();
    }
    let row = |step: &Step| {
        let number = step.number?;
        let lower = numbers[&step.instance].partition_point(|&other| other < number);
        Some(number.saturating_sub(lower as u64))
    };
    steps.iter().map(row).collect()
}
