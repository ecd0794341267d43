//! A server in a process of its own, where the system's limits are its own too.

use std::{fs, net::SocketAddr, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};
use tonic::transport::Channel;

use super::within;

/// A `chitchat serve` that runs; dropping it kills it.
pub struct ServerProcess {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts `chitchat serve` in memory, on any port, with at most so many open files.
    pub async fn start(open_files: usize) -> Self {
        let script = format!(
            "ulimit -n {open_files}; exec '{}' serve --listen 127.0.0.1:0 --data memory",
            env!("CARGO_BIN_EXE_chitchat")
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chitchat should start");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let mut log = BufReader::new(stderr).lines();
        let line = logged(&mut log, "running on ").await;
        let (_, rest) = line
            .split_once("running on ")
            .expect("the line has these words");
        let address = rest.split_whitespace().next().unwrap_or_default();
        let address = address
            .parse()
            .expect("the server should say where it listens");
        Self {
            child,
            log,
            address,
        }
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

    /// Waits until it has ended by itself: its exit code.
    pub async fn exit_code(mut self) -> Option<i32> {
        let ended = within("the server to end", self.child.wait()).await;
        ended.expect("its end can be awaited").code()
    }

    /// Waits until it logs a line with `words`.
    pub async fn logs(&mut self, words: &str) {
        logged(&mut self.log, words).await;
    }

    /// The processor time that it has taken so far, in the system's ticks: 100 are a second of one core.
    pub fn processor_ticks(&self) -> u64 {
        let stat = self.proc("stat");
        // After the name in parentheses: state is field 3, utime 14, stime 15.
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks
            .map(|ticks| ticks.parse::<u64>().expect("ticks are a number"))
            .sum()
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

async fn logged(log: &mut Lines<BufReader<ChildStderr>>, words: &str) -> String {
    let found = async {
        loop {
            let line = log.next_line().await.expect("the log should be text");
            let line =
                line.unwrap_or_else(|| panic!("the server ended before it logged {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    };
    within(&format!("{words:?} in the log"), found).await
}
