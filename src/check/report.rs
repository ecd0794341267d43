//! What a run found, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{
    rule::Rule,
    verdict::{Failure, Verdict},
};
use crate::client::render::clean;

/// What a run found.
#[derive(Debug)]
pub struct Report {
    /// The server's address.
    pub server: String,
    /// The method that was called: `chitchat.v1.ChatService/Chat`.
    pub path: &'static str,
    /// The rooms that were entered, where the server knows rooms.
    pub rooms: String,
    /// The verdicts, in the order of the rules.
    pub checked: Vec<Checked>,
}

/// A rule, and what became of it.
#[derive(Debug)]
pub struct Checked {
    /// The rule.
    pub rule: &'static Rule,
    /// What became of it.
    pub verdict: Verdict,
}

impl Report {
    /// How many rules the server keeps, breaks, and how many could not be tried.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for checked in &self.checked {
            match checked.verdict {
                Verdict::Passed => counts.0 += 1,
                Verdict::Failed(_) => counts.1 += 1,
                Verdict::Undecided { .. } => counts.2 += 1,
            }
        }
        counts
    }

    /// One document of JSON, for programs.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("its maps have strings for keys") + "\n"
    }

    /// For a person: a line for each rule, and what happened for each that is broken. Clean.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.checked.iter().map(|checked| checked.rule.id.len());
        let width = width.max().unwrap_or(0);
        let mut table = format!("{}{}, rooms {}\n\n", self.server, self.path, self.rooms);
        for Checked { rule, verdict } in &self.checked {
            let (word, sources) = (word(verdict), rule.sources.join(" "));
            // A String takes whatever is written to it.
            let _ = writeln!(
                table,
                "{word:<9}  {:<width$}  {sources:<5}  {}",
                rule.id, rule.sentence
            );
            table.push_str(&details(verdict));
        }
        let (passed, failed, undecided) = self.counts();
        let _ = write!(table, "\n{passed} passed, {failed} failed");
        if undecided > 0 {
            let _ = write!(table, ", {undecided} undecided");
        }
        table.push('\n');
        table
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed(_) => "FAILED",
        Verdict::Undecided { .. } => "undecided",
    }
}

fn details(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => String::new(),
        Verdict::Undecided { reason } => format!("             {}\n", clean(reason)),
        Verdict::Failed(Failure {
            expected,
            happened,
            seen,
        }) => {
            let mut lines = format!(
                "             expected: {}\n             happened: {}\n",
                clean(expected),
                clean(happened)
            );
            for line in seen {
                let _ = writeln!(lines, "               {}", clean(line));
            }
            lines
        }
    }
}

/// `server`, `path`, `rooms`; `passed`, `failed` and `undecided` count the `checks`.
impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (passed, failed, undecided) = self.counts();
        let mut report = serializer.serialize_struct("Report", 7)?;
        report.serialize_field("server", &self.server)?;
        report.serialize_field("path", self.path)?;
        report.serialize_field("rooms", &self.rooms)?;
        report.serialize_field("passed", &passed)?;
        report.serialize_field("failed", &failed)?;
        report.serialize_field("undecided", &undecided)?;
        report.serialize_field("checks", &self.checked)?;
        report.end()
    }
}

/// `id`, `sources`, `rule` (the sentence), `verdict` (`passed`, `failed`, `undecided`); failed ones: `expected`,
/// `happened`, `seen`; undecided ones: `reason`.
impl Serialize for Checked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            id: &'a str,
            sources: &'a [&'a str],
            rule: &'a str,
            #[serde(flatten)]
            verdict: &'a Verdict,
        }
        let flat = Flat {
            id: self.rule.id,
            sources: self.rule.sources,
            rule: self.rule.sentence,
            verdict: &self.verdict,
        };
        flat.serialize(serializer)
    }
}
