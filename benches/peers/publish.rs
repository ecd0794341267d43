//! How many events a second are acknowledged as safely stored, beside NATS JetStream.
//!
//! Ours is measured by its own load generator (`chitchat bench publish`: streams of participants, each in a room of its
//! own), JetStream by [`jetstream`]: as many connections, each with a subject of its own, into a stream (or several,
//! `--jetstream-streams`) with one replica in a file. Both hold as many messages in flight on each, and both have the texts' length.
//!
//! A server that acknowledges what only the system's memory has is fast and another thing. JetStream does that unless
//! `sync_interval: always` is configured, which nats-server has known since 2.10. For an older one, such as Debian 12's
//! 2.9.10, the directory of the streams is marked synchronous instead (`chattr +S`): every write to its files, which
//! JetStream makes before it acknowledges, then waits for the disk. Beside it stands JetStream as it comes.
//!
//! JetStream waits for the disk once per message and stream, so that many streams wait side by side; ours once for all that
//! came meanwhile, whatever the room. Hence one stream, as a program that wants one order over all would have it, and as
//! many as publishers.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    jetstream::{self, Plan},
    lab::{self, Contender, Data, Lab, Options},
    report::{self, Summary, Table, median, milliseconds, ratio, three_digits, whole},
    server::{self, Server},
    tally::TEXT_BYTES,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Publishers, each with a connection of its own
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    streams: u16,

    /// Messages that each may have unacknowledged
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,

    /// JetStream's streams, to which the publishers are dealt: each number is a measurement of its own. chitchat has a
    /// room for each publisher
    #[arg(long, value_delimiter = ',', default_value = "1,64", value_parser = clap::value_parser!(u16).range(1..))]
    jetstream_streams: Vec<u16>,

    /// How often all of it is measured
    #[arg(long, default_value = "3")]
    rounds: usize,

    /// How long each measurement takes
    #[arg(long, default_value = "5", value_parser = lab::seconds)]
    seconds: Duration,

    /// Afterwards, count the calls of fsync and fdatasync in a run of each under strace
    #[arg(long)]
    count_syncs: bool,

    #[command(flatten)]
    options: Options,
}

/// A server as it is measured here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Side {
    Chitchat,
    Jetstream { streams: u16, disk: Disk },
}

/// When what JetStream acknowledges is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Disk {
    /// By then, because of `sync_interval: always`.
    SyncInterval,
    /// By then, because of `chattr +S`.
    SynchronousDirectory,
    /// Some time within minutes: as it comes.
    Later,
}

/// What one measurement found.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    pub acknowledged: u64,
    pub acknowledged_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub cpu_us_per_event: f64,
}

#[derive(Serialize)]
struct Record {
    round: usize,
    side: Side,
    #[serde(flatten)]
    published: Published,
}

#[derive(Serialize)]
struct Json<'a> {
    records: &'a [Record],
    failed_runs: usize,
}

/// Measures and prints; whether every acknowledgement was good, and each came once.
///
/// # Errors
/// Interrupted, or it cannot begin.
pub fn run(args: &Args, stop: CancellationToken) -> anyhow::Result<bool> {
    let lab = Lab::new(&args.options, Data::Durable, stop)?;
    lab.allow_connections(args.streams.into())?;
    let mut sides = sides(args, &lab)?;
    let mut records = Vec::new();
    let mut failed_runs = 0;
    for round in 0..args.rounds {
        for &side in &sides {
            let measured = measure(args, &lab, side, None);
            if lab.stop.is_cancelled() {
                bail!("interrupted");
            }
            match measured {
                Ok(published) => {
                    eprintln!("round {round}, {}: {}", side.words(), published.words());
                    records.push(Record {
                        round,
                        side,
                        published,
                    });
                }
                Err(error) => {
                    eprintln!("round {round}, {}: failed: {error:#}", side.words());
                    failed_runs += 1;
                }
            }
        }
        // Nobody always goes first.
        sides.rotate_left(1);
    }
    sides.sort_unstable();
    print(args, &sides, &records);
    println!("{failed_runs} runs failed");
    if args.count_syncs {
        count_syncs(args, &lab, &sides)?;
    }
    let json = Json {
        records: &records,
        failed_runs,
    };
    report::write_json(args.options.json.as_deref(), &json)?;
    Ok(failed_runs == 0)
}

/// Ours, and JetStream in all its ways if it is installed.
fn sides(args: &Args, lab: &Lab) -> anyhow::Result<Vec<Side>> {
    let mut sides = vec![Side::Chitchat];
    if lab.installed(&[Contender::Nats]).is_empty() {
        return Ok(sides);
    }
    for disk in [how_to_sync(lab)?, Disk::Later] {
        let streams = args.jetstream_streams.iter();
        sides.extend(streams.map(|&streams| Side::Jetstream { streams, disk }));
    }
    Ok(sides)
}

/// What makes this nats-server wait for the disk.
fn how_to_sync(lab: &Lab) -> anyhow::Result<Disk> {
    let scratch = tempfile::tempdir_in(lab.directory())?;
    let config = write_config(scratch.path(), 1, Disk::SyncInterval)?;
    let check = Command::new(lab.nats_server())
        .args(["-t", "-c"])
        .arg(config)
        .output()?;
    let complaint = String::from_utf8_lossy(&check.stderr);
    match check.status.success() {
        true => Ok(Disk::SyncInterval),
        false if complaint.contains("sync_interval") => Ok(Disk::SynchronousDirectory),
        false => bail!(
            "nats-server does not take its configuration: {}",
            complaint.trim()
        ),
    }
}

/// One measurement on a fresh server; with a file, under strace, which writes there.
fn measure(args: &Args, lab: &Lab, side: Side, strace: Option<&Path>) -> anyhow::Result<Published> {
    let (server, published);
    match side {
        Side::Chitchat => {
            server = lab.start_under(Contender::Chitchat, &[], strace)?;
            published = publish_to_chitchat(args, lab, &server);
        }
        Side::Jetstream { streams, disk } => {
            server = start_jetstream(lab, disk, strace)?;
            let plan = Plan {
                publishers: args.streams.into(),
                streams: streams.into(),
                in_flight: args.in_flight.into(),
                warm_up: lab.warm_up(),
                measured: args.seconds,
            };
            published = jetstream::publish(&server, &plan, &lab.stop);
        }
    }
    published.with_context(|| format!("{}{}", side.words(), server.last_words()))
}

fn start_jetstream(lab: &Lab, disk: Disk, strace: Option<&Path>) -> anyhow::Result<Server> {
    Server::start(
        "nats-server",
        lab.directory(),
        &lab.stop,
        |port, directory| {
            let config = write_config(directory, port, disk)?;
            let mut command = Command::new(lab.nats_server());
            command.arg("-c").arg(config);
            Ok(server::under_strace(command, strace))
        },
    )
}

/// The configuration of a JetStream in a directory of its own.
fn write_config(directory: &Path, port: u16, disk: Disk) -> anyhow::Result<PathBuf> {
    let store = directory.join("store");
    fs::create_dir_all(&store)?;
    let sync = match disk {
        Disk::SyncInterval => "sync_interval: always",
        Disk::SynchronousDirectory => {
            make_synchronous(&store)?;
            ""
        }
        Disk::Later => "",
    };
    let path = directory.join("nats.conf");
    let config =
        format!("listen: \"127.0.0.1:{port}\"\njetstream {{\n store_dir: {store:?}\n {sync}\n}}\n");
    fs::write(&path, config)?;
    Ok(path)
}

/// Makes every write to files that are made below `directory` from here on wait for the disk, as `chattr +S` does.
fn make_synchronous(directory: &Path) -> anyhow::Result<()> {
    let opened = File::open(directory)?;
    let marked = ioctl_getflags(opened.as_fd())
        .and_then(|flags| ioctl_setflags(opened.as_fd(), flags | IFlags::SYNC));
    marked.with_context(|| {
        format!(
            "this nats-server does not know sync_interval, and the file system of {} cannot make writes synchronous: \
             take another --nats-server (2.10 or later) or --directory (ext4, say)",
            directory.display()
        )
    })
}

fn publish_to_chitchat(args: &Args, lab: &Lab, server: &Server) -> anyhow::Result<Published> {
    let mut command = lab.chitchat_command();
    command
        .args(["bench", "publish", "--json"])
        .args(["--server", &format!("http://{}", server.address)])
        .args(["--server-pid", &server.id().to_string()])
        .args(["--streams", &args.streams.to_string()])
        .args(["--in-flight", &args.in_flight.to_string()])
        .args(["--text-chars", &TEXT_BYTES.to_string()])
        .args(["--warm-up", &format!("{}ms", lab.warm_up().as_millis())])
        .args(["--duration", &format!("{}ms", args.seconds.as_millis())]);
    let json = server::run_to_end(command, &lab.stop)?;
    let report: Value = serde_json::from_str(&json).context("chitchat bench prints JSON")?;
    let figure = |pointer: &str| {
        let figure = report.pointer(pointer).and_then(Value::as_f64);
        figure.with_context(|| format!("chitchat bench tells no {pointer}"))
    };
    Ok(Published {
        acknowledged: figure("/acknowledged")? as u64,
        acknowledged_per_second: figure("/acknowledged_per_second")?,
        p50_us: figure("/latency_us/p50")?,
        p99_us: figure("/latency_us/p99")?,
        cpu_us_per_event: figure("/server_process/cpu_us_per_event")?,
    })
}

fn print(args: &Args, sides: &[Side], records: &[Record]) {
    println!(
        "{} publishers, {} messages in flight each; medians of {} rounds\n",
        args.streams, args.in_flight, args.rounds
    );
    let mut table = Table::new(&[
        "server",
        "acknowledged per second",
        "p50",
        "p99",
        "server CPU, us/event",
    ]);
    for &side in sides {
        let of = |figure: fn(&Published) -> f64| {
            let found = records.iter().filter(|record| record.side == side);
            median(found.map(|record| figure(&record.published)))
        };
        table.row([
            side.words(),
            whole(of(|published| published.acknowledged_per_second)),
            milliseconds(of(|published| published.p50_us)),
            milliseconds(of(|published| published.p99_us)),
            three_digits(of(|published| published.cpu_us_per_event)),
        ]);
    }
    table.print();
    for &peer in sides.iter().filter(|side| **side != Side::Chitchat) {
        let rate = |round, side| {
            let found = records
                .iter()
                .find(|record| (record.round, record.side) == (round, side));
            found.map(|record| record.published.acknowledged_per_second)
        };
        let ratios = (0..args.rounds)
            .filter_map(|round| ratio(rate(round, Side::Chitchat)?, rate(round, peer)?));
        if let Some(summary) = Summary::of(ratios) {
            println!(
                "acknowledged per second, chitchat's by that of {}, same round: {}",
                peer.words(),
                summary.words()
            );
        }
    }
}

/// Runs each once more, under strace. Not in the measured rounds: that makes everything slow.
fn count_syncs(args: &Args, lab: &Lab, sides: &[Side]) -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(lab.directory())?;
    println!();
    for &side in sides {
        let trace = directory.path().join("strace");
        let published = measure(args, lab, side, Some(&trace))?;
        let calls = fs::read_to_string(&trace).context("strace has written nothing")?;
        let syncs = calls.lines().filter(|line| line.contains("sync(")).count();
        println!(
            "{}: {syncs} calls of fsync or fdatasync (under strace, which makes it slow) for {} acknowledged events and \
             those of the warm-up",
            side.words(),
            published.acknowledged,
        );
    }
    println!(
        "In a synchronous directory the writes themselves wait for the disk, without such a call."
    );
    Ok(())
}

impl Side {
    fn words(self) -> String {
        let Self::Jetstream { streams, disk } = self else {
            return "chitchat, on disk".into();
        };
        let disk = match disk {
            Disk::SyncInterval => "sync_interval: always",
            Disk::SynchronousDirectory => "synchronous directory (chattr +S)",
            Disk::Later => "as it comes: acknowledged before it is on disk",
        };
        format!("JetStream, streams: {streams}, {disk}")
    }
}

impl Published {
    fn words(&self) -> String {
        format!(
            "{:.0} acknowledged/s, p50 {:.2} ms, p99 {:.2} ms, {:.1} us/event",
            self.acknowledged_per_second,
            self.p50_us / 1e3,
            self.p99_us / 1e3,
            self.cpu_us_per_event
        )
    }
}
