//! What each setting may be.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use figment::value::Value;

use super::{Config, Fault, Given, Offset, duration, source::Written};
use crate::{
    room::{PAGE_EVENTS_MAX, text},
    telemetry::{JaegerUi, log::check_level},
};

/// What one gRPC message carries beside a text and a name: room, `message_id`, session, traceparent, and the field tags.
///
/// Unit: bytes. Source: the limits that `chat.proto` states for those fields (64 + 64 + 64 + 55), doubled.
const MESSAGE_OVERHEAD: usize = 512;

/// The most bytes that one character takes in UTF-8.
const CHAR_BYTES: usize = 4;

/// A row of the table of all settings.
#[derive(Debug)]
pub struct Setting {
    /// Section and name: `limits.rate`.
    pub key: &'static str,
    /// What it is, in a few words; the field of [`Config`] says more.
    pub meaning: &'static str,
    rule: Rule,
}

/// What a value may be.
#[derive(Debug)]
enum Rule {
    Address,
    Data,
    Url,
    JaegerUi,
    Name,
    Room,
    Path,
    LogFilter,
    Boolean,
    Duration(RangeInclusive<Duration>),
    /// As far as this, ahead or behind.
    Offset(Duration),
    Whole(RangeInclusive<i64>, &'static str),
    OneOf(&'static [&'static str]),
}

const fn setting(key: &'static str, rule: Rule, meaning: &'static str) -> Setting {
    Setting { key, meaning, rule }
}

const fn duration(from: Duration, to: Duration) -> Rule {
    Rule::Duration(RangeInclusive::new(from, to))
}

const fn whole(from: i64, to: i64, unit: &'static str) -> Rule {
    Rule::Whole(RangeInclusive::new(from, to), unit)
}

// The ends of the ranges. A wait below SHORT would take a busy machine for a broken one; one above MINUTES or HOUR is no
// answer any more. Upper ends of numbers are where the memory of one server, or of one message, ends.
const SHORT: Duration = Duration::from_millis(100);
const MINUTES: Duration = Duration::from_secs(5 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const TIB: i64 = 1 << 40;

/// All settings, in the order in which they are shown.
pub static SETTINGS: &[Setting] = &[
    setting("server.listen", Rule::Address, "where the server listens"),
    setting(
        "server.data",
        Rule::Data,
        "where history lives: a directory, made if missing, or `memory`",
    ),
    setting(
        "server.grace",
        duration(Duration::ZERO, HOUR),
        "how long a participant whose stream broke may come back before its departure is announced",
    ),
    setting(
        "server.keepalive_interval",
        duration(SHORT, HOUR),
        "how long a connection may be silent before the server asks whether the peer is still there",
    ),
    setting(
        "server.keepalive_timeout",
        duration(SHORT, MINUTES),
        "how long the answer to that may take before the connection counts as broken",
    ),
    setting(
        "server.first_byte_timeout",
        duration(SHORT, MINUTES),
        "how long a new connection may take to say its first byte",
    ),
    setting(
        "server.drain_timeout",
        duration(Duration::ZERO, MINUTES),
        "how long open streams may take to end once the server stops",
    ),
    setting(
        "server.connections",
        whole(1, 1_000_000, "connections"),
        "connections at one time; further ones are closed",
    ),
    setting(
        "limits.text_chars",
        whole(1, 16_384, "characters"),
        "longest text in characters (Unicode scalar values)",
    ),
    setting(
        "limits.text_bytes",
        whole(1, 16 * KIB, "bytes"),
        "longest text in bytes",
    ),
    setting(
        "limits.name_chars",
        whole(1, 256, "characters"),
        "longest name",
    ),
    setting(
        "limits.message_bytes",
        // Of the order of a stream's flow control window (65,535 bytes), so that a message never takes several turns.
        whole(KIB, 64 * KIB, "bytes"),
        "longest gRPC message that the server takes",
    ),
    setting(
        "limits.rate",
        whole(0, 1_000_000, "messages per second"),
        "messages per second and participant; 0 is no limit",
    ),
    setting(
        "limits.stall",
        duration(Duration::ZERO, HOUR),
        "how long a reader may take nothing although there is something for it, to a quarter; 0s is no limit",
    ),
    setting(
        "limits.clock_jump",
        // Even so the end of the clock's range is 2^31 messages away.
        whole(1, 1 << 32, "ticks"),
        "how far a timestamp may be ahead of the service's clock",
    ),
    setting(
        "limits.dedup_events",
        whole(1, 10_000_000, "events"),
        "events per room whose `message_id` is remembered, so that a retry is stored once",
    ),
    setting(
        "limits.history_events",
        whole(0, 1 << 40, "events"),
        "events that each room keeps; 0 is no limit",
    ),
    setting(
        "limits.history_age",
        duration(Duration::ZERO, CENTURY),
        "how long each event is kept; 0s is no limit",
    ),
    setting(
        "limits.rooms",
        whole(1, 1_000_000, "rooms"),
        "rooms of the service",
    ),
    setting(
        "limits.memory_bytes",
        whole(MIB, TIB, "bytes"),
        "history that `server.data = \"memory\"` keeps, over all rooms",
    ),
    setting(
        "limits.feed_bytes",
        whole(64 * KIB, TIB, "bytes"),
        "newest events, ready to be sent, kept for all readers together; who is further behind reads from the history",
    ),
    setting("client.server", Rule::Url, "the server to talk to"),
    setting(
        "client.name",
        Rule::Name,
        "the participant's name; the interactive client asks if there is none",
    ),
    setting(
        "client.id",
        whole(0, i32::MAX as i64, "id"),
        "the wanted id; 0: the server picks",
    ),
    setting("client.room", Rule::Room, "the room"),
    setting(
        "client.backlog",
        whole(0, PAGE_EVENTS_MAX as i64, "events"),
        "events of the room's past that a newcomer sees first",
    ),
    setting(
        "client.jaeger",
        Rule::JaegerUi,
        "Jaeger's pages as a browser reaches them: what makes a trace an address, for `/trace` and `history --traces`",
    ),
    setting(
        "telemetry.file",
        Rule::Path,
        "spans go to this file, as OTLP JSON lines",
    ),
    setting(
        "telemetry.text",
        Rule::Boolean,
        "whether what people say may stand in spans and logs",
    ),
    setting(
        "telemetry.clock_offset",
        Rule::Offset(HOUR),
        "shows spans as a wall clock that is off would, for demonstrations",
    ),
    setting(
        "order.kind",
        Rule::OneOf(&["local"]),
        "what gives events one order",
    ),
    setting("log.level", Rule::LogFilter, "which lines are logged"),
    setting(
        "log.format",
        Rule::OneOf(&["text", "json"]),
        "how a line looks: for people, or one JSON object",
    ),
];

/// Settings that must fit together.
struct Bond {
    keys: &'static [&'static str],
    /// What is wrong, if it is.
    broken: fn(&Config) -> Option<String>,
}

const BONDS: &[Bond] = &[
    Bond {
        keys: &["limits.text_bytes", "limits.text_chars"],
        broken: |Config { limits, .. }| {
            (limits.text_bytes < limits.text_chars).then(|| {
                format!(
                    "limits.text_chars ({}) can only be reached if limits.text_bytes ({}) is at least as much",
                    limits.text_chars, limits.text_bytes
                )
            })
        },
    },
    Bond {
        keys: &[
            "limits.message_bytes",
            "limits.text_bytes",
            "limits.name_chars",
        ],
        broken: |Config { limits, .. }| {
            let needed = limits.text_bytes + CHAR_BYTES * limits.name_chars + MESSAGE_OVERHEAD;
            (limits.message_bytes < needed).then(|| {
                format!(
                    "limits.message_bytes ({}) must be at least {needed}: limits.text_bytes ({}), {CHAR_BYTES} times \
                     limits.name_chars ({}), and {MESSAGE_OVERHEAD}",
                    limits.message_bytes, limits.text_bytes, limits.name_chars
                )
            })
        },
    },
    Bond {
        keys: &["limits.history_events", "limits.dedup_events"],
        broken: |Config { limits, .. }| {
            let kept = limits.history_events;
            (kept > 0 && kept < limits.dedup_events as u64).then(|| {
                format!(
                    "limits.history_events ({kept}) must be at least limits.dedup_events ({}): a retry is recognized by \
                     what is kept",
                    limits.dedup_events
                )
            })
        },
    },
    Bond {
        keys: &["client.name", "limits.name_chars"],
        broken: |Config { client, limits, .. }| {
            let name = client.name.as_deref()?;
            let fault = text::name(name, limits.name_chars).err()?;
            Some(format!("{fault} (limits.name_chars)"))
        },
    },
];

impl Setting {
    /// What a value of this setting must be, with its unit and range.
    #[must_use]
    pub fn right(&self) -> String {
        self.rule.right()
    }
}

impl Rule {
    /// The value as the configuration holds it; none if it is not what it must be.
    fn read(&self, written: &Written) -> Option<Value> {
        let judged =
            |right: fn(&str) -> bool| written.text().filter(|text| right(text)).map(Value::from);
        match self {
            Self::Address => judged(|text| text.parse::<SocketAddr>().is_ok()),
            Self::Data | Self::Path => judged(|text| !text.is_empty() && !text.contains('\0')),
            Self::Url => judged(is_url),
            Self::JaegerUi => judged(|text| text.parse::<JaegerUi>().is_ok()),
            // How long it may be is a matter of two settings: see BONDS.
            Self::Name => judged(|name| text::name(name, usize::MAX).is_ok()),
            Self::Room => judged(text::is_room),
            Self::LogFilter => judged(is_log_filter),
            Self::Boolean => written.boolean().map(Value::from),
            Self::Duration(range) => {
                let text = written.text()?;
                let read = duration::parse(text)?;
                range.contains(&read).then(|| text.into())
            }
            Self::Offset(most) => {
                let text = written.text()?;
                let read = Offset::parse(text)?;
                (read.by <= *most).then(|| text.into())
            }
            Self::Whole(range, _) => written
                .integer()
                .filter(|number| range.contains(number))
                .map(Value::from),
            Self::OneOf(words) => written
                .text()
                .filter(|text| words.contains(text))
                .map(Value::from),
        }
    }

    fn right(&self) -> String {
        match self {
            Self::Address => "an IP address and a port, such as \"0.0.0.0:50052\" or \"[::]:50052\"".into(),
            Self::Data => "\"memory\", or the path of a directory".into(),
            Self::Url => "\"http://HOST:PORT\"".into(),
            Self::JaegerUi => JaegerUi::RIGHT.into(),
            Self::Name => "a name in quotes: letters and digits, and after the first also space . _ - '; not \"Server\"".into(),
            Self::Room => "1 to 64 bytes of letters, digits and . _ -".into(),
            Self::Path => "the path of a file".into(),
            Self::LogFilter => {
                "off, error, warn, info, debug or trace, also per module: \"info,chitchat::order=debug\"".into()
            }
            Self::Boolean => "true or false".into(),
            Self::Duration(range) => format!(
                "a duration with its unit, such as \"5s\" or \"500ms\", from {} to {}",
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end())
            ),
            Self::Offset(most) => {
                let most = humantime::format_duration(*most);
                format!("a duration with its unit, such as \"1500ms\" (ahead) or \"-2s\" (behind), {most} at most")
            }
            Self::Whole(range, unit) => format!("a whole number from {} to {} ({unit})", range.start(), range.end()),
            Self::OneOf(words) => words.join(" or "),
        }
    }
}

/// The value as its setting holds it, or what is wrong with it.
pub(super) fn judge(given: &Given) -> Result<Value, Fault> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == given.key) else {
        let hint = nearest(&given.key)
            .map(|key| format!("; did you mean {key}?"))
            .unwrap_or_default();
        return Err(given.fault(format!("no such setting{hint}")));
    };
    setting.rule.read(&given.value).ok_or_else(|| {
        let bare = matches!(setting.rule, Rule::Duration(_) | Rule::Offset(_))
            && is_bare_number(&given.value);
        let hint = if bare { "add a unit; " } else { "" };
        given.fault(format!("{hint}must be {}", setting.right()))
    })
}

/// The settings that do not go together, told at the one that was given (of several, at the last). Where one of them
/// is a fault by itself, there is nothing to compare.
pub(super) fn conflicts(config: &Config, given: &[Given], faults: &[Fault]) -> Vec<Fault> {
    let at_fault = |key: &&str| {
        faults
            .iter()
            .any(|fault| fault.setting.as_ref().is_some_and(|(bad, _)| bad == key))
    };
    let conflict = |bond: &Bond| {
        if bond.keys.iter().any(at_fault) {
            return None;
        }
        let what = (bond.broken)(config)?;
        let culprit = given
            .iter()
            .rev()
            .find(|given| bond.keys.contains(&given.key.as_str()))?;
        Some(culprit.fault(what))
    };
    BONDS.iter().filter_map(conflict).collect()
}

fn nearest(key: &str) -> Option<&'static str> {
    let near =
        |setting: &'static Setting| (strsim::damerau_levenshtein(key, setting.key), setting.key);
    let (distance, key) = SETTINGS.iter().map(near).min()?;
    // A slip of the finger or two; further away the guess would be worse than none.
    (distance <= 3).then_some(key)
}

fn is_bare_number(written: &Written) -> bool {
    matches!(written, Written::Integer(_))
        || written
            .text()
            .is_some_and(|text| text.trim().parse::<f64>().is_ok())
}

/// What the client can connect to: the scheme and the authority, and no path that would be ignored.
fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    uri.scheme_str() == Some("http")
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.path_and_query().is_none_or(|path| path == "/")
}

/// A level, or directives with one. To `tracing` a lone word is a target, so that a mistyped level would silence the log.
fn is_log_filter(text: &str) -> bool {
    let known = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part);
        level
            .parse::<tracing_subscriber::filter::LevelFilter>()
            .is_ok()
    };
    text.split(',').all(|part| !part.is_empty() && known(part)) && check_level(text).is_ok()
}
