//! Lifelines: one for each process, with where it begins, breaks and ends.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::picture::{Event, Moment};
use crate::{
    causality::{
        run::{Index, Run},
        step::{Act, Process, Step},
    },
    client::render::clean,
    telemetry::EventName,
};

/// The line of one process.
#[derive(Debug, Default)]
pub(super) struct Lifeline {
    /// Which process, counted as [`Run::processes`] lists them; none if nothing of it was recorded.
    pub(super) process: Option<usize>,
    /// `lamport.process.id`; clean.
    pub(super) id: String,
    /// `service.instance.id`; clean.
    pub(super) instance: String,
    /// What it is called: the participant's name, with a number where another process had that name before; clean.
    pub(super) name: String,
    /// When it was there, in the order of its steps.
    pub(super) lives: Vec<Life>,
    /// Where it was started again, for the service alone: the first step of each later start.
    pub(super) starts: Vec<Moment>,
    /// Where a participant came back to its session: its first recorded step after each resume, or after several.
    pub(super) resumes: Vec<Moment>,
}

/// A time during which a process was in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// Its first step.
    pub(super) from: Moment,
    /// Its last step.
    pub(super) to: Moment,
    /// What comes after that.
    pub(super) end: End,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing is known but that no later step was recorded.
    Open,
    /// It left.
    Left,
    /// It was gone without a word, as the service announced.
    Gone,
}

/// The lifelines as they are made.
#[derive(Debug)]
pub(super) struct Lifelines {
    lines: Vec<Lifeline>,
    /// Of each step, its lifeline.
    of_steps: Vec<usize>,
    /// Whose lifeline a name was, from when on; in that order.
    names: HashMap<String, Vec<(Moment, usize)>>,
    /// Of each lifeline, the departures that end lives, by the service's time of them.
    ends: Vec<Vec<(Moment, End)>>,
}

impl Lifelines {
    /// The service's lifeline.
    pub(super) const SERVICE: usize = 0;

    /// A lifeline for each process of `run`, whose steps were at `moments`.
    pub(super) fn new(run: &Run, moments: &[Moment]) -> Self {
        let mut found: Vec<(Moment, usize, &Process, &[Index])> = run
            .processes
            .iter()
            .enumerate()
            .map(|(process, (who, steps))| {
                (appearance(run, steps, moments), process, who, &**steps)
            })
            .collect();
        // Equal names and times: the one that was started first.
        let started = |steps: &[Index]| steps.iter().map(|&step| run.steps[step].start).min();
        found.sort_by_key(|&(at, _, who, steps)| (!who.is_service(), at, started(steps), who));
        let mut lifelines = Self {
            lines: Vec::with_capacity(found.len() + 1),
            of_steps: vec![Self::SERVICE; run.steps.len()],
            names: HashMap::new(),
            ends: Vec::new(),
        };
        if found.first().is_none_or(|(_, _, who, _)| !who.is_service()) {
            lifelines.add(None, Process::SERVICE.to_owned());
        }
        for (at, process, who, steps) in found {
            let name = if who.is_service() {
                Process::SERVICE.to_owned()
            } else {
                name(run, who, steps)
            };
            let line = lifelines.add(Some(process), name);
            lifelines.lines[line].id = clean(&who.id).into_owned();
            lifelines.lines[line].instance = clean(&who.instance).into_owned();
            for &step in steps {
                lifelines.of_steps[step] = line;
            }
            if !who.is_service() {
                lifelines.learn_names(run, steps, at, line);
            }
        }
        lifelines
    }

    fn add(&mut self, process: Option<usize>, name: String) -> usize {
        self.lines.push(Lifeline {
            process,
            name,
            ..Lifeline::default()
        });
        self.ends.push(Vec::new());
        self.lines.len() - 1
    }

    fn learn_names(&mut self, run: &Run, steps: &[Index], at: Moment, line: usize) {
        for own in steps.iter().filter_map(|&step| own_name(&run.steps[step])) {
            let known = self.names.entry(clean(own).into_owned()).or_default();
            if known.last().is_none_or(|&(_, last)| last != line) {
                known.push((at, line));
            }
        }
    }

    /// The lifeline of a step.
    pub(super) fn of(&self, step: Index) -> usize {
        self.of_steps[step]
    }

    /// The lifeline of who was called `name` then; a new one, without a process, if nothing of that one was recorded.
    pub(super) fn named(&mut self, name: &str, at: Moment) -> usize {
        let name = clean(name).into_owned();
        self.known(&name, at).unwrap_or_else(|| {
            let line = self.add(None, name.clone());
            self.names.insert(name, vec![(at, line)]);
            line
        })
    }

    fn known(&self, name: &str, at: Moment) -> Option<usize> {
        let known = self.names.get(name)?;
        let later = known.partition_point(|&(from, _)| from <= at);
        known
            .get(later.saturating_sub(1))
            .map(|&(_, lifeline)| lifeline)
    }

    /// Takes note of a departure.
    pub(super) fn end(&mut self, event: &Event) {
        if event.kind == EventName::Leave
            && let Some(line) = self.known(&event.name, event.at)
        {
            let end = if event.gone { End::Gone } else { End::Left };
            self.ends[line].push((event.at, end));
        }
    }

    /// All lifelines, with their lives.
    pub(super) fn finish(mut self, run: &Run, moments: &[Moment]) -> Vec<Lifeline> {
        let processes: Vec<&Vec<Index>> = run.processes.values().collect();
        for (line, ends) in self.lines.iter_mut().zip(&self.ends) {
            if let Some(process) = line.process {
                line.lives = lives(run, processes[process], moments, ends);
                line.resumes = resumes(run, processes[process], moments);
            }
        }
        if let Some(service) = self.lines[Self::SERVICE].process {
            self.lines[Self::SERVICE].starts = starts(run, processes[service], moments);
        }
        number_names(&mut self.lines);
        self.lines
    }
}

/// When a process appeared, by the service's clock: when what it first received had been ordered. Its own clock says
/// nothing of that; it begins at 1 whenever that is.
fn appearance(run: &Run, steps: &[Index], moments: &[Moment]) -> Moment {
    let received = steps.iter().filter_map(|&step| {
        let time = run.steps[step].message_time?;
        Some(Moment {
            time,
            ..moments[step]
        })
    });
    let any = steps.iter().map(|&step| moments[step]);
    let none = Moment { epoch: 0, time: 0 };
    received.min().or(any.min()).unwrap_or(none)
}

/// What a participant calls itself in a step, if the step says that.
fn own_name(step: &Step) -> Option<&str> {
    let own = step.act == Act::Send || step.event == EventName::Refusal;
    Some(&*step.participant).filter(|name| own && !name.is_empty())
}

fn name(run: &Run, who: &Process, steps: &[Index]) -> String {
    let steps = || steps.iter().map(|&step| &run.steps[step]);
    let last = steps().rev().find_map(own_name);
    let program = steps()
        .map(|step| &*step.service)
        .find(|name| !name.is_empty());
    clean(last.or(program).unwrap_or(&who.id)).into_owned()
}

/// Tells lifelines apart that have one name: the second is `Bob (2)`.
fn number_names(lines: &mut [Lifeline]) {
    let mut taken: HashMap<String, u32> = HashMap::new();
    for line in lines {
        let times = taken.entry(line.name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            let times = *times;
            line.name = format!("{} ({times})", line.name);
            taken.entry(line.name.clone()).or_default();
        }
    }
}

/// Where the service was started again: its program is another one than before.
fn starts(run: &Run, steps: &[Index], moments: &[Moment]) -> Vec<Moment> {
    let instance = |step: Index| -> &Arc<str> { &run.steps[step].instance };
    steps
        .windows(2)
        .filter(|pair| instance(pair[0]) != instance(pair[1]))
        .map(|pair| moments[pair[1]])
        .collect()
}

/// Where a participant says for the first time that its session was resumed once more.
fn resumes(run: &Run, steps: &[Index], moments: &[Moment]) -> Vec<Moment> {
    let mut known = 0;
    let mut resumes = Vec::new();
    for &step in steps {
        if run.steps[step].resumes > known {
            known = run.steps[step].resumes;
            resumes.push(moments[step]);
        }
    }
    resumes
}

/// Cuts the steps of a process, which are in its order, into lives.
fn lives(run: &Run, steps: &[Index], moments: &[Moment], ends: &[(Moment, End)]) -> Vec<Life> {
    // Where a new life begins, and how the one before ended.
    let mut cuts: BTreeMap<usize, End> = BTreeMap::new();
    for (position, pair) in steps.windows(2).enumerate() {
        if moments[pair[0]].epoch != moments[pair[1]].epoch {
            cuts.insert(position + 1, End::Open);
        }
    }
    for &(at, end) in ends {
        cuts.insert(first_after(run, steps, moments, at), end);
    }
    cuts.entry(steps.len()).or_insert(End::Open);
    let mut lives = Vec::with_capacity(cuts.len());
    let mut begin = 0;
    for (cut, end) in cuts {
        let life = || steps[begin..cut].iter().map(|&step| moments[step]);
        if let (Some(from), Some(to)) = (life().min(), life().max()) {
            lives.push(Life { from, to, end });
        }
        begin = cut;
    }
    lives
}

/// The first step that came after the departure that was ordered at `departed`: a later JOIN of its own, or what followed
/// that. A process that was cut off may have ticked far beyond that time; what it received tells.
fn first_after(run: &Run, steps: &[Index], moments: &[Moment], departed: Moment) -> usize {
    let after = |&step: &Index| {
        let Step {
            act, message_time, ..
        } = run.steps[step];
        let Moment { epoch, .. } = moments[step];
        let later = message_time.is_some_and(|time| time > departed.time);
        epoch > departed.epoch || (epoch == departed.epoch && act == Act::Deliver && later)
    };
    let mut first = steps.iter().position(after).unwrap_or(steps.len());
    let joins = |step: Index| {
        let step = &run.steps[step];
        step.act == Act::Send && step.event == EventName::Join
    };
    while first > 0 && joins(steps[first - 1]) && first < steps.len() {
        first -= 1;
    }
    first
}
