//! Publishing to NATS JetStream and waiting for its acknowledgements, by the plain client protocol.
//!
//! One thread for all connections. Each keeps so many messages in flight; the reply subject says which one an
//! acknowledgement is for. In the end each message must have been acknowledged once, and the sequences of each JetStream
//! stream must be 1, 2, 3 ... without a gap.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    poller::Poller,
    publish::Published,
    server::{Server, Usage},
    tally::{TEXT_BYTES, latencies, text},
    wire::nats::Part,
};

/// What the names of JetStream's streams begin with; a number follows.
const STREAM: &str = "bench";

/// How long the server may take for the first answer, and for what is in flight at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait at most, so that a wish to stop is seen.
const LOOK_UP: Duration = Duration::from_millis(50);

/// What one read takes at most. Unit: bytes.
const READ_BYTES: usize = 64 << 10;

/// What to publish.
pub struct Plan {
    pub publishers: usize,
    /// JetStream's streams, to which the publishers are dealt.
    pub streams: usize,
    pub in_flight: usize,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What the server answers to a message.
#[derive(Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    seq: u64,
    error: Option<Value>,
}

/// Publishes to new streams.
///
/// # Errors
/// The server refuses, or does not acknowledge each message once.
pub fn publish(
    server: &Server,
    plan: &Plan,
    stop: &CancellationToken,
) -> anyhow::Result<Published> {
    for stream in 0..plan.streams {
        create_stream(server.address, stream)?;
    }
    let mut load = Load::connect(server.address, plan, stop)?;
    let from = Instant::now() + plan.warm_up;
    let until = from + plan.measured;
    load.run_until(from)?;
    let before = server.usage()?;
    load.measure();
    load.run_until(until)?;
    let after = server.usage()?;
    let (acknowledged, latencies) = load.finish()?;
    let events = acknowledged.max(1) as f64;
    let cpu = |usage: Usage| usage.cpu.as_secs_f64();
    let latency = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Published {
        acknowledged,
        acknowledged_per_second: acknowledged as f64 / plan.measured.as_secs_f64(),
        p50_us: latency(0.5),
        p99_us: latency(0.99),
        cpu_us_per_event: (cpu(after) - cpu(before)) * 1e6 / events,
    })
}

/// One stream, one replica, in a file, without limits. JetStream begins some time after the server listens.
fn create_stream(server: SocketAddr, stream: usize) -> anyhow::Result<()> {
    let config = json!({
        "name": format!("{STREAM}{stream}"),
        "subjects": [format!("{STREAM}{stream}.*")],
        "retention": "limits",
        "storage": "file",
        "num_replicas": 1,
    });
    let config = config.to_string();
    let begun = Instant::now();
    loop {
        let answer = request(
            server,
            &format!("$JS.API.STREAM.CREATE.{STREAM}{stream}"),
            &config,
        );
        match answer {
            Ok(answer) if answer.get("error").is_none() => return Ok(()),
            Ok(answer) => bail!("JetStream makes no stream: {}", answer["error"]),
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(error.context("JetStream does not answer"));
            }
            Err(_) => {}
        }
    }
}

/// One question and its answer, on a connection of its own.
fn request(server: SocketAddr, subject: &str, payload: &str) -> anyhow::Result<Value> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let length = payload.len();
    let question = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {length}\r\n{payload}\r\n"
    );
    socket.write_all(question.as_bytes())?;
    let mut input = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some((part, taken)) = Part::read(&input)? {
            if let Part::Message { payload, .. } = part {
                return Ok(serde_json::from_slice(payload)?);
            }
            input.drain(..taken);
        }
        match socket.read(&mut buffer)? {
            0 => bail!("nats-server closed the connection"),
            read => input.extend_from_slice(&buffer[..read]),
        }
    }
}

struct Load {
    poller: Poller,
    publishers: Vec<Publisher>,
    buffer: Vec<u8>,
    stop: CancellationToken,
    log: Log,
}

/// What was acknowledged.
struct Log {
    /// The sequences of each stream, in the order in which they came.
    sequences: Vec<Vec<u64>>,
    acknowledged: u64,
    /// How many of them came before anything was measured.
    unmeasured: u64,
    /// Unit: nanoseconds.
    latencies: Histogram<u32>,
}

struct Publisher {
    socket: TcpStream,
    number: usize,
    /// JetStream's, by number.
    stream: usize,
    /// The subscription for acknowledgements is in place.
    ready: bool,
    /// When the message in each place was sent; none where none is in flight.
    in_flight: Vec<Option<Instant>>,
    sent: u32,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    full: bool,
}

impl Load {
    fn connect(server: SocketAddr, plan: &Plan, stop: &CancellationToken) -> anyhow::Result<Self> {
        let poller = Poller::new()?;
        let mut publishers = Vec::new();
        for number in 0..plan.publishers {
            let publisher = Publisher::connect(server, plan, number)?;
            poller.add(&publisher.socket, number)?;
            publishers.push(publisher);
        }
        let mut load = Self {
            poller,
            publishers,
            buffer: vec![0; READ_BYTES],
            stop: stop.clone(),
            log: Log {
                sequences: vec![Vec::new(); plan.streams],
                acknowledged: 0,
                unmeasured: 0,
                latencies: latencies(),
            },
        };
        load.turn_while("a connection", |load| {
            !load.publishers.iter().all(|publisher| publisher.ready)
        })?;
        for publisher in &mut load.publishers {
            publisher.fill();
            publisher.flush(&load.poller)?;
        }
        Ok(load)
    }

    fn run_until(&mut self, until: Instant) -> anyhow::Result<()> {
        let mut known = (self.log.acknowledged, Instant::now());
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            self.turn(LOOK_UP.min(until - now), true)?;
            if self.log.acknowledged > known.0 {
                known = (self.log.acknowledged, now);
            }
            ensure!(
                now.saturating_duration_since(known.1) < PATIENCE,
                "nothing was acknowledged for {PATIENCE:?}"
            );
        }
    }

    /// What came up to now does not count.
    fn measure(&mut self) {
        self.log.unmeasured = self.log.acknowledged;
        self.log.latencies.reset();
    }

    /// How many were acknowledged in the measured time, and after how long; what is still in flight is awaited.
    fn finish(mut self) -> anyhow::Result<(u64, Histogram<u32>)> {
        let acknowledged = self.log.acknowledged - self.log.unmeasured;
        let latencies = self.log.latencies.clone();
        self.turn_while("an acknowledgement", |load| {
            load.publishers.iter().any(Publisher::waits)
        })?;
        for sequences in &mut self.log.sequences {
            sequences.sort_unstable();
            let dense = sequences
                .iter()
                .zip(1..)
                .all(|(sequence, place)| *sequence == place);
            ensure!(
                dense,
                "the sequences that were acknowledged are not 1, 2, 3 ... each once"
            );
        }
        Ok((acknowledged, latencies))
    }

    fn turn_while(&mut self, what: &str, waits: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while waits(self) {
            ensure!(
                begun.elapsed() < PATIENCE,
                "still waiting for {what} after {PATIENCE:?}"
            );
            self.turn(LOOK_UP, false)?;
        }
        Ok(())
    }

    /// Reads what has come; where there is room in flight, publishes the next.
    fn turn(&mut self, limit: Duration, publish: bool) -> anyhow::Result<()> {
        if self.stop.is_cancelled() {
            bail!("interrupted");
        }
        let mut ready = Vec::new();
        self.poller.wait(Some(limit), &mut ready)?;
        for event in ready {
            let publisher = &mut self.publishers[event.token];
            if event.readable {
                publisher.read(&mut self.buffer, &mut self.log)?;
                if publish {
                    publisher.fill();
                }
            }
            publisher.flush(&self.poller)?;
        }
        Ok(())
    }
}

impl Publisher {
    fn connect(server: SocketAddr, plan: &Plan, number: usize) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        let mut publisher = Self {
            socket,
            number,
            stream: number % plan.streams,
            ready: false,
            in_flight: vec![None; plan.in_flight],
            sent: 0,
            unread: Vec::new(),
            unsent: Vec::new(),
            full: false,
        };
        let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB answer.{number}.* 1\r\nPING\r\n");
        publisher.socket.write_all(hello.as_bytes())?;
        publisher.socket.set_nonblocking(true)?;
        Ok(publisher)
    }

    fn waits(&self) -> bool {
        self.in_flight.iter().any(Option::is_some)
    }

    /// Publishes in every place that is free.
    fn fill(&mut self) {
        let Self { number, stream, .. } = *self;
        for (place, sent_at) in self.in_flight.iter_mut().enumerate() {
            if sent_at.is_some() {
                continue;
            }
            let head =
                format!("PUB {STREAM}{stream}.{number} answer.{number}.{place} {TEXT_BYTES}\r\n");
            self.unsent.extend_from_slice(head.as_bytes());
            self.unsent.extend_from_slice(&text(self.sent));
            self.unsent.extend_from_slice(b"\r\n");
            self.sent = self.sent.wrapping_add(1);
            *sent_at = Some(Instant::now());
        }
    }

    fn read(&mut self, buffer: &mut [u8], log: &mut Log) -> anyhow::Result<()> {
        match self.socket.read(buffer) {
            Ok(0) => bail!("nats-server closed a connection"),
            Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("cannot read"),
        }
        let mut used = 0;
        while let Some((part, taken)) = Part::read(&self.unread[used..])? {
            used += taken;
            match part {
                Part::Message { subject, payload } => {
                    let place = place(subject, self.in_flight.len())?;
                    let sent_at = self.in_flight[place].take();
                    log.take(
                        self.stream,
                        payload,
                        sent_at.context("a message was acknowledged twice")?,
                    )?;
                }
                Part::Ping => self.unsent.extend_from_slice(b"PONG\r\n"),
                Part::Pong => self.ready = true,
                Part::Info => {}
            }
        }
        self.unread.drain(..used);
        Ok(())
    }

    /// Writes what the socket takes; the rest when it takes more.
    fn flush(&mut self, poller: &Poller) -> anyhow::Result<()> {
        let mut written = 0;
        let mut full = false;
        while written < self.unsent.len() && !full {
            match self.socket.write(&self.unsent[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => full = true,
                Err(error) => return Err(error).context("cannot write"),
            }
        }
        self.unsent.drain(..written);
        if full != self.full {
            poller.watch_writable(&self.socket, self.number, full)?;
            self.full = full;
        }
        Ok(())
    }
}

impl Log {
    fn take(&mut self, stream: usize, payload: &[u8], sent_at: Instant) -> anyhow::Result<()> {
        let answer: Acknowledgement = serde_json::from_slice(payload)
            .with_context(|| format!("an answer {:?}", String::from_utf8_lossy(payload)))?;
        if let Some(error) = answer.error {
            bail!("JetStream refuses a message: {error}");
        }
        self.sequences[stream].push(answer.seq);
        self.acknowledged += 1;
        let latency = u64::try_from(sent_at.elapsed().as_nanos())?;
        self.latencies.saturating_record(latency);
        Ok(())
    }
}

/// Which message an answer is for: the last word of its subject.
fn place(subject: &[u8], places: usize) -> anyhow::Result<usize> {
    let word = subject.rsplit(|byte| *byte == b'.').next();
    let word = word.and_then(|word| std::str::from_utf8(word).ok());
    let place = word.and_then(|word| word.parse().ok());
    place
        .filter(|place| *place < places)
        .with_context(|| format!("an answer on {:?}", String::from_utf8_lossy(subject)))
}
