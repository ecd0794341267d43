//! What Chit Chat promises on a network that fails and on machines that crash, in a simulation of both.
//!
//! The server and its clients are the real ones; the network between them, time and chance are not. A run follows from its
//! seed alone, down to the last byte, so that what was found once can be looked at as often as need be:
//!
//! ```text
//! cargo test --test simulation                                   some seeds of each rule
//! CHITCHAT_TEST_SEED=17 cargo test --test simulation             that one, with its story
//! CHITCHAT_TEST_SEED=1-500 cargo test --test simulation          many
//! ```
//!
//! A program without the usual harness: each run is a process of its own, because chance and clocks are replaced for a
//! whole process, and because tokio numbers its runtimes in one.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "as in the other tests")]

#[allow(dead_code, reason = "the other tests use the rest of it")]
#[path = "../spec/support/checker.rs"]
mod checker;
mod forgotten;
mod network;
mod people;
mod run;
mod weather;

use std::{
    env,
    ops::RangeInclusive,
    panic,
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use mad_turmoil::time::SimClocksGuard;
use rand::{SeedableRng as _, rngs::StdRng};

use run::Scenario;
use weather::Fault::{
    ClientCrash, Deaf, Hold, Loss, Mute, Partition, ServerCrash, ServerPower, ServerStop, Slow,
};

/// The rules.
const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "whatever_the_network_does_everybody_reads_every_event_once_and_in_order",
        faults: &[Partition, Deaf, Mute, Hold, Loss, Slow, ClientCrash],
        durable: false,
    },
    Scenario {
        name: "a_server_that_crashes_loses_nothing_that_anybody_was_told",
        faults: &[
            Partition,
            Deaf,
            Mute,
            Hold,
            Loss,
            Slow,
            ClientCrash,
            ServerStop,
            ServerCrash,
            ServerPower,
        ],
        durable: true,
    },
    Scenario {
        name: "a_server_that_comes_back_without_its_history_begins_a_new_one_and_says_so",
        faults: &[
            Partition,
            Hold,
            Slow,
            ClientCrash,
            ServerStop,
            ServerCrash,
            ServerPower,
        ],
        durable: false,
    },
];

/// Which seeds to run, `17` or `1-500`.
const SEED: &str = "CHITCHAT_TEST_SEED";

/// The seeds that are run when nobody says which.
const SEEDS: RangeInclusive<u64> = 1..=2;

/// How long one run may take, in real time; some seconds are usual.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [run, name, seed] = &arguments[..]
        && run == "--run"
    {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
        run_here(scenario.expect("it is one of them"), seed.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    // As with the usual harness: words choose the rules whose names contain one of them.
    let words: Vec<_> = (arguments.iter())
        .filter(|word| !word.starts_with('-'))
        .collect();
    let is_wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(*word));
    let mut good = true;
    for scenario in &SCENARIOS {
        if is_wanted(scenario.name) {
            println!("{}", scenario.name);
            good &= every_seed(scenario);
        }
    }
    if is_wanted(ONE_SEED_ONE_RUN) {
        println!("{ONE_SEED_ONE_RUN}");
        good &= one_seed_is_one_run();
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

const ONE_SEED_ONE_RUN: &str = "one_seed_is_one_run_down_to_every_id_and_session";

/// Runs every seed of `scenario`, several at a time; whether all were good.
fn every_seed(scenario: &'static Scenario) -> bool {
    let mut good = true;
    let several = thread::available_parallelism().map_or(1, usize::from);
    let is_alone = seeds().count() == 1;
    let mut seeds = seeds().peekable();
    while seeds.peek().is_some() {
        let running: Vec<_> = (seeds.by_ref().take(several))
            .map(|seed| (seed, thread::spawn(move || run_apart(scenario, seed))))
            .collect();
        for (seed, running) in running {
            match running.join().expect("it does not panic") {
                Ok(story) if is_alone => println!("  seed {seed}:\n{story}"),
                Ok(story) => println!("  seed {seed}: {}", story.lines().last().unwrap_or("")),
                Err(story) => {
                    good = false;
                    println!("  seed {seed}: FAILED, and will again with {SEED}={seed}\n{story}");
                }
            }
        }
    }
    good
}

/// Two runs of one seed, of the scenario in which most can happen.
fn one_seed_is_one_run() -> bool {
    let seed = *seeds().start();
    let run = || thread::spawn(move || run_apart(&SCENARIOS[1], seed));
    let (one, other) = (run(), run());
    let (one, other) = (one.join().unwrap(), other.join().unwrap());
    let same = one == other;
    if !same {
        println!("  seed {seed}: FAILED: {one:#?} and {other:#?}");
    }
    same
}

fn seeds() -> RangeInclusive<u64> {
    let Ok(given) = env::var(SEED) else {
        return SEEDS;
    };
    let (first, last) = given.split_once('-').unwrap_or((&given, &given));
    let seed = |text: &str| text.parse().expect("a seed is a number");
    seed(first)..=seed(last)
}

/// What a run says, the last line being what came of it; and why it failed, if it did.
fn run_apart(scenario: &Scenario, seed: u64) -> Result<String, String> {
    let run = Command::new(env::current_exe().expect("this program has a path"))
        .args(["--run", scenario.name, &seed.to_string()])
        .output()
        .expect("this program can be started");
    let story = String::from_utf8_lossy(&run.stdout);
    if run.status.success() {
        Ok(story.into_owned())
    } else {
        let errors = String::from_utf8_lossy(&run.stderr);
        Err(format!("{story}{errors}{}", run.status))
    }
}

/// Something has panicked: the run itself, or a task that nobody has awaited.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The run itself, on a thread that has drawn nothing by chance yet.
fn run_here(scenario: &'static Scenario, seed: u64) {
    // Made while names differ by chance: one that another process had taken would cost a draw. In memory if there is such
    // a place: what crashes here is simulated, and no disk need be waited for.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let directory = directory.expect("a directory is made");
    thread::spawn(|| {
        thread::sleep(PATIENCE);
        eprintln!("it takes longer than {PATIENCE:?}");
        std::process::exit(2);
    });
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panicking| {
        PANICKED.store(true, Ordering::Relaxed);
        print(panicking);
    }));
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let path = directory.path().to_owned();
    let running = thread::spawn(move || {
        let _clocks = SimClocksGuard::init();
        scenario.run(seed, &path);
    });
    let ended = running.join();
    drop(directory);
    if ended.is_err() || PANICKED.load(Ordering::Relaxed) {
        // The panic has said why.
        std::process::exit(1);
    }
}
