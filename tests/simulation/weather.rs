//! What goes wrong: faults of the network and of the machines in it, drawn from the seed.

use std::{cell::RefCell, collections::BTreeMap, fmt, rc::Rc, time::Duration};

use rand::{RngExt as _, rngs::StdRng};
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use crate::network::SERVER;

/// The longest quiet between the beginnings of two faults.
const QUIET: Duration = Duration::from_secs(2);

/// How long an ordinary message travels at most.
pub const NEAR: Duration = Duration::from_millis(40);

/// How long it travels at the worst.
const FAR: Duration = Duration::from_secs(3);

/// How likely each message is to be lost, and those on the way with it, while the network is bad. The link is then broken
/// until another message (as likely as `REPAIR`) finds it whole.
const LOSS: f64 = 0.02;

/// See [`LOSS`].
pub const REPAIR: f64 = 0.3;

/// Stops the server that runs now.
pub type Stop = Rc<RefCell<CancellationToken>>;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// What is on the way between a client and the server is lost, and what follows.
    Partition,
    /// The same, from the client to the server alone.
    Deaf,
    /// The same, from the server to the client alone.
    Mute,
    /// What is on the way waits, and what follows, and arrives when the fault is over.
    Hold,
    /// Some of it is lost.
    Loss,
    /// It takes long, by turns.
    Slow,
    /// A client's machine is gone.
    ClientCrash,
    /// The server is told to stop, and started again later.
    ServerStop,
    /// The server's process is gone, and its connections are closed.
    ServerCrash,
    /// The server's machine is gone, and with it what is on the way: nobody is told.
    ServerPower,
}

impl Fault {
    /// Whether it ends the server.
    pub fn is_of_the_server(self) -> bool {
        matches!(
            self,
            Self::ServerStop | Self::ServerCrash | Self::ServerPower
        )
    }

    /// How long it lasts at most. Shorter than anything notices, longer than a hiccup, longer than keepalive and grace;
    /// a machine that is gone for long sees less of what follows.
    fn longest(self, rng: &mut StdRng) -> Duration {
        let seconds = match self {
            Self::Partition | Self::Deaf | Self::Mute | Self::Hold | Self::Loss | Self::Slow => {
                [0.5, 5.0, 30.0]
            }
            Self::ClientCrash | Self::ServerStop | Self::ServerCrash | Self::ServerPower => {
                [0.2, 2.0, 8.0]
            }
        };
        Duration::from_secs_f64(seconds[rng.random_range(0..seconds.len())])
    }
}

/// Whom it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Link(usize),
    Client(usize),
    Server,
}

/// The faults of one run.
pub struct Weather {
    rng: StdRng,
    clients: Vec<&'static str>,
    /// How many of the clients may crash, the first of them.
    mortal: usize,
    faults: &'static [Fault],
    stop: Stop,
    /// What strikes now, and until when: one at a time in one place.
    striking: BTreeMap<Place, (Fault, Duration)>,
    next: Duration,
    struck: BTreeMap<Fault, usize>,
}

impl Weather {
    /// Some of `faults`, for `clients`, of which the first `mortal` may crash.
    pub fn new(
        rng: StdRng,
        clients: Vec<&'static str>,
        mortal: usize,
        faults: &'static [Fault],
        stop: Stop,
    ) -> Self {
        Self {
            rng,
            clients,
            mortal,
            faults,
            stop,
            striking: BTreeMap::new(),
            next: Duration::ZERO,
            struck: BTreeMap::new(),
        }
    }

    /// What begins and ends now.
    pub fn pass(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let over: Vec<Place> = (self.striking.iter())
            .filter(|(_, (_, until))| *until <= now)
            .map(|(place, _)| *place)
            .collect();
        for place in over {
            self.end(sim, place);
        }
        if now >= self.next {
            self.next = now + QUIET.mul_f64(self.rng.random());
            self.begin(sim);
        }
    }

    /// Everything that strikes is over.
    pub fn clear(&mut self, sim: &mut Sim<'_>) {
        while let Some((place, _)) = self.striking.first_key_value() {
            self.end(sim, *place);
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>) {
        let fault = self.faults[self.rng.random_range(0..self.faults.len())];
        let clients = match fault {
            Fault::ClientCrash => self.mortal,
            _ => self.clients.len(),
        };
        let client = self.rng.random_range(0..clients);
        let place = match fault {
            Fault::ClientCrash => Place::Client(client),
            _ if fault.is_of_the_server() => Place::Server,
            _ => Place::Link(client),
        };
        let longest = fault.longest(&mut self.rng);
        let time = longest.mul_f64(self.rng.random());
        if self.striking.contains_key(&place) {
            return;
        }
        let now = sim.elapsed();
        println!("{now:.3?} {fault:?} at {place:?} for {time:.3?}");
        *self.struck.entry(fault).or_default() += 1;
        self.striking.insert(place, (fault, now + time));
        let client = self.clients[client];
        match fault {
            Fault::Partition => sim.partition(client, SERVER),
            Fault::Deaf => sim.partition_oneway(client, SERVER),
            Fault::Mute => sim.partition_oneway(SERVER, client),
            Fault::Hold => sim.hold(client, SERVER),
            Fault::Loss => sim.set_link_fail_rate(client, SERVER, LOSS),
            Fault::Slow => sim.set_link_max_message_latency(client, SERVER, FAR),
            Fault::ClientCrash => sim.crash(client),
            Fault::ServerStop => self.stop.borrow().cancel(),
            Fault::ServerCrash => sim.crash(SERVER),
            Fault::ServerPower => self.cut_the_power(sim),
        }
    }

    fn cut_the_power(&self, sim: &mut Sim<'_>) {
        let links = self.clients.iter().enumerate();
        let whole = links.filter(|(number, _)| !self.striking.contains_key(&Place::Link(*number)));
        let whole: Vec<_> = whole.map(|(_, client)| *client).collect();
        for client in &whole {
            sim.partition(*client, SERVER);
        }
        sim.crash(SERVER);
        for client in &whole {
            sim.repair(*client, SERVER);
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, place: Place) {
        let Some((fault, _)) = self.striking.remove(&place) else {
            return;
        };
        let now = sim.elapsed();
        println!("{now:.3?} {fault:?} at {place:?} is over");
        let client = match place {
            Place::Link(client) | Place::Client(client) => self.clients[client],
            Place::Server => SERVER,
        };
        match fault {
            Fault::Partition | Fault::Deaf | Fault::Mute => sim.repair(client, SERVER),
            Fault::Hold => sim.release(client, SERVER),
            Fault::Loss => {
                sim.set_link_fail_rate(client, SERVER, 0.0);
                sim.repair(client, SERVER);
            }
            Fault::Slow => sim.set_link_max_message_latency(client, SERVER, NEAR),
            Fault::ClientCrash | Fault::ServerStop | Fault::ServerCrash | Fault::ServerPower => {
                sim.bounce(client)
            }
        }
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults {:?}",
            self.struck.values().sum::<usize>(),
            self.struck
        )
    }
}
