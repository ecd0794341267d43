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
//! | [`publish`], [`echo`], [`fanout`], [`connections`] | the modes; a further one is a further file |
//! | `publisher`, `unary` | one stream's load |
//! | `crowd` | publishers and readers by the thousand |
//! | `connection`, `tap`, `heard` | gRPC as cheap as can be |
//! | `turns` | when a message is sent, and which count |
//! | `check` | what was promised |
//! | `meter`, `process`, `disk` | what is measured |
//! | `own_server`, `descriptors` | a server to measure, and enough open files |
//! | `supervise` | whether it goes on |
//! | `progress`, [`report`] | what is shown |

mod check;
mod connection;
pub mod connections;
mod crowd;
mod descriptors;
mod disk;
pub mod echo;
pub mod fanout;
mod heard;
mod meter;
mod own_server;
mod process;
pub(crate) mod progress;
pub mod publish;
mod publisher;
pub mod report;
mod supervise;
mod tap;
mod turns;
mod unary;

use anyhow::anyhow;
use tonic::Status;

pub use self::{
    check::Violations, meter::Latencies, own_server::with_own_server, report::Report, turns::Extent,
};
use crate::{
    client::{render, status::because},
    wire::v1::NoticeCode,
};

/// What is put under load.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server: `http://host:port`.
    pub url: String,
    /// Its process, to measure what it uses.
    pub pid: Option<u32>,
}

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

/// A message of `who` was refused: the run measures nothing.
fn refused(who: &str, code: NoticeCode, words: &[u8]) -> anyhow::Error {
    let words = String::from_utf8_lossy(words);
    let words = render::clean(&words);
    match code {
        NoticeCode::TooFast => anyhow!(
            "the server refuses by limits.rate ({words}): start it with CHITCHAT_LIMITS__RATE=0"
        ),
        NoticeCode::Draining => anyhow!("the server is about to stop ({words})"),
        _ => anyhow!("the server refuses a message of {who}: {words}"),
    }
}

/// The stream of `who` ended otherwise than with OK.
fn ended(who: &str, status: &Status) -> anyhow::Error {
    let because = because(status);
    anyhow!("the stream of {who} ended: {}", render::clean(&because))
}
