//! What a long history costs: how fast a server opens it and serves, and how much memory it needs while it is read.
//!
//! ```text
//! cargo bench --bench history            # 2,000,000 events in one room
//! cargo bench --bench history -- 100000  # another number
//! ```
//!
//! Prints the median of several starts and of several kinds of ends of the server before. Keeps nothing: the history is
//! in a temporary directory below `target/`, on the disk whose figures are wanted.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use chitchat::{
    journal::{self, Batch, Entry, Extent},
    room::{Event, Kind},
    wire::{self, Frame, v1::chat_service_client::ChatServiceClient},
};

/// The events of one transaction while the history is made.
const BATCH: u64 = 1_000;

/// Starts of the server; the median counts.
const STARTS: usize = 7;

fn main() -> anyhow::Result<()> {
    let events = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(2_000_000);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let data = directory.path().join("data");
    make_history(&data, events)?;
    let bytes = fs::metadata(data.join("chitchat.db"))?.len();
    println!("{events} events in one room, {} MB on disk", bytes >> 20);

    let opened = median((0..STARTS).map(|_| open(&data)))?;
    println!("journal opened in {opened:.1?} (median of {STARTS})");
    let started = median((0..STARTS).map(|_| Ok(Server::start(&data)?.started)))?;
    println!(
        "process started, history opened and serving in {started:.1?} after SIGKILL (median of {STARTS})"
    );

    let server = Server::start(&data)?;
    println!(
        "resident when it serves: {} MB",
        server.resident_bytes()? >> 20
    );
    let said = Instant::now();
    server.publish("for the first message the ids of the last 100,000 are read")?;
    println!(
        "first message stored in {:.1?}; resident then: {} MB",
        said.elapsed(),
        server.resident_bytes()? >> 20
    );
    let read = Instant::now();
    server.read_all(events)?;
    println!(
        "whole history read by GetHistory in {:.1?}; resident then: {} MB",
        read.elapsed(),
        server.resident_bytes()? >> 20
    );
    Ok(())
}

/// A room as it would be after so many messages.
fn make_history(data: &Path, events: u64) -> anyhow::Result<()> {
    let epoch = "0123456789abcdef0123456789abcdef".to_owned();
    let mut opened = journal::in_directory(data, epoch)?;
    let room: std::sync::Arc<str> = "lobby".into();
    let mut head = 0;
    while head < events {
        let until = (head + BATCH).min(events);
        let entries = (head + 1..=until).map(|sequence| Entry {
            room: room.clone(),
            sequence,
            frame: Frame::of(&wire::event(&message(&room, sequence))),
        });
        opened.writer.store(Batch {
            entries: entries.collect(),
            rooms: vec![Extent {
                room: room.clone(),
                head: until,
                first: 1,
                oldest: 1,
            }],
            clock: i64::try_from(until)?,
            ..Batch::default()
        })?;
        head = until;
    }
    opened.writer.close()?;
    Ok(())
}

fn message(room: &str, sequence: u64) -> Event {
    Event {
        room: room.into(),
        sequence,
        timestamp: i64::try_from(sequence).unwrap_or(i64::MAX),
        kind: Kind::Message,
        sender_id: 7,
        sender_name: "Alex".into(),
        bot: false,
        text: format!("message {sequence} of a long conversation, of about the usual length"),
        message_id: format!("{sequence:032x}"),
        sent_timestamp: Some(1),
        accepted_at: SystemTime::now(),
        traceparent: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01".into(),
    }
}

fn open(data: &Path) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let opened = journal::in_directory(data, String::new())?;
    let took = began.elapsed();
    drop(opened);
    Ok(took)
}

/// A `chitchat serve` of its own; dropping it kills it.
struct Server {
    process: Child,
    address: String,
    started: Duration,
}

impl Server {
    fn start(data: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_chitchat"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env("CHITCHAT_LIMITS__HISTORY_EVENTS", "0")
            .stderr(Stdio::piped())
            .spawn()?;
        let log = process.stderr.take().context("standard error is a pipe")?;
        let mut lines = BufReader::new(log).lines();
        let address = loop {
            let line = lines.next().context("the server ended")??;
            if let Some((_, rest)) = line.split_once("running on ") {
                let address = rest.split_whitespace().next().unwrap_or_default();
                break address.to_owned();
            }
        };
        let started = began.elapsed();
        // Somebody must read what it logs.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            process,
            address,
            started,
        })
    }

    fn publish(&self, text: &str) -> anyhow::Result<()> {
        let message = wire::v1::JoinMsgLeave {
            client_name: "Bench".into(),
            msg: text.into(),
            message_id: "once".into(),
            r#type: wire::v1::EventType::Message.into(),
            ..wire::v1::JoinMsgLeave::default()
        };
        self.call(async |mut client| client.send_message(message).await)?;
        Ok(())
    }

    fn read_all(&self, events: u64) -> anyhow::Result<()> {
        let mut last = 0;
        while last < events {
            let request = wire::v1::GetHistoryRequest {
                after_sequence: last,
                limit: 1_000,
                ..wire::v1::GetHistoryRequest::default()
            };
            let page = self.call(async |mut client| client.get_history(request.clone()).await)?;
            let newest = page.events.last().map_or(0, |event| event.sequence);
            ensure!(newest > last, "nothing after {last}");
            last = newest;
        }
        Ok(())
    }

    fn call<T>(
        &self,
        call: impl AsyncFnOnce(
            ChatServiceClient<tonic::transport::Channel>,
        ) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let client = ChatServiceClient::connect(format!("http://{}", self.address)).await?;
            Ok(call(client).await?.into_inner())
        })
    }

    fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.context("there is a VmRSS")?.trim();
        Ok(kib.trim_end_matches(" kB").parse::<u64>()? * 1_024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Of what was measured, and the first fault.
fn median(measured: impl Iterator<Item = anyhow::Result<Duration>>) -> anyhow::Result<Duration> {
    let mut all = measured.collect::<anyhow::Result<Vec<_>>>()?;
    all.sort_unstable();
    Ok(all[all.len() / 2])
}
