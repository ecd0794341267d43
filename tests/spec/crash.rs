//! Processes that are killed or stand still at random moments, under load: nothing that was acknowledged is lost.
//!
//! The moments come from a seed, which is printed:
//!
//! | variable | |
//! |---|---|
//! | `CHITCHAT_TEST_KILLS=200` | so many kills instead of [`KILLS`]: the long form, some ten minutes |
//! | `CHITCHAT_TEST_SEED=N` | the same moments again (what they meet still depends on the machine) |
//!
//! The judge is [`checker`]; `cargo test --test spec crash:: -- --nocapture` shows what it counted, and how long the
//! server took to serve again.
//!
//! [`checker`]: crate::support::checker

use std::time::Duration;

use chitchat::client::session::Options;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;

use crate::support::{
    chance,
    checker::{self, Rule},
    crashing::Crashing,
    listener::options,
    load::{self, Talker},
    load_process, server,
};

/// Kills of the short form.
const KILLS: u64 = 10;

/// After how long a silent connection is asked, and given up.
const KEEPALIVE: Duration = Duration::from_millis(300);

/// Shorter than the longest pause between a client's attempts: most come back in time, some too late.
const SETTINGS: [(&str, &str); 2] = [
    ("CHITCHAT_SERVER__GRACE", "2s"),
    ("CHITCHAT_LIMITS__RATE", "0"),
];

/// The longest time from when everybody is at it until the server is struck: some hundred transactions.
const STRIKES_WITHIN: Duration = Duration::from_millis(100);

/// The longest time that a process stands still: longer than its connections are believed in.
const STANDS_STILL: Duration = Duration::from_millis(1_500);

/// Where they talk.
const ROOMS: [&str; 2] = ["red", "blue"];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_acknowledged_or_showed_is_there_when_it_is_back_once_and_in_order() {
    let kills = chance::variable("CHITCHAT_TEST_KILLS").unwrap_or(KILLS);
    let seed = chance::seed();
    println!("CHITCHAT_TEST_SEED={seed} CHITCHAT_TEST_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Crashing::on_disk(&SETTINGS);
    server.start().await;
    let mut talkers = talkers(&server).await;
    for room in ROOMS {
        talkers.push(load::post(&server.url(), room, &format!("{room} post")));
    }

    let mut back = Vec::new();
    while back.len() < kills as usize {
        for talker in &mut talkers {
            talker.goes_on(2).await;
        }
        chance::time(&mut random, STRIKES_WITHIN).await;
        if random.random_ratio(1, 5) {
            server.signal(Signal::STOP);
            chance::time(&mut random, STANDS_STILL).await;
            if random.random() {
                server.signal(Signal::CONT);
                continue;
            }
        }
        server.kill().await;
        assert_eq!(server.integrity().await, "ok", "after {} kills", back.len());
        back.push(server.start().await);
    }
    let run = load::finish(talkers, &server.url()).await;

    let proof = checker::prove(&run);
    back.sort_unstable();
    let (median, max) = (back[back.len() / 2], back[back.len() - 1]);
    println!("{kills} kills: {proof}; serving again after {median:?} (median), {max:?} (max)");
    assert!(proof.returned > 0, "nobody noticed");
}

/// The same with a server that forgets: the checker that found nothing above would have noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_in_a_crash_is_caught() {
    let mut server = Crashing::in_memory(&SETTINGS);
    server.start().await;
    let mut talkers = talkers(&server).await;

    for talker in &mut talkers {
        talker.goes_on(5).await;
    }
    server.kill().await;
    server.start().await;
    for talker in &mut talkers {
        talker.goes_on(5).await;
    }
    let run = load::finish(talkers, &server.url()).await;

    let faults = checker::check(&run).expect_err("it should be noticed");
    for rule in [
        Rule::OneEpoch,
        Rule::AcknowledgedIsStored,
        Rule::RecoveredIsTold,
    ] {
        assert!(
            faults.iter().any(|fault| fault.rule == rule),
            "{rule:?}: {faults:#?}"
        );
    }
}

/// `chitchat chat` as a process: killed, or standing still for longer than its connection is believed in.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_or_stands_still_is_announced_once_and_the_others_miss_nothing() {
    let kills = chance::variable("CHITCHAT_TEST_KILLS").unwrap_or(KILLS);
    let seed = chance::seed();
    println!("CHITCHAT_TEST_SEED={seed} CHITCHAT_TEST_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let server = server::start_with(|config| {
        config.server.grace = Duration::from_millis(500);
        config.server.keepalive_interval = KEEPALIVE;
        config.server.keepalive_timeout = KEEPALIVE;
        config.limits.rate = 0;
        config.limits.memory_bytes = 1 << 30;
    })
    .await;
    let url = server.url();
    let mut processes = Vec::new();
    for number in 0..8 {
        let room = ROOMS[number % 2];
        let process = load_process::talk(&url, room, &format!("{room} {number}"));
        processes.push((room, process));
    }

    let mut transcripts = Vec::new();
    while transcripts.len() < kills as usize {
        let number = random.random_range(0..processes.len());
        let (room, mut process) = processes.swap_remove(number);
        process.talker.goes_on(5).await;
        if random.random() {
            process.signal(Signal::STOP);
            chance::time(&mut random, STANDS_STILL).await;
        }
        if random.random() {
            process.signal(Signal::CONT);
            processes.push((room, process));
            continue;
        }
        transcripts.push(process.kill().await);
        let name = format!("{room} after {}", transcripts.len());
        processes.push((room, load_process::talk(&url, room, &name)));
    }
    for (_, process) in &mut processes {
        process.talker.goes_on(1).await;
    }
    for (_, process) in processes {
        transcripts.push(process.talker.finish().await);
    }
    for room in ROOMS {
        load::empty(&url, room).await;
    }
    let run = load::run(transcripts, &url).await;

    let proof = checker::prove(&run);
    println!("{kills} kills: {proof}");
}

/// Four participants in each room.
async fn talkers(server: &Crashing) -> Vec<Talker> {
    let mut talkers = Vec::new();
    for room in ROOMS {
        for number in 1..=4 {
            let options = Options {
                room: room.into(),
                keepalive: KEEPALIVE,
                ..options(&server.url(), &format!("{room} {number}"))
            };
            talkers.push(load::talk(options).await);
        }
    }
    talkers
}
