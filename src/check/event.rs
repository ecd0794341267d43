//! What a message from the server is about. A server need not be one of ours: where a field says it, the field is
//! believed, and otherwise the text.

use std::sync::LazyLock;

use regex::Regex;

use crate::{
    client::render,
    wire::v1::{EventType, ServerMessage},
};

/// The longest text that is shown of a message.
///
/// Unit: characters. What is longer is cut: a person wants to recognize it.
const SHOWN_CHARS: usize = 72;

/// How the text of a JOIN or a LEAVE must read, the name apart: the assignment's words, then the number as `L=5`, `L5`,
/// `L 5`, `L: 5` or `5`, and perhaps a full stop. Letters of another case, and white space around it, do not matter to a
/// reader and are let pass; other words are not.
static ANNOUNCEMENT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^Participant (.*) (joined|left) Chit Chat at logical time (?:L\s*[=:]?\s*)?(\d+)\.?$",
    )
    .expect("it is a regular expression")
});

/// Where in the text of an announcement a logical time stands, however the rest reads.
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)time\s*(?:L\s*)?[=:]?\s*(\d+)").expect("it is a regular expression")
});

/// What every text of the checker's own participants begins with.
pub(super) const TEXT_PREFIX: &str = "check ";

/// A participant as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) id: i32,
    pub(super) name: String,
}

/// Coming and going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Joined,
    Left,
}

impl Move {
    fn word(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Left => "left",
        }
    }

    fn kind(self) -> EventType {
        match self {
            Self::Joined => EventType::Join,
            Self::Left => EventType::Leave,
        }
    }
}

/// Whether `message` announces that `who` has come, or gone.
pub(super) fn announces(message: &ServerMessage, what: Move, who: &Who) -> bool {
    let text = message.msg_stream.as_str();
    let other = match what {
        Move::Joined => Move::Left,
        Move::Left => Move::Joined,
    };
    if text.contains(&who.name) && text.contains(what.word()) {
        return true;
    }
    // JOIN is 0: a server that leaves the type out has not announced a JOIN with every text.
    message.r#type() == what.kind()
        && is_from(message, who)
        && !text.starts_with(TEXT_PREFIX)
        && !text.contains(other.word())
}

/// Whether the server names `who` as the one whom `message` is from.
pub(super) fn is_from(message: &ServerMessage, who: &Who) -> bool {
    message.sender_id == who.id || message.sender_name.trim() == who.name
}

/// Whether `message` is somebody's text, and this one.
pub(super) fn says(message: &ServerMessage, text: &str) -> bool {
    message.msg_stream.trim() == text
}

/// Whether `message` is a word about a message that was refused.
pub(super) fn refuses(message: &ServerMessage) -> bool {
    let text = message.msg_stream.to_lowercase();
    let from_server = message.sender_id == 0 || message.sender_name.eq_ignore_ascii_case("server");
    let is_of_the_room = text.starts_with(TEXT_PREFIX) || text.contains("chit chat at");
    let in_words = ["too long", "too large", "limit", "exceed"];
    message.notice.is_some()
        || !is_of_the_room
            && message.welcome.is_none()
            && (from_server || in_words.iter().any(|word| text.contains(word)))
}

/// The time in the text of an announcement that reads as it must.
pub(super) fn announced_time(message: &ServerMessage, what: Move, who: &Who) -> Option<i64> {
    let found = ANNOUNCEMENT.captures(message.msg_stream.trim())?;
    let right = found[1].trim() == who.name && found[2].eq_ignore_ascii_case(what.word());
    right.then(|| found[3].parse().ok())?
}

/// The time in the text of an announcement, however it reads.
pub(super) fn time_in_text(message: &ServerMessage) -> Option<i64> {
    TIME.captures(&message.msg_stream)?[1].parse().ok()
}

/// `message` for a person, on one line. Clean.
pub(super) fn shown(message: &ServerMessage) -> String {
    let kind = match (&message.notice, &message.welcome) {
        (Some(_), _) => "notice".to_owned(),
        (None, Some(_)) if message.r#type() != EventType::Join => "welcome".to_owned(),
        _ => EventType::try_from(message.r#type).map_or_else(
            |_| format!("type {}", message.r#type),
            |kind| kind.as_str_name().to_owned(),
        ),
    };
    let text = &message.msg_stream;
    let mut cut: String = text.chars().take(SHOWN_CHARS).collect();
    if cut.len() < text.len() {
        let chars = text.chars().count();
        cut.push_str(&format!("... ({chars} characters)"));
    }
    let name = &message.sender_name;
    let line = format!("L={} {kind} {}: {cut}", message.timestamp, name.trim());
    render::clean(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Option<i64> {
        let message = ServerMessage {
            msg_stream: text.into(),
            ..ServerMessage::default()
        };
        let ada = Who {
            id: 1,
            name: "Ada".into(),
        };
        announced_time(&message, Move::Joined, &ada)
    }

    #[test]
    fn the_assignment_s_words_with_the_number_after_them_are_right_however_l_is_set() {
        for end in ["L=5", "L5", "L 5", "L: 5", "L = 5", "5", "L=5.", "5\n"] {
            let text = format!("Participant Ada joined Chit Chat at logical time {end}");
            assert_eq!(time(&text), Some(5), "{text}");
        }
    }

    #[test]
    fn other_words_another_name_and_no_number_are_wrong() {
        for text in [
            "Participant Ada joined Chit Chat",
            "Participant Ada joined Chit Chat at logical time L",
            "Participant Ada joined to Chit Chat at logical time L=5",
            "Participant Ada joined Chitty-Chat at Lamport time 5",
            "Participant Adam joined Chit Chat at logical time L=5",
            "Participant Ada left Chit Chat at logical time L=5",
            "Participant Ada joined Chit Chat at logical time L=-5",
            "",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
