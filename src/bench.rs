//! The load generator: what a server does under load, in figures that can be relied on.
//!
//! - A message counts when its own event has come back: acknowledged is what is stored and shown, not what was sent.
//! - Nothing is believed: order, sequence, logical time and loss are checked for every event, and one violation makes the
//!   run a failure.
//! - With a schedule (`rate`) a latency counts from when the message was to be sent. A server that stalls keeps nobody
//!   from noticing by keeping the client from sending ("coordinated omission").
//! - The warm-up counts for the checks and for no figure. The end is the last acknowledgement, so that what is still in
//!   flight when the sending stops counts in full.
//! - The client's own share of the processor stands beside the server's.
//!
//! # Where to look
//!
//! | module | what lives there |
//! |---|---|
//! | [`publish`], [`echo`] | the modes; a further one is a further file |
//! | `publisher`, `unary` | one stream's load |
//! | `connection` | gRPC as cheap as can be |
//! | `turns` | when a message is sent, and which count |
//! | `check` | what was promised |
//! | `meter`, `process`, `disk` | what is measured |
//! | `progress`, [`report`] | what is shown |

mod check;
mod connection;
mod disk;
pub mod echo;
mod meter;
mod process;
mod progress;
pub mod publish;
mod publisher;
pub mod report;
mod turns;
mod unary;

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};

pub use self::{
    check::Violations,
    meter::Latencies,
    report::{Fsync, Report, Used},
    turns::Extent,
};
use self::{meter::Meter, process::Usage, progress::Progress, turns::Window};
use crate::{client::render, wire::v1::NoticeCode};

/// How long nothing may come back while something is waited for.
///
/// When it is over the run fails: what it waited for is lost, or the server hangs. Source: a commit takes milliseconds,
/// a disk that is overloaded a second; a scheduled message comes every second at least.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who publishes what, where.
#[derive(Debug, Clone)]
struct Load {
    /// Tells this run's rooms and message ids from those of other runs.
    run: u32,
    rooms: usize,
    in_flight: usize,
    text: String,
}

impl Load {
    fn new(rooms: usize, in_flight: usize, text_chars: usize) -> Self {
        Self {
            run: rand::random(),
            rooms,
            in_flight,
            text: ('a'..='z').cycle().take(text_chars).collect(),
        }
    }

    /// The name of the participant with the stream `index`.
    fn name(&self, index: usize) -> String {
        format!("bench-{index}")
    }

    /// Its room. Rooms are new with each run, so that nobody else is in them.
    fn room(&self, index: usize) -> String {
        format!("bench-{:08x}-{}", self.run, index % self.rooms)
    }

    /// What its message ids begin with; a number follows.
    fn message_prefix(&self, index: usize) -> String {
        format!("{:08x}-{index}-", self.run)
    }
}

/// What one stream's load came to.
#[derive(Debug, Default)]
struct Outcome {
    /// Measured messages that were sent.
    sent: u64,
    /// Measured messages that were due and were not sent.
    missed: u64,
    violations: Violations,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.missed += other.missed;
        self.violations.add(other.violations);
    }
}

/// What two processes used between two moments.
#[derive(Debug)]
struct Usages {
    server: Option<(Usage, Usage)>,
    client: Option<(Usage, Usage)>,
}

/// Runs the tasks of a load to their end, shows how far they are, and measures what processes use in the window.
///
/// # Errors
/// One of them failed, nothing comes back any more, or there is no process `server_pid`.
async fn supervise(
    mut tasks: JoinSet<anyhow::Result<Outcome>>,
    meter: &Meter,
    window: Window,
    extent: Extent,
    server_pid: Option<u32>,
) -> anyhow::Result<(Outcome, Usages)> {
    let read = || -> anyhow::Result<_> { Ok((server_usage(server_pid)?, own_usage())) };
    let mut before = None;
    let mut progress = Progress::new(window, extent);
    let mut ticks = interval(progress::EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut outcome = Outcome::default();
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(ended) => outcome.add(ended.context("a task panicked")??),
                None => break,
            },
            () = sleep_until(window.from.into()), if before.is_none() => before = Some(read()?),
            _ = ticks.tick() => {
                progress.show(meter);
                if meter.silent() > PATIENCE && Instant::now() > window.from + PATIENCE {
                    bail!("the server has acknowledged nothing for {PATIENCE:?}");
                }
            }
        }
    }
    let (server_before, client_before) = before.map_or_else(read, Ok)?;
    let (server, client) = read()?;
    let usages = Usages {
        server: server_before.zip(server),
        client: client_before.zip(client),
    };
    Ok((outcome, usages))
}

/// What the server has used, if its process is known.
fn server_usage(pid: Option<u32>) -> anyhow::Result<Option<Usage>> {
    pid.map(|pid| process::usage(pid).with_context(|| format!("cannot measure process {pid}")))
        .transpose()
}

/// What this program has used, where the system tells.
fn own_usage() -> Option<Usage> {
    process::usage(std::process::id()).ok()
}

/// A message of `who` was refused: the run measures nothing.
fn refused(who: &str, code: NoticeCode, words: &str) -> anyhow::Error {
    let words = render::clean(words);
    match code {
        NoticeCode::TooFast => anyhow!(
            "the server refuses by limits.rate ({words}): start it with CHITCHAT_LIMITS__RATE=0"
        ),
        _ => anyhow!("the server refuses a message of {who}: {words}"),
    }
}
