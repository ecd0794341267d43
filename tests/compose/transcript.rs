//! What the scripted participants read, from their containers' logs.

use std::{collections::BTreeMap, path::Path};

use chitchat::wire::v1::{EventType, ServerMessage};

/// What one participant read, in its order.
#[derive(Debug)]
pub struct Transcript {
    pub name: String,
    pub lines: Vec<Line>,
}

/// `[Server @ L=5] Alex: text`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub time: i64,
    pub sender: String,
    pub text: String,
}

impl Transcript {
    /// Reads a container's log.
    pub fn read(service: &str, log: &str) -> Self {
        let lines: Vec<_> = log.lines().filter_map(Line::read).collect();
        assert!(!lines.is_empty(), "{service} has read nothing:\n{log}");
        let (first, rest) = service.split_at(1);
        Self {
            name: first.to_uppercase() + rest,
            lines,
        }
    }
}

impl Line {
    fn read(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once("[Server @ L=")?.1.split_once("] ")?;
        let (sender, text) = rest.split_once(": ")?;
        Some(Self {
            time: time.parse().ok()?,
            sender: sender.to_owned(),
            text: text.to_owned(),
        })
    }

    fn of(event: &ServerMessage) -> Self {
        Self {
            time: event.timestamp,
            sender: event.sender_name.clone(),
            text: event.msg_stream.clone(),
        }
    }

    fn is_notice(&self) -> bool {
        self.sender == "Server"
    }
}

/// Everybody read the room's events from the own JOIN to the own LEAVE: all of them, in one order, with one time each.
pub fn agree(transcripts: &[Transcript], history: &[ServerMessage]) {
    for Transcript { name, lines } in transcripts {
        let own =
            |kind, event: &ServerMessage| event.sender_name == *name && event.r#type() == kind;
        let joined = history
            .iter()
            .position(|event| own(EventType::Join, event))
            .unwrap();
        let left = history
            .iter()
            .position(|event| own(EventType::Leave, event))
            .unwrap();
        let told: Vec<_> = history[joined..left].iter().map(Line::of).collect();
        let read: Vec<_> = lines
            .iter()
            .filter(|line| !line.is_notice())
            .cloned()
            .collect();
        assert_eq!(read, told, "{name}");
        let rises = lines.is_sorted_by(|one, next| one.time < next.time);
        assert!(rises, "{name}: {lines:#?}");
    }
}

/// Plays the scripts on paper, in the order in which the service took their messages, with the clocks of Lamport's rule:
/// the times must be those that were read.
pub fn follow_lamports_rule(scripts: &Path, transcripts: &[Transcript], history: &[ServerMessage]) {
    let mut sends: BTreeMap<&str, _> = BTreeMap::new();
    for Transcript { name, .. } in transcripts {
        let path = scripts.join(name.to_lowercase() + ".toml");
        let script = std::fs::read_to_string(path).unwrap();
        sends.insert(name.as_str(), scripted(&script).into_iter());
    }
    let mut clocks: BTreeMap<&str, i64> = BTreeMap::new();
    let mut service = 0;
    for (name, line) in taken(transcripts, history) {
        let send = sends.get_mut(name).and_then(Iterator::next);
        let send = send.unwrap_or_else(|| panic!("{name}'s script does not go as far as {line:?}"));
        assert!(send.is(&line), "{send:?} became {line:?}");
        let sent = match send {
            Send::Crash => 0,
            Send::Join => 1,
            Send::Say(_) | Send::Leave => clocks[name] + 1,
        };
        clocks.insert(name, sent);
        service = service.max(sent) + 1;
        assert_eq!(
            service, line.time,
            "{name} sent {send:?} at {sent}: {line:?}"
        );
        match send {
            Send::Leave | Send::Crash => drop(clocks.remove(name)),
            Send::Join | Send::Say(_) => {}
        }
        for (reader, clock) in &mut clocks {
            if *reader == name || !line.is_notice() {
                *clock = service.max(*clock) + 1;
            }
        }
    }
    for (name, mut rest) in sends {
        assert_eq!(rest.next(), None, "{name} has not said all");
    }
}

/// What a script sends.
#[derive(Debug, PartialEq, Eq)]
enum Send {
    Join,
    Say(String),
    Leave,
    Crash,
}

impl Send {
    /// Whether this is what `line` tells of.
    fn is(&self, line: &Line) -> bool {
        match self {
            Self::Join => line.text.contains(" joined Chit Chat at "),
            Self::Say(text) => line.text == *text || line.is_notice(),
            Self::Leave | Self::Crash => line.text.contains(" left Chit Chat at "),
        }
    }
}

/// What a script says that is to be sent, in its order; awaiting and pausing sends nothing.
fn scripted(script: &str) -> Vec<Send> {
    let script: toml::Table = script.parse().unwrap();
    let steps = script["steps"].as_array().unwrap();
    let send = |step: &toml::Value| match step.as_str() {
        Some("join") => Some(Send::Join),
        Some("leave") => Some(Send::Leave),
        Some("crash") => Some(Send::Crash),
        _ => step
            .get("say")
            .map(|text| Send::Say(text.as_str().unwrap().to_owned())),
    };
    steps.iter().filter_map(send).collect()
}

/// All that the service took from the scripted participants, in its order: events, and the refusals that they read.
fn taken<'a>(transcripts: &'a [Transcript], history: &'a [ServerMessage]) -> Vec<(&'a str, Line)> {
    let mut taken = Vec::new();
    for event in history {
        let known = transcripts.iter().find(|one| one.name == event.sender_name);
        if let Some(participant) = known {
            taken.push((participant.name.as_str(), Line::of(event)));
        }
    }
    for Transcript { name, lines } in transcripts {
        let refusals = lines.iter().filter(|line| line.is_notice());
        taken.extend(refusals.map(|line| (name.as_str(), line.clone())));
    }
    taken.sort_by_key(|(_, line)| line.time);
    taken
}
