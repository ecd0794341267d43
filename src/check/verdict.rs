//! What becomes of each rule.

use std::collections::BTreeMap;

use serde::Serialize;

use super::participant::Participant;

/// What was found out about one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// The server keeps it.
    Passed,
    /// The server breaks it.
    Failed(Failure),
    /// It could not be tried, or does not apply.
    Undecided {
        /// Why, for a person.
        reason: String,
    },
}

/// How a server broke a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What should have happened.
    pub expected: String,
    /// What happened instead.
    pub happened: String,
    /// The last that the participants concerned had read, one line for each message, clean.
    pub seen: Vec<String>,
}

impl Failure {
    pub(super) fn new(expected: impl Into<String>, happened: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            happened: happened.into(),
            seen: Vec::new(),
        }
    }

    /// With what these had read.
    pub(super) fn seen_by<'a>(
        mut self,
        witnesses: impl IntoIterator<Item = &'a Participant>,
    ) -> Self {
        self.seen
            .extend(witnesses.into_iter().flat_map(Participant::seen));
        self
    }
}

/// A scene cannot go on; what it has not decided stays undecided, for this reason.
#[derive(Debug)]
pub(super) struct Stuck(pub(super) String);

/// The verdicts so far, by the rule's id.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<&'static str, Verdict>);

impl Book {
    /// Decides `rule`; if it is tried several times the first failure stands.
    pub(super) fn judge(&mut self, rule: &'static str, outcome: Result<(), Failure>) {
        let verdict = match outcome {
            Ok(()) => Verdict::Passed,
            Err(failure) => Verdict::Failed(failure),
        };
        match self.0.get(rule) {
            Some(Verdict::Failed(_)) => {}
            _ => {
                self.0.insert(rule, verdict);
            }
        }
    }

    /// Leaves `rule` undecided, unless it has been decided.
    pub(super) fn undecided(&mut self, rule: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        self.0.entry(rule).or_insert(Verdict::Undecided { reason });
    }

    /// Whether `rule` was found to be broken.
    pub(super) fn has_failed(&self, rule: &'static str) -> bool {
        matches!(self.0.get(rule), Some(Verdict::Failed(_)))
    }

    /// What became of `rule`.
    pub(super) fn take(&mut self, rule: &'static str) -> Option<Verdict> {
        self.0.remove(rule)
    }
}
