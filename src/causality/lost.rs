//! Spans that were lost on their way: the numbers that are missing among a program's.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use super::step::{Step, StepId};

/// Spans of one program that were made and did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// What the program is called in traces (`service.name`).
    pub service: Arc<str>,
    /// Which start of it (`service.instance.id`).
    pub instance: Arc<str>,
    /// Their numbers (`chat.step.number`).
    pub numbers: RangeInclusive<u64>,
    /// The program's last step before them.
    pub after: StepId,
    /// The program's next step after them.
    pub before: StepId,
}

/// The programs' numbered steps.
pub(super) struct Numbered<'a>(BTreeMap<Program<'a>, Vec<(u64, &'a Step)>>);

/// `service.name` and `service.instance.id`.
type Program<'a> = (&'a Arc<str>, &'a Arc<str>);

impl<'a> Numbered<'a> {
    /// Sorts `steps` by their programs and numbers. They are of all rooms: a program numbers its spans
    /// over all of them.
    pub(super) fn new(steps: &'a [Step]) -> Self {
        let mut programs: BTreeMap<_, Vec<(u64, &Step)>> = BTreeMap::new();
        for step in steps {
            if let Some(number) = step.number.filter(|_| !step.instance.is_empty()) {
                let program = programs.entry((&step.service, &step.instance));
                program.or_default().push((number, step));
            }
        }
        for program in programs.values_mut() {
            program.sort_unstable_by_key(|(number, _)| *number);
        }
        Self(programs)
    }

    /// What is missing between two steps, the first of which began at or after `since` (nanoseconds since 1970).
    ///
    /// These must have been there. What came before a program's first step that was recorded may lie before the beginning
    /// of the recording; what came after its last, nobody knows.
    pub(super) fn lost(&self, since: u64) -> Vec<Lost> {
        let gap = |pair: &[(u64, &Step)]| match *pair {
            [(number, after), (next, before)] if next - number > 1 && after.start >= since => {
                Some(Lost {
                    service: Arc::clone(&after.service),
                    instance: Arc::clone(&after.instance),
                    numbers: number + 1..=next - 1,
                    after: after.id,
                    before: before.id,
                })
            }
            _ => None,
        };
        let programs = self.0.values();
        programs
            .flat_map(|program| program.windows(2).filter_map(gap))
            .collect()
    }

    /// The programs whose first steps are not there, by `service.name`, each with how many these are.
    pub(super) fn begun_before(&self) -> Vec<(&'a str, u64)> {
        let first = |(program, steps): (&Program<'a>, &Vec<(u64, &Step)>)| {
            let (number, _) = steps.first().filter(|(number, _)| *number > 1)?;
            Some((&**program.0, number - 1))
        };
        self.0.iter().filter_map(first).collect()
    }
}
