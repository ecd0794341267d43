//! The server: gRPC in front of the order, the journal and the feeds.

mod absent;
mod chat;
mod connection;
mod drain;
mod gather;
mod history;
mod inbound;
mod incoming;
mod outbox;
mod rate;
mod service;
mod stall;
mod status;
mod subscriber;
mod until_drain;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    task::JoinError,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

pub use incoming::Listener;

use self::{
    absent::Absent,
    chat::Streams,
    drain::Drain,
    incoming::Incoming,
    outbox::Outbox,
    rate::Allowances,
    service::{CHAT_SERVICE, Services},
    stall::Lookout,
    subscriber::{Sources, Subscriber},
    until_drain::UntilDrain,
};
use crate::{
    config::{self, Config, Data, Limits},
    feed::Feeds,
    journal::{self, Journal, Opened},
    order::{Order, Sequencer},
    room::{Digest, Service},
    telemetry::{Tracer, log::ServerLog},
    wire::DESCRIPTORS,
};

/// How long the order may take to carry out what it has taken and to close the history, once all streams have ended.
///
/// A batch and a checkpoint of a few megabytes take milliseconds. When it is over: the process ends all the same, and the
/// write-ahead log stays beside the database, for the next start to bring in.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A server that holds its port, and serves once it runs.
pub struct Server<L = TcpListener> {
    listener: L,
    config: config::Server,
    shared: Shared,
    log: ServerLog,
    sequencer: Sequencer,
    /// Who was there when the history ended.
    absent: Absent,
    /// The rooms of the history as it was opened.
    rooms: Vec<Arc<str>>,
}

/// Why a server does not start, or ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// `server.listen`
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The history cannot be opened, read or written.
    #[error(transparent)]
    History(#[from] journal::Fault),
}

/// What all calls share.
struct Shared {
    epoch: String,
    limits: Limits,
    grace: Duration,
    order: Order,
    feeds: Feeds,
    journal: Journal,
    tracer: Tracer,
    streams: Streams,
    lookout: Lookout,
    /// What posters outside a room may still send, by address.
    outsiders: Allowances<Option<IpAddr>>,
    /// What participants may still send by unary calls, by the session that was shown: nobody but its holder uses it up.
    unary_senders: Allowances<Digest>,
    /// Owns the tasks of all streams.
    tasks: TaskTracker,
    draining: Drain,
}

impl Shared {
    fn subscriber(&self, outbox: &Arc<Outbox>) -> Subscriber {
        let sources = Sources {
            journal: self.journal.clone(),
            order: self.order.clone(),
        };
        self.lookout.add(outbox);
        Subscriber::new(sources, Arc::clone(outbox), self.draining.waiting())
    }

    fn pick_if_none(&self, id: i32) -> i32 {
        match id {
            0 => rand::random_range(1..=i32::MAX),
            wanted => wanted,
        }
    }

    fn new_session(&self) -> String {
        random_hex()
    }
}

/// 128 random bits, as 32 hexadecimal digits: not to be guessed, and not met twice.
fn random_hex() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Server {
    /// Takes the port (`server.listen`; port 0 for any) and opens the history.
    ///
    /// # Errors
    ///
    /// [`ServeError::Listen`], [`ServeError::History`]
    pub async fn bind(config: &Config, tracer: Tracer) -> Result<Self, ServeError> {
        let address = config.server.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServeError::Listen { address, source })?;
        Self::on(listener, config, tracer)
    }
}

impl<L: Listener> Server<L> {
    /// Opens the history, for those who come to `listener`; `server.listen` is not looked at.
    ///
    /// # Errors
    ///
    /// [`ServeError::History`]
    pub fn on(listener: L, config: &Config, tracer: Tracer) -> Result<Self, ServeError> {
        let Opened {
            writer,
            journal,
            snapshot,
        } = open_history(config)?;
        let limits = config.limits.clone();
        let epoch = snapshot.epoch.clone();
        let rooms: Vec<_> = (snapshot.rooms.iter())
            .map(|room| Arc::from(room.name.as_str()))
            .collect();
        let heads = (snapshot.rooms.iter()).map(|room| (room.name.as_str(), room.head));
        let feeds = Feeds::restore(heads, limits.rooms, limits.feed_bytes);
        let absent = Absent::of(&snapshot);
        let service = Service::restore(snapshot, limits.clone());
        let log = ServerLog::new(&config.telemetry);
        let lookout = Lookout::new(limits.stall);
        let (order, sequencer) = Order::local(service, writer, feeds.clone(), log);
        let shared = Shared {
            epoch,
            limits,
            grace: config.server.grace,
            order,
            feeds,
            journal,
            tracer,
            streams: Streams::default(),
            lookout,
            outsiders: Allowances::default(),
            unary_senders: Allowances::default(),
            tasks: TaskTracker::new(),
            draining: Drain::default(),
        };
        Ok(Self {
            listener,
            config: config.server.clone(),
            shared,
            log,
            sequencer,
            absent,
            rooms,
        })
    }

    /// Waits for the disk in the tasks that need it, and not on threads beside them: for a simulation, which is to go the
    /// same way each time, and whose time stands still meanwhile. Elsewhere it would hold up everybody.
    #[must_use]
    pub fn without_threads(mut self) -> Self {
        self.sequencer.stay_in_task();
        self.shared.journal.stay_in_task();
        self
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then drains: clients are told, streams end with UNAVAILABLE, everything that was accepted is
    /// carried out. Returns within `server.drain_timeout`, when what has not ended is cut, and three seconds for
    /// the history to be closed.
    ///
    /// # Errors
    ///
    /// [`ServeError::History`] as soon as an event cannot be stored, or what is stored turns
    /// out to be damaged.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let Self {
            listener,
            config,
            shared,
            log,
            sequencer,
            absent,
            rooms,
        } = self;
        // Owned: whoever drops this future ends them.
        let mut sequencer = AbortOnDropHandle::new(tokio::spawn(sequencer.run()));
        let shared = Arc::new(shared);
        let (health, health_service) = tonic_health::server::health_reporter();
        set_health(&health, ServingStatus::NotServing).await;
        let address = listener.local_addr();
        let drained = Drain::default();
        let serving = connection::serve(
            Incoming::new(listener, &config),
            Services {
                shared: Arc::clone(&shared),
                others: reflection(&shared.draining)
                    .add_service(health_service)
                    .prepare(),
            },
            config.clone(),
            drained.clone(),
        );
        let mut serving = AbortOnDropHandle::new(tokio::spawn(serving));
        set_health(&health, ServingStatus::Serving).await;
        if let Ok(address) = address {
            log.running(address);
        }
        shared.tasks.spawn(absent.expect_back(Arc::clone(&shared)));
        shared.tasks.spawn(stall::look_out(Arc::clone(&shared)));

        let (mut served, mut stored) = (None, None);
        let mut damage = None;
        tokio::select! {
            () = stop.cancelled() => {}
            ended = &mut serving => served = Some(ended),
            ended = &mut sequencer => stored = Some(ended),
            fault = history::keep(&shared, rooms) => damage = Some(fault),
        }
        tracing::info!("Chit Chat service stopping: telling everybody");
        let deadline = Instant::now() + config.drain_timeout;
        shared.drain(&health, deadline).await;
        drained.begin();
        if served.is_none() {
            served = timeout_at(deadline, &mut serving).await.ok();
        }
        if served.is_none() {
            serving.abort();
        }
        if stored.is_none() {
            // What was accepted is carried out, and the history closed, whoever still holds a connection.
            let closing = async {
                shared.order.stop().await;
                (&mut sequencer).await
            };
            stored = timeout(CLOSE_TIMEOUT, closing).await.ok();
        }
        if stored.is_none() {
            tracing::warn!(
                "the history could not be closed in time: what is stored is safe, but in several files"
            );
        }
        log.stopped(match served {
            Some(_) => "everybody was told",
            None => "connections that did not close in time were cut",
        });
        if let Some(damage) = damage {
            return Err(damage.into());
        }
        unless_panicked(stored).unwrap_or(Ok(()))?;
        unless_panicked(served);
        Ok(())
    }
}

/// What a task ended with, if it has; a panic of it goes on here.
fn unless_panicked<T>(ended: Option<Result<T, JoinError>>) -> Option<T> {
    match ended? {
        Ok(ended) => Some(ended),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn open_history(config: &Config) -> Result<Opened, journal::Fault> {
    // The identity of a history that begins.
    let epoch = random_hex();
    match &config.server.data {
        Data::Memory => Ok(journal::in_memory(epoch, config.limits.memory_bytes)),
        Data::Directory(directory) => journal::in_directory(directory, epoch),
    }
}

/// Reflection: as grpcurl asks for it from 1.8.8 on, and as older ones and Postman do.
fn reflection(draining: &Drain) -> Routes {
    Routes::new(UntilDrain::new(
        descriptors().build_v1().expect(OWN_DESCRIPTORS),
        draining.clone(),
    ))
    .add_service(UntilDrain::new(
        descriptors().build_v1alpha().expect(OWN_DESCRIPTORS),
        draining.clone(),
    ))
}

impl Shared {
    /// Ends all streams: new probes read NOT_SERVING, everybody hears DRAINING, health watches and reflection end.
    async fn drain(&self, health: &HealthReporter, deadline: Instant) {
        set_health(health, ServingStatus::NotServing).await;
        self.draining.begin();
        self.tasks.close();
        if timeout_at(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("streams that are still busy are cut");
        }
        // An open health watch would keep its connection, and so the server, for ever.
        for name in HEALTH_NAMES {
            health.clone().clear_service_status(name).await;
        }
    }
}

/// The services whose health is told: the server as a whole, and the chat.
const HEALTH_NAMES: [&str; 2] = ["", CHAT_SERVICE];

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

const OWN_DESCRIPTORS: &str = "the descriptors are the build's own";

fn descriptors() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that grpcurl can show the details of a status.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
