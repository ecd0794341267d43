//! What an audit says.

use super::{super::run::Index, Rule};

/// What became of each rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In the order of [`Rule::ALL`].
    pub rules: Vec<Judged>,
    /// What is no fault and no proof either.
    pub apart: Apart,
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Which.
    pub rule: Rule,
    /// On how many steps (or pairs of them, or participations) it was found to hold or not.
    pub checked: u64,
    /// What breaks it.
    pub broken: Findings,
    /// What cannot be decided.
    pub undecided: Findings,
}

/// How a rule, or a run, was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Kept wherever it was checked.
    Held,
    /// Kept wherever it could be checked, and somewhere it could not.
    NotDecidable,
    /// Not kept, whatever else could not be checked.
    Broken,
}

/// What was found: the first in words, all of them counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first [`Findings::MAX`].
    pub first: Vec<Finding>,
    /// How many there are.
    pub findings: u64,
    /// How many times the rule is concerned: a finding may be of several deliveries that are missing together.
    pub total: u64,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What happened, and where: one sentence. Names in it come from the spans and may hold anything.
    pub words: String,
    /// How many times the rule is concerned.
    pub count: u64,
    /// The steps that show it.
    pub steps: Vec<Index>,
}

/// What an audit counts beside its rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Apart {
    /// Messages of senders that do not trace: their orderings are roots that carried a time.
    pub untraced_sends: u64,
    /// Departures that the service noticed itself: a crash, a stream that broke or was half-closed.
    pub noticed_departures: u64,
    /// Sends without an ordering: refused before they came to it (too fast, for instance), or sent into a connection that
    /// broke, or their ordering was not recorded.
    pub unordered_sends: u64,
    /// Orderings that carried no time because it was refused as impossible, or came from another history: their sends are
    /// exempt from the clock condition.
    pub refused_timestamps: u64,
    /// Rooms of whose first event nothing was recorded: they are judged from a later one on.
    pub late_rooms: u64,
}

impl Default for Verdict {
    fn default() -> Self {
        let rules = Rule::ALL.map(|rule| Judged {
            rule,
            checked: 0,
            broken: Findings::default(),
            undecided: Findings::default(),
        });
        Self {
            rules: rules.into(),
            apart: Apart::default(),
        }
    }
}

impl Verdict {
    /// The worst of all rules.
    #[must_use]
    pub fn state(&self) -> State {
        let states = self.rules.iter().map(Judged::state);
        states.max().unwrap_or(State::Held)
    }

    /// What became of `rule`.
    ///
    /// # Panics
    /// If the verdict was built without it.
    #[must_use]
    pub fn of(&self, rule: Rule) -> &Judged {
        let judged = self.rules.iter().find(|judged| judged.rule == rule);
        judged.expect("a verdict has all rules")
    }

    pub(super) fn rule(&mut self, rule: Rule) -> &mut Judged {
        let judged = self.rules.iter_mut().find(|judged| judged.rule == rule);
        judged.expect("a verdict has all rules")
    }
}

impl Judged {
    /// How it was judged.
    #[must_use]
    pub fn state(&self) -> State {
        if self.broken.total > 0 {
            State::Broken
        } else if self.undecided.total > 0 {
            State::NotDecidable
        } else {
            State::Held
        }
    }
}

impl State {
    /// Its name, for people and programs; does not change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::NotDecidable => "not-decidable",
            Self::Broken => "broken",
        }
    }
}

impl Findings {
    /// Findings of one kind and rule that are kept in words. What is more is counted alone: a person reads the first, and
    /// a clock that never merges breaks its rule with every step.
    pub const MAX: usize = 10;

    /// Adds a finding that concerns the rule `count` times.
    pub(super) fn add(&mut self, count: u64, steps: &[Index], words: impl FnOnce() -> String) {
        self.findings += 1;
        self.total += count;
        if self.first.len() < Self::MAX {
            self.first.push(Finding {
                words: words(),
                count,
                steps: steps.to_vec(),
            });
        }
    }
}
