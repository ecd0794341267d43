//! `chitchat demo`: the report's session in one process, with nothing to set up.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Context, diagram, exit::Exit, print};
use crate::{
    causality::{
        audit::{audit, report::Report},
        run::Run,
        source::file,
    },
    client::{
        play::{PlayError, Shown, Stage, play},
        render,
        script::Script,
        session::Received,
        stdio::tell,
    },
    config::{self, Config, Data, Offset},
    server::Server,
    shutdown,
    telemetry::{
        Environment, Recorder, Telemetry,
        log::{ClientLog, Logs},
    },
};

/// The scripts that the containers play, too.
const SCRIPTS: [(&str, &str); 3] = [
    ("alex.toml", include_str!("../../deploy/scripts/alex.toml")),
    ("aske.toml", include_str!("../../deploy/scripts/aske.toml")),
    ("bob.toml", include_str!("../../deploy/scripts/bob.toml")),
];

/// How long Bob, who crashes, may come back. Short, because everybody waits for it.
const GRACE: Duration = Duration::from_millis(500);

/// How far whose wall clock is off with `--skew`, as in `deploy/compose.skew.yml`.
const SKEW: [(&str, Offset); 2] = [
    (
        "alex.toml",
        Offset {
            by: Duration::from_millis(1500),
            behind: false,
        },
    ),
    (
        "aske.toml",
        Offset {
            by: Duration::from_secs(2),
            behind: true,
        },
    ),
];

/// What is to be shown of one participant, at most, before it waits for the table to take it.
const SHOWN_CAPACITY: usize = 64;

/// The width of one participant's column, in characters; with three of them and the times, a line has 117.
const COLUMN: usize = 35;

/// Replay the report's session here: a server and three scripted participants
#[derive(Debug, clap::Args)]
pub struct Args {
    /// With clients that never merge their clocks, as the report's: its own numbers appear
    #[arg(long)]
    as_reported: bool,

    /// With wall clocks that are off in the spans: Alex's 1.5 s ahead, Aske's 2 s behind
    ///
    /// A trace then shows an answer before its question. Logical time does not care.
    #[arg(long)]
    skew: bool,

    /// Draw the session to this file: .svg, .html, .mmd, .txt or .log [default: chitchat-demo.svg]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is drawn where `--output` does not say.
const DRAWING: &str = "chitchat-demo.svg";

/// Plays the session and prints what each participant read, side by side by logical time; then audits its spans, and draws
/// them.
///
/// # Errors
/// The server could not be started, a script did not come to its end, or the drawing that was asked for cannot be written.
pub async fn run(args: Args, context: Context) -> anyhow::Result<Exit> {
    let drawing = args.output.as_deref().unwrap_or(Path::new(DRAWING));
    let format =
        diagram::format(None, Some(drawing)).map_err(|error| Exit::Usage.because(error))?;
    let config = Config {
        server: config::Server {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            data: Data::Memory,
            grace: GRACE,
            ..context.config.server
        },
        log: config::Log {
            level: "warn".into(),
            ..context.config.log
        },
        telemetry: config::Telemetry {
            // What the scripts say is nobody's secret.
            text: true,
            ..context.config.telemetry
        },
        ..context.config
    };
    let recorder = Recorder::default();
    let _logs = Logs::start(&config.log, io::stderr());
    let stop = shutdown::on_signal()?;
    let environment = Environment::of_process();
    let telemetry = Telemetry::start_with(
        &config.telemetry,
        "chitchat-server",
        &environment,
        Some(&recorder),
    );
    let server = Server::bind(&config, telemetry.tracer()).await?;
    let client = config::Client {
        server: format!("http://{}", server.local_addr()?),
        room: crate::wire::DEFAULT_ROOM.into(),
        ..config.client.clone()
    };
    let serving = CancellationToken::new();
    let server = tokio::spawn(server.run(serving.clone()));

    let part = |(file, text): (&'static str, &'static str)| {
        let mut telemetry = config.telemetry.clone();
        if let Some((_, off)) = SKEW.iter().find(|(of, _)| args.skew && *of == file) {
            telemetry.clock_offset = *off;
        }
        perform(
            file,
            text,
            telemetry,
            &recorder,
            client.clone(),
            !args.as_reported,
            stop.clone(),
        )
    };
    let [alex, aske, bob] = SCRIPTS.map(part);
    let parts = tokio::try_join!(alex, aske, bob);

    serving.cancel();
    server.await.context("the server failed")??;
    telemetry.shutdown();
    let (alex, aske, bob) = parts?;
    print(&side_by_side(&[alex, aske, bob]))?;

    let run = Run::new(file::read_text("the session", &recorder.lines())?);
    let report = Report {
        run: &run,
        verdict: &audit(&run),
        jaeger: config.client.jaeger.as_ref(),
    };
    print(&format!("\n{report}"))?;
    match diagram::draw_to(drawing, format, &run, config.client.jaeger.clone()) {
        Ok(()) => print(&format!("Drawn by logical time: {}\n", drawing.display()))?,
        Err(error) if args.output.is_some() => return Err(error),
        // Nobody asked for it here: a container may have no place for it.
        Err(error) => tell(&format!(
            "not drawn: {error:#}; --output names another place"
        )),
    }
    Ok(Exit::Good)
}

/// What one participant read.
struct Part {
    name: String,
    heard: Vec<Received>,
}

async fn perform(
    file: &str,
    text: &str,
    telemetry: config::Telemetry,
    recorder: &Recorder,
    client: config::Client,
    merge: bool,
    stop: CancellationToken,
) -> anyhow::Result<Part> {
    let script = Script::parse(file, text, &config::Limits::default())?;
    let environment = Environment::of_process();
    let telemetry = Telemetry::start_with(&telemetry, script.name(), &environment, Some(recorder));
    let (shown, lines) = mpsc::channel(SHOWN_CAPACITY);
    let stage = Stage {
        client,
        merge,
        pace: Duration::ZERO,
        tracer: telemetry.tracer(),
        log: ClientLog::default(),
        stop: stop.clone(),
        shown,
    };
    let (played, heard): (Result<(), PlayError>, _) =
        tokio::join!(play(&script, stage), collect(lines));
    telemetry.shutdown();
    played.with_context(|| format!("{file} did not come to its end"))?;
    anyhow::ensure!(!stop.is_cancelled(), "stopped before the end");
    Ok(Part {
        name: script.name().to_owned(),
        heard,
    })
}

async fn collect(mut lines: mpsc::Receiver<Shown>) -> Vec<Received> {
    let mut heard = Vec::new();
    while let Some(shown) = lines.recv().await {
        if let Shown::Heard(received) = shown {
            heard.push(*received);
        }
    }
    heard
}

/// A row for each logical time, a column for each participant; what is empty was not read by that one.
fn side_by_side(parts: &[Part]) -> String {
    let mut rows: BTreeMap<i64, Vec<Option<&Received>>> = BTreeMap::new();
    for (column, part) in parts.iter().enumerate() {
        for received in &part.heard {
            let row = rows
                .entry(received.message.timestamp)
                .or_insert_with(|| vec![None; parts.len()]);
            row[column] = Some(received);
        }
    }
    let names = parts.iter().map(|part| vec![part.name.clone()]).collect();
    let rule = parts.iter().map(|_| vec!["-".repeat(COLUMN)]).collect();
    let mut table = String::from(
        "What each participant read, by logical time; own messages are marked with >.\n\n",
    );
    line_up(&mut table, "L", names);
    line_up(&mut table, "--", rule);
    for (time, row) in rows {
        let cells = row
            .into_iter()
            .map(|received| received.map(cell).unwrap_or_default())
            .collect();
        line_up(&mut table, &time.to_string(), cells);
    }
    table
}

fn cell(received: &Received) -> Vec<String> {
    let message = &received.message;
    let mark = if received.own { "> " } else { "" };
    let text = format!(
        "{mark}{}: {}",
        render::clean(&message.sender_name),
        render::clean(&message.msg_stream)
    );
    wrap(&text)
}

/// Breaks `text` between words, so that a line fits into a column.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > COLUMN {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Appends a row of cells, each of some lines, to `table`.
fn line_up(table: &mut String, head: &str, cells: Vec<Vec<String>>) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        let mut row = format!("{:>3}", if line == 0 { head } else { "" });
        for cell in &cells {
            let text = cell.get(line).map_or("", String::as_str);
            // Writing to a String cannot fail.
            let _ = write!(row, "  {text:COLUMN$}");
        }
        table.push_str(row.trim_end());
        table.push('\n');
    }
}
