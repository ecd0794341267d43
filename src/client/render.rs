//! How what was heard is shown: to people as a line of text, to programs as a line of JSON.
//!
//! # The JSON form
//!
//! One object a line, `kind` first. Fields may be added; those that are there keep their name and meaning.
//!
//! | field | in | meaning |
//! |---|---|---|
//! | `kind` | all | `join`, `message`, `leave` (events of the room), `notice` (a private word from the service), `disconnected`, `reconnected` |
//! | `room` | events, notices | the room |
//! | `sequence` | events | the event's place in the room: 1, 2, 3 ... |
//! | `logical_time` | events, notices | `L`, the service's Lamport clock at this event |
//! | `sent_timestamp` | events, notices | the timestamp that the sender's message carried; left out where there was none |
//! | `sender_id`, `sender_name` | events, notices | whom it is about; notices: 0 and `Server` |
//! | `text` | events, notices | the text, as it was received: control characters are escaped, as JSON wants |
//! | `message_id` | events, notices | the id the sender gave its message; notices: of the message they answer; left out if empty |
//! | `bot` | events | `true` for a program; left out for people |
//! | `accepted_at` | events | RFC 3339: when the server accepted it; orders nothing |
//! | `trace_id` | events, notices | 32 hexadecimal digits; left out where there is no trace |
//! | `code` | notices | `TOO_LONG`, `TOO_FAST` ...: `NoticeCode` without its prefix, or the number of one not known here |
//! | `own`, `past` | chat only | `true` if this participant sent it; if it is from before the join; left out otherwise |
//! | `clock` | chat only | this participant's Lamport clock after reading it |
//! | `reason` | `disconnected` | why, for a person |
//! | `recovered` | `reconnected` | whether nothing was missed |
//! | `new_history` | `reconnected` | `true` if the server has another history than the one that was read; left out otherwise |
//! | `from_sequence` | `reconnected` | the first sequence that is read from here on |

use std::borrow::Cow;

use crossterm::style::Stylize;
use serde::Serialize;

use crate::{
    client::session::{Received, Return},
    room::text::is_deceptive,
    telemetry::trace_id,
    wire::v1::{EventType, Notice, NoticeCode, Participant, ServerMessage},
};

/// `text` with every character that could do something to a terminal, or to the order in which a line is read, shown
/// as U+FFFD: those that no text may have ([`is_deceptive`]), for a server need not be one of ours.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains(is_deceptive) {
        Cow::Owned(text.replace(is_deceptive, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// An event or a notice as a line for people: `[Server @ L=5] Alex: Hello`. Clean.
#[must_use]
pub fn line(message: &ServerMessage) -> String {
    format!(
        "[Server @ L={}] {}: {}",
        message.timestamp,
        clean(&message.sender_name),
        clean(&message.msg_stream)
    )
}

/// A participant as a line for people: `Alex (ID=3300) since L=1`. Clean.
#[must_use]
pub fn participant(participant: &Participant) -> String {
    format!(
        "{} (ID={}){} since L={}",
        clean(&participant.name),
        participant.id,
        if participant.bot { " [bot]" } else { "" },
        participant.joined_timestamp
    )
}

/// That the connection broke, for people. Clean.
#[must_use]
pub fn disconnected(reason: &str) -> String {
    let reason = clean(reason);
    format!("Connection lost ({reason}). Coming back; what is said meanwhile is kept.")
}

/// That the session is back, and from where it reads, for people.
#[must_use]
pub fn reconnected(back: Return) -> String {
    let from = back.from_sequence;
    if back.recovered {
        "Back. Nothing was missed.".to_owned()
    } else if back.new_history {
        format!(
            "Back, but the server has a new history: what follows begins with event {from} of it."
        )
    } else {
        format!(
            "Back, but events were missed that are no longer kept: what follows begins with event {from}."
        )
    }
}

/// How lines look on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With colours: own messages bold, joining and leaving dim, notices yellow.
    Colours,
    /// Without escape sequences: own messages begin with `> `, notices with `! `.
    Plain,
}

impl Style {
    /// What the terminal at standard output wants: no colours with `NO_COLOR` (set, to anything but nothing), with
    /// `TERM=dumb`, or where there is no terminal.
    #[must_use]
    pub fn wanted(no_color: Option<&str>, term: Option<&str>, terminal: bool) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        if terminal && !refused && term != Some("dumb") {
            Self::Colours
        } else {
            Self::Plain
        }
    }

    /// [`line()`] with what this participant wants to see at a glance: whether it said this itself, whether it is a
    /// notice.
    #[must_use]
    pub fn line(self, message: &ServerMessage, own: bool) -> String {
        let line = line(message);
        let (notice, said) = (
            message.sequence == 0,
            message.r#type() == EventType::Message,
        );
        match self {
            Self::Colours if notice => line.yellow().to_string(),
            Self::Colours if !said => line.dim().to_string(),
            Self::Colours if own => line.bold().to_string(),
            Self::Plain if notice => format!("! {line}"),
            Self::Plain if own && said => format!("> {line}"),
            Self::Colours | Self::Plain => line,
        }
    }

    /// A word of the client itself, such as that the connection is gone; told apart from what the room says.
    #[must_use]
    pub fn aside(self, text: &str) -> String {
        match self {
            // Each line by itself: what is printed between them is not dim.
            Self::Colours => {
                let lines: Vec<_> = text.lines().map(|line| line.dim().to_string()).collect();
                lines.join("\n")
            }
            Self::Plain => text.to_owned(),
        }
    }
}

/// How an event came by its times: `sent 4 | server max(5, 4) + 1 = 6 | me max(4, 6) + 1 = 7`.
///
/// The service's clock before the event is not in any message; it follows from the figures unless the sender's
/// timestamp was the greater of the two, in which case an upper bound is all there is.
#[must_use]
pub fn sum(received: &Received) -> String {
    let message = &received.message;
    let (sent, time) = (message.sent_timestamp, message.timestamp);
    let sender = if sent == 0 {
        "no time sent".to_owned()
    } else {
        format!("sent {sent}")
    };
    format!(
        "{sender} | {} | {}",
        server_sum(message, sent, time),
        own_sum(received, time)
    )
}

fn server_sum(message: &ServerMessage, sent: i64, time: i64) -> String {
    let before = time.saturating_sub(1);
    match message.notice.as_ref().map(Notice::code) {
        _ if !has_own_time(message) => format!("server stays at {time}"),
        Some(NoticeCode::ImpossibleTimestamp) => format!("server {before} + 1 = {time}"),
        _ if sent == 0 => format!("server {before} + 1 = {time}"),
        _ if sent < before => format!("server max({before}, {sent}) + 1 = {time}"),
        _ if sent == before => format!("server max({sent} or less, {sent}) + 1 = {time}"),
        // No Lamport clock gives this; nothing follows from it.
        _ => format!("server = {time}"),
    }
}

/// Whether the logical time of `message` is its own: the service has ticked for it. Not so some notices, which carry the
/// time of another event, or of none.
pub(crate) fn has_own_time(message: &ServerMessage) -> bool {
    !matches!(
        message.notice.as_ref().map(Notice::code),
        Some(NoticeCode::TooFast | NoticeCode::Draining | NoticeCode::Duplicate)
    )
}

fn own_sum(received: &Received, time: i64) -> String {
    let Received {
        past,
        before,
        after,
        ..
    } = *received;
    if past {
        "me not there yet".to_owned()
    } else if before == after {
        format!("me stays at {after}")
    } else {
        format!("me max({before}, {time}) + 1 = {after}")
    }
}

/// What a session heard, in the JSON form of this module. No line break.
#[must_use]
pub fn received_json(received: &Received) -> String {
    let own = Some(true).filter(|_| received.own);
    let past = Some(true).filter(|_| received.past);
    encode(&Json {
        own,
        past,
        clock: Some(received.after),
        ..Json::of(&received.message)
    })
}

/// An event as it stands in the history, in the JSON form of this module. No line break.
#[must_use]
pub fn event_json(message: &ServerMessage) -> String {
    encode(&Json::of(message))
}

/// `disconnected`, in the JSON form of this module. No line break.
#[must_use]
pub fn disconnected_json(reason: &str) -> String {
    encode(&Json {
        kind: "disconnected",
        reason: Some(reason),
        ..Json::default()
    })
}

/// `reconnected`, in the JSON form of this module. No line break.
#[must_use]
pub fn reconnected_json(back: Return) -> String {
    encode(&Json {
        kind: "reconnected",
        recovered: Some(back.recovered),
        new_history: Some(true).filter(|_| back.new_history),
        from_sequence: Some(back.from_sequence),
        ..Json::default()
    })
}

/// A participant in JSON, its fields named as in the protocol: `id`, `name`, `bot`, `joined_sequence`,
/// `joined_timestamp`. No line break.
#[must_use]
pub fn participant_json(participant: &Participant) -> String {
    serde_json::json!({
        "id": participant.id,
        "name": participant.name,
        "bot": participant.bot,
        "joined_sequence": participant.joined_sequence,
        "joined_timestamp": participant.joined_timestamp,
    })
    .to_string()
}

#[derive(Default, Serialize)]
struct Json<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logical_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_id: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bot: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    own: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    past: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_history: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_sequence: Option<u64>,
}

impl<'a> Json<'a> {
    fn of(message: &'a ServerMessage) -> Self {
        let answered = message
            .notice
            .as_ref()
            .map_or("", |notice| notice.message_id.as_str());
        let message_id = if message.message_id.is_empty() {
            answered
        } else {
            &message.message_id
        };
        Self {
            kind: kind(message),
            room: Some(&message.room),
            sequence: Some(message.sequence).filter(|sequence| *sequence > 0),
            logical_time: Some(message.timestamp),
            sent_timestamp: Some(message.sent_timestamp).filter(|sent| *sent != 0),
            sender_id: Some(message.sender_id),
            sender_name: Some(&message.sender_name),
            text: Some(&message.msg_stream),
            message_id: Some(message_id).filter(|id| !id.is_empty()),
            bot: Some(true).filter(|_| message.bot),
            accepted_at: message.accepted_at.map(|time| time.to_string()),
            trace_id: trace_id(&message.traceparent).map(|id| id.to_string()),
            code: message.notice.as_ref().map(|notice| code(notice.code)),
            ..Self::default()
        }
    }
}

fn kind(message: &ServerMessage) -> &'static str {
    if message.sequence == 0 {
        return "notice";
    }
    match message.r#type() {
        EventType::Join => "join",
        EventType::Message => "message",
        EventType::Leave => "leave",
    }
}

fn code(code: i32) -> String {
    NoticeCode::try_from(code).map_or_else(
        |_| code.to_string(),
        |known| {
            known
                .as_str_name()
                .trim_start_matches("NOTICE_CODE_")
                .to_owned()
        },
    )
}

fn encode(json: &Json<'_>) -> String {
    serde_json::to_string(json)
        .expect("strings, numbers and booleans under fixed keys always encode")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> ServerMessage {
        ServerMessage {
            sender_id: 3300,
            sender_name: "Alex".into(),
            msg_stream: text.into(),
            r#type: EventType::Message.into(),
            timestamp: 6,
            room: "lobby".into(),
            sequence: 5,
            sent_timestamp: 4,
            ..ServerMessage::default()
        }
    }

    fn heard(sent: i64, time: i64, before: i64, after: i64) -> Received {
        let message = ServerMessage {
            timestamp: time,
            sent_timestamp: sent,
            ..said("hi")
        };
        Received {
            message,
            own: false,
            past: false,
            before,
            after,
        }
    }

    fn refused(code: NoticeCode, sent: i64, time: i64) -> ServerMessage {
        ServerMessage {
            sender_id: 0,
            sender_name: "Server".into(),
            sequence: 0,
            timestamp: time,
            sent_timestamp: sent,
            notice: Some(Notice {
                code: code.into(),
                message_id: "m1".into(),
                sequence: 0,
            }),
            ..said("Message too long (354 chars). Limit is 128.")
        }
    }

    #[test]
    fn a_line_is_in_the_form_of_the_report() {
        assert_eq!(
            line(&said("Hello World!")),
            "[Server @ L=6] Alex: Hello World!"
        );
    }

    #[test]
    fn what_could_steer_a_terminal_or_turn_a_line_around_is_shown_as_a_replacement() {
        assert_eq!(
            clean("a\u{1b}[2J\r\n\t\0b\u{7f}\u{9b}c"),
            "a\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}\u{fffd}b\u{fffd}\u{fffd}c"
        );
        for c in "\u{061c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{fff9}"
            .chars()
        {
            assert_eq!(clean(&c.to_string()), "\u{fffd}", "U+{:04X}", u32::from(c));
        }
        assert_eq!(
            clean("Ærø, żółć, 日本, 👩‍🚀"),
            "Ærø, żółć, 日本, 👩‍🚀",
            "joined emoji are text"
        );
    }

    #[test]
    fn a_name_is_cleaned_too() {
        let message = ServerMessage {
            sender_name: "A\u{1b}]0;x\u{7}".into(),
            ..said("hi")
        };
        assert_eq!(line(&message), "[Server @ L=6] A\u{fffd}]0;x\u{fffd}: hi");
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert_eq!(Style::wanted(None, Some("xterm"), true), Style::Colours);
        assert_eq!(
            Style::wanted(Some(""), Some("xterm"), true),
            Style::Colours,
            "NO_COLOR set to nothing is not set"
        );
        assert_eq!(Style::wanted(Some("1"), Some("xterm"), true), Style::Plain);
        assert_eq!(Style::wanted(None, Some("dumb"), true), Style::Plain);
        assert_eq!(Style::wanted(None, Some("xterm"), false), Style::Plain);
    }

    #[test]
    fn own_messages_are_told_apart_with_and_without_colours() {
        let message = said("hi");
        for style in [Style::Colours, Style::Plain] {
            assert_ne!(style.line(&message, true), style.line(&message, false));
        }
        assert_eq!(
            Style::Plain.line(&message, false),
            "[Server @ L=6] Alex: hi"
        );
        assert!(!Style::Plain.line(&message, true).contains('\u{1b}'));
    }

    #[test]
    fn the_sum_shows_each_process_step() {
        assert_eq!(
            sum(&heard(4, 6, 4, 7)),
            "sent 4 | server max(5, 4) + 1 = 6 | me max(4, 6) + 1 = 7"
        );
    }

    #[test]
    fn the_sum_says_what_it_cannot_know() {
        assert_eq!(
            sum(&heard(4, 5, 9, 10)),
            "sent 4 | server max(4 or less, 4) + 1 = 5 | me max(9, 5) + 1 = 10",
            "the sender was ahead: the service's earlier value does not follow"
        );
        assert_eq!(
            sum(&heard(0, 5, 4, 6)),
            "no time sent | server 4 + 1 = 5 | me max(4, 5) + 1 = 6"
        );
        assert!(
            sum(&heard(9, 5, 4, 6)).contains("| server = 5 |"),
            "a server without a Lamport clock"
        );
        assert!(!sum(&heard(i64::MIN, i64::MAX, i64::MIN, i64::MAX)).is_empty());
        assert!(!sum(&heard(i64::MAX, i64::MIN, 0, 1)).is_empty());
    }

    #[test]
    fn the_sum_of_the_past_and_of_a_clock_that_does_not_merge() {
        let past = Received {
            past: true,
            ..heard(4, 6, 0, 0)
        };
        assert!(sum(&past).ends_with("| me not there yet"));
        assert!(sum(&heard(4, 6, 7, 7)).ends_with("| me stays at 7"));
    }

    #[test]
    fn the_sum_of_a_notice_ticks_only_where_the_service_does() {
        let of = |code| {
            sum(&Received {
                message: refused(code, 4, 6),
                ..heard(4, 6, 4, 7)
            })
        };
        assert!(of(NoticeCode::TooLong).contains("| server max(5, 4) + 1 = 6 |"));
        assert!(of(NoticeCode::TooFast).contains("| server stays at 6 |"));
        assert!(of(NoticeCode::ImpossibleTimestamp).contains("| server 5 + 1 = 6 |"));
    }

    #[test]
    fn json_of_a_message_heard() {
        let mut received = heard(4, 6, 4, 7);
        received.own = true;
        received.message.message_id = "m1".into();
        received.message.bot = true;
        received.message.traceparent =
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        received.message.accepted_at = Some(prost_types::Timestamp {
            seconds: 1_761_732_957,
            nanos: 250_000_000,
        });
        assert_eq!(
            received_json(&received),
            r#"{"kind":"message","room":"lobby","sequence":5,"logical_time":6,"sent_timestamp":4,"sender_id":3300,"sender_name":"Alex","text":"hi","message_id":"m1","bot":true,"accepted_at":"2025-10-29T10:15:57.250Z","trace_id":"0af7651916cd43dd8448eb211c80319c","own":true,"clock":7}"#
        );
    }

    #[test]
    fn json_of_a_notice_names_its_code_and_the_message_it_answers() {
        let json: serde_json::Value =
            serde_json::from_str(&event_json(&refused(NoticeCode::TooLong, 4, 6))).unwrap();
        assert_eq!(
            (&json["kind"], &json["code"], &json["message_id"]),
            (&"notice".into(), &"TOO_LONG".into(), &"m1".into())
        );
        assert_eq!(json.get("sequence"), None);
        assert_eq!(code(77), "77");
    }

    #[test]
    fn json_escapes_what_a_line_cannot_hold() {
        let json = event_json(&said("a\u{1b}[2J\nb"));
        assert_eq!(json.lines().count(), 1);
        assert!(!json.contains('\u{1b}'));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["text"], "a\u{1b}[2J\nb");
    }

    #[test]
    fn json_of_a_break_and_of_the_return_says_from_where_reading_goes_on() {
        assert_eq!(
            disconnected_json("reset\n"),
            r#"{"kind":"disconnected","reason":"reset\n"}"#
        );
        let mut back = Return {
            recovered: true,
            new_history: false,
            from_sequence: 9,
        };
        assert_eq!(
            reconnected_json(back),
            r#"{"kind":"reconnected","recovered":true,"from_sequence":9}"#
        );
        (back.recovered, back.new_history) = (false, true);
        assert_eq!(
            reconnected_json(back),
            r#"{"kind":"reconnected","recovered":false,"new_history":true,"from_sequence":9}"#
        );
    }

    #[test]
    fn a_date_out_of_range_does_no_harm() {
        for (seconds, nanos) in [(i64::MAX, i32::MAX), (i64::MIN, i32::MIN)] {
            let message = ServerMessage {
                accepted_at: Some(prost_types::Timestamp { seconds, nanos }),
                ..said("hi")
            };
            assert!(event_json(&message).contains("accepted_at"));
        }
    }

    #[test]
    fn json_has_no_trace_id_where_there_is_no_trace() {
        for none in [
            "",
            "00-xyz-1-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            let message = ServerMessage {
                traceparent: none.into(),
                ..said("hi")
            };
            assert!(!event_json(&message).contains("trace_id"), "{none:?}");
        }
    }
}
