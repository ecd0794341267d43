//! What it costs to audit and to draw a long run: time and memory of the program itself.
//!
//! ```text
//! cargo bench --bench causality            # an audit of 100,000 spans, a drawing of 2,000 events
//! ```
//!
//! The runs are modelled: the room's own rules, and participants who join, talk, are refused, crash and come back. Medians
//! of several runs. Linux only: the memory is the highest that `/proc` shows while the program runs.

#![allow(unreachable_pub, reason = "a program, whose modules nobody else sees")]

#[path = "../tests/spec/support/recorded.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "tests use the rest")]
mod recorded;
#[path = "../tests/spec/support/spans.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "tests use the rest")]
mod spans;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use chitchat::causality::step::Step;
use recorded::Weather;

/// What an audit is to be made of.
const SPANS: usize = 100_000;

/// Events of the drawing, and who takes part in them.
const EVENTS: usize = 2_000;
const PARTICIPANTS: usize = 20;

/// Runs of each; the median counts.
const RUNS: usize = 5;

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Steps on one line of a file, as an exporter's batch.
const BATCH: usize = 512;

fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let long = write(&directory.path().join("long.jsonl"), &modelled())?;
    measure("audit", &["audit", "--spans", &long])?;

    let steps = spans::conversation(PARTICIPANTS, EVENTS, 1_800_000_000_000_000_000, 1_000_000);
    println!("\n{EVENTS} events of {PARTICIPANTS} participants:");
    let drawn = write(&directory.path().join("drawn.jsonl"), &steps)?;
    for format in ["svg", "html", "txt", "mmd", "log"] {
        let output = directory.path().join(format!("drawing.{format}"));
        let output = output.to_str().context("a path of ours is UTF-8")?;
        measure(format, &["diagram", "--spans", &drawn, "-o", output])?;
    }
    Ok(())
}

/// A run with at least so many steps.
fn modelled() -> Vec<Step> {
    let mut deeds = 1_000;
    loop {
        let steps = recorded::conversation(
            1,
            Weather {
                deeds,
                ..Weather::CLEAR
            },
        );
        if steps.len() >= SPANS {
            return steps;
        }
        deeds = deeds * 5 / 4 * SPANS / steps.len().max(1);
    }
}

fn write(file: &Path, steps: &[Step]) -> anyhow::Result<String> {
    let lines: Vec<String> = steps.chunks(BATCH).map(spans::line).collect();
    fs::write(file, lines.concat())?;
    let bytes = fs::metadata(file)?.len();
    println!("{} spans, {} MB", steps.len(), bytes / 1_000_000);
    let file: PathBuf = file.into();
    Ok(file.to_str().context("a path of ours is UTF-8")?.to_owned())
}

/// Runs the program so often and prints the medians.
fn measure(name: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let mut peaks = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_chitchat"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut peak = 0;
        let status = loop {
            peak = peak.max(highest(child.id()));
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(LOOK);
        };
        ensure!(status.success(), "{name} ended with {status}");
        times.push(began.elapsed());
        peaks.push(peak);
    }
    times.sort_unstable();
    peaks.sort_unstable();
    println!(
        "{name:>6}: {:.2?}, {} MB at most (medians of {RUNS})",
        times[RUNS / 2],
        peaks[RUNS / 2] / 1_000
    );
    Ok(())
}

/// The highest resident memory of a process so far, in kB; 0 once it has ended.
fn highest(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}
