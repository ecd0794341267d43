//! Log lines: one per event on both sides, in the report's words.
//!
//! A line is `time level component: words facts`, or one JSON object with `log.format = "json"`. The words are for
//! people and may quote a peer, escaped so that nobody can forge a line; the facts at its end (`event=join
//! participant="Alex" id=3300 L=1 room="lobby" sequence=1`) are ours. Logs go to standard error, whatever the
//! subcommand: standard output belongs to what it was asked for.

use std::{
    fmt::{self, Display},
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing::{Metadata, Subscriber, info, warn};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, ParseError, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
};

use super::EventName;
use crate::{config, room::text::is_deceptive};

/// Lines that may wait for whoever reads the log.
///
/// When full: further lines are lost, their number is told once there is room again. Waiting instead would let a
/// terminal that is stopped, or a log collector that hangs, stop the chat. A line is at most about
/// [`QUOTE_CHARS`] long, so this is 4 MB at the very worst.
const QUEUE_LINES: usize = 4_096;

/// How long [`Logs::flush`] waits for the log to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Characters of a peer's word that a line repeats; a server that does not know our limits could send megabytes.
const QUOTE_CHARS: usize = 512;

/// The process's log, from start to end; dropping it flushes.
#[derive(Debug)]
pub struct Logs {
    lines: Lines,
}

impl Logs {
    /// Makes everything that is logged from here on go to `sink`, in the background.
    ///
    /// The first start in a process counts: a later one changes nothing. `log.level` is checked with the configuration
    /// ([`check_level`]); one that is bad all the same is logged and `info` holds. A `sink` that fails is ignored.
    pub fn start(config: &config::Log, sink: impl Write + Send + 'static) -> Self {
        let lines = Lines::start(sink);
        let (filter, fault) = match EnvFilter::try_new(&config.level) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new("info"), Some(error)),
        };
        let subscriber = subscriber(filter, config.format, Arc::new(lines.clone()));
        let first = tracing::subscriber::set_global_default(subscriber).is_ok();
        if let (true, Some(fault)) = (first, fault) {
            warn!("log.level {:?}: {fault}; info is used", config.level);
        }
        Self { lines }
    }

    /// Waits until what was logged so far is written, at most a second (for a reader that does not read).
    pub fn flush(&self) {
        let (written, wait) = sync_channel(1);
        let queue = self.lines.queue.clone();
        // From a thread of its own, because the queue may be full and waiting for room has no limit.
        let _ = thread::Builder::new()
            .name("log-flush".into())
            .spawn(move || queue.send(Entry::Flush(written)));
        let _ = wait.recv_timeout(FLUSH_TIMEOUT);
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Whether `level` is a `log.level`: a `tracing` filter such as `info` or `warn,chitchat::server=debug`.
///
/// # Errors
/// What is wrong with it.
pub fn check_level(level: &str) -> Result<(), ParseError> {
    EnvFilter::try_new(level).map(drop)
}

fn subscriber<W>(
    filter: EnvFilter,
    format: config::LogFormat,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // The SDK speaks of every failed export; `delivery` tells each change of state once. Who asks for a part of the SDK
    // by name still hears it. Its words on a bad variable come once, at the start, and are wanted.
    let quiet = match "opentelemetry=off".parse() {
        Ok(off) if !filter.to_string().contains("opentelemetry") => filter.add_directive(off),
        _ => filter,
    };
    let filter = quiet.or(filter_fn(is_sdk_configuration_warning));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(writer);
    let layer = match format {
        config::LogFormat::Text => lines.boxed(),
        config::LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

fn is_sdk_configuration_warning(event: &Metadata<'_>) -> bool {
    ["TracerProvider.Config.", "Exporter.Config."]
        .iter()
        .any(|prefix| event.name().starts_with(prefix))
}

/// What a line of the log says about an event (or refusal) of the chat.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// What happened.
    pub event: EventName,
    /// Who did it; of a refusal, who is told.
    pub participant: &'a str,
    /// That participant's id.
    pub id: i32,
    /// The event's logical time.
    pub lamport_time: i64,
    /// The room.
    pub room: &'a str,
    /// The event's place in its room; 0 for a refusal.
    pub sequence: u64,
    /// What was said, or the notice's words. Of a message it stands in the log only if `telemetry.text` allows it,
    /// otherwise its length does.
    pub text: &'a str,
}

/// The server's log lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerLog {
    text: bool,
}

impl ServerLog {
    /// With or without what people say.
    #[must_use]
    pub fn new(config: &config::Telemetry) -> Self {
        Self { text: config.text }
    }

    /// `Chit Chat service running on 0.0.0.0:50052`
    pub fn running(&self, listen: SocketAddr) {
        info!(target: "chitchat::server", event = "start", "Chit Chat service running on {listen}");
    }

    /// `Chit Chat service stopped: {ending}`
    pub fn stopped(&self, ending: &str) {
        info!(target: "chitchat::server", event = "stop", "Chit Chat service stopped: {}", Quoted(ending));
    }

    /// `JOIN: Alex (ID=3300) at L=1`, `Message from Alex: Hello World! (L=2)`, `REMOVED: Aske (ID=4800)`,
    /// `REFUSED: Alex (ID=3300): Message too long (354 chars). Limit is 128. (L=6)`
    pub fn event(&self, event: &Event<'_>) {
        info!(
            target: "chitchat::server",
            event = event.event.as_str(),
            participant = cut(event.participant),
            id = event.id,
            L = event.lamport_time,
            room = cut(event.room),
            sequence = event.sequence,
            "{}", ServerWords(event, self.text)
        );
    }
}

/// A client's log lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientLog {
    text: bool,
}

impl ClientLog {
    /// With or without what people say.
    #[must_use]
    pub fn new(config: &config::Telemetry) -> Self {
        Self { text: config.text }
    }

    /// `Sent JOIN`
    pub fn joining(&self, participant: &str, lamport_time: i64) {
        info!(
            target: "chitchat::client",
            event = "start",
            participant = cut(participant),
            L = lamport_time,
            "Sent JOIN"
        );
    }

    /// `[Server @ L=5] Alex: Hello Alex`; a notice's sender is `Server`.
    pub fn received(&self, event: &Event<'_>) {
        info!(
            target: "chitchat::client",
            event = event.event.as_str(),
            participant = cut(event.participant),
            id = event.id,
            L = event.lamport_time,
            room = cut(event.room),
            sequence = event.sequence,
            "{}", ClientWords(event, self.text)
        );
    }

    /// `Leaving chat...`
    pub fn leaving(&self, participant: &str) {
        info!(target: "chitchat::client", event = "stop", participant = cut(participant), "Leaving chat...");
    }

    /// `Stream closed: {reason}`
    pub fn closed(&self, participant: &str, reason: &str) {
        info!(
            target: "chitchat::client",
            event = "closed",
            participant = cut(participant),
            "Stream closed: {}", Quoted(reason)
        );
    }
}

struct ServerWords<'a>(&'a Event<'a>, bool);

impl Display for ServerWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(event, text) = *self;
        let (name, id, time) = (Quoted(event.participant), event.id, event.lamport_time);
        match event.event {
            EventName::Join => write!(f, "JOIN: {name} (ID={id}) at L={time}"),
            EventName::Message => {
                write!(f, "Message from {name}: {} (L={time})", Said(event, text))
            }
            EventName::Leave => write!(f, "REMOVED: {name} (ID={id})"),
            EventName::Refusal => write!(
                f,
                "REFUSED: {name} (ID={id}): {} (L={time})",
                Quoted(event.text)
            ),
        }
    }
}

struct ClientWords<'a>(&'a Event<'a>, bool);

impl Display for ClientWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(event, text) = *self;
        let (name, time) = (Quoted(event.participant), event.lamport_time);
        write!(f, "[Server @ L={time}] {name}: {}", Said(event, text))
    }
}

/// An event's text, unless it is a person's and that is not allowed.
struct Said<'a>(&'a Event<'a>, bool);

impl Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(event, allowed) = *self;
        if event.event != EventName::Message || allowed {
            Quoted(event.text).fmt(f)
        } else {
            write!(f, "({} chars)", event.text.chars().count())
        }
    }
}

/// Somebody else's words inside a line: what could end the line, move a terminal's cursor or turn the direction of
/// reading is written as an escape, and what is very long is cut.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = cut(self.0);
        for character in kept.chars() {
            if is_deceptive(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        if kept.len() < self.0.len() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

fn cut(words: &str) -> &str {
    words
        .char_indices()
        .nth(QUOTE_CHARS)
        .map_or(words, |(end, _)| &words[..end])
}

/// The way of the lines to the sink, on a thread of their own that lives as long as the process.
#[derive(Debug, Clone)]
struct Lines {
    queue: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Lines {
    fn start(sink: impl Write + Send + 'static) -> Self {
        let (queue, entries) = sync_channel(QUEUE_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let lines = Self {
            queue,
            lost: Arc::clone(&lost),
        };
        // Without a thread there is no log, and chat goes on.
        let _ = thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&entries, sink, &lost));
        lines
    }
}

fn write_all(entries: &Receiver<Entry>, mut sink: impl Write, lost: &AtomicU64) {
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                let _ = sink.write_all(&line);
                let lost = lost.swap(0, Relaxed);
                if lost > 0 {
                    warn!("{lost} log lines were lost: the log was not read");
                }
            }
            Entry::Flush(written) => {
                let _ = sink.flush();
                let _ = written.send(());
            }
        }
    }
}

/// Takes one line at a time: `tracing_subscriber` writes each in one go.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Entry::Line(line.to_vec())) {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const HELLO: Event<'_> = Event {
        event: EventName::Message,
        participant: "Alex",
        id: 3300,
        lamport_time: 2,
        room: "lobby",
        sequence: 2,
        text: "Hello World!",
    };

    /// What `log` writes, the time of each line taken away.
    fn written(format: config::LogFormat, level: &str, log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Memory(Arc<Mutex<Vec<u8>>>);
        impl Write for Memory {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(EnvFilter::new(level), format, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn words(log: impl FnOnce()) -> Vec<String> {
        let text = written(config::LogFormat::Text, "info", log);
        text.lines()
            .map(|line| line.split_once("  INFO ").expect(line).1.to_owned())
            .collect()
    }

    #[test]
    fn the_server_speaks_as_in_the_report() {
        let log = ServerLog { text: true };
        let lines = words(|| {
            log.running(SocketAddr::from(([0, 0, 0, 0], 50052)));
            log.event(&Event {
                event: EventName::Join,
                lamport_time: 1,
                sequence: 1,
                ..HELLO
            });
            log.event(&HELLO);
            log.event(&Event {
                event: EventName::Refusal,
                lamport_time: 6,
                sequence: 0,
                text: "Message too long (354 chars). Limit is 128.",
                ..HELLO
            });
            log.event(&Event {
                event: EventName::Leave,
                lamport_time: 11,
                sequence: 10,
                ..HELLO
            });
            log.stopped("drained");
        });
        assert_eq!(
            lines,
            [
                r#"chitchat::server: Chit Chat service running on 0.0.0.0:50052 event="start""#,
                r#"chitchat::server: JOIN: Alex (ID=3300) at L=1 event="join" participant="Alex" id=3300 L=1 room="lobby" sequence=1"#,
                r#"chitchat::server: Message from Alex: Hello World! (L=2) event="message" participant="Alex" id=3300 L=2 room="lobby" sequence=2"#,
                r#"chitchat::server: REFUSED: Alex (ID=3300): Message too long (354 chars). Limit is 128. (L=6) event="refusal" participant="Alex" id=3300 L=6 room="lobby" sequence=0"#,
                r#"chitchat::server: REMOVED: Alex (ID=3300) event="leave" participant="Alex" id=3300 L=11 room="lobby" sequence=10"#,
                r#"chitchat::server: Chit Chat service stopped: drained event="stop""#,
            ]
        );
    }

    #[test]
    fn a_client_speaks_as_in_the_report() {
        let log = ClientLog { text: true };
        let lines = words(|| {
            log.joining("Alex", 1);
            log.received(&HELLO);
            log.leaving("Alex");
            log.closed("Alex", "OK");
        });
        assert_eq!(
            lines,
            [
                r#"chitchat::client: Sent JOIN event="start" participant="Alex" L=1"#,
                r#"chitchat::client: [Server @ L=2] Alex: Hello World! event="message" participant="Alex" id=3300 L=2 room="lobby" sequence=2"#,
                r#"chitchat::client: Leaving chat... event="stop" participant="Alex""#,
                r#"chitchat::client: Stream closed: OK event="closed" participant="Alex""#,
            ]
        );
    }

    #[test]
    fn what_people_say_is_logged_only_where_allowed() {
        let lines = words(|| {
            ServerLog::default().event(&HELLO);
            ClientLog::default().received(&HELLO);
        });
        assert!(
            lines[0].contains("Message from Alex: (12 chars) (L=2)"),
            "{lines:?}"
        );
        assert!(
            lines[1].contains("[Server @ L=2] Alex: (12 chars)"),
            "{lines:?}"
        );
    }

    #[test]
    fn nobody_can_forge_a_line() {
        let forged = Event {
            participant: "A\r\nB\u{1b}[2J",
            text: "x\n2026-01-01T00:00:00Z  INFO chitchat::server: JOIN\u{2028}\u{202e}\u{9b}",
            room: "r\n",
            ..HELLO
        };
        for format in [config::LogFormat::Text, config::LogFormat::Json] {
            let text = written(format, "info", || {
                ServerLog { text: true }.event(&forged);
                ClientLog { text: true }.received(&forged);
                ClientLog::default().closed("a\nb", "c\nd");
            });
            assert_eq!(text.lines().count(), 3, "{text}");
            let deceiving = |c: &char| *c != '\n' && is_deceptive(*c);
            let words_deceive = match format {
                config::LogFormat::Text => text.chars().any(|c| deceiving(&c)),
                config::LogFormat::Json => text.lines().any(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).unwrap();
                    line["message"].as_str().unwrap().chars().any(is_deceptive)
                }),
            };
            assert!(!words_deceive, "{text:?}");
        }
    }

    #[test]
    fn an_endless_word_makes_no_endless_line() {
        let endless = "€".repeat(1_000_000);
        let lines = words(|| {
            ClientLog { text: true }.received(&Event {
                participant: &endless,
                text: &endless,
                ..HELLO
            })
        });
        assert!(lines[0].chars().count() < 4 * QUOTE_CHARS);
    }

    #[test]
    fn json_is_one_object_a_line_with_the_same_words() {
        let text = written(config::LogFormat::Json, "info", || {
            ServerLog { text: true }.event(&HELLO)
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "Message from Alex: Hello World! (L=2)");
        assert_eq!(line["target"], "chitchat::server");
        assert_eq!(line["event"], "message");
        assert_eq!(line["participant"], "Alex");
        assert_eq!(line["id"], 3300);
        assert_eq!(line["L"], 2);
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn the_sdk_is_silent_but_for_bad_variables() {
        let log = || {
            tracing::error!(name: "BatchSpanProcessor.ExportError", target: "opentelemetry_sdk", "noise");
            tracing::warn!(name: "Export.Failed", target: "opentelemetry-otlp", "noise");
            tracing::warn!(name: "TracerProvider.Config.InvalidSamplerType", target: "opentelemetry_sdk", "wanted");
        };
        let text = written(config::LogFormat::Text, "debug", log);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("wanted"));
        let asked_for = written(config::LogFormat::Text, "info,opentelemetry_sdk=error", log);
        assert_eq!(asked_for.matches("noise").count(), 2, "{asked_for}");
    }

    #[test]
    fn a_level_is_checked_before_it_is_used() {
        assert!(check_level("info,chitchat::server=debug").is_ok());
        assert!(check_level("loud=very").is_err());
    }

    /// A log that nobody reads once stopped the server.
    #[test]
    fn a_reader_that_does_not_read_stops_nobody_and_learns_what_it_missed() {
        struct Stuck(Receiver<()>, Arc<Mutex<Vec<u8>>>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                self.1.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = sync_channel(0);
        let memory = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::start(Stuck(stuck, Arc::clone(&memory)));
        for _ in 0..QUEUE_LINES + 100 {
            (&lines).write_all(b"line\n").unwrap();
        }
        let lost = lines.lost.load(Relaxed);
        assert!(
            (99..=100).contains(&lost),
            "one line is in the writer's hand, {lost} are lost"
        );

        drop(release);
        Logs { lines }.flush();
        let written = memory.lock().unwrap().len() / b"line\n".len();
        assert_eq!(written as u64 + lost, QUEUE_LINES as u64 + 100);
    }
}
