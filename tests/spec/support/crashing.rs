//! A server in a process of its own that is killed and started again, on the same port, with the same history.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rusqlite::{Connection, config::DbConfig};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::within;

/// Lines of the log that are kept to be shown.
const LOG_LINES: usize = 200;

/// The server, and where its history lives.
pub struct Crashing {
    address: SocketAddr,
    data: Option<TempDir>,
    settings: Vec<(&'static str, &'static str)>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Its last lines, once it has ended.
    log: JoinHandle<VecDeque<String>>,
}

impl Crashing {
    /// A server with its history in a directory of its own; it does not run yet.
    pub fn on_disk(settings: &[(&'static str, &'static str)]) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        Self {
            data: Some(data),
            ..Self::in_memory(settings)
        }
    }

    /// A server that forgets everything when it ends; it does not run yet.
    pub fn in_memory(settings: &[(&'static str, &'static str)]) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, free_port()).into(),
            data: None,
            settings: settings.to_vec(),
            running: None,
        }
    }

    /// `http://127.0.0.1:PORT`, the same from start to start.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The directory with its history, as it was given to it.
    pub fn data(&self) -> String {
        let data = self.data.as_ref().expect("its history is on disk");
        data.path().display().to_string()
    }

    /// Starts it; returns once it serves: how long that took.
    pub async fn start(&mut self) -> Duration {
        self.start_under(&[]).await
    }

    /// The same under another program, given with its arguments.
    pub async fn start_under(&mut self, other: &[&str]) -> Duration {
        let started = Instant::now();
        let serves = self.spawn(other);
        if within("the server to start", serves).await.is_err() {
            let (code, log) = self.ended().await;
            panic!("the server should start, and ended with {code:?}: {log}");
        }
        let endpoint = Channel::from_shared(self.url()).expect("the address is an address");
        let channel = within("a connection", endpoint.connect())
            .await
            .expect("it listens");
        let mut health = HealthClient::new(channel);
        let answer = within("its health", health.check(HealthCheckRequest::default())).await;
        let status = answer.expect("it answers").into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
        started.elapsed()
    }

    /// What comes once it says that it runs, and fails if it ends before.
    fn spawn(&mut self, other: &[&str]) -> oneshot::Receiver<()> {
        let program = env!("CARGO_BIN_EXE_chitchat");
        let words: Vec<&str> = other.iter().copied().chain([program]).collect();
        let data = match &self.data {
            Some(directory) => directory.path(),
            None => Path::new("memory"),
        };
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["serve", "--listen", &self.address.to_string(), "--data"])
            .arg(data)
            .env_clear()
            .envs(self.settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the server should start");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let (runs, running) = oneshot::channel();
        let log = tokio::spawn(read_log(stderr, runs));
        self.running = Some(Running { child, log });
        running
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("the server runs");
        super::signal(&running.child, signal);
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Waits until it has ended: its exit code (none after a signal), and the end of its log.
    pub async fn ended(&mut self) -> (Option<i32>, String) {
        let mut running = self.running.take().expect("the server runs");
        let status = within("the server to end", running.child.wait()).await;
        let log = running.log.await.expect("a log is read to its end");
        let code = status.expect("its end can be awaited").code();
        (code, Vec::from(log).join("\n"))
    }

    /// What SQLite finds wrong with the history of the dead server; `ok` if nothing.
    ///
    /// Leaves the write-ahead log as the server left it: to read it is a part of the next start.
    pub async fn integrity(&self) -> String {
        assert!(self.running.is_none(), "the server should be dead");
        let data = self.data.as_ref().expect("its history is on disk");
        let database = data.path().join("chitchat.db");
        let checking = spawn_blocking(move || -> rusqlite::Result<String> {
            let connection = Connection::open(database)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.query_row("PRAGMA integrity_check", (), |row| row.get(0))
        });
        let checked = checking.await.expect("SQLite does not panic");
        checked.unwrap_or_else(|error| error.to_string())
    }
}

async fn read_log(stderr: ChildStderr, runs: oneshot::Sender<()>) -> VecDeque<String> {
    let mut lines = BufReader::new(stderr).lines();
    let mut runs = Some(runs);
    let mut last = VecDeque::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.contains("running on ")
            && let Some(runs) = runs.take()
        {
            // Fails when nobody waits any more.
            let _ = runs.send(());
        }
        if last.len() == LOG_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}

/// A port that nobody listens on, below those that the system gives to connections: while the server is dead, a client
/// that tries to reach it must not be given the very port it wants, and be connected with itself.
fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| rand::random_range(20_000..32_000));
    ports
        .take(100)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of a hundred ports is free")
}
