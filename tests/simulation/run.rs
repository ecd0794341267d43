//! One run: the weather passes over the server and those who take part, then the sky clears, all leave, and what they
//! wrote down is held against the history.

use std::{cell::RefCell, collections::BTreeSet, path::Path, rc::Rc, time::Duration};

use chitchat::{
    config::{Config, Data},
    server::Server,
    telemetry::Tracer,
    wire::v1::{GetHistoryRequest, ListParticipantsRequest, WatchRequest},
};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use crate::{
    checker::{self, Run, Stored},
    forgotten,
    network::{self, SERVER},
    people::{self, Book},
    weather::{self, Fault, Stop, Weather},
};

/// How long faults strike, in simulated time.
const STORM: Duration = Duration::from_secs(60);

/// How long the talk goes on when nothing strikes any more: enough for everybody to notice that its connection is dead, to
/// come back and to have everything answered, so that who leaves then leaves in good order.
const LULL: Duration = Duration::from_secs(30);

/// How long it may take after that until everybody has said the rest and left, and every departure is announced.
const CALM: Duration = Duration::from_secs(120);

/// The step of simulated time.
const TICK: Duration = Duration::from_millis(10);

/// How quickly a message may arrive.
const NEAREST: Duration = Duration::from_millis(1);

/// Segments that a connection may have on its way.
const SEGMENTS: usize = 4096;

const PEOPLE: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];

const POSTER: &str = "poster";

/// Two rooms, for the one clock is the service's.
const ROOMS: [&str; 2] = ["lobby", "attic"];

/// What a run is about.
pub struct Scenario {
    /// The rule it shows.
    pub name: &'static str,
    /// What strikes.
    pub faults: &'static [Fault],
    /// Whether the history survives the server.
    pub durable: bool,
}

impl Scenario {
    /// Whether the server comes back without its history.
    fn forgets(&self) -> bool {
        !self.durable && self.faults.iter().any(|fault| fault.is_of_the_server())
    }

    /// Runs it over `directory`, and proves what it claims; the last line that it prints says what was seen.
    pub fn run(&self, seed: u64, directory: &Path) {
        let mut sim = simulation(seed);
        let book = Book::default();
        let (closing, closed) = watch::channel(false);
        let stop = self.start_server(&mut sim, directory);
        self.invite(&mut sim, &book, &closed);
        let rng = StdRng::seed_from_u64(seed);
        let clients = self.guests().collect();
        let mut weather = Weather::new(rng, clients, PEOPLE.len(), self.faults, stop);

        while sim.elapsed() < STORM {
            weather.pass(&mut sim);
            step(&mut sim);
        }
        weather.clear(&mut sim);
        while sim.elapsed() < STORM + LULL {
            step(&mut sim);
        }
        closing.send_replace(true);
        let deadline = sim.elapsed() + CALM;
        while self.guests().any(|name| sim.is_host_running(name)) {
            assert!(sim.elapsed() < deadline, "somebody does not come to an end");
            step(&mut sim);
        }

        let run = Run {
            transcripts: book.transcripts(),
            rooms: audit(&mut sim),
        };
        let story = crc32fast::hash(format!("{run:?}").as_bytes());
        let proof = if self.forgets() {
            checker::prove(&forgotten::last_history(run, &book.texts()))
        } else {
            checker::prove(&run)
        };
        println!(
            "{} s, {weather}; {proof}; story {story:08x}",
            sim.elapsed().as_secs()
        );
    }

    fn start_server(&self, sim: &mut Sim<'_>, directory: &Path) -> Stop {
        let mut config = Config::default();
        config.server.data = if self.durable {
            Data::Directory(directory.into())
        } else {
            Data::Memory
        };
        let stop = Stop::default();
        let to_stop = Rc::clone(&stop);
        sim.host(SERVER, move || {
            let this = CancellationToken::new();
            to_stop.replace(this.clone());
            serve(config.clone(), this)
        });
        stop
    }

    fn invite(&self, sim: &mut Sim<'_>, book: &Book, closed: &watch::Receiver<bool>) {
        for (number, name) in self.guests().enumerate() {
            let (book, closed) = (book.clone(), closed.clone());
            let room = ROOMS[number % ROOMS.len()];
            sim.host(name, move || {
                let (book, closed) = (book.clone(), closed.clone());
                async move {
                    if name == POSTER {
                        people::poster(name, room, book, closed).await
                    } else {
                        people::person(name, room, book, closed).await
                    }
                }
            });
        }
    }

    /// Who takes part. One who posts from outside knows nothing of epochs, and would say the same again in a new one.
    fn guests(&self) -> impl Iterator<Item = &'static str> {
        let poster = (!self.forgets()).then_some(POSTER);
        PEOPLE.into_iter().chain(poster)
    }
}

fn simulation<'a>(seed: u64) -> Sim<'a> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(Duration::MAX)
        .min_message_latency(NEAREST)
        .max_message_latency(weather::NEAR)
        .repair_rate(weather::REPAIR)
        .tcp_capacity(SEGMENTS)
        .build()
}

fn step(sim: &mut Sim<'_>) {
    if let Err(error) = sim.step() {
        panic!("after {:?}: {error}", sim.elapsed());
    }
}

async fn serve(config: Config, stop: CancellationToken) -> turmoil::Result {
    let port = network::Port::bind().await?;
    let server = Server::on(port, &config, Tracer::default())?.without_threads();
    server.run(stop).await?;
    Ok(())
}

/// Waits until every departure is announced, and reads what is stored.
fn audit(sim: &mut Sim<'_>) -> Vec<Stored> {
    let rooms = Rc::new(RefCell::new(Vec::new()));
    let read = Rc::clone(&rooms);
    sim.client("auditor", async move {
        for room in ROOMS {
            timeout(CALM, departed(room))
                .await
                .map_err(|_| format!("somebody who is gone is still in {room} after {CALM:?}"))??;
            let stored = history(room).await?;
            read.borrow_mut().push(stored);
        }
        Ok(())
    });
    if let Err(error) = sim.run() {
        panic!("the history cannot be read: {error}");
    }
    rooms.take()
}

/// Waits until nobody is in `room`.
async fn departed(room: &str) -> turmoil::Result {
    let watch = WatchRequest {
        room: room.into(),
        ..WatchRequest::default()
    };
    // Watched before they are counted, so that no departure falls between the two.
    let mut events = network::service().watch(watch).await?.into_inner();
    loop {
        let request = ListParticipantsRequest { room: room.into() };
        let list = network::service().list_participants(request).await?;
        if list.into_inner().participants.is_empty() {
            return Ok(());
        }
        events.message().await?;
    }
}

async fn history(room: &str) -> turmoil::Result<Stored> {
    let mut service = network::service();
    let mut stored = Stored {
        room: room.into(),
        epochs: BTreeSet::new(),
        events: Vec::new(),
    };
    loop {
        let request = GetHistoryRequest {
            room: room.into(),
            after_sequence: stored.events.last().map_or(0, |last| last.sequence),
            limit: 1_000,
            ..GetHistoryRequest::default()
        };
        let page = service.get_history(request).await?.into_inner();
        stored.epochs.insert(page.epoch);
        stored.events.extend(page.events);
        if !page.more {
            return Ok(stored);
        }
    }
}
