//! What is checked, rule by rule.

use super::scene::Scene;

/// One thing that a server must do.
#[derive(Debug)]
pub struct Rule {
    /// Its name, which does not change.
    pub id: &'static str,
    /// Where it comes from: a requirement of the assignment (`S3`), or a fault that implementations of it were found to
    /// have (`F6`); [`SOURCES`] says what they are.
    pub sources: &'static [&'static str],
    /// What it is, in a sentence.
    pub sentence: &'static str,
    pub(super) scene: Scene,
}

/// The requirements, and the faults, that rules name as their source.
pub const SOURCES: [(&str, &str); 16] = [
    ("S1", "all communication is gRPC"),
    ("S2", "one service, at least three clients at the same time"),
    (
        "S3",
        "a participant publishes a valid message, of at most 128 characters of UTF-8, at any time",
    ),
    (
        "S4",
        "every message is broadcast to all who are there, with its text and a logical time",
    ),
    (
        "S5",
        "\"Participant X joined Chit Chat at logical time L\", to all, X included",
    ),
    (
        "S6",
        "\"Participant X left Chit Chat at logical time L\", to all who remain",
    ),
    (
        "S7",
        "a client shows and logs the text and logical time of every broadcast",
    ),
    (
        "F1",
        "stamping and sending are not one step: orders differ, or differ from the times",
    ),
    ("F2", "one message has several times"),
    ("F3", "a clock that does not tick, or does not merge"),
    (
        "F4",
        "a crash is not announced, or twice, or with an old time",
    ),
    (
        "F5",
        "who leaves or comes late reads the wrong announcements",
    ),
    (
        "F6",
        "bytes are counted instead of characters, or nothing is",
    ),
    ("F7", "a slow or dead client holds up the others"),
    ("F8", "an id or a name is taken from its holder"),
    (
        "F9",
        "a fault of one client costs others, or itself, the connection",
    ),
];

const fn rule(
    scene: Scene,
    id: &'static str,
    sources: &'static [&'static str],
    sentence: &'static str,
) -> Rule {
    Rule {
        id,
        sources,
        sentence,
        scene,
    }
}

/// All rules, in the order in which they are tried and shown.
#[rustfmt::skip]
pub static RULES: &[Rule] = {
    use Scene::{Arriving, Crashing, Hostile, Identity, Leaving, Limits, Ordering, SlowReader, Talking};
    &[
        rule(Arriving, "join-announced", &["S5"], "Those who are in the room read that somebody has joined"),
        rule(Arriving, "join-shown-to-newcomer", &["S5"], "The newcomer reads its own joining, too"),
        rule(Arriving, "join-text", &["S5"], "Its text is \"Participant X joined Chit Chat at logical time L=..\""),
        rule(Arriving, "join-time", &["S5", "S7"], "The time in that text is the one in the field"),
        rule(Arriving, "late-joiner", &["S4", "F5"], "Who joins late reads its own joining, and nothing from before it"),
        rule(Arriving, "concurrent-joins", &["S5", "F1"], "Several who join at the same moment are each announced once"),
        rule(Talking, "broadcast-to-all", &["S2", "S4"], "What each of three participants says, all three read"),
        rule(Talking, "broadcast-complete", &["S4", "S7"], "A broadcast has text, logical time, type, and its sender's name"),
        rule(Talking, "content-unchanged", &["S3"], "A text in several scripts arrives as it was sent"),
        rule(Talking, "no-impersonation", &["F8"], "Nobody can speak under another one's id and name"),
        rule(Talking, "unary-publish", &["S3"], "What the unary SendMessage publishes, everybody reads"),
        rule(Ordering, "clock-advances", &["S4", "F3"], "Each message has a later time than the one before"),
        rule(Ordering, "clock-merges", &["S4", "F3"], "A message's time is later than the one it was sent with"),
        rule(Ordering, "all-delivered-once", &["S4", "F7"], "Of many messages at once, each reaches everybody once"),
        rule(Ordering, "one-order", &["F1"], "Everybody reads them in the same order"),
        rule(Ordering, "one-time-per-message", &["F2"], "Each has the same time for everybody"),
        rule(Ordering, "times-unique", &["F1"], "No two of them have the same time"),
        rule(Ordering, "order-follows-times", &["F1"], "They come in the order of their times"),
        rule(Ordering, "sender-order-kept", &["F1"], "What one participant says comes in the order it was said in"),
        rule(Limits, "limit-128-accepted", &["S3"], "A text of 128 characters is broadcast"),
        rule(Limits, "limit-counts-characters", &["S3", "F6"], "128 characters of several bytes each are, too"),
        rule(Limits, "limit-129-refused", &["S3", "F6"], "A text of 129 characters is not"),
        rule(Limits, "refusal-told", &["S3"], "The sender of a refused text is told"),
        rule(Limits, "refusal-private", &["S3"], "Nobody else is told"),
        rule(Limits, "refusal-spares-sender", &["F9"], "The stream of the sender goes on"),
        rule(Limits, "refusal-spares-others", &["F9"], "Those of the others do, too"),
        rule(Limits, "empty-text-harmless", &["S3", "F9"], "A text without characters ends nobody's stream"),
        rule(Identity, "duplicate-id", &["F8"], "Who comes with an id that is held is answered; the holder keeps its place"),
        rule(Identity, "duplicate-name", &["F8"], "The same with a name"),
        rule(Leaving, "leave-announced", &["S6"], "All who remain read that somebody has left, the last one too"),
        rule(Leaving, "leave-announced-once", &["S6", "F5"], "They read it once"),
        rule(Leaving, "leave-text", &["S6"], "Its text is \"Participant X left Chit Chat at logical time L=..\""),
        rule(Leaving, "leave-time", &["S6", "S7"], "Its time is later than all before, and the same in text and field"),
        rule(Leaving, "leaver-stream-ends", &["S6"], "The stream of whoever leaves ends with OK"),
        rule(Leaving, "half-close-leaves", &["S6"], "Closing one's side of the stream is leaving, with the same text"),
        rule(SlowReader, "slow-reader-spares-others", &["F7"], "One who does not read holds up nobody"),
        rule(Crashing, "crash-spares-others", &["F7", "F9"], "After a crash those who remain go on talking"),
        rule(Crashing, "crash-announced", &["S6", "F4"], "They read that the one who crashed has left"),
        rule(Crashing, "crash-announced-once", &["F4"], "They read it once"),
        rule(Crashing, "crash-text", &["S6"], "Its text is the one of leaving"),
        rule(Crashing, "crash-time-fresh", &["F4"], "Its time is of now, not of the joining"),
        rule(Hostile, "bad-message-spares-others", &["F9"], "Bytes that are no message harm nobody but their sender"),
        rule(Hostile, "bad-utf8-spares-others", &["S3", "F9"], "A text that is no UTF-8 harms nobody but its sender"),
        rule(Hostile, "huge-message-spares-others", &["S3", "F9"], "A text of 1 MiB harms nobody but its sender"),
        rule(Hostile, "reset-spares-others", &["F9"], "A stream or connection that breaks off in a message harms nobody"),
        rule(Hostile, "junk-spares-others", &["F9"], "A connection that carries no HTTP/2 harms nobody"),
    ]
};

/// The rule of this name.
#[must_use]
pub fn named(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_sources_that_are_explained() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(names.len(), RULES.len());
        let sources: BTreeSet<_> = SOURCES.iter().map(|(source, _)| *source).collect();
        for rule in RULES {
            assert!(!rule.sources.is_empty(), "{}", rule.id);
            assert!(
                rule.sources.iter().all(|one| sources.contains(one)),
                "{}",
                rule.id
            );
        }
    }
}
