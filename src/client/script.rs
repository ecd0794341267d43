//! What a scripted client is to do: a TOML file, read and judged before anything is done.
//!
//! ```toml
//! name = "Aske"
//! id = 4800
//! steps = [
//!     { await = { from = "Alex", text = "Hello World!" } },
//!     "join",
//!     { say = "Hello Alex" },
//!     { pause = "1s" },
//!     "leave",
//! ]
//!
//! [[whenever]]
//! match = "(?i)^ping$"
//! reply = "pong, {name} (L={L})"
//! ```

use std::{fmt, ops::Range, time::Duration};

use regex::Regex;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::Spanned;

use crate::{
    config::{Limits, duration},
    room::{Rejection, text},
    wire::v1::{EventType, ServerMessage},
};

/// How long an `await` that does not say otherwise (`within`) waits, and how long a step waits for the server.
///
/// Long enough for a whole conversation of others to come first.
const PATIENCE: Duration = Duration::from_secs(60);

/// A script, judged: its steps can be carried out in their order.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    name: Spanned<String>,
    /// The wanted id; 0: the server picks.
    #[serde(default, deserialize_with = "id")]
    pub id: i32,
    /// The room; the configured one if the script names none.
    #[serde(default, deserialize_with = "room")]
    pub room: Option<String>,
    /// What is done, in order. At the end the room is left, unless there are rules: then the participant stays.
    steps: Vec<Spanned<Step>>,
    /// What is answered as long as the participant is there. A participant with rules is a bot.
    #[serde(default)]
    pub whenever: Vec<Rule>,
}

/// One step.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Waits until something has been read. Before `join`: in the room's history and what follows it, from the newest
    /// JOIN of `from` on, while that participant is there. After `join`: in what follows the own JOIN.
    Await(Await),
    /// Enters the room.
    Join,
    /// Says something, as it is, and waits until the server has answered: the own event, or the notice that refuses it.
    Say(String),
    /// Waits.
    #[serde(deserialize_with = "duration::deserialize")]
    Pause(Duration),
    /// Leaves the room.
    Leave,
    /// Cuts the connection, with neither LEAVE nor half-close.
    Crash,
}

/// What an `await` waits for: an event, or a notice, for which all that is said here holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Wanted")]
pub struct Await {
    /// The sender's name; notices come from `Server`.
    pub from: Option<String>,
    /// The whole text.
    pub text: Option<String>,
    /// JOIN, MESSAGE or LEAVE.
    pub event: Option<EventType>,
    /// How long.
    pub within: Duration,
}

/// An answer to what others do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What kind of event is answered.
    #[serde(default, rename = "type")]
    on: On,
    /// The regular expression that its text must match somewhere.
    #[serde(rename = "match")]
    pattern: Pattern,
    /// The answer; `{name}`, `{text}` and `{L}` stand for the event's sender, text and logical time.
    reply: Template,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum On {
    #[serde(rename = "JOIN")]
    Join,
    #[default]
    #[serde(rename = "MESSAGE")]
    Message,
    #[serde(rename = "LEAVE")]
    Leave,
}

impl From<On> for EventType {
    fn from(on: On) -> Self {
        match on {
            On::Join => Self::Join,
            On::Message => Self::Message,
            On::Leave => Self::Leave,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = regex::Error;

    fn try_from(pattern: String) -> Result<Self, regex::Error> {
        Regex::new(&pattern).map(Self)
    }
}

/// A reply with its places to fill in.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Template(String);

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(template: String) -> Result<Self, String> {
        let mut rest = template.as_str();
        while let Some((_, after)) = rest.split_once('{') {
            let known = ["name}", "text}", "L}"]
                .into_iter()
                .find_map(|place| after.strip_prefix(place));
            rest = known.ok_or("a reply can have {name}, {text} and {L}, and no other braces")?;
        }
        Ok(Self(template))
    }
}

impl Template {
    fn fill(&self, message: &ServerMessage) -> String {
        let mut filled = String::new();
        let mut rest = self.0.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let (place, after) = after.split_once('}').unwrap_or((after, ""));
            match place {
                "name" => filled.push_str(&message.sender_name),
                "text" => filled.push_str(&message.msg_stream),
                _ => filled.push_str(&message.timestamp.to_string()),
            }
            rest = after;
        }
        filled + rest
    }
}

impl Rule {
    /// The answer to `message`, if this rule has one.
    #[must_use]
    pub fn answer(&self, message: &ServerMessage) -> Option<String> {
        let answers = message.r#type() == EventType::from(self.on)
            && self.pattern.0.is_match(&message.msg_stream);
        answers.then(|| self.reply.fill(message))
    }
}

/// An `await` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    from: Option<String>,
    text: Option<String>,
    r#type: Option<On>,
    #[serde(default, deserialize_with = "given_duration")]
    within: Option<Duration>,
}

fn given_duration<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize(value).map(Some)
}

impl TryFrom<Wanted> for Await {
    type Error = &'static str;

    fn try_from(wanted: Wanted) -> Result<Self, &'static str> {
        let Wanted {
            from,
            text,
            r#type,
            within,
        } = wanted;
        if from.is_none() && text.is_none() && r#type.is_none() {
            return Err("an await needs at least one of from, text and type");
        }
        Ok(Self {
            from,
            text,
            event: r#type.map(EventType::from),
            within: within.unwrap_or(PATIENCE),
        })
    }
}

impl Await {
    /// Whether `message` is what is waited for.
    #[must_use]
    pub fn is_met_by(&self, message: &ServerMessage) -> bool {
        self.from
            .as_ref()
            .is_none_or(|from| *from == message.sender_name)
            && self
                .text
                .as_ref()
                .is_none_or(|text| *text == message.msg_stream)
            && self.event.is_none_or(|event| event == message.r#type())
    }
}

fn id<'de, D: Deserializer<'de>>(value: D) -> Result<i32, D::Error> {
    let id = i32::deserialize(value)?;
    if id < 0 {
        return Err(D::Error::custom(
            "an id is 0, for one that the server picks, or greater",
        ));
    }
    Ok(id)
}

fn room<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    let room = String::deserialize(value)?;
    if !text::is_room(&room) {
        return Err(D::Error::custom(Rejection::BadRoom));
    }
    Ok(Some(room))
}

impl fmt::Display for Await {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.event {
            None => "anything",
            Some(EventType::Join) => "a JOIN",
            Some(EventType::Message) => "a MESSAGE",
            Some(EventType::Leave) => "a LEAVE",
        };
        write!(f, "{kind}")?;
        if let Some(from) = &self.from {
            write!(f, " from {from:?}")?;
        }
        if let Some(text) = &self.text {
            write!(f, " that says {text:?}")?;
        }
        Ok(())
    }
}

/// A script that is none: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {fault}")]
pub struct ScriptError {
    /// The script's file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub fault: String,
}

impl Script {
    /// Reads a script; `file` is what its text is called in an error, `limits` say how long its name may be.
    ///
    /// # Errors
    /// [`ScriptError`] for the first fault: no TOML, an unknown key or step, what cannot be a name, an id or a room, a
    /// step where it makes no sense.
    pub fn parse(file: &str, text: &str, limits: &Limits) -> Result<Self, ScriptError> {
        let at = |place: Range<usize>, fault: String| {
            let before = text.get(..place.start).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |end| end + 1);
            ScriptError {
                file: file.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                fault,
            }
        };
        let script: Self = toml::from_str(text).map_err(|error| {
            let place = error.span().unwrap_or(0..0);
            at(place, error.message().trim().replace('\n', "; "))
        })?;
        if let Err(fault) = text::name(script.name(), limits.name_chars) {
            return Err(at(script.name.span(), fault.to_string()));
        }
        match script.first_misplaced_step() {
            Some((place, fault)) => Err(at(place, fault.into())),
            None => Ok(script),
        }
    }

    /// The participant's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.get_ref()
    }

    /// The steps.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().map(Spanned::get_ref)
    }

    /// Whether the participant is a program that answers: told to others, so that bots do not answer each other.
    #[must_use]
    pub fn is_bot(&self) -> bool {
        !self.whenever.is_empty()
    }

    fn first_misplaced_step(&self) -> Option<(Range<usize>, &'static str)> {
        let (mut joined, mut gone) = (false, false);
        for step in &self.steps {
            let fault = match step.get_ref() {
                _ if gone => Some("nothing can be done after leave or crash"),
                Step::Join if joined => Some("a script joins once"),
                Step::Say(_) | Step::Leave | Step::Crash if !joined => {
                    Some("this can be done only after join")
                }
                Step::Await(wanted) if !joined && wanted.from.is_none() => Some(
                    "an await before join needs from: it reads from that participant's JOIN on",
                ),
                _ => None,
            };
            if let Some(fault) = fault {
                return Some((step.span(), fault));
            }
            joined |= matches!(step.get_ref(), Step::Join);
            gone |= matches!(step.get_ref(), Step::Leave | Step::Crash);
        }
        let stays_without_being_there = !joined && !self.whenever.is_empty();
        stays_without_being_there.then_some((0..0, "a script with whenever rules must join"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Script::parse("s.toml", text, &Limits::default())
            .expect_err("the script should be refused")
            .to_string()
    }

    fn message(kind: EventType, name: &str, text: &str) -> ServerMessage {
        ServerMessage {
            sender_name: name.into(),
            msg_stream: text.into(),
            r#type: kind.into(),
            timestamp: 7,
            sequence: 1,
            ..ServerMessage::default()
        }
    }

    #[test]
    fn a_script_has_a_participant_steps_and_rules() {
        let script = Script::parse(
            "s.toml",
            r#"
            name = "Aske"
            id = 4800
            steps = [
                { await = { from = "Alex", type = "JOIN", within = "5s" } },
                "join",
                { say = " as it is " },
                { pause = "1s 500ms" },
                "crash",
            ]
            "#,
            &Limits::default(),
        )
        .unwrap();
        let steps: Vec<_> = script.steps().collect();
        assert_eq!((script.name(), script.id), ("Aske", 4800));
        assert!(
            matches!(steps[0], Step::Await(Await { within, .. }) if *within == Duration::from_secs(5))
        );
        assert!(matches!(steps[2], Step::Say(text) if text == " as it is "));
        assert!(matches!(steps[3], Step::Pause(pause) if *pause == Duration::from_millis(1500)));
        assert!(matches!(steps[4], Step::Crash) && !script.is_bot());
    }

    #[test]
    fn a_fault_is_told_with_its_line_and_column() {
        let told = fault("name = \"A\"\ncolour = 1\nsteps = []\n");
        assert!(
            told.starts_with("s.toml:2:1: unknown field `colour`"),
            "{told}"
        );
        let told = fault("name = \"A\"\nsteps = [\n  \"join\",\n  \"dance\",\n]\n");
        assert!(
            told.starts_with("s.toml:4:3: unknown variant `dance`"),
            "{told}"
        );
        let told = fault("name = \"A\"\nsteps = [\"join\", { await = { form = \"B\" } }]\n");
        assert!(
            told.starts_with("s.toml:2:") && told.contains("form"),
            "{told}"
        );
        let told = fault("name = \"A\"\nsteps = [\"join\", { pause = \"5\" }]\n");
        assert!(
            told.starts_with("s.toml:2:") && told.contains("unit"),
            "{told}"
        );
        let told = fault("name = \"A\"\nsteps = [\n");
        assert!(told.starts_with("s.toml:"), "{told}");
        let told = fault("steps = []\n");
        assert!(told.contains("name"), "{told}");
    }

    #[test]
    fn a_name_an_id_and_a_room_that_no_server_takes_are_refused_here() {
        let long = format!("name = \"{}\"\nsteps = []\n", "x".repeat(33));
        for (text, place, words) in [
            ("name = \"<A>\"\nsteps = []\n", "s.toml:1:8: ", "U+003C"),
            (long.as_str(), "s.toml:1:8: ", "too long (33 chars)"),
            (
                "name = \"Server\"\nsteps = []\n",
                "s.toml:1:8: ",
                "service's own",
            ),
            (
                "name = \"A\"\nid = -1\nsteps = []\n",
                "s.toml:2:6: ",
                "an id is 0",
            ),
            (
                "name = \"A\"\nroom = \"a b\"\nsteps = []\n",
                "s.toml:2:8: ",
                "a room is 1 to 64 bytes",
            ),
        ] {
            let told = fault(text);
            assert!(told.starts_with(place) && told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_step_that_makes_no_sense_where_it_stands_is_refused() {
        for (steps, words) in [
            (r#"{ say = "x" }"#, "only after join"),
            (r#""leave""#, "only after join"),
            (r#""crash""#, "only after join"),
            (r#""join", "join""#, "joins once"),
            (r#""join", "leave", { say = "x" }"#, "after leave or crash"),
            (r#"{ await = { text = "x" } }"#, "needs from"),
            (r#""join", { await = {} }"#, "at least one of"),
        ] {
            let told = fault(&format!("name = \"A\"\nsteps = [{steps}]\n"));
            assert!(
                told.starts_with("s.toml:2:") && told.contains(words),
                "{told}"
            );
        }
    }

    #[test]
    fn a_rule_answers_what_it_matches_and_fills_in_its_places() {
        let script = Script::parse(
            "s.toml",
            r#"
            name = "guide"
            steps = ["join"]
            [[whenever]]
            match = "(?i)^ping$"
            reply = "pong, {name}: {text} was L={L}"
            [[whenever]]
            type = "JOIN"
            match = ""
            reply = "Hi {name}"
            "#,
            &Limits::default(),
        )
        .unwrap();
        let [ping, hello] = &script.whenever[..] else {
            panic!("there are two rules");
        };
        let said = message(EventType::Message, "Ada", "PING");
        assert_eq!(ping.answer(&said).unwrap(), "pong, Ada: PING was L=7");
        assert_eq!(
            ping.answer(&message(EventType::Message, "Ada", "ping?")),
            None
        );
        assert_eq!(ping.answer(&message(EventType::Join, "Ada", "ping")), None);
        assert_eq!(
            hello
                .answer(&message(EventType::Join, "Ada", "Participant Ada joined"))
                .unwrap(),
            "Hi Ada"
        );
        assert!(script.is_bot());
    }

    #[test]
    fn a_rule_that_cannot_work_is_refused() {
        let rule = |rule: &str| {
            fault(&format!(
                "name = \"g\"\nsteps = [\"join\"]\n[[whenever]]\n{rule}\n"
            ))
        };
        assert!(rule("match = \"(\"\nreply = \"x\"").contains("regex"));
        assert!(rule("match = \"x\"\nreply = \"{who}\"").contains("no other braces"));
        assert!(
            fault("name = \"g\"\nsteps = []\n[[whenever]]\nmatch = \"x\"\nreply = \"y\"")
                .contains("must join")
        );
    }

    #[test]
    fn an_await_is_met_when_all_that_it_names_holds() {
        let script = Script::parse(
            "s.toml",
            "name = \"A\"\nsteps = [{ await = { from = \"Bob\", type = \"MESSAGE\", text = \"hi\" } }]", &Limits::default())
        .unwrap();
        let Some(Step::Await(wanted)) = script.steps().next() else {
            panic!("the step is an await");
        };
        assert!(wanted.is_met_by(&message(EventType::Message, "Bob", "hi")));
        for other in [
            message(EventType::Message, "Ada", "hi"),
            message(EventType::Message, "Bob", "hi!"),
            message(EventType::Leave, "Bob", "hi"),
        ] {
            assert!(!wanted.is_met_by(&other));
        }
    }
}
