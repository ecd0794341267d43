//! Participants by the thousand: those who publish, those who only read, and those who stand still.
//!
//! Each connection has one task. It connects and joins as soon as there is a place at the doors, reads from then on, and
//! goes on until all are told to leave. What is to be waited for is counted at a [`Gate`]: that everybody is there and has
//! read the JOINs of the others, and that everybody has read the last message of each publisher.

mod label;
mod listener;
mod member;
mod room;
mod speaker;
mod stalled;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use http::Uri;
use tokio::{
    sync::{Semaphore, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub(super) use self::label::LABEL_CHARS;
use self::{
    member::{Role, Seat},
    room::Room,
};
use super::{
    Load, Outcome, Target,
    connection::{Connection, Stream},
    descriptors,
    meter::Meter,
    progress::{Progress, Stage},
    supervise::{self, Ended, Measured, PATIENCE, Tasks, Usages},
    turns::{Extent, Turns, Window},
};
use crate::{
    client::{self, render, status::because},
    clock::LamportClock,
    wire::v1::{EventType, JoinMsgLeave, ServerMessage, WatchRequest, Welcome},
};

/// Connections that join at the same time; the others wait their turn.
///
/// Unit: connections. Source: enough to keep a server busy, and so few that each is answered long before
/// [`OPEN_TIMEOUT`](super::connection::OPEN_TIMEOUT).
const DOORS: usize = 64;

/// How long a server that has delivered nothing for [`PATIENCE`] may be silent when all leave.
const SILENT_PATIENCE: Duration = Duration::from_secs(1);

/// The id of the first participant; the others follow. So large that it is encoded in as many bytes as one that a server
/// picks.
const FIRST_ID: i32 = 1 << 30;

/// How long a silent connection is left in peace by tonic's client, which is not used here.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Who is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cast {
    /// Rooms that all are dealt to; each has at least one of the publishers.
    pub(super) rooms: usize,
    /// Participants that publish, and read; each with a connection of its own.
    pub(super) publishers: usize,
    /// Those who only read.
    pub(super) subscribers: usize,
    /// They do so by `Watch` instead of taking part; so do those that stand still.
    pub(super) watch: bool,
    /// Those who join and then do not read, until all leave.
    pub(super) stalled: usize,
    /// How many of those who do not publish share a connection.
    pub(super) streams_per_connection: usize,
    /// Messages of a room that may be outstanding: not with all of its readers yet.
    pub(super) window: u64,
    /// Messages that are sent at once when there is room for them.
    pub(super) burst: u64,
    /// Characters of each text, at least [`LABEL_CHARS`].
    pub(super) text_chars: usize,
}

/// Everybody, joined.
pub(super) struct Crowd {
    hall: Arc<Hall>,
    tasks: Tasks,
    cues: Vec<oneshot::Sender<Turns>>,
    progress: Progress,
    /// How long it took until everybody was there.
    pub(super) gathered_in: Duration,
}

/// What all tasks share.
struct Hall {
    url: String,
    server: Uri,
    cast: Cast,
    load: Load,
    rooms: Vec<Room>,
    /// When the run began; what is in texts counts from here.
    epoch: Instant,
    doors: Semaphore,
    /// How long each took to connect and join.
    joins: Meter,
    /// What was delivered.
    meter: Meter,
    /// Everybody is there and has read all JOINs; those who stand still are there.
    settled: Gate,
    /// All who read have read the last message of each publisher in their rooms.
    finished: Gate,
    leave: CancellationToken,
    stalled_ended: AtomicUsize,
}

/// Opens once so many have passed it.
struct Gate {
    awaited: AtomicUsize,
    open: CancellationToken,
}

impl Gate {
    fn of(count: usize) -> Self {
        Self {
            awaited: AtomicUsize::new(count),
            open: CancellationToken::new(),
        }
    }

    /// One more has passed; each does so once.
    fn pass(&self) {
        if self.awaited.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.open.cancel();
        }
    }

    fn awaited(&self) -> usize {
        self.awaited.load(Ordering::Acquire)
    }

    async fn opened(&self) {
        self.open.cancelled().await;
    }
}

impl Cast {
    /// All of them.
    pub(super) fn everybody(&self) -> usize {
        self.publishers + self.subscribers + self.stalled
    }

    fn connections(&self) -> usize {
        let shared = |streams: usize| streams.div_ceil(self.streams_per_connection);
        self.publishers + shared(self.subscribers) + shared(self.stalled)
    }

    /// Of so many, those in the room `index`.
    fn share(&self, of: usize, index: usize) -> usize {
        of / self.rooms + usize::from(index < of % self.rooms)
    }
}

impl Crowd {
    /// Lets everybody connect and join, and returns once they have all read the JOINs of their rooms.
    ///
    /// # Errors
    /// The server cannot be reached, refuses, or stops answering; there are too few file descriptors.
    pub(super) async fn gather(target: &Target, cast: Cast) -> anyhow::Result<Self> {
        descriptors::allow(cast.connections())?;
        let endpoint = client::endpoint(&target.url, KEEPALIVE)?;
        let load = Load::new(cast.rooms, 0, cast.text_chars);
        let (rooms, wakes): (Vec<_>, Vec<_>) = (0..cast.rooms)
            .map(|index| Room::new(&cast, &load, index))
            .unzip();
        let readers = cast.publishers + cast.subscribers;
        let hall = Arc::new(Hall {
            url: target.url.clone(),
            server: endpoint.uri().clone(),
            cast,
            load,
            rooms,
            epoch: Instant::now(),
            doors: Semaphore::new(DOORS),
            joins: Meter::new(),
            meter: Meter::new(),
            settled: Gate::of(cast.everybody()),
            finished: Gate::of(readers),
            leave: CancellationToken::new(),
            stalled_ended: AtomicUsize::new(0),
        });
        let mut crowd = Self {
            hall,
            tasks: Tasks::new(),
            cues: Vec::new(),
            progress: Progress::new("deliveries"),
            gathered_in: Duration::ZERO,
        };
        crowd.admit(wakes);
        crowd.settle().await?;
        crowd.gathered_in = crowd.hall.epoch.elapsed();
        Ok(crowd)
    }

    /// A task for each connection.
    fn admit(&mut self, wakes: Vec<Vec<room::Wakes>>) {
        let cast = self.hall.cast;
        let mut wakes: Vec<_> = wakes.into_iter().map(Vec::into_iter).collect();
        for index in 0..cast.publishers {
            let room = index % cast.rooms;
            let (cue, cued) = oneshot::channel();
            let wakes = wakes[room].next().expect("one for each publisher");
            self.cues.push(cue);
            let role = Role::Publisher { cued, wakes };
            let seat = Seat { index, room, role };
            self.tasks
                .spawn(member::take_part(Arc::clone(&self.hall), vec![seat]));
        }
        let first = cast.publishers;
        for seats in seats(first, cast.subscribers, &cast) {
            self.tasks
                .spawn(member::take_part(Arc::clone(&self.hall), seats));
        }
        let first = first + cast.subscribers;
        for seats in seats(first, cast.stalled, &cast) {
            self.tasks
                .spawn(stalled::stand_still(Arc::clone(&self.hall), seats));
        }
    }

    async fn settle(&mut self) -> anyhow::Result<()> {
        let hall = Arc::clone(&self.hall);
        let everybody = hall.cast.everybody();
        let stage = || {
            let joined = hall.joins.count();
            Stage {
                done: joined as f64 / everybody as f64,
                label: format!("{joined} joined"),
            }
        };
        let opened = hall.settled.opened();
        let (_, ended) = self.watch(opened, PATIENCE, stage).await?;
        if ended != Ended::Done {
            let awaited = hall.settled.awaited();
            bail!(
                "of {everybody}, {} have joined, {awaited} of whom or of the others wait for the JOINs of all, and \
                 nothing has come for {PATIENCE:?}",
                hall.joins.count()
            );
        }
        Ok(())
    }

    /// Nothing happens for so long.
    ///
    /// # Errors
    /// The stream of somebody ends.
    pub(super) async fn hold(&mut self, duration: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        let stage = || Stage {
            done: begin.elapsed().as_secs_f64() / duration.as_secs_f64(),
            label: "holding".into(),
        };
        self.watch(sleep(duration), duration + PATIENCE, stage)
            .await?;
        Ok(())
    }

    /// Lets the publishers begin: `turns` for each of them.
    pub(super) fn begin(&mut self, turns: Vec<Turns>) {
        for (cue, turns) in self.cues.drain(..).zip(turns) {
            // Where the task has failed, whoever watches over it learns that.
            let _ = cue.send(turns);
        }
    }

    /// Measures until all have read the last message of each publisher, or nothing comes any more.
    ///
    /// # Errors
    /// A message is refused, or the stream of somebody ends.
    pub(super) async fn measure(
        &mut self,
        run: (Window, Extent),
        target: &Target,
    ) -> anyhow::Result<Measured> {
        let hall = Arc::clone(&self.hall);
        let finished = hall.finished.opened();
        let progress = &mut self.progress;
        supervise::measure(
            &mut self.tasks,
            finished,
            &hall.meter,
            progress,
            run,
            target,
        )
        .await
    }

    /// Lets all leave, after the measuring: what became of all messages. Those who watch, and those who stand still, are
    /// just gone.
    ///
    /// # Errors
    /// As [`Crowd::measure`]; nothing came any more, and yet nothing is missing; not all streams end.
    pub(super) async fn conclude(
        &mut self,
        measured: Measured,
    ) -> anyhow::Result<(Outcome, Usages)> {
        let mut outcome = measured.outcome;
        if measured.ended != Ended::Silent {
            outcome.add(self.leave(PATIENCE).await?);
            return Ok((outcome, measured.usages));
        }
        // Either messages are lost, which is for the report to say, or the server does nothing any more.
        if let Ok(left) = self.leave(SILENT_PATIENCE).await {
            outcome.add(left);
        }
        if outcome.violations.count() == 0 {
            bail!("the server has delivered nothing for {PATIENCE:?}");
        }
        Ok((outcome, measured.usages))
    }

    async fn leave(&mut self, patience: Duration) -> anyhow::Result<Outcome> {
        self.hall.leave.cancel();
        let all = self.tasks.len();
        let stage = || Stage {
            done: 1.0,
            label: "leaving".into(),
        };
        let (outcome, ended) = self.watch(pending(), patience, stage).await?;
        if ended != Ended::All {
            let left = self.tasks.len();
            bail!(
                "{left} of {all} connections have said LEAVE and were not ended, and nothing has come for {patience:?}"
            );
        }
        Ok(outcome)
    }

    async fn watch(
        &mut self,
        done: impl Future<Output = ()>,
        patience: Duration,
        stage: impl Fn() -> Stage,
    ) -> anyhow::Result<(Outcome, Ended)> {
        let (tasks, progress) = (&mut self.tasks, &mut self.progress);
        supervise::watch(tasks, done, patience, &self.hall.meter, progress, stage).await
    }

    /// What was delivered.
    pub(super) fn meter(&self) -> &Meter {
        &self.hall.meter
    }

    /// How long each took to connect and join.
    pub(super) fn joins(&self) -> &Meter {
        &self.hall.joins
    }

    /// Deliveries that the measured messages should have led to.
    pub(super) fn due(&self) -> u64 {
        self.hall.rooms.iter().map(Room::measured_due).sum()
    }

    /// Of those that stand still, how many the server has ended. Known once all have left.
    pub(super) fn stalled_ended(&self) -> usize {
        self.hall.stalled_ended.load(Ordering::Acquire)
    }
}

/// The places of `count` who do not publish, from `first` on, by connection.
fn seats(first: usize, count: usize, cast: &Cast) -> impl Iterator<Item = Vec<Seat>> {
    let (rooms, shared) = (cast.rooms, cast.streams_per_connection);
    (0..count).step_by(shared).map(move |begin| {
        let end = count.min(begin + shared);
        let seat = |number| Seat {
            index: first + number,
            room: number % rooms,
            role: Role::Subscriber,
        };
        (begin..end).map(seat).collect()
    })
}

impl Hall {
    async fn connect(&self, window_bytes: u32) -> anyhow::Result<Connection> {
        let connected = Connection::open(&self.server, window_bytes).await;
        connected.map_err(|status| anyhow!("{}: {}", self.url, words(&status)))
    }

    /// Takes the place `seat`: the stream, and what it was welcomed with.
    async fn enter(
        &self,
        connection: &mut Connection,
        seat: &Seat,
    ) -> anyhow::Result<(Stream, ServerMessage, Welcome)> {
        let (name, room) = (self.load.name(seat.index), self.load.room(seat.room));
        let entered = if self.watches(&seat.role) {
            let request = WatchRequest {
                room: room.clone(),
                ..WatchRequest::default()
            };
            connection.watch(&request).await
        } else {
            let join = JoinMsgLeave {
                r#type: EventType::Join.into(),
                id: FIRST_ID + i32::try_from(seat.index)?,
                client_name: name.clone(),
                room: room.clone(),
                timestamp: LamportClock::default().tick(),
                bot: true,
                ..JoinMsgLeave::default()
            };
            connection.join(&join).await
        };
        let (stream, mut first) =
            entered.map_err(|status| anyhow!("{name} cannot enter {room}: {}", words(&status)))?;
        match first.welcome.take() {
            Some(welcome) => Ok((stream, first, welcome)),
            None => bail!("{name} entered {room} and was not welcomed"),
        }
    }

    fn watches(&self, role: &Role) -> bool {
        self.cast.watch && matches!(role, Role::Subscriber)
    }
}

fn words(status: &Status) -> String {
    render::clean(&because(status)).into_owned()
}
