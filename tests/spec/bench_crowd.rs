//! The load generator with many readers: what it counts and checks. No test says how fast anything is.

use std::{process::Stdio, time::Duration};

use chitchat::wire::v1::{ListRoomsRequest, Room};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{
    faulty::{self, Fault},
    program::{Finished, chitchat},
    server::{self, TestServer},
    tty, within,
};

/// What is counted as a violation.
const VIOLATIONS: [&str; 5] = ["lost", "misordered", "repeated", "sequence", "logical_time"];

/// A server without a limit on how fast one may send.
async fn unlimited() -> TestServer {
    server::start_with(|config| config.limits.rate = 0).await
}

/// `chitchat bench fanout --server URL --warm-up 0s` with these arguments more.
async fn fanout(url: &str, more: &str) -> Finished {
    let arguments = ["bench", "fanout", "--server", url, "--warm-up", "0s"].into_iter();
    let program = chitchat(arguments.chain(more.split_whitespace()));
    program.run().await
}

/// The figures of a run.
fn figures(ran: &Finished) -> Value {
    let read = serde_json::from_str(&ran.stdout);
    read.unwrap_or_else(|_| panic!("there should be figures: {ran:?}"))
}

/// The figures of a run in which nothing was wrong.
async fn good_figures(url: &str, more: &str) -> Value {
    let ran = fanout(url, &format!("{more} --json")).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let figures = figures(&ran);
    assert_eq!(violations(&figures), [0; 5], "{figures}");
    assert_eq!(figures["deliveries"], figures["deliveries_due"]);
    figures
}

fn violations(figures: &Value) -> [u64; 5] {
    VIOLATIONS.map(|name| figures["violations"][name].as_u64().expect(name))
}

/// The rooms, and how many are in each.
async fn rooms(server: &TestServer) -> Vec<Room> {
    let listed = server.client().await.list_rooms(ListRoomsRequest {}).await;
    listed.expect("rooms are listed").into_inner().rooms
}

#[tokio::test]
async fn each_message_is_delivered_to_every_reader_and_publishers_read_too() {
    let server = unlimited().await;

    let arguments = "--subscribers 5 --publishers 2 --rate 200 --duration 500ms";
    let figures = good_figures(&server.url(), arguments).await;

    assert_eq!(figures["messages"], 100, "{figures}");
    assert_eq!(figures["deliveries"], 700, "{figures}");
    assert_eq!(
        (&figures["rate"], &figures["window"]),
        (&200.into(), &Value::Null)
    );
    let rooms = rooms(&server).await;
    // Each publisher says when it has said all.
    let events = 7 + 100 + 2 + 7;
    assert_eq!(
        (rooms.len(), rooms[0].head, rooms[0].participants),
        (1, events, 0)
    );
}

#[tokio::test]
async fn all_are_dealt_to_the_rooms_and_subscribers_may_share_connections() {
    let server = unlimited().await;

    let who = "--subscribers 7 --publishers 3 --rooms 2 --streams-per-connection 4";
    let figures = good_figures(&server.url(), &format!("{who} --rate 100 --duration 600ms")).await;

    // 20 messages of each publisher: two in the room with four subscribers, one in that with three.
    assert_eq!(
        figures["deliveries"],
        40 * (2 + 4) + 20 * (1 + 3),
        "{figures}"
    );
    let heads: Vec<u64> = rooms(&server).await.iter().map(|room| room.head).collect();
    assert_eq!(heads, [6 + 40 + 2 + 6, 4 + 20 + 1 + 4]);
}

#[tokio::test]
async fn with_a_window_deliveries_let_the_next_messages_go() {
    let server = unlimited().await;
    for (window, publishers) in [(1, 1), (1, 3), (7, 2), (256, 1)] {
        let who = format!("--subscribers 3 --publishers {publishers} --window {window}");
        let figures = good_figures(&server.url(), &format!("{who} --duration 200ms")).await;

        assert_eq!(figures["window"], window, "{figures}");
        let messages = figures["messages"].as_u64().unwrap();
        // More than fill a window: it moved on.
        assert!(messages > window, "{figures}");
        assert_eq!(
            figures["deliveries"],
            messages * (3 + publishers),
            "{figures}"
        );
    }
}

#[tokio::test]
async fn the_warm_up_is_checked_and_not_measured() {
    let server = unlimited().await;
    let url = server.url();
    let arguments = [
        "bench",
        "fanout",
        "--server",
        &url,
        "--json",
        "--subscribers",
        "2",
    ];
    let more = ["--rate", "100", "--warm-up", "200ms", "--duration", "300ms"];

    let ran = chitchat(arguments.iter().chain(&more)).run().await;

    let figures = figures(&ran);
    assert_eq!(
        (ran.code, &figures["messages"]),
        (0, &30.into()),
        "{figures}"
    );
    assert_eq!(figures["deliveries"], 90, "{figures}");
    let head = rooms(&server).await[0].head;
    assert_eq!(head, 3 + 20 + 30 + 1 + 3);
}

#[tokio::test]
async fn who_watches_is_counted_alike_and_does_not_take_part() {
    let server = unlimited().await;

    let arguments =
        "--watch --subscribers 6 --streams-per-connection 3 --rate 100 --duration 300ms";
    let figures = good_figures(&server.url(), arguments).await;

    assert_eq!(figures["deliveries"], 30 * 7, "{figures}");
    assert_eq!(figures["watch"], true, "{figures}");
    let room = &rooms(&server).await[0];
    // The JOIN and the LEAVE of the publisher alone.
    assert_eq!((room.head, room.participants), (1 + 30 + 1 + 1, 0));
}

#[tokio::test]
async fn who_stands_still_holds_up_nobody_and_is_no_failure() {
    let server = unlimited().await;
    for how in ["", "--watch --streams-per-connection 2"] {
        let arguments = format!("--subscribers 3 --stalled 2 --window 64 --duration 1s {how}");
        let figures = good_figures(&server.url(), &arguments).await;

        // More than their windows take.
        let bytes = figures["messages"].as_u64().unwrap() * 100;
        assert!(bytes > 65_535, "{figures}");
        assert_eq!(figures["stalled"], 2, "{figures}");
    }
}

#[tokio::test]
async fn who_stands_still_until_the_server_has_enough_of_it_is_counted() {
    let server = server::start_with(|config| {
        config.limits.rate = 0;
        config.limits.stall = Duration::from_millis(200);
        (config.limits.text_chars, config.limits.text_bytes) = (4_000, 4_000);
    })
    .await;
    for (how, ended) in [("--text-chars 4000", 2), ("--text-chars 100", 0)] {
        // 1.2 MB of the long texts, which is more than HTTP/2 holds for anybody, and 30 KB of the short ones.
        let arguments = format!("--subscribers 2 --stalled 2 --rate 300 --duration 1s {how}");
        let figures = good_figures(&server.url(), &arguments).await;

        assert_eq!(figures["stalled_ended"], ended, "{figures}");
    }
}

#[tokio::test]
async fn who_stands_still_and_is_ended_for_another_reason_is_counted_too() {
    // Subscribers are bench-1 and bench-2.
    let server = faulty::start_against("bench-3", Fault::EndsTheStream).await;

    let arguments = "--subscribers 2 --stalled 2 --rate 100 --duration 300ms";
    let figures = good_figures(&server.url(), arguments).await;

    assert_eq!(figures["stalled"], 2, "{figures}");
    assert_eq!(figures["stalled_ended"], 1, "{figures}");
}

/// Each fault, what it is called in the figures, and in words.
const FAULTS: [(Fault, &str, &str); 5] = [
    (Fault::Loses, "lost", "message 9 of bench-0 never came"),
    (
        Fault::Swaps,
        "misordered",
        "message 9 of bench-0 came after message 10",
    ),
    (
        Fault::Repeats,
        "repeated",
        "message 9 of bench-0 came twice",
    ),
    (Fault::SkipsASequence, "sequence", "came after event"),
    (Fault::StopsTheClock, "logical_time", "the event before it"),
];

#[tokio::test]
async fn a_promise_that_is_broken_to_one_reader_of_many_makes_the_run_a_failure() {
    for (fault, name, words) in FAULTS {
        let server = faulty::start_against("bench-2", fault).await;

        let arguments = "--subscribers 3 --rate 100 --duration 450ms --json";
        let ran = fanout(&server.url(), arguments).await;

        assert_eq!(ran.code, 1, "{fault:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(words), "{fault:?}: {}", ran.stderr);
        let figures = figures(&ran);
        // With every tenth of 45 messages.
        let found = VIOLATIONS.map(|violation| if violation == name { 4 } else { 0 });
        assert_eq!(violations(&figures), found, "{fault:?}: {figures}");
        let lost = if fault == Fault::Loses { 4 } else { 0 };
        assert_eq!(figures["deliveries"], 45 * 4 - lost, "{figures}");
    }
}

#[tokio::test]
async fn the_same_server_without_its_faults_passes() {
    let server = faulty::start(Fault::None).await;
    let arguments = "--subscribers 3 --publishers 2 --window 5 --duration 200ms";
    good_figures(&server.url(), arguments).await;
}

#[tokio::test]
async fn a_subscriber_whose_stream_ends_fails_the_run() {
    let server = faulty::start_against("bench-2", Fault::EndsTheStream).await;
    let ran = fanout(&server.url(), "--subscribers 3 --rate 100 --duration 10s").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let words = "the stream of bench-2 ended though it had not left";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

#[tokio::test]
async fn a_server_that_limits_the_rate_cannot_be_measured_and_the_remedy_is_told() {
    let server = server::start_with(|config| config.limits.rate = 5).await;
    let ran = fanout(&server.url(), "--subscribers 2 --rate 100 --duration 10s").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let remedy = "the server refuses by limits.rate";
    assert!(ran.stderr.contains(remedy), "{}", ran.stderr);
}

#[tokio::test]
async fn nothing_is_measured_where_nothing_was_sent_or_there_is_no_server() {
    let server = unlimited().await;
    let ran = fanout(&server.url(), "--subscribers 2 --duration 1ns").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("nothing was sent"), "{}", ran.stderr);
    let url = server.url();
    server.stop().await;
    let ran = fanout(&url, "--subscribers 2").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains(&url), "{}", ran.stderr);
}

#[tokio::test]
async fn options_that_contradict_each_other_start_nothing() {
    for (arguments, words) in [
        ("fanout --window 1 --rate 1", "--rate"),
        ("fanout --window 0", "--window"),
        ("fanout --subscribers 0", "--subscribers"),
        ("fanout --text-chars 24", "--text-chars"),
        (
            "fanout --streams-per-connection 17",
            "--streams-per-connection",
        ),
        ("fanout --publishers 2 --rooms 3", "--rooms"),
        ("fanout --publishers 3 --subscribers 2 --rooms 3", "--rooms"),
        (
            "fanout --data memory --server http://127.0.0.1:1",
            "--server",
        ),
        ("fanout --data memory --server-pid 1", "--server-pid"),
        ("fanout --duration 10", "--duration"),
        ("connections --connections 0", "--connections"),
        ("connections --data memory --server-pid 1", "--server-pid"),
        ("connections --hold 1", "--hold"),
        (
            "publish --data memory --server http://127.0.0.1:1",
            "--server",
        ),
    ] {
        let arguments = ["bench"].into_iter().chain(arguments.split(' '));
        let ran = chitchat(arguments.clone()).run().await;
        let said: Vec<_> = arguments.collect();
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{said:?}");
        assert!(ran.stderr.contains(words), "{said:?}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn people_get_a_table() {
    let server = unlimited().await;

    let arguments = "--subscribers 3 --stalled 1 --rate 100 --duration 200ms";
    let ran = fanout(&server.url(), arguments).await;

    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for words in [
        "1 publisher to 3 subscribers in 1 room, 100 messages/s scheduled, texts of 100 characters",
        "80 of 80 in",
        "\n  stood still           1, of whom the server ended 0\n",
        "\n  latency p99.9 ",
        " us/delivery (",
    ] {
        assert!(ran.stdout.contains(words), "{words:?}: {}", ran.stdout);
    }
}

#[tokio::test]
async fn on_a_terminal_a_bar_shows_how_far_it_is_and_goes() {
    let server = unlimited().await;
    let url = server.url();
    let arguments = ["bench", "fanout", "--server", &url, "--subscribers", "2"];
    let more = ["--duration", "1s", "--warm-up", "0s"];
    let mut terminal = tty::run(&[arguments.as_slice(), more.as_slice()].concat()).start();

    terminal.see(" deliveries/s").await;
    terminal.see("misordered").await;

    let bar = |lines: &[String]| !lines.iter().any(|line| line.contains("[#"));
    terminal.until("no bar", bar).await;
}

/// `chitchat bench connections` with at most so many open files: what it is given, and what it may have.
async fn connections_with_open_files(url: &str, given: u32, allowed: u32) -> Finished {
    let script = format!("ulimit -S -n {given}; ulimit -H -n {allowed}; exec \"$@\"");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_chitchat")])
        .args(["bench", "connections", "--connections", "100"])
        .args(["--hold", "0s", "--server", url])
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within("the run to end", command.output()).await.unwrap();
    Finished {
        code: output.status.code().expect("it should not end by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn more_connections_than_open_files_are_made_possible_or_refused_with_the_remedy() {
    let server = unlimited().await;

    let raised = connections_with_open_files(&server.url(), 60, 200).await;
    assert_eq!(raised.code, 0, "{}", raised.stderr);

    let refused = connections_with_open_files(&server.url(), 60, 150).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    for words in ["100 connections take", "may have 150", "ulimit"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn silent_participants_are_weighed_and_all_get_the_message_at_the_end() {
    let server = unlimited().await;
    let (url, pid) = (server.url(), std::process::id().to_string());
    let arguments = [
        "bench",
        "connections",
        "--server",
        &url,
        "--server-pid",
        &pid,
    ];
    let more = ["--connections", "250", "--hold", "10ms", "--json"];

    let ran = chitchat(arguments.iter().chain(&more)).run().await;

    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let figures = figures(&ran);
    assert_eq!(
        (&figures["rooms"], &figures["messages"]),
        (&3.into(), &3.into()),
        "{figures}"
    );
    assert_eq!(figures["deliveries"], 250, "{figures}");
    assert_eq!(violations(&figures), [0; 5], "{figures}");
    for memory in ["rss_before_bytes", "rss_joined_bytes", "rss_held_bytes"] {
        let bytes = figures["memory"][memory].as_u64();
        assert!(bytes > Some(1 << 20), "{figures}");
    }
    let joins = &figures["join_latency_us"];
    assert!(joins["p50"].as_f64() <= joins["max"].as_f64(), "{figures}");
    let rooms = rooms(&server).await;
    assert!(rooms.iter().all(|room| room.participants == 0), "{rooms:?}");
}

#[tokio::test]
async fn without_the_server_s_process_there_is_no_memory_to_tell() {
    let server = unlimited().await;
    let url = server.url();
    let arguments = ["bench", "connections", "--server", &url, "--hold", "0s"];
    let more = ["--connections", "3", "--rooms", "9"];

    let ran = chitchat(arguments.iter().chain(&more)).run().await;

    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("3 silent participants in 3 rooms"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("server memory"), "{}", ran.stdout);
}

#[tokio::test]
async fn a_stream_that_is_ended_while_it_is_held_fails_the_run() {
    let server = unlimited().await;
    let url = server.url();
    let arguments = ["bench", "connections", "--server", &url, "--hold", "1m"];
    let more = ["--connections", "20"];
    let mut terminal = tty::run(&[arguments.as_slice(), more.as_slice()].concat()).start();
    terminal.see("holding").await;

    server.stop().await;

    terminal.see("chitchat: the server is about to stop").await;
    assert_eq!(terminal.ended().await, Some(1));
}
