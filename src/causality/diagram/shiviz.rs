//! A log for ShiViz (<https://bestchai.bitbucket.io/shiviz/>), which draws and compares executions by vector clocks.
//!
//! The file begins as ShiViz wants files to begin that are loaded into it: the expression that takes a log apart, then an
//! empty line, for there is one execution. Each step is two lines: its host and vector clock, and what it did.
//!
//! ShiViz refuses a log as a whole for one clock that is wrong. So the clocks are those of
//! [`HappenedBefore`](crate::causality::happened_before::HappenedBefore), in which each host counts 1, 2, 3 ... and
//! knows all that those know who told it something; a span that was lost is no step there.

use std::{collections::HashSet, fmt::Write as _};

use super::{
    lifeline::{Lifeline, Lifelines},
    picture::Picture,
    words,
};

/// The expression that takes the log apart.
const PARSER: &str = r"(?<host>\S*) (?<clock>{.*})\n(?<event>.*)";

/// All steps of `picture`, each after all that happened before it.
pub(super) fn log(picture: &Picture<'_>) -> String {
    let hosts = hosts(picture);
    let mut told = vec![None; picture.run.steps.len()];
    for event in &picture.events {
        for &point in &event.points {
            if let Some(step) = picture.points[point].step {
                told[step] = Some((event, point));
            }
        }
    }
    let mut log = format!("{PARSER}\n\n");
    for &step in picture.order.sequence() {
        let Some((event, point)) = told[step] else {
            continue;
        };
        let (process, _) = picture.order.place(step);
        let known = picture.order.clock(step).iter().zip(&hosts);
        let clock: Vec<String> = known
            .filter(|&(&place, _)| place > 0)
            .map(|(place, host)| format!("\"{host}\":{place}"))
            .collect();
        let deed = words::deed(picture, event, point);
        let time = picture.points[point].at.time;
        // Writing to a String cannot fail.
        let _ = writeln!(
            log,
            "{} {{{}}}\n{deed} (L={time}, trace {})",
            hosts[process],
            clock.join(","),
            event.trace
        );
    }
    log
}

/// A name for each process, as the run lists them: without spaces, quotes and what a script's objects have by nature;
/// each another one.
fn hosts(picture: &Picture<'_>) -> Vec<String> {
    let mut hosts = vec![String::new(); picture.run.processes.len()];
    let mut taken = HashSet::new();
    for (line, lifeline) in picture.lifelines.iter().enumerate() {
        let Some(process) = lifeline.process else {
            continue;
        };
        let wanted = if line == Lifelines::SERVICE {
            lifeline.name.clone()
        } else {
            host(lifeline)
        };
        let mut name = wanted.clone();
        for number in 2.. {
            if taken.insert(name.clone()) {
                break;
            }
            name = format!("{wanted}.{number}");
        }
        hosts[process] = name;
    }
    hosts
}

/// `Alex-3300`. With its id behind it, no name is one that JavaScript knows, such as `constructor`.
fn host(lifeline: &Lifeline) -> String {
    let legal = |text: &str| {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        words.join("_")
    };
    format!("{}-{}", legal(&lifeline.name), legal(&lifeline.id))
}
