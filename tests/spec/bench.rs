//! The load generator's figures and its verdict. No test says how fast anything is.

use std::fs;

use chitchat::wire::v1::{ListRoomsRequest, Room};
use serde_json::Value;

use crate::support::{
    faulty::{self, Fault},
    program::{Finished, chitchat},
    server::{self, TestServer},
    tty, within,
};

/// A server without a limit on how fast one may send.
async fn unlimited() -> TestServer {
    server::start_with(|config| config.limits.rate = 0).await
}

/// `chitchat bench MODE --server URL --warm-up 0s` with these arguments more.
async fn bench(url: &str, mode: &str, more: &str) -> Finished {
    let arguments = ["bench", mode, "--server", url, "--warm-up", "0s"].into_iter();
    chitchat(arguments.chain(more.split_whitespace()))
        .run()
        .await
}

/// The figures of a run that went well.
async fn figures(url: &str, mode: &str, more: &str) -> Value {
    let ran = bench(url, mode, &format!("{more} --json")).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    serde_json::from_str(&ran.stdout).expect("one object")
}

async fn rooms(server: &TestServer) -> Vec<Room> {
    let listed = server.client().await.list_rooms(ListRoomsRequest {}).await;
    listed.expect("rooms are listed").into_inner().rooms
}

#[tokio::test]
async fn every_message_that_counts_is_stored_and_each_stream_has_a_room_of_its_own() {
    let server = unlimited().await;

    let figures = figures(
        &server.url(),
        "publish",
        "--streams 4 --in-flight 4 --messages 202",
    )
    .await;

    assert_eq!(figures["messages"], 202, "{figures}");
    assert_eq!(figures["acknowledged"], 202, "{figures}");
    for violation in ["lost", "misordered", "repeated", "sequence", "logical_time"] {
        assert_eq!(figures["violations"][violation], 0, "{figures}");
    }
    let heads: Vec<u64> = rooms(&server).await.iter().map(|room| room.head).collect();
    let with_join_and_leave = [53, 53, 52, 52];
    assert_eq!(heads, with_join_and_leave);
}

#[tokio::test]
async fn streams_may_share_rooms_and_connections() {
    let server = unlimited().await;

    let arguments = "--streams 7 --rooms 2 --streams-per-connection 3 --in-flight 8 --messages 700";
    let figures = figures(&server.url(), "publish", arguments).await;

    assert_eq!(figures["acknowledged"], 700, "{figures}");
    assert_eq!(figures["rooms"], 2, "{figures}");
    let rooms = rooms(&server).await;
    let stored: u64 = rooms.iter().map(|room| room.head).sum();
    assert_eq!((rooms.len(), stored), (2, 700 + 2 * 7));
    assert!(rooms.iter().all(|room| room.participants == 0), "{rooms:?}");
}

#[tokio::test]
async fn posting_by_unary_calls_is_counted_alike() {
    let server = unlimited().await;

    let arguments = "--unary --streams 2 --in-flight 3 --messages 100";
    let figures = figures(&server.url(), "publish", arguments).await;

    assert_eq!(figures["messages"], 100, "{figures}");
    assert_eq!(figures["acknowledged"], 100, "{figures}");
    let rooms = rooms(&server).await;
    let stored: u64 = rooms.iter().map(|room| room.head).sum();
    assert_eq!((rooms.len(), stored), (2, 100));
}

#[tokio::test]
async fn a_duration_ends_the_sending_and_what_is_in_flight_then_still_counts() {
    let server = unlimited().await;

    let arguments = "--streams 2 --duration 100ms --warm-up 10ms";
    let arguments = arguments.split_whitespace();
    let url = server.url();
    let whole = ["bench", "publish", "--json", "--server", &url].into_iter();
    let ran = chitchat(whole.chain(arguments)).run().await;

    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let figures: Value = serde_json::from_str(&ran.stdout).expect("one object");
    assert!(figures["messages"].as_u64() > Some(0), "{figures}");
    assert_eq!(figures["acknowledged"], figures["messages"], "{figures}");
    assert_eq!(figures["violations"]["lost"], 0, "{figures}");
}

#[tokio::test]
async fn messages_on_a_schedule_are_all_sent() {
    let server = unlimited().await;
    for how in ["", "--unary"] {
        let arguments = format!("--streams 3 --in-flight 100 --messages 60 --rate 1000 {how}");
        let figures = figures(&server.url(), "publish", &arguments).await;
        assert_eq!(figures["acknowledged"], 60, "{figures}");
        assert_eq!(figures["rate"], 1000, "{figures}");
    }
}

#[tokio::test]
async fn what_was_scheduled_and_had_no_turn_is_told() {
    let server = faulty::start(Fault::Loses).await;

    // One in flight: once it is lost, no other has a turn, and one of ten is lost.
    let arguments = "--streams 1 --in-flight 1 --duration 500ms --rate 100 --json";
    let ran = bench(&server.url(), "publish", arguments).await;

    let figures: Value = serde_json::from_str(&ran.stdout).expect("one object");
    assert_eq!(figures["messages"], 10, "{figures}");
    assert_eq!(figures["acknowledged"], 9, "{figures}");
    assert_eq!(figures["missed"], 40, "{figures}");
}

#[tokio::test]
async fn an_echo_is_measured_beside_one_fsync_which_leaves_nothing_behind() {
    let server = unlimited().await;
    let directory = tempfile::tempdir().unwrap();

    let arguments = format!("--messages 20 --fsync-dir {}", directory.path().display());
    let figures = figures(&server.url(), "echo", &arguments).await;

    assert_eq!(figures["acknowledged"], 20, "{figures}");
    assert_eq!(figures["in_flight"], 1, "{figures}");
    for measured in ["before_us", "after_us"] {
        let median = figures["fsync"][measured].as_f64();
        assert!(median > Some(0.0), "{figures}");
    }
    let latency = |quantile: &str| figures["latency_us"][quantile].as_f64().unwrap();
    assert!(latency("p50") <= latency("p99"), "{figures}");
    assert!(latency("p99") <= latency("p99_9"), "{figures}");
    assert!(latency("p99_9") <= latency("max"), "{figures}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_named_process_is_measured() {
    let server = unlimited().await;

    let arguments = format!("--messages 20 --server-pid {}", std::process::id());
    let figures = figures(&server.url(), "echo", &arguments).await;

    let rss = figures["server_process"]["rss_bytes"].as_u64();
    assert!(rss > Some(1 << 20), "{figures}");
    let rss = figures["client_process"]["rss_bytes"].as_u64();
    assert!(rss > Some(1 << 20), "{figures}");
}

#[tokio::test]
async fn people_get_a_table() {
    let server = unlimited().await;

    let ran = bench(&server.url(), "publish", "--streams 2 --messages 1000").await;

    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let heading = "2 streams in 2 rooms, 16 in flight each, texts of 64 characters";
    assert!(ran.stdout.contains(heading), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("1,000 of 1,000 messages"),
        "{}",
        ran.stdout
    );
    for row in ["lost", "misordered", "latency p99.9", "this client"] {
        assert!(
            ran.stdout.contains(&format!("\n  {row} ")),
            "{}",
            ran.stdout
        );
    }
}

#[tokio::test]
async fn on_a_terminal_a_bar_shows_how_far_it_is_and_goes() {
    let server = unlimited().await;
    let url = server.url();
    let arguments = ["bench", "publish", "--server", &url, "--warm-up", "0s"];
    let more = ["--duration", "1s"];
    let mut terminal = tty::run(&[arguments.as_slice(), more.as_slice()].concat()).start();

    terminal.see(" % ").await;
    terminal.see("lost").await;

    let bar = |lines: &[String]| !lines.iter().any(|line| line.contains("[#"));
    terminal.until("no bar", bar).await;
}

/// Each fault, what it is called in the figures, and in words.
const FAULTS: [(Fault, &str, &str); 5] = [
    (Fault::Loses, "lost", "message 9 never came back"),
    (
        Fault::Swaps,
        "misordered",
        "message 9 came after message 10",
    ),
    (Fault::Repeats, "repeated", "message 9 came twice"),
    (
        Fault::SkipsASequence,
        "sequence",
        "event 12 came after event 10",
    ),
    (Fault::StopsTheClock, "logical_time", "the event before it"),
];

#[tokio::test]
async fn a_server_that_breaks_a_promise_makes_the_run_a_failure_that_says_which() {
    for (fault, name, words) in FAULTS {
        let server = faulty::start(fault).await;

        let arguments = "--streams 1 --in-flight 5 --messages 12 --json";
        let ran = bench(&server.url(), "publish", arguments).await;

        assert_eq!(ran.code, 1, "{fault:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(words), "{fault:?}: {}", ran.stderr);
        let figures: Value = serde_json::from_str(&ran.stdout).expect("one object");
        for (_, other, _) in FAULTS {
            let found = figures["violations"][other].as_u64();
            assert_eq!(
                found,
                Some(u64::from(other == name)),
                "{fault:?}: {figures}"
            );
        }
        let lost = u64::from(fault == Fault::Loses);
        assert_eq!(
            figures["acknowledged"].as_u64(),
            Some(12 - lost),
            "{figures}"
        );
    }
}

#[tokio::test]
async fn the_answers_to_unary_calls_are_checked_too() {
    for (fault, name) in [
        (Fault::Repeats, "repeated"),
        (Fault::SkipsASequence, "sequence"),
    ] {
        let server = faulty::start(fault).await;

        let arguments = "--unary --streams 1 --in-flight 1 --messages 12 --json";
        let ran = bench(&server.url(), "publish", arguments).await;

        assert_eq!(ran.code, 1, "{fault:?}: {}", ran.stdout);
        let figures: Value = serde_json::from_str(&ran.stdout).expect("one object");
        assert!(figures["violations"][name].as_u64() > Some(0), "{figures}");
    }
}

#[tokio::test]
async fn the_same_server_without_its_faults_passes() {
    let server = faulty::start(Fault::None).await;
    for how in ["--streams 2 --in-flight 5", "--unary --streams 1"] {
        let arguments = format!("--messages 100 {how}");
        let figures = figures(&server.url(), "publish", &arguments).await;
        assert_eq!(figures["acknowledged"], 100, "{figures}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_by_itself_fails_the_run() {
    let server = faulty::start(Fault::EndsTheStream).await;
    let ran = bench(&server.url(), "publish", "--streams 1 --messages 100").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let words = "the stream of bench-0 ended though it had not left";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

#[tokio::test]
async fn a_server_that_limits_the_rate_cannot_be_measured_and_the_remedy_is_told() {
    let server = server::start_with(|config| config.limits.rate = 5).await;
    for how in ["", "--unary"] {
        let arguments = format!("--streams 1 --messages 100 {how}");
        let ran = within(
            "the run to end",
            bench(&server.url(), "publish", &arguments),
        )
        .await;
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        let remedy = "the server refuses by limits.rate";
        assert!(ran.stderr.contains(remedy), "{}", ran.stderr);
        let remedy = "start it with CHITCHAT_LIMITS__RATE=0";
        assert!(ran.stderr.contains(remedy), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn a_text_that_the_server_refuses_ends_the_run_with_the_server_s_words() {
    let server = unlimited().await;
    for how in ["", "--unary"] {
        let arguments = format!("--text-chars 129 --messages 10 {how}");
        let ran = bench(&server.url(), "publish", &arguments).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains("Limit is 128"), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn a_run_that_sent_nothing_has_no_figures() {
    let server = unlimited().await;
    let ran = bench(&server.url(), "publish", "--duration 1ns").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("nothing was sent"), "{}", ran.stderr);
}

#[tokio::test]
async fn nothing_is_measured_where_there_is_no_server_or_no_such_process() {
    let server = unlimited().await;
    let url = server.url();
    let ran = bench(&url, "echo", "--messages 1 --server-pid 4294967295").await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("cannot measure process"),
        "{}",
        ran.stderr
    );
    let missing = "--messages 1 --fsync-dir /no/such/directory";
    let ran = bench(&url, "echo", missing).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("/no/such/directory"), "{}", ran.stderr);
    server.stop().await;
    for how in ["", "--unary"] {
        let ran = bench(&url, "publish", &format!("--messages 1 {how}")).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(!ran.stderr.is_empty());
    }
}
