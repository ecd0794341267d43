//! The load client: one thread for all connections, the same for every protocol.
//!
//! One publisher, any number of subscribers. Either closed loop: at most `window` messages are on their way, counted as
//! those sent less the deliveries divided by the subscribers, and the next go out in bursts of half a window as soon as
//! there is room. Or at a fixed rate, whether or not the server keeps up; then a message's latency counts from when it was
//! to be sent.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio_util::sync::CancellationToken;

use crate::{
    poller::{Poller, Ready},
    sockets,
    tally::Tally,
    wire::{Opening, Role, Wire},
};

/// How many connections are opened before those are awaited: fewer than any server's backlog.
const BATCH: usize = 50;

/// How long nothing may come where something must.
const PATIENCE: Duration = Duration::from_secs(10);

/// What must not have come for so long, once all have joined, does not come any more. (That others joined, say.)
const SETTLED: Duration = Duration::from_millis(200);

/// How long that may take: everybody is told of everybody who joins.
const SETTLING_MAX: Duration = Duration::from_secs(60);

/// How long to wait at most, so that a wish to stop is seen.
const LOOK_UP: Duration = Duration::from_millis(50);

/// What one read takes at most. Unit: bytes.
const READ_BYTES: usize = 256 << 10;

/// At a fixed rate: how far behind a server may fall before the run fails. Unit: seconds of messages.
const BEHIND_SECONDS: u64 = 10;

/// The token of the timer; connections count from 0.
const TIMER: usize = usize::MAX;

/// What load to put on a server.
#[derive(Debug, Clone)]
pub struct Plan {
    pub subscribers: usize,
    /// How many of them share a connection, where the protocol can do that.
    pub streams_per_connection: usize,
    /// Further subscribers that come first and do not keep up.
    pub slow: usize,
    /// What those are.
    pub slow_role: Role,
    pub pace: Pace,
}

/// When messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At most so many are on their way.
    Window(u64),
    /// So many a second.
    Rate(u32),
}

/// What came of a run.
pub struct Outcome {
    /// Deliveries too few. One that is repeated makes up for one that is lost; then both are misordered.
    pub lost: u64,
    pub bad: u64,
    pub misordered: u64,
    /// Of what was delivered in the measured time. Unit: nanoseconds.
    pub latencies: Histogram<u32>,
    /// Of the slow ones, those to whom the server could send nothing more at the end.
    pub held_back: usize,
    /// Of the slow ones, those that the server was seen to cut off.
    pub cut_off: usize,
}

/// Connections to a server that have all joined.
pub struct Client<W> {
    poller: Poller,
    ready: Vec<Ready>,
    timer: OwnedFd,
    connections: Vec<Connection<W>>,
    publisher: usize,
    /// Deliveries that each message is to have.
    receivers: u64,
    tally: Tally,
    pace: Pace,
    /// At a fixed rate: when the next message is to be sent.
    next: Instant,
    /// What the client's clock counts from.
    origin: Instant,
    buffer: Vec<u8>,
    stop: CancellationToken,
}

struct Connection<W> {
    socket: TcpStream,
    wire: W,
    role: Role,
    /// The number of the message that comes next, of each stream.
    next: Vec<u32>,
    /// What was read and is not complete.
    unread: Vec<u8>,
    /// What was not written yet.
    unsent: Vec<u8>,
    /// The socket took no more.
    full: bool,
    /// Whether it is still there; only a slow one may go.
    open: bool,
}

impl Plan {
    /// Everybody keeps up, each on a connection of its own.
    pub fn new(subscribers: u32, pace: Pace) -> Self {
        Self {
            subscribers: subscribers as usize,
            streams_per_connection: 1,
            slow: 0,
            slow_role: Role::Stalled,
            pace,
        }
    }
}

impl<W: Wire> Client<W> {
    /// Connects and waits until all have joined and what that caused has been delivered.
    ///
    /// # Errors
    /// The server cannot be reached, refuses, or lets somebody wait.
    pub fn join(server: SocketAddr, plan: &Plan, stop: CancellationToken) -> anyhow::Result<Self> {
        let poller = Poller::new()?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        poller.add(&timer, TIMER)?;
        let now = Instant::now();
        let mut client = Self {
            poller,
            ready: Vec::new(),
            timer,
            connections: Vec::new(),
            publisher: 0,
            receivers: plan.subscribers as u64 + u64::from(W::PUBLISHER_HEARS),
            tally: Tally::new(),
            pace: plan.pace,
            next: now,
            origin: now,
            buffer: Vec::new(),
            stop,
        };
        let openings = openings(plan);
        for batch in openings.chunks(BATCH) {
            client.join_batch(server, batch)?;
        }
        client.publisher = client.connections.len() - 1;
        client.settle()?;
        Ok(client)
    }

    fn join_batch(&mut self, server: SocketAddr, batch: &[Opening]) -> anyhow::Result<()> {
        let first = self.connections.len();
        for opening in batch {
            let token = self.connections.len();
            let connection = Connection::open(server, opening)
                .with_context(|| format!("connection {token} to {server}"))?;
            self.poller.add(&connection.socket, token)?;
            self.connections.push(connection);
            self.flush(token)?;
        }
        let begun = Instant::now();
        while !(self.connections[first..].iter()).all(|connection| connection.wire.is_ready()) {
            self.turn(LOOK_UP)?;
            let waiting = self.connections[first..].iter();
            ensure!(
                begun.elapsed() < PATIENCE,
                "{} of {} connections have not joined after {PATIENCE:?}",
                waiting
                    .filter(|connection| !connection.wire.is_ready())
                    .count(),
                batch.len(),
            );
        }
        for connection in &self.connections[first..] {
            if connection.role == Role::Frozen {
                self.poller.remove(&connection.socket)?;
            }
        }
        Ok(())
    }

    /// Reads until nothing more comes.
    fn settle(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut last = begun;
        while last.elapsed() < SETTLED {
            if self.turn(LOOK_UP)? {
                last = Instant::now();
            }
            ensure!(
                begun.elapsed() < SETTLING_MAX,
                "{SETTLING_MAX:?} after all have joined, the server still sends"
            );
        }
        self.next = Instant::now();
        Ok(())
    }

    /// Deliveries up to now.
    pub fn delivered(&self) -> u64 {
        self.tally.delivered
    }

    /// From here on, latencies count.
    pub fn measure(&mut self) {
        self.tally.measuring = true;
    }

    /// Publishes and reads for so long.
    ///
    /// # Errors
    /// The server ends a connection, speaks otherwise than it should, or delivers nothing any more.
    pub fn run(&mut self, duration: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + duration;
        let (mut seen, mut seen_at) = (self.tally.delivered, Instant::now());
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            self.publish_due(now)?;
            self.turn(LOOK_UP.min(until - now))?;
            if self.tally.delivered > seen {
                (seen, seen_at) = (self.tally.delivered, now);
            }
            ensure!(
                self.missing() == 0 || now.saturating_duration_since(seen_at) < PATIENCE,
                "nothing was delivered for {PATIENCE:?}, and {} deliveries are missing",
                self.missing(),
            );
        }
    }

    /// Reads until all is delivered, or nothing more comes.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn finish(mut self) -> anyhow::Result<Outcome> {
        self.tally.measuring = false;
        let held_back = self.held_back()?;
        let mut last = Instant::now();
        while self.missing() > 0 && last.elapsed() < PATIENCE / 2 {
            let before = self.tally.delivered;
            self.turn(LOOK_UP)?;
            if self.tally.delivered > before {
                last = Instant::now();
            }
        }
        Ok(Outcome {
            lost: self.missing(),
            bad: self.tally.bad,
            misordered: self.tally.misordered,
            latencies: self.tally.latencies,
            held_back,
            cut_off: (self.connections.iter())
                .filter(|connection| !connection.open)
                .count(),
        })
    }

    /// Connections to which the server can send nothing more: by the protocol, or because the system holds bytes of it
    /// that nobody takes.
    fn held_back(&self) -> anyhow::Result<usize> {
        let mut held_back = 0;
        for connection in &self.connections {
            let frozen = connection.role == Role::Frozen;
            let held = connection.wire.is_held_back()
                || frozen && sockets::bytes_on_their_way_to(&connection.socket)? > 0;
            held_back += usize::from(held);
        }
        Ok(held_back)
    }

    /// Deliveries that are still to come.
    fn missing(&self) -> u64 {
        (self.tally.sent() * self.receivers).saturating_sub(self.tally.delivered)
    }

    fn publish_due(&mut self, now: Instant) -> anyhow::Result<()> {
        let before = self.tally.sent();
        match self.pace {
            Pace::Window(window) => {
                let burst = (window / 2).max(1);
                let arrived = self.tally.delivered / self.receivers;
                // One burst, then a look at what has come: two at once would be one of twice the size.
                if self.tally.sent().saturating_sub(arrived) + burst <= window {
                    for _ in 0..burst {
                        self.publish(now);
                    }
                }
            }
            Pace::Rate(rate) => {
                while self.next <= now {
                    self.publish(self.next);
                    self.next += Duration::from_secs(1) / rate;
                }
                let behind = self.missing() / self.receivers;
                ensure!(
                    behind < BEHIND_SECONDS * u64::from(rate),
                    "the server does not keep up with {rate} messages a second"
                );
                self.wake_at(self.next)?;
            }
        }
        if self.tally.sent() > before {
            self.flush(self.publisher)?;
        }
        Ok(())
    }

    /// One message, which is sent, or was to be sent, at this time.
    fn publish(&mut self, at: Instant) {
        let at_ns = nanoseconds(at.saturating_duration_since(self.origin));
        let text = self.tally.send(at_ns);
        let publisher = &mut self.connections[self.publisher];
        publisher.wire.publish(&text, &mut publisher.unsent);
    }

    /// Ends a wait at that time, exactly.
    fn wake_at(&self, at: Instant) -> anyhow::Result<()> {
        // Nothing at all would stop the timer.
        let wait = at
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs())?,
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Waits, at most for `limit`, and does what can be done then; whether anything was read.
    fn turn(&mut self, limit: Duration) -> anyhow::Result<bool> {
        if self.stop.is_cancelled() {
            bail!("interrupted");
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(Some(limit), &mut ready)?;
        let mut read = false;
        for event in &ready {
            if event.token == TIMER {
                // It has done its work by waking us; read, it is quiet until it is set again.
                let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                continue;
            }
            read |= event.readable;
            self.serve(*event).with_context(|| {
                let role = self.connections[event.token].role;
                format!("connection {} ({role:?})", event.token)
            })?;
        }
        self.ready = ready;
        Ok(read)
    }

    /// Reads and writes a connection; a slow one may be at its end.
    fn serve(&mut self, event: Ready) -> anyhow::Result<()> {
        let done = match event.readable {
            true => self.read(event.token),
            false => Ok(()),
        };
        let done = done.and_then(|()| match event.writable {
            true => self.flush(event.token),
            false => Ok(()),
        });
        let connection = &mut self.connections[event.token];
        match done {
            Err(_) if !connection.role.keeps_up() && connection.wire.is_ready() => {
                connection.open = false;
                Ok(self.poller.remove(&connection.socket)?)
            }
            done => done,
        }
    }

    fn read(&mut self, token: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[token];
        let kept = connection.unread.len();
        if self.buffer.len() < kept + READ_BYTES {
            self.buffer.resize(kept + READ_BYTES, 0);
        }
        self.buffer[..kept].copy_from_slice(&connection.unread);
        let end = match connection
            .socket
            .read(&mut self.buffer[kept..kept + READ_BYTES])
        {
            Ok(0) => bail!("the server closed the connection"),
            Ok(read) => kept + read,
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => return Err(error).context("cannot read"),
        };
        let now_ns = nanoseconds(self.origin.elapsed());
        let tally = &mut self.tally;
        let deliver = |stream: usize, text: &[u8]| {
            if connection.role.keeps_up() {
                tally.deliver(&mut connection.next[stream], text, now_ns);
            }
        };
        let used = (connection.wire).read(&self.buffer[..end], &mut connection.unsent, deliver)?;
        connection.unread.clear();
        connection.unread.extend_from_slice(&self.buffer[used..end]);
        self.flush(token)
    }

    /// Writes what the socket takes; the rest when it takes more.
    fn flush(&mut self, token: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[token];
        let mut written = 0;
        let mut full = false;
        while written < connection.unsent.len() && !full {
            match connection.socket.write(&connection.unsent[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if is_passing(&error) => full = true,
                Err(error) => return Err(error).context("cannot write"),
            }
        }
        connection.unsent.drain(..written);
        if full != connection.full {
            self.poller
                .watch_writable(&connection.socket, token, full)?;
            connection.full = full;
        }
        Ok(())
    }
}

impl<W: Wire> Connection<W> {
    fn open(server: SocketAddr, opening: &Opening) -> anyhow::Result<Self> {
        let socket = match opening.role {
            Role::Frozen => sockets::connect_with_little_room(server)?,
            _ => TcpStream::connect(server)?,
        };
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut unsent = Vec::new();
        Ok(Self {
            wire: W::open(opening, &mut unsent),
            socket,
            role: opening.role,
            next: vec![0; opening.streams],
            unread: Vec::new(),
            unsent,
            full: false,
            open: true,
        })
    }
}

/// All connections in the order in which they are opened: the publisher comes last.
fn openings(plan: &Plan) -> Vec<Opening> {
    let mut openings = Vec::new();
    let mut first = 0;
    let mut add = |role, streams| {
        openings.push(Opening {
            role,
            streams,
            first,
        });
        first += streams;
    };
    for _ in 0..plan.slow {
        add(plan.slow_role, 1);
    }
    let mut left = plan.subscribers;
    while left > 0 {
        let streams = left.min(plan.streams_per_connection);
        add(Role::Subscriber, streams);
        left -= streams;
    }
    add(Role::Publisher, 1);
    openings
}

/// Nothing is wrong: there is nothing to do at present.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
