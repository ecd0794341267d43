//! The configuration: every setting with its unit, its default and what it bounds.
//!
//! Built-in defaults, then a TOML file, then `CHITCHAT_*` variables, then flags; the later wins. A setting is a field
//! here, its default below, and a row of [`SETTINGS`] that says what it may be.
//!
//! Every value that somebody gave is judged, also one that a later layer overrides, and all faults are told at once:
//! who starts a server reads the whole list, not the first line of it.

pub(crate) mod duration;
mod fault;
mod setting;
mod source;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use figment::{Figment, providers::Serialized};
use serde::{Deserialize, Serialize};

pub use duration::Offset;
pub use fault::{Fault, Faults};
pub use setting::{SETTINGS, Setting};
pub use source::{Given, Origin, Sources};

use crate::telemetry::JaegerUi;

/// Reads the configuration: every layer, in order.
///
/// Beside the settings come the same settings one by one, with their origins, in the order of [`SETTINGS`].
///
/// # Errors
/// Every fault of every layer: a file that cannot be read or is not TOML, unknown keys, values that a setting cannot
/// have, and settings that do not go together.
pub fn load(sources: Sources) -> Result<(Config, Vec<Entry>), Faults> {
    let (given, mut faults) = source::read(sources);
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    for given in &given {
        match setting::judge(given) {
            Ok(value) => figment = figment.merge(given.accepted(value)),
            Err(fault) => faults.push(fault),
        }
    }
    let config = figment
        .extract()
        .expect("every value in it was judged, so that its field can hold it");
    faults.extend(setting::conflicts(&config, &given, &faults));
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    Ok((config, entries(&figment)))
}

/// The settings as one line of `key=value`, for the log of a start.
#[must_use]
pub fn summary(entries: &[Entry]) -> String {
    let parts: Vec<_> = entries
        .iter()
        .map(|entry| format!("{}={}", entry.key, entry.value))
        .collect();
    parts.join(" ")
}

/// One setting as it is in effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Section and name, as in the file: `limits.rate`.
    pub key: &'static str,
    /// The value as the file would hold it; null where there is none.
    pub value: serde_json::Value,
    /// Who gave it: `default`, `FILE:LINE`, `variable NAME` or `flag --name`.
    pub origin: String,
}

/// Every setting as it is when nobody gives anything.
#[must_use]
pub fn defaults() -> Vec<Entry> {
    entries(&Figment::from(Serialized::defaults(Config::default())))
}

fn entries(figment: &Figment) -> Vec<Entry> {
    let entry = |setting: &Setting| Entry {
        key: setting.key,
        value: (figment.find_value(setting.key).ok())
            .and_then(|value| serde_json::to_value(value).ok())
            .unwrap_or_default(),
        origin: (figment.find_metadata(setting.key))
            .and_then(|metadata| metadata.source.as_ref()?.custom())
            .unwrap_or("default")
            .to_owned(),
    };
    SETTINGS.iter().map(entry).collect()
}

/// All settings of all subcommands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Config {
    /// `chitchat serve`.
    pub server: Server,
    /// What a participant may do, and how much the server keeps.
    pub limits: Limits,
    /// Everything that talks to a server.
    pub client: Client,
    /// Traces.
    pub telemetry: Telemetry,
    /// How commands get their order.
    pub order: Order,
    /// Log lines.
    pub log: Log,
}

/// `server.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Where history lives.
    pub data: Data,
    /// How long a participant whose stream broke may come back before its departure is announced.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// How long a connection may be silent before the server asks whether the peer is still there (HTTP/2 PING).
    #[serde(with = "duration")]
    pub keepalive_interval: Duration,
    /// How long the answer to that may take before the connection counts as broken.
    #[serde(with = "duration")]
    pub keepalive_timeout: Duration,
    /// How long a new connection may take to say its first byte, so that idle sockets cannot pile up.
    #[serde(with = "duration")]
    pub first_byte_timeout: Duration,
    /// How long open streams may take to end once the server drains.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// Connections at one time; further ones are closed at once.
    pub connections: usize,
}

/// Where history lives: `server.data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Data {
    /// `memory`: gone when the server stops.
    Memory,
    /// A directory, made if missing.
    Directory(PathBuf),
}

/// `limits.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Limits {
    /// A text's length in Unicode scalar values, after trimming and NFC.
    pub text_chars: usize,
    /// A text's length in bytes, likewise.
    pub text_bytes: usize,
    /// A name's length in Unicode scalar values.
    pub name_chars: usize,
    /// One gRPC message in bytes.
    pub message_bytes: usize,
    /// Messages per second and participant; 0: no limit.
    pub rate: u32,
    /// How long a reader may take nothing although there is something for it; zero: no limit. When it is over, by a
    /// quarter at most: its stream ends with RESOURCE_EXHAUSTED (STALLED), and it may resume. Less than 100 ms counts as
    /// that.
    #[serde(with = "duration")]
    pub stall: Duration,
    /// How far a timestamp may be ahead of the service's clock.
    pub clock_jump: i64,
    /// Events per room whose `message_id` is remembered.
    pub dedup_events: usize,
    /// Events that each room keeps; 0: no limit. Older ones fall out, and the first sequence that can be read moves.
    pub history_events: u64,
    /// How long each event is kept, by the server's wall clock; zero: no limit.
    #[serde(with = "duration")]
    pub history_age: Duration,
    /// Rooms of one service.
    pub rooms: usize,
    /// Bytes of history that `server.data = "memory"` keeps, over all rooms.
    pub memory_bytes: usize,
    /// Bytes of the newest events, ready to be sent, that are kept for all readers together, over all rooms. A reader
    /// that is further behind reads from the history.
    pub feed_bytes: usize,
}

/// `client.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Client {
    /// The server to talk to.
    pub server: String,
    /// The participant's name; the interactive client asks when there is none.
    pub name: Option<String>,
    /// The wanted id; 0: the server picks.
    pub id: i32,
    /// The room.
    pub room: String,
    /// Events of the room's past that a newcomer sees first.
    pub backlog: u32,
    /// The Jaeger whose pages show the traces, as this participant's browser reaches it.
    pub jaeger: Option<JaegerUi>,
}

/// `telemetry.*`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Telemetry {
    /// Spans go to this file as OTLP JSON lines.
    pub file: Option<PathBuf>,
    /// Whether what people say may stand in spans and logs.
    pub text: bool,
    /// Added to the wall clock's times in spans, and to nothing else: how a machine whose clock is off looks in traces. For
    /// demonstrations.
    pub clock_offset: Offset,
}

/// `order.*`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Order {
    /// What gives commands one order.
    pub kind: OrderKind,
}

/// `order.kind`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderKind {
    /// A queue inside the one server.
    #[default]
    Local,
}

/// `log.*`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Log {
    /// A `tracing` filter: `info`, `debug`, `chitchat=debug,h2=info` ...
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// `log.format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 50052)),
            data: Data::Directory("./chitchat-data".into()),
            grace: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            connections: 20_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_chars: 128,
            text_bytes: 512,
            name_chars: 32,
            message_bytes: 8 * 1024,
            rate: 1_000,
            stall: Duration::from_secs(30),
            clock_jump: 1 << 20,
            dedup_events: 100_000,
            history_events: 1_000_000,
            history_age: Duration::ZERO,
            rooms: 10_000,
            memory_bytes: 64 * 1024 * 1024,
            feed_bytes: 32 * 1024 * 1024,
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            server: "http://127.0.0.1:50052".into(),
            name: None,
            id: 0,
            room: crate::wire::DEFAULT_ROOM.into(),
            backlog: 20,
            jaeger: None,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        match text.as_str() {
            "memory" => Self::Memory,
            _ => Self::Directory(text.into()),
        }
    }
}

impl From<Data> for String {
    fn from(data: Data) -> Self {
        match data {
            Data::Memory => "memory".into(),
            Data::Directory(path) => path.display().to_string(),
        }
    }
}
