//! A network that fails at random: whatever it does, everybody reads what is stored, each event once.
//!
//! Eight participants and two posters, each behind a network of its own. The faults come from a seed, which is printed:
//!
//! | variable | |
//! |---|---|
//! | `CHITCHAT_TEST_FAULTS=500` | so many faults instead of [`FAULTS`]: the long form, some minutes |
//! | `CHITCHAT_TEST_SEED=N` | the same faults again (what they meet still depends on the machine) |
//!
//! The judge is [`checker`]; `cargo test --test spec faults:: -- --nocapture` shows what it counted.
//!
//! [`checker`]: crate::support::checker

use std::time::Duration;

use chitchat::client::session::Options;
use rand::{
    RngExt as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use tokio::task::JoinSet;

use crate::support::{
    chance, checker,
    listener::options,
    load::{self, Talker},
    proxy::Proxy,
    server,
};

/// Faults of the short form: each kind four times.
const FAULTS: usize = 4 * KINDS.len();

/// After how long a silent connection is asked, and given up.
const KEEPALIVE: Duration = Duration::from_millis(200);

/// Shorter than some faults and than some pauses between attempts: clients come back in time, and too late.
const GRACE: Duration = Duration::from_secs(1);

/// Where they talk.
const ROOMS: [&str; 2] = ["red", "blue"];

/// What a network does.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Connections are closed, and new ones can be made at once.
    Cut,
    /// The same by a reset.
    Reset,
    /// Connections are closed, and no new ones can be made for a while.
    Away,
    /// Nothing passes for a while; then everything does, late.
    Freeze,
    /// The same in one direction.
    HoldRequests,
    HoldAnswers,
    /// The same, but what was held never arrives.
    LoseRequests,
    LoseAnswers,
    /// One direction ends.
    EndRequests,
    EndAnswers,
    /// Everything takes its time.
    Delay,
    /// Everything goes through a narrow line, which is cut in the middle of something.
    Narrow,
}

const KINDS: [Kind; 12] = [
    Kind::Cut,
    Kind::Reset,
    Kind::Away,
    Kind::Freeze,
    Kind::HoldRequests,
    Kind::HoldAnswers,
    Kind::LoseRequests,
    Kind::LoseAnswers,
    Kind::EndRequests,
    Kind::EndAnswers,
    Kind::Delay,
    Kind::Narrow,
];

/// One fault.
#[derive(Debug, Clone, Copy)]
struct Fault {
    kind: Kind,
    lasts: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_network_does_everybody_reads_what_is_stored_each_event_once() {
    let faults = chance::variable("CHITCHAT_TEST_FAULTS").unwrap_or(FAULTS as u64);
    let seed = chance::seed();
    println!("CHITCHAT_TEST_SEED={seed} CHITCHAT_TEST_FAULTS={faults}");
    let server = server::start_with(|config| {
        config.server.grace = GRACE;
        config.server.keepalive_interval = KEEPALIVE;
        config.server.keepalive_timeout = KEEPALIVE;
        config.limits.rate = 0;
        config.limits.memory_bytes = 1 << 30;
    })
    .await;

    let mut clients = Vec::new();
    for room in ROOMS {
        for number in 1..=4 {
            let network = Proxy::start(server.address()).await;
            let options = Options {
                room: room.into(),
                keepalive: KEEPALIVE,
                ..options(&network.url(), &format!("{room} {number}"))
            };
            clients.push((network, load::talk(options).await));
        }
        let network = Proxy::start(server.address()).await;
        let poster = load::post(&network.url(), room, &format!("{room} post"));
        clients.push((network, poster));
    }
    let mut plans = plans(seed, faults as usize, clients.len());
    let mut failing = JoinSet::new();
    for (network, talker) in clients {
        let plan = plans.pop().expect("one for each client");
        failing.spawn(live_through(network, talker, plan));
    }
    let (networks, talkers): (Vec<_>, Vec<_>) = failing.join_all().await.into_iter().unzip();
    let run = load::finish(talkers, &server.url()).await;
    drop(networks);

    let proof = checker::prove(&run);
    println!("{faults} faults: {proof}");
    assert!(proof.returned > 0, "the network did not fail");
}

/// Lets the network of a client fail again and again, each time when the client talks.
async fn live_through(network: Proxy, mut talker: Talker, plan: Vec<Fault>) -> (Proxy, Talker) {
    for fault in plan {
        talker.goes_on(5).await;
        fail(&network, fault).await;
    }
    talker.goes_on(1).await;
    (network, talker)
}

/// One fault, from its beginning to its end.
async fn fail(network: &Proxy, fault: Fault) {
    match fault.kind {
        Kind::Cut => network.cut(),
        Kind::Reset => network.reset(),
        Kind::Away => network.cut_for_long(),
        Kind::Freeze => network.freeze(),
        Kind::HoldRequests | Kind::LoseRequests => network.hold_requests(),
        Kind::HoldAnswers | Kind::LoseAnswers => network.hold_answers(),
        Kind::EndRequests => network.end_requests(),
        Kind::EndAnswers => network.end_answers(),
        Kind::Delay => network.slow_down(usize::MAX, fault.lasts / 8),
        Kind::Narrow => network.slow_down(37, Duration::from_millis(1)),
    }
    chance::pass(fault.lasts).await;
    if matches!(
        fault.kind,
        Kind::LoseRequests | Kind::LoseAnswers | Kind::Narrow
    ) {
        network.cut();
    }
    network.mend();
}

/// What happens to each of so many clients: all kinds come equally often, in a random order.
fn plans(seed: u64, faults: usize, clients: usize) -> Vec<Vec<Fault>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kinds: Vec<Kind> = KINDS.iter().copied().cycle().take(faults).collect();
    kinds.shuffle(&mut random);
    let mut plans = vec![Vec::new(); clients];
    for (number, kind) in kinds.into_iter().enumerate() {
        let lasts = lasting(&mut random);
        plans[number % clients].push(Fault { kind, lasts });
    }
    plans
}

/// Mostly too short to be noticed but by what it loses, sometimes longer than the keepalive, or than the grace.
fn lasting(random: &mut StdRng) -> Duration {
    let (from, to) = *[(1, 100), (1, 100), (400, 700), (1_300, 1_600)]
        .choose(random)
        .expect("it is not empty");
    Duration::from_millis(random.random_range(from..to))
}
