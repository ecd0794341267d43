//! A server as a process of its own, started afresh for each measurement.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(20);

/// How long a server may take to end after SIGTERM; then it is killed.
const STOP: Duration = Duration::from_secs(12);

/// How often to look whether it has come that far.
const LOOK: Duration = Duration::from_millis(10);

/// Lines of what a server printed that are shown when it fails.
const LAST_LINES: usize = 10;

/// A running server; dropping it ends it and removes its directory.
pub struct Server {
    name: &'static str,
    process: Child,
    pub address: SocketAddr,
    directory: TempDir,
}

/// What a process has used: all its threads, in user and kernel mode.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    /// Memory that is in use now.
    pub resident_bytes: u64,
}

impl Server {
    /// Starts what `command` makes of a free port and an empty directory, and waits until it listens.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not listen in time; with what it printed.
    pub fn start(
        name: &'static str,
        below: &Path,
        stop: &CancellationToken,
        command: impl FnOnce(u16, &Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("bench-peers-")
            .tempdir_in(below)
            .with_context(|| format!("cannot make a directory in {}", below.display()))?;
        let port = free_port()?;
        let mut command = command(port, directory.path())?;
        let log = File::create(directory.path().join("log"))?;
        let process = command
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let mut server = Self {
            name,
            process,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            directory,
        };
        server.await_listening(stop)?;
        Ok(server)
    }

    fn await_listening(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!(
                    "{} ended before it listened ({status}){}",
                    self.name,
                    self.last_words()
                );
            }
            if begun.elapsed() > START {
                bail!(
                    "{} does not listen on {} after {START:?}{}",
                    self.name,
                    self.address,
                    self.last_words()
                );
            }
            if stop.is_cancelled() {
                bail!("interrupted");
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has used up to now.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.id()).with_context(|| format!("cannot measure {}: has it ended?", self.name))
    }

    /// All that it has printed.
    pub fn output(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The end of what it printed, for an error; nothing if it printed nothing.
    pub fn last_words(&self) -> String {
        let log = self.output();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        match last {
            [] => String::new(),
            last => format!("; it printed:\n{}", last.join("\n")),
        }
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if self.process.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let begun = Instant::now();
        while self.process.try_wait()?.is_none() {
            if begun.elapsed() > STOP {
                self.process.kill()?;
                self.process.wait()?;
                bail!("it had to be killed, {STOP:?} after SIGTERM");
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error}{}", self.name, self.last_words());
        }
    }
}

/// The same program with its calls of fsync and fdatasync written to `file`; without one, as it is.
///
/// What is started is the program itself, so that it can be measured and stopped like any other.
pub fn under_strace(command: Command, file: Option<&Path>) -> Command {
    let Some(file) = file else { return command };
    let mut strace = Command::new("strace");
    strace
        .args(["-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(file)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

/// What a program prints until it ends.
///
/// # Errors
/// It cannot be started, fails (with what it said), or we are to stop, and then it is killed.
pub fn run_to_end(mut command: Command, stop: &CancellationToken) -> anyhow::Result<String> {
    let program = command.get_program().display().to_string();
    let (mut said, mut printed) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut process = command
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(said.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break status;
        }
        if stop.is_cancelled() {
            process.kill()?;
            process.wait()?;
            bail!("interrupted");
        }
        thread::sleep(LOOK);
    };
    if !status.success() {
        bail!(
            "{program} failed ({status}): {}",
            read_all(&mut said)?.trim()
        );
    }
    read_all(&mut printed)
}

fn read_all(file: &mut File) -> anyhow::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// A port that nobody listens on. Somebody may before the server does; then it says so.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// What the process `pid` has used (proc_pid_stat(5), proc_pid_status(5)).
///
/// # Errors
/// There is no such process.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name is in parentheses and may hold anything; behind it the state is field 3.
    let (_, fields) = stat.rsplit_once(')').context("no name in parentheses")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let field = |number: usize| -> anyhow::Result<u64> {
        let field = fields.get(number - 3).context("too few fields")?;
        Ok(field.parse()?)
    };
    let ticks = field(14)? + field(15)?;
    let resident_pages = field(24)?;
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64),
        resident_bytes: resident_pages * rustix::param::page_size() as u64,
    })
}

/// Lets this process, and the servers it starts, open as many files as the system allows.
///
/// # Errors
/// That is less than `needed`.
pub fn allow_files(needed: usize) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    match limit.maximum {
        Some(maximum) if maximum < needed as u64 => bail!(
            "this takes {needed} open files and the hard limit is {maximum}: raise it (ulimit -Hn), or take fewer \
             subscribers"
        ),
        _ => Ok(()),
    }
}
