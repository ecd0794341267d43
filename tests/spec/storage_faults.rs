//! A disk that fails under load: the server ends by itself and says why, and nothing that it had acknowledged is lost.
//!
//! The failures are made by `strace`, which the tests need; so they are run by name (`.ci/run` does):
//! `cargo test --test spec -- --ignored storage_faults::`.

use std::time::Duration;

use chitchat::client::session::Options;

use crate::support::{
    checker,
    crashing::Crashing,
    listener::options,
    load::{self, Talker},
};

/// Exit code 6: storage failed.
const STORAGE_FAILED: Option<i32> = Some(6);

/// An fsync that failed is never tried again: what it was to write may be gone, and the next one would succeed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn an_fsync_that_fails_once_ends_the_server_and_what_was_acknowledged_is_there_when_it_is_back()
 {
    for _ in 0..3 {
        let call = rand::random_range(20..200);
        lives_through("fsync,fdatasync", &format!("error=EIO:when={call}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn a_disk_that_is_full_ends_the_server_and_what_was_acknowledged_is_there_when_there_is_room()
{
    for _ in 0..3 {
        let call = rand::random_range(100..1_000);
        lives_through("pwrite64", &format!("error=ENOSPC:when={call}+")).await;
    }
}

/// A server under load, started again so that these `calls` of the system `fail` some time, and then without.
async fn lives_through(calls: &str, fail: &str) {
    println!("{calls}: {fail}");
    let mut server = Crashing::on_disk(&[("CHITCHAT_LIMITS__RATE", "0")]);
    server.start().await;
    let mut talkers = talkers(&server).await;
    for talker in &mut talkers {
        talker.goes_on(1).await;
    }
    server.kill().await;

    let inject = format!("inject={calls}:{fail}");
    // Followed from beside (-D): the server is our own child, and its end is seen by us.
    let strace = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-o",
        "/dev/null",
        "-e",
        &inject,
    ];
    server.start_under(&strace).await;
    let (code, log) = server.ended().await;

    assert_eq!(code, STORAGE_FAILED, "{log}");
    let last = log.lines().last().unwrap_or_default();
    let names_the_storage = last.starts_with("chitchat: cannot ") && last.contains(&server.data());
    assert!(names_the_storage, "{log}");
    assert_eq!(server.integrity().await, "ok");

    server.start().await;
    for talker in &mut talkers {
        talker.goes_on(5).await;
    }
    let proof = checker::prove(&load::finish(talkers, &server.url()).await);
    println!("{last}\n{proof}");
    assert!(proof.returned > 0, "nobody noticed");
}

/// Four participants in each of two rooms.
async fn talkers(server: &Crashing) -> Vec<Talker> {
    let mut talkers = Vec::new();
    for room in ["red", "blue"] {
        for number in 1..=4 {
            let options = Options {
                room: room.into(),
                keepalive: Duration::from_secs(1),
                ..options(&server.url(), &format!("{room} {number}"))
            };
            talkers.push(load::talk(options).await);
        }
    }
    talkers
}
