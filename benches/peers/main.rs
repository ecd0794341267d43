//! What our server costs beside its peers, on the same work, from the same client.
//!
//! ```text
//! cargo bench --bench peers                       the fan-out table, 27 cells of four servers, three rounds
//! cargo bench --bench peers -- --help             its options, and the other modes
//! cargo bench --bench peers -- --subscribers 100,5000 --windows 16
//! cargo bench --bench peers -- paced
//! cargo bench --bench peers -- publish
//! cargo bench --bench peers -- stalled
//! cargo bench --bench peers -- tracing
//! ```
//!
//! # Method
//!
//! - One single-threaded load client for every protocol ([`load`]), with parsers written by hand ([`wire`]): one publisher,
//!   texts of 100 bytes, and every delivery is counted and its length, content and order checked ([`tally`]).
//! - Closed loop with a window: at most `w` messages are on their way. With `w` = 1 every delivery is a write of its own;
//!   with many a server may put several in one. Or at a fixed rate, with latency from the time that the schedule says.
//! - The figure is the server's CPU time (user and system, all threads, from `/proc`) by deliveries.
//! - Every measurement has a fresh server ([`server`]); servers take turns within a round, and only the ratio of two of the
//!   same round says something about servers, because other work on the machine moves all figures alike. Medians of those.
//!
//! # Caveats
//!
//! - Over loopback the sender's write also runs a part of the receiver's TCP input, so part of what is called the server's
//!   system time is the peer's. It is there for all of them alike.
//! - Client and server share the machine. Where the client is the slower one (large windows), deliveries per second are
//!   the client's, while CPU per delivery is still the server's.
//! - `raw` is no chat: it is the ceiling ([`raw`]). `redis` and `nats` keep nothing and give no one order over publishers.
//!   Ours numbers, stores (in memory unless `--data durable`) and gives every message a logical time.
//! - What cargo builds for a benchmark has the features of the tests' dependencies as well (tokio's `test-util`, say). To
//!   measure exactly what `cargo build --release` makes, keep a copy of that and name it with `--chitchat`.
//! - Linux only: epoll and `/proc`.

#![allow(unreachable_pub, reason = "a program, whose modules nobody else sees")]

mod fan_out;
mod jetstream;
mod lab;
mod load;
mod paced;
mod poller;
mod publish;
mod raw;
mod report;
mod server;
mod sockets;
mod stalled;
mod tally;
mod tracing;
mod wire;

use std::process::ExitCode;

use chitchat::shutdown;
use clap::Parser as _;
use tokio_util::sync::CancellationToken;

/// Measure chitchat beside other servers. Without a mode: what fan-out costs
#[derive(Debug, clap::Parser)]
#[command(
    name = "peers",
    bin_name = "cargo bench --bench peers --",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    mode: Option<Mode>,

    #[command(flatten)]
    fan_out: fan_out::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Mode {
    #[command(flatten)]
    Measure(Box<Measure>),

    #[command(flatten)]
    Serve(Serve),
}

#[derive(Debug, clap::Subcommand)]
enum Measure {
    /// How late messages are at a fixed rate
    Paced(paced::Args),

    /// How many events a second are acknowledged as stored, beside NATS JetStream
    Publish(publish::Args),

    /// What readers that stall cost the others
    Stalled(stalled::Args),

    /// What tracing costs
    Tracing(tracing::Args),
}

/// What the modes start beside the servers that they measure.
#[derive(Debug, clap::Subcommand)]
#[command(hide = true)]
enum Serve {
    /// The plain TCP broadcaster
    #[command(hide = true)]
    RawServer { port: u16 },

    /// What takes spans and throws them away
    #[command(hide = true)]
    Collector { port: u16 },
}

fn main() -> ExitCode {
    // Cargo says this to every benchmark.
    let arguments = std::env::args_os().filter(|argument| argument != "--bench");
    match run(Cli::parse_from(arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was well: nothing lost, bad or misordered, and no run failed.
fn run(cli: Cli) -> anyhow::Result<bool> {
    match cli.mode {
        None => fan_out::run(&cli.fan_out, stop_signal()?),
        Some(Mode::Measure(measure)) => match *measure {
            Measure::Paced(args) => paced::run(&args, stop_signal()?),
            Measure::Publish(args) => publish::run(&args, stop_signal()?),
            Measure::Stalled(args) => stalled::run(&args, stop_signal()?),
            Measure::Tracing(args) => tracing::run(&args, stop_signal()?),
        },
        Some(Mode::Serve(Serve::RawServer { port })) => Ok(raw::serve(port).map(|()| true)?),
        Some(Mode::Serve(Serve::Collector { port })) => tracing::collect(port).map(|()| true),
    }
}

/// Cancelled by SIGTERM or Ctrl-C, so that no server outlives us.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let stop = runtime.block_on(async { shutdown::on_signal() })?;
    // Its one thread waits for signals as long as the process lives.
    std::mem::forget(runtime);
    Ok(stop)
}
