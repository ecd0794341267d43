//! A server in a process of its own, where the system's limits are its own too.

use std::{fs, net::SocketAddr, path::Path, process::Stdio};

use chitchat::wire::v1::{
    JoinMsgLeave, ListRoomsRequest, Room, ServerMessage, chat_service_client::ChatServiceClient,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};
use tonic::transport::Channel;

use super::{
    program::Finished,
    raw::{CHAT, Raw},
    within,
};

/// A `chitchat serve` that runs; dropping it kills it.
pub struct ServerProcess {
    child: Child,
    log: Log,
    address: SocketAddr,
}

/// What it has written to standard error so far, and what comes.
struct Log {
    lines: Lines<BufReader<ChildStderr>>,
    read: Vec<String>,
}

impl ServerProcess {
    /// Starts `chitchat serve` in memory, on any port, with at most so many open files.
    pub async fn start(open_files: usize) -> Self {
        let script = format!("ulimit -n {open_files}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).args(SERVE).env_clear();
        Self::started(command.args(["--data", "memory"])).await
    }

    /// Starts `chitchat serve` on the history in `directory`, on any port.
    pub async fn on(directory: &Path) -> Self {
        Self::with(directory, &[]).await
    }

    /// The same with these variables in its environment.
    pub async fn with(directory: &Path, settings: &[(&str, &str)]) -> Self {
        Self::started(serve(directory).envs(settings.iter().copied())).await
    }

    async fn started(command: &mut Command) -> Self {
        let started = Self::try_start(command).await;
        started.unwrap_or_else(|finished| panic!("the server should start: {finished:?}"))
    }

    /// Starts the server that `command` is, or tells how it ended before it served.
    pub async fn try_start(command: &mut Command) -> Result<Self, Finished> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chitchat should start");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let mut log = Log {
            lines: BufReader::new(stderr).lines(),
            read: Vec::new(),
        };
        let Some(line) = log.find("running on ").await else {
            return Err(finished(child, log).await);
        };
        let (_, rest) = line
            .split_once("running on ")
            .expect("the line has these words");
        let address = rest.split_whitespace().next().unwrap_or_default();
        let address = address
            .parse()
            .expect("the server should say where it listens");
        Ok(Self {
            child,
            log,
            address,
        })
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address));
        let connecting = endpoint.expect("the address is an address");
        let channel = within("a connection", connecting.connect()).await;
        channel.expect("the server should accept connections")
    }

    /// The same, by a client that soon cannot take more unless it reads.
    pub async fn connect_narrow(&self) -> Channel {
        super::server::connect_narrow(format!("http://{}", self.address)).await
    }

    /// Sends it `signal`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        super::signal(&self.child, signal);
    }

    /// Ends it by `signal`, and waits until it has ended.
    pub async fn end(self, signal: rustix::process::Signal) {
        self.signal(signal);
        let code = self.exit_code().await;
        assert!(matches!(code, Some(0) | None), "it ended with {code:?}");
    }

    /// The generated client, on a connection of its own.
    pub async fn client(&self) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.connect().await)
    }

    /// A stream of `Chat` on which `joining` has been said, and the first message that came.
    pub async fn enter(&self, joining: JoinMsgLeave) -> (Raw, ServerMessage) {
        let mut raw = Raw::open(self.connect().await, CHAT).await;
        raw.send(joining);
        let first = raw.next().await;
        (raw, first)
    }

    /// All events of `room`, page by page.
    pub async fn history(&self, room: &str) -> Vec<ServerMessage> {
        super::raw::history(self.client().await, room).await
    }

    /// The names of those in `room`.
    pub async fn names(&self, room: &str) -> Vec<String> {
        super::raw::names(self.client().await, room).await
    }

    /// The room as it is listed.
    pub async fn room(&self, name: &str) -> Room {
        let rooms = self.client().await.list_rooms(ListRoomsRequest {}).await;
        let rooms = rooms.expect("rooms should be listed").into_inner().rooms;
        let found = rooms.into_iter().find(|room| room.name == name);
        found.expect("the room should be listed")
    }

    /// Waits until it has ended by itself: its exit code.
    pub async fn exit_code(mut self) -> Option<i32> {
        let ended = within("the server to end", self.child.wait()).await;
        ended.expect("its end can be awaited").code()
    }

    /// Waits until it has ended by itself: its exit code, and all that it wrote to standard error.
    pub async fn ends(mut self) -> Finished {
        while self.log.find("").await.is_some() {}
        finished(self.child, self.log).await
    }

    /// The first line with `words` that it has logged so far; empty if there is none.
    pub fn said(&self, words: &str) -> &str {
        let mut read = self.log.read.iter();
        read.find(|line| line.contains(words))
            .map_or("", String::as_str)
    }

    /// Waits until it logs a line with `words`.
    pub async fn logs(&mut self, words: &str) {
        let found = self.log.find(words).await;
        found.unwrap_or_else(|| panic!("the server ended before it logged {words:?}"));
    }

    /// Waits until it logs a line with `words`, or tells how it ended before.
    pub async fn logs_or_ends(mut self, words: &str) -> Result<Self, Finished> {
        match self.log.find(words).await {
            Some(_) => Ok(self),
            None => Err(finished(self.child, self.log).await),
        }
    }

    /// The memory that it has in use, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = self.proc("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("there is a VmRSS");
        let kib = line
            .trim()
            .trim_end_matches(" kB")
            .parse::<usize>()
            .expect("it is a number");
        kib * 1024
    }

    fn proc(&self, file: &str) -> String {
        let id = self.child.id().expect("the server should still run");
        fs::read_to_string(format!("/proc/{id}/{file}"))
            .expect("the system should tell about its processes")
    }
}

/// The program and its arguments for any port of 127.0.0.1; where the history lives follows.
const SERVE: [&str; 4] = [
    env!("CARGO_BIN_EXE_chitchat"),
    "serve",
    "--listen",
    "127.0.0.1:0",
];

/// `chitchat serve` on the history in `directory`, with no environment.
pub fn serve(directory: &Path) -> Command {
    serve_by(&[], directory)
}

/// The same, run by the program and arguments `by`.
pub fn serve_by(by: &[&str], directory: &Path) -> Command {
    let words: Vec<_> = by.iter().chain(&SERVE).collect();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg("--data")
        .arg(directory)
        .env_clear();
    command
}

async fn finished(mut child: Child, log: Log) -> Finished {
    let ended = within("the server to end", child.wait()).await;
    let code = ended.expect("its end can be awaited").code();
    Finished {
        code: code.expect("the server should not end by a signal"),
        stdout: String::new(),
        stderr: log.read.join("\n"),
    }
}

impl Log {
    /// Reads to the next line with `words`; none if the server ends before.
    async fn find(&mut self, words: &str) -> Option<String> {
        let found = async {
            loop {
                let line = self.lines.next_line().await;
                let line = line.expect("the log should be text")?;
                self.read.push(line.clone());
                if line.contains(words) {
                    return Some(line);
                }
            }
        };
        within(&format!("{words:?} in the log"), found).await
    }
}
