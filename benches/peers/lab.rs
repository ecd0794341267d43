//! Which servers are measured, how each is started, and one measurement of one of them.

use std::{
    fmt::{self, Display},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    load::{Client, Plan},
    server::{self, Server, Usage},
    wire::{Wire, grpc::Grpc, nats::Nats, raw::Raw, redis::Redis},
};

/// Files that server and client open beside a socket for each connection.
const OTHER_FILES: usize = 200;

/// What every mode is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The chitchat to measure [default: as cargo has just built it]
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_chitchat"), hide_default_value = true)]
    chitchat: PathBuf,

    /// On whose disk: servers get directories in this one [default: target/tmp]
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    directory: PathBuf,

    /// The nats-server to measure
    #[arg(long, value_name = "PATH", default_value = "nats-server")]
    nats_server: PathBuf,

    /// The redis-server to measure
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,

    /// Seconds before anything is measured, under the same load
    #[arg(long, value_name = "SECONDS", default_value = "0.3", value_parser = seconds)]
    warm_up: Duration,

    /// Put every figure of every run in this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Where chitchat keeps its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Data {
    Memory,
    /// In a fresh directory.
    Durable,
}

/// A server that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// The plain TCP broadcaster.
    Raw,
    /// Debian's nats-server, say.
    Nats,
    /// Redis' PUB/SUB.
    Redis,
    #[value(skip)]
    Chitchat,
}

/// What is measured with, and what went wrong so far.
pub struct Lab {
    options: Options,
    data: Data,
    directory: PathBuf,
    pub stop: CancellationToken,
    pub faults: Faults,
}

/// What must not be, over all runs.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Faults {
    runs: u64,
    failed_runs: u64,
    lost: u64,
    bad: u64,
    misordered: u64,
}

/// What one measurement found.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// CPU seconds of the server per million deliveries, which is the same.
    pub cpu_us_per_delivery: f64,
    pub client_cpu_us_per_delivery: f64,
    pub deliveries_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// The server's memory at the end.
    pub resident_bytes: u64,
    pub lost: u64,
    pub bad: u64,
    pub misordered: u64,
    /// Slow readers to whom the server could send nothing more at the end.
    pub held_back: usize,
    /// Slow readers that the server cut off.
    pub cut_off: usize,
}

impl Lab {
    pub fn new(options: &Options, data: Data, stop: CancellationToken) -> anyhow::Result<Self> {
        let directory = options.directory.canonicalize();
        let directory =
            directory.with_context(|| format!("--directory {}", options.directory.display()))?;
        let mut options = options.clone();
        // Servers are started in directories of their own.
        if options.chitchat.components().count() > 1 {
            let chitchat = options.chitchat.canonicalize();
            options.chitchat =
                chitchat.with_context(|| format!("--chitchat {}", options.chitchat.display()))?;
        }
        let lab = Self {
            options,
            data,
            directory,
            stop,
            faults: Faults::default(),
        };
        let version = lab
            .version(Contender::Chitchat)
            .context("chitchat cannot be started")?;
        eprintln!("{version}, history {}", lab.history());
        Ok(lab)
    }

    /// Those of `peers` that are installed; tells which and which not.
    pub fn installed(&self, peers: &[Contender]) -> Vec<Contender> {
        let mut installed = Vec::new();
        for peer in peers {
            match self.version(*peer) {
                Ok(version) => {
                    eprintln!("{peer}: {version}");
                    installed.push(*peer);
                }
                Err(error) => eprintln!("{peer} is left out: {error:#}"),
            }
        }
        installed
    }

    /// Raises the limit of open files.
    ///
    /// # Errors
    /// It cannot be raised to what so many connections need.
    pub fn allow_connections(&self, connections: usize) -> anyhow::Result<()> {
        server::allow_files(connections + OTHER_FILES)
    }

    /// One measurement on a fresh server; none if it failed, which standard error then tells.
    ///
    /// # Errors
    /// Interrupted.
    pub fn measure(
        &mut self,
        what: &str,
        contender: Contender,
        plan: &Plan,
        measured: Duration,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Option<Measured>> {
        let times = Times {
            warm_up: self.warm_up(),
            measured,
        };
        let result = self.start(contender, environment).and_then(|server| {
            let measured = match contender {
                Contender::Raw => measure::<Raw>(&server, plan, times, &self.stop),
                Contender::Nats => measure::<Nats>(&server, plan, times, &self.stop),
                Contender::Redis => measure::<Redis>(&server, plan, times, &self.stop),
                Contender::Chitchat => measure::<Grpc>(&server, plan, times, &self.stop),
            };
            measured.with_context(|| format!("{contender}{}", server.last_words()))
        });
        if self.stop.is_cancelled() {
            bail!("interrupted");
        }
        self.faults.count(&result);
        match result {
            Ok(measured) => {
                eprintln!("{what} {contender}: {measured}");
                Ok(Some(measured))
            }
            Err(error) => {
                eprintln!("{what} {contender}: failed: {error:#}");
                Ok(None)
            }
        }
    }

    /// A server of its own, with these variables beside those that every one gets.
    fn start(&self, contender: Contender, environment: &[(&str, &str)]) -> anyhow::Result<Server> {
        self.start_under(contender, environment, None)
    }

    /// Likewise; with a file, under strace, which writes there.
    pub fn start_under(
        &self,
        contender: Contender,
        environment: &[(&str, &str)],
        strace: Option<&Path>,
    ) -> anyhow::Result<Server> {
        let name = contender.name();
        Server::start(name, &self.directory, &self.stop, |port, directory| {
            let mut command = match contender {
                Contender::Raw => ourselves("raw-server", port)?,
                Contender::Nats => nats(&self.options.nats_server, port),
                Contender::Redis => redis(&self.options.redis_server, port),
                Contender::Chitchat => self.chitchat(port, directory),
            };
            command.envs(environment.iter().copied());
            Ok(server::under_strace(command, strace))
        })
    }

    fn chitchat(&self, port: u16, directory: &Path) -> Command {
        let mut command = self.chitchat_command();
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"]);
        match self.data {
            Data::Memory => command.arg("memory"),
            Data::Durable => command.arg(directory.join("data")),
        };
        command
            .env("CHITCHAT_LIMITS__RATE", "0")
            .env("CHITCHAT_LOG__LEVEL", "warn");
        command
    }

    /// Without any settings from here.
    pub fn chitchat_command(&self) -> Command {
        let mut command = Command::new(&self.options.chitchat);
        for (name, _) in std::env::vars_os() {
            let given = name.to_string_lossy();
            if given.starts_with("CHITCHAT_") || given.starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        command
    }

    pub fn nats_server(&self) -> &Path {
        &self.options.nats_server
    }

    /// How long every load goes on before it is measured.
    pub fn warm_up(&self) -> Duration {
        self.options.warm_up
    }

    /// Where servers have their directories.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where chitchat's history is, in words.
    fn history(&self) -> String {
        match self.data {
            Data::Memory => "in memory".into(),
            Data::Durable => format!("on disk below {}", self.directory.display()),
        }
    }

    /// What a server says of itself.
    ///
    /// # Errors
    /// It cannot be started.
    fn version(&self, contender: Contender) -> anyhow::Result<String> {
        let program = match contender {
            Contender::Raw => return Ok("plain TCP broadcaster of this benchmark".into()),
            Contender::Nats => &self.options.nats_server,
            Contender::Redis => &self.options.redis_server,
            Contender::Chitchat => &self.options.chitchat,
        };
        let output = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A number of seconds, with a fraction or without.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// This program again, as a server.
pub fn ourselves(server: &str, port: u16) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args([server, &port.to_string()]);
    Ok(command)
}

fn nats(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
    command
}

/// Without persistence, and without a limit at which slow subscribers are cut off.
fn redis(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--save", "", "--appendonly", "no"]);
    command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
    command
}

#[derive(Clone, Copy)]
struct Times {
    warm_up: Duration,
    measured: Duration,
}

fn measure<W: Wire>(
    server: &Server,
    plan: &Plan,
    times: Times,
    stop: &CancellationToken,
) -> anyhow::Result<Measured> {
    let mut client = Client::<W>::join(server.address, plan, stop.clone())?;
    client.run(times.warm_up)?;
    client.measure();
    let before = Reading::take(server, client.delivered())?;
    client.run(times.measured)?;
    let after = Reading::take(server, client.delivered())?;
    let outcome = client.finish()?;
    let deliveries = (after.delivered - before.delivered) as f64;
    let took = after.at.duration_since(before.at).as_secs_f64();
    let per_delivery = |before: Usage, after: Usage| {
        after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / deliveries.max(1.0)
    };
    let latency = |quantile| outcome.latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Measured {
        cpu_us_per_delivery: per_delivery(before.server, after.server),
        client_cpu_us_per_delivery: per_delivery(before.client, after.client),
        deliveries_per_second: deliveries / took,
        p50_us: latency(0.5),
        p99_us: latency(0.99),
        resident_bytes: after.server.resident_bytes,
        lost: outcome.lost,
        bad: outcome.bad,
        misordered: outcome.misordered,
        held_back: outcome.held_back,
        cut_off: outcome.cut_off,
    })
}

/// All that is counted, at one moment.
struct Reading {
    at: std::time::Instant,
    delivered: u64,
    server: Usage,
    client: Usage,
}

impl Reading {
    fn take(server: &Server, delivered: u64) -> anyhow::Result<Self> {
        Ok(Self {
            at: std::time::Instant::now(),
            delivered,
            server: server.usage()?,
            client: server::usage(std::process::id())?,
        })
    }
}

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Chitchat => "chitchat",
        }
    }
}

impl Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.3} us/delivery, {:.0} thousand/s, p50 {:.2} ms, p99 {:.2} ms",
            self.cpu_us_per_delivery,
            self.deliveries_per_second / 1e3,
            self.p50_us / 1e3,
            self.p99_us / 1e3,
        )?;
        if self.lost + self.bad + self.misordered > 0 {
            let Self {
                lost,
                bad,
                misordered,
                ..
            } = self;
            write!(f, "; LOST {lost}, BAD {bad}, MISORDERED {misordered}")?;
        }
        Ok(())
    }
}

impl Faults {
    fn count(&mut self, result: &anyhow::Result<Measured>) {
        self.runs += 1;
        match result {
            Ok(measured) => {
                self.lost += measured.lost;
                self.bad += measured.bad;
                self.misordered += measured.misordered;
            }
            Err(_) => self.failed_runs += 1,
        }
    }

    pub fn none(&self) -> bool {
        self.failed_runs + self.lost + self.bad + self.misordered == 0
    }
}

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runs,
            failed_runs,
            lost,
            bad,
            misordered,
        } = self;
        write!(
            f,
            "{runs} runs, of which {failed_runs} failed; deliveries lost: {lost}, bad: {bad}, misordered: {misordered}"
        )
    }
}
