//! The verdict for a person, and for a program.

use std::fmt;

use serde::Serialize;

use super::{
    super::run::{Index, Run},
    Finding, Findings, Judged, State, Verdict,
};
use crate::{client::render::clean, telemetry::JaegerUi};

/// Holes of one program's numbers that are printed; a program with more lost so much that a list says nothing.
const HOLES_SHOWN: usize = 5;

/// A verdict on a run.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// What was judged.
    pub run: &'a Run,
    /// How.
    pub verdict: &'a Verdict,
    /// Where the traces can be looked at.
    pub jaeger: Option<&'a JaegerUi>,
}

impl Report<'_> {
    /// The verdict on everything: what was read in vain, or is known to be missing, was not judged.
    #[must_use]
    pub fn state(&self) -> State {
        let intake = &self.run.intake;
        let whole = intake.faulty == 0 && intake.warnings.is_empty() && !self.run.steps.is_empty();
        let floor = if whole {
            State::Held
        } else {
            State::NotDecidable
        };
        self.verdict.state().max(floor)
    }

    /// One JSON document; its field names do not change.
    ///
    /// # Errors
    /// None that is known: there is nothing in it that JSON has no form for.
    pub fn json(&self) -> serde_json::Result<String> {
        let mut json = serde_json::to_string_pretty(&self.document())?;
        json.push('\n');
        Ok(json)
    }

    /// The page of Jaeger that shows the step's trace, all its logical times unfolded.
    fn link(&self, index: Index) -> Option<String> {
        Some(self.jaeger?.trace(self.run.steps[index].id.trace))
    }

    fn rooms(&self) -> usize {
        let mut rooms: Vec<_> = self.run.steps.iter().map(|step| &*step.room).collect();
        rooms.sort_unstable();
        rooms.dedup();
        rooms.len()
    }

    fn traces(&self) -> usize {
        let mut traces: Vec<_> = self
            .run
            .steps
            .iter()
            .map(|step| step.id.trace.to_bytes())
            .collect();
        traces.sort_unstable();
        traces.dedup();
        traces.len()
    }

    fn document(&self) -> Document<'_> {
        let run = self.run;
        let apart = self.verdict.apart;
        Document {
            verdict: self.state().name(),
            steps: run.steps.len(),
            traces: self.traces(),
            rooms: self.rooms(),
            processes: run.processes.len(),
            rules: self
                .verdict
                .rules
                .iter()
                .map(|rule| self.rule(rule))
                .collect(),
            apart: ApartDocument {
                untraced_sends: apart.untraced_sends,
                noticed_departures: apart.noticed_departures,
                unordered_sends: apart.unordered_sends,
                refused_timestamps: apart.refused_timestamps,
                late_rooms: apart.late_rooms,
            },
            lost: run
                .missing
                .iter()
                .map(|(instance, missing)| LostDocument {
                    instance,
                    spans: missing.total(),
                    numbers: missing.ranges(),
                })
                .collect(),
            input: InputDocument {
                spans: run.intake.spans,
                foreign: run.intake.foreign,
                repeated: run.intake.repeated,
                left_out: run.intake.left_out,
                faulty: run.intake.faulty,
                faults: &run.intake.faults,
                warnings: &run.intake.warnings,
            },
        }
    }

    fn rule<'r>(&'r self, judged: &'r Judged) -> RuleDocument<'r> {
        RuleDocument {
            rule: judged.rule.name(),
            promise: judged.rule.promise(),
            verdict: judged.state().name(),
            checked: judged.checked,
            broken: judged.broken.total,
            not_decidable: judged.undecided.total,
            findings: self
                .findings(State::Broken, &judged.broken)
                .chain(self.findings(State::NotDecidable, &judged.undecided))
                .collect(),
        }
    }

    fn findings<'f>(
        &'f self,
        state: State,
        findings: &'f Findings,
    ) -> impl Iterator<Item = FindingDocument<'f>> {
        findings.first.iter().map(move |finding| FindingDocument {
            verdict: state.name(),
            what: &finding.words,
            count: finding.count,
            steps: finding
                .steps
                .iter()
                .map(|&index| self.step(index))
                .collect(),
        })
    }

    fn step(&self, index: Index) -> StepDocument<'_> {
        let step = &self.run.steps[index];
        StepDocument {
            trace_id: step.id.trace.to_string(),
            span_id: step.id.span.to_string(),
            act: step.act.as_str(),
            event: step.event.as_str(),
            process: &step.process.id,
            service: &step.service,
            instance: &step.instance,
            number: step.number,
            room: &step.room,
            epoch: &step.epoch,
            participant: &step.participant,
            time: step.time,
            sequence: step.sequence,
            link: self.link(index),
        }
    }

    fn write_findings(&self, f: &mut fmt::Formatter<'_>, findings: &Findings) -> fmt::Result {
        for finding in &findings.first {
            writeln!(f, "  - {}.", clean(&finding.words))?;
            self.write_steps(f, finding)?;
        }
        match findings.findings - findings.first.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "  - ... and {more} more like these."),
        }
    }

    fn write_steps(&self, f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
        let mut links: Vec<String> = finding
            .steps
            .iter()
            .filter_map(|&index| self.link(index))
            .collect();
        links.dedup();
        for link in &links {
            writeln!(f, "      {link}")?;
        }
        if links.is_empty() && !finding.steps.is_empty() {
            let ids = finding
                .steps
                .iter()
                .map(|&index| self.run.steps[index].id.to_string());
            writeln!(f, "      spans {}", ids.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }

    fn write_apart(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let apart = self.verdict.apart;
        for (count, what) in [
            (
                apart.untraced_sends,
                "event(s) or refusal(s) of senders that do not trace",
            ),
            (
                apart.noticed_departures,
                "departures that the service noticed itself (a crash, a broken stream)",
            ),
            (
                apart.unordered_sends,
                "sends without an ordering (refused before it, or sent into a broken connection)",
            ),
            (
                apart.refused_timestamps,
                "orderings that rightly did not merge the sender's time (impossible, or of another history)",
            ),
            (
                apart.late_rooms,
                "room(s) judged from a later event than the first, which is not in the recording",
            ),
        ] {
            if count > 0 {
                writeln!(f, "Apart: {count} {what}.")?;
            }
        }
        Ok(())
    }

    fn write_lost(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = |instance: &str| {
            let step = self
                .run
                .steps
                .iter()
                .find(|step| *step.instance == *instance);
            step.map_or("a program", |step| &step.service)
        };
        for (instance, missing) in self.run.missing.iter().take(Findings::MAX) {
            let shown = missing.ranges().iter().take(HOLES_SHOWN);
            let shown: Vec<String> = shown
                .map(|(first, last)| match first == last {
                    true => format!("{first}"),
                    false => format!("{first} to {last}"),
                })
                .collect();
            let more = if missing.ranges().len() > shown.len() {
                ", ..."
            } else {
                ""
            };
            writeln!(
                f,
                "Lost: {} span(s) of {} ({}): number {}{more}.",
                missing.total(),
                clean(service(instance)),
                clean(instance),
                shown.join(", ")
            )?;
        }
        match self.run.missing.len().saturating_sub(Findings::MAX) {
            0 => Ok(()),
            more => writeln!(f, "Lost: and spans of {more} more programs."),
        }
    }

    fn write_intake(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let intake = &self.run.intake;
        for warning in &intake.warnings {
            writeln!(f, "Input: {}.", clean(warning.trim_end_matches('.')))?;
        }
        if intake.faulty > 0 {
            writeln!(f, "Input: {} span(s) could not be used:", intake.faulty)?;
            for fault in &intake.faults {
                writeln!(f, "  - {}", clean(fault))?;
            }
        }
        Ok(())
    }
}

/// A table, what was found in words, and the verdict in the last line.
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.verdict.rules;
        writeln!(
            f,
            "Audited {} steps of {} messages in {} room(s), by {} processes.\n",
            self.run.steps.len(),
            self.traces(),
            self.rooms(),
            self.run.processes.len(),
        )?;
        writeln!(
            f,
            "{:<24}{:<15}{:>10}{:>10}{:>15}",
            "rule", "verdict", "checked", "broken", "not decidable"
        )?;
        for judged in rules {
            writeln!(
                f,
                "{:<24}{:<15}{:>10}{:>10}{:>15}",
                judged.rule.name(),
                judged.state().name(),
                judged.checked,
                judged.broken.total,
                judged.undecided.total
            )?;
        }
        writeln!(f)?;
        for judged in rules.iter().filter(|judged| judged.broken.total > 0) {
            writeln!(
                f,
                "{} is BROKEN. {}",
                judged.rule.name(),
                judged.rule.promise()
            )?;
            self.write_findings(f, &judged.broken)?;
            writeln!(f, "  What to do: {}\n", judged.rule.advice())?;
        }
        let undecided = || rules.iter().filter(|judged| judged.undecided.total > 0);
        for judged in undecided() {
            writeln!(f, "{} is not decidable everywhere:", judged.rule.name())?;
            self.write_findings(f, &judged.undecided)?;
            writeln!(f)?;
        }
        if undecided().next().is_some() {
            f.write_str(WHAT_IS_MISSING)?;
        }
        self.write_lost(f)?;
        self.write_intake(f)?;
        self.write_apart(f)?;
        writeln!(f, "{}", self.conclusion())
    }
}

const WHAT_IS_MISSING: &str = "\
What is not decidable was not recorded. To have it proven: sample everything (no OTEL_TRACES_SAMPLER), give the
recordings of all programs, and let them end by themselves, so that they hand over their last spans.

";

impl Report<'_> {
    fn conclusion(&self) -> String {
        let rules = &self.verdict.rules;
        let count = |state| {
            rules
                .iter()
                .filter(|judged| judged.state() == state)
                .count()
        };
        match self.state() {
            State::Held => format!("Held: all {} rules.", rules.len()),
            State::Broken => format!("Broken: {} of {} rules.", count(State::Broken), rules.len()),
            State::NotDecidable if self.run.steps.is_empty() => {
                "Not decidable: there is no step of a chat in the recording.".to_owned()
            }
            State::NotDecidable if self.verdict.state() == State::Held => {
                "Not decidable: nothing that was read breaks a rule, but not everything could be read.".to_owned()
            }
            State::NotDecidable => format!(
                "Not decidable: {} of {} rules; nothing that was recorded breaks one.",
                count(State::NotDecidable),
                rules.len()
            ),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    verdict: &'static str,
    steps: usize,
    traces: usize,
    rooms: usize,
    processes: usize,
    rules: Vec<RuleDocument<'a>>,
    apart: ApartDocument,
    lost: Vec<LostDocument<'a>>,
    input: InputDocument<'a>,
}

#[derive(Serialize)]
struct RuleDocument<'a> {
    rule: &'static str,
    promise: &'static str,
    verdict: &'static str,
    checked: u64,
    broken: u64,
    not_decidable: u64,
    findings: Vec<FindingDocument<'a>>,
}

#[derive(Serialize)]
struct FindingDocument<'a> {
    verdict: &'static str,
    what: &'a str,
    count: u64,
    steps: Vec<StepDocument<'a>>,
}

#[derive(Serialize)]
struct StepDocument<'a> {
    trace_id: String,
    span_id: String,
    act: &'static str,
    event: &'static str,
    process: &'a str,
    service: &'a str,
    instance: &'a str,
    number: Option<u64>,
    room: &'a str,
    epoch: &'a str,
    participant: &'a str,
    time: i64,
    sequence: Option<u64>,
    link: Option<String>,
}

#[derive(Serialize)]
struct ApartDocument {
    untraced_sends: u64,
    noticed_departures: u64,
    unordered_sends: u64,
    refused_timestamps: u64,
    late_rooms: u64,
}

#[derive(Serialize)]
struct LostDocument<'a> {
    instance: &'a str,
    spans: u64,
    numbers: &'a [(u64, u64)],
}

#[derive(Serialize)]
struct InputDocument<'a> {
    spans: u64,
    foreign: u64,
    repeated: u64,
    left_out: u64,
    faulty: u64,
    faults: &'a [String],
    warnings: &'a [String],
}
