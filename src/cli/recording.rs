//! Flags of what reads a recorded run: where it is, and which part of it counts.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::anyhow;

use super::exit::Exit;
use crate::{
    bench::progress::{EVERY, Progress, Stage},
    causality::{
        source::{self, Unusable, file, jaeger::Jaeger, selection::Selection},
        step,
    },
    client::render,
    config::duration,
    telemetry::JaegerUi,
};

/// A recorded run, or a part of it.
#[derive(Debug, clap::Args)]
pub struct Recording {
    #[command(flatten)]
    source: Source,

    /// Link to the traces in this Jaeger's pages, http://localhost:16686; without it those of --jaeger, or of client.jaeger
    #[arg(long, value_name = "URL")]
    jaeger_links: Option<JaegerUi>,

    /// Only this room
    #[arg(long, value_name = "ROOM", help_heading = "What counts")]
    room: Option<String>,

    /// Only events since this time, `2026-11-23T20:00:00Z`, or for so long, `1h`
    ///
    /// An event counts if one of its steps began then or later. A Jaeger is not asked for more than that; without it, for all it
    /// has.
    #[arg(long, value_name = "TIME", value_parser = since, help_heading = "What counts")]
    since: Option<u64>,

    /// Only events from this sequence on, and the refusals between them
    #[arg(long, value_name = "SEQUENCE", help_heading = "What counts")]
    from_sequence: Option<u64>,

    /// Only events to which the server gave at most this logical time
    #[arg(long, value_name = "L", help_heading = "What counts")]
    until_time: Option<i64>,
}

/// Where it is: one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Files of OTLP JSON, as `telemetry.file` and the OpenTelemetry Collector write them; `-` is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    spans: Vec<PathBuf>,

    /// The address of a Jaeger's UI, such as http://localhost:16686
    #[arg(long, value_name = "URL")]
    jaeger: Option<String>,
}

impl Recording {
    /// The pages that links lead to: those asked for, those of the Jaeger that is read, or else those of `client.jaeger`.
    #[must_use]
    pub fn pages(&self, setting: Option<&JaegerUi>) -> Option<JaegerUi> {
        let of_source = || {
            let address = self.source.jaeger.as_deref()?;
            let named = match address.contains("://") {
                true => address.to_owned(),
                false => format!("http://{address}"),
            };
            named.parse().ok()
        };
        let asked = self.jaeger_links.clone();
        asked.or_else(of_source).or_else(|| setting.cloned())
    }

    /// Reads what the flags ask for; on a terminal one sees how far it is.
    ///
    /// # Errors
    /// With [`Exit::Usage`]: a source cannot be used, or nothing that counts is in it.
    pub async fn load(self) -> anyhow::Result<step::Recording> {
        let mut recording = self
            .read()
            .await
            .map_err(|error| Exit::Usage.because(error))?;
        let rooms: BTreeSet<Arc<str>> = recording
            .steps
            .iter()
            .map(|step| Arc::clone(&step.room))
            .collect();
        let selection = Selection {
            room: self.room,
            since: self.since,
            from_sequence: self.from_sequence,
            until_time: self.until_time,
        };
        selection.apply(&mut recording);
        if recording.steps.is_empty() {
            let rooms: Vec<_> = rooms.iter().map(|room| render::clean(room)).collect();
            return Err(Exit::Usage.because(anyhow!(
                "nothing is left of the {} spans of Chit Chat: --room, --since, --from-sequence and --until-time leave all of them out; the rooms are {}",
                recording.intake.left_out,
                rooms.join(", ")
            )));
        }
        Ok(recording)
    }

    async fn read(&self) -> Result<step::Recording, Unusable> {
        let mut bar = Bar {
            line: Progress::new("spans"),
            drawn: Instant::now(),
        };
        let mut watch = |progress| bar.show(progress);
        match &self.source.jaeger {
            Some(url) => Jaeger::at(url)?.read(self.since, &mut watch).await,
            None => file::read(&self.source.spans, self.since, &mut watch),
        }
    }
}

/// How far the reading is, for who waits for it.
struct Bar {
    line: Progress,
    drawn: Instant,
}

impl Bar {
    fn show(&mut self, progress: source::Progress) {
        if self.drawn.elapsed() >= EVERY {
            self.drawn = Instant::now();
            let (done, label) = match progress.done {
                Some(done) => (done, format!("{:.0} %", done.clamp(0.0, 1.0) * 100.0)),
                None => (0.0, "reading".into()),
            };
            self.line.show(&Stage { done, label }, progress.spans);
        }
    }
}

/// A time from its text, in nanoseconds since 1970: RFC 3339, or a duration before now.
fn since(text: &str) -> Result<u64, String> {
    let time = match duration::parse(text) {
        Some(before) => SystemTime::now().checked_sub(before),
        None => humantime::parse_rfc3339_weak(text).ok(),
    };
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .ok_or_else(|| {
            "neither a time such as 2026-11-23T20:00:00Z nor a duration such as 1h".into()
        })
}
