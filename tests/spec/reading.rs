//! `chitchat history`, `who` and `health`: reading without taking part.

use chitchat::wire::v1::ServerMessage;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    hostile,
    piped::{self, Piped},
    program::{Finished, chitchat},
    proxy::Proxy,
    raw::{Raw, join},
    server::{self, TestServer},
    server_process::ServerProcess,
};

async fn ask(arguments: &[&str]) -> Finished {
    chitchat(arguments).run().await
}

#[tokio::test]
async fn history_is_the_rooms_events_in_order() {
    let server = server::start().await;
    let mut bob = server.joined("bob").await;
    bob.say("one", 0);
    bob.say("two", 0);
    bob.take(2).await;

    let all = ask(&["history", "--server", &server.url()]).await;
    assert_eq!(
        all.stdout,
        "[Server @ L=1] bob: Participant bob joined Chit Chat at logical time L=1\n[Server @ L=2] bob: one\n[Server @ L=3] bob: two\n"
    );
    assert_eq!((all.code, all.stderr.as_str()), (0, ""));
    let last = ask(&["history", "--server", &server.url(), "-n", "1"]).await;
    assert_eq!(last.stdout, "[Server @ L=3] bob: two\n");
    let elsewhere = ask(&["history", "--server", &server.url(), "--room", "empty"]).await;
    assert_eq!((elsewhere.code, elsewhere.stdout.as_str()), (0, ""));
}

#[tokio::test]
async fn history_longer_than_one_answer_is_read_to_its_end() {
    let server = server::start_with(|config| config.limits.rate = 0).await;
    let mut bob = server.joined("bob").await;
    for number in 1..=2_500 {
        bob.say(&format!("number {number}"), 0);
    }
    bob.take(2_500).await;

    let all = ask(&["history", "--server", &server.url(), "--json"]).await;

    let sequences: Vec<u64> = all
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(sequences, (1..=2_501).collect::<Vec<_>>());
}

#[tokio::test]
async fn any_range_can_be_read_from_either_end() {
    let (server, _bob) = long_room(2_500, |_| {}).await;

    for (flags, range) in [
        ("--after 2495", 2_496..=2_500),
        ("--before 6", 1..=5),
        ("--after 3 --before 2400", 4..=2_399),
        ("-n 3", 2_498..=2_500),
        ("--last 1500", 1_001..=2_500),
        ("--before 100 --last 10", 90..=99),
        ("--before 5 --last 10", 1..=4),
        ("--after 2498 --last 10", 2_499..=2_500),
    ] {
        let read = history(&server, flags).await;
        assert_eq!(sequences(&read.stdout), Vec::from_iter(range), "{flags}");
        assert_eq!((read.code, read.stderr.as_str()), (0, ""), "{flags}");
    }
    for flags in ["--after 2500", "--after 5 --before 6", "--after 9999"] {
        assert_eq!(history(&server, flags).await.stdout, "", "{flags}");
    }
    for flags in ["--before 5 --follow", "--before 0", "--last 0", "--after x"] {
        assert_eq!(history(&server, flags).await.code, 2, "{flags}");
    }
}

#[tokio::test]
async fn what_was_asked_for_and_is_no_longer_kept_is_told() {
    let (server, _bob) = long_room(150, |config| config.limits.history_events = 100).await;

    for (flags, told, range) in [
        ("", "events 1 to 50 are no longer kept", 51..=150),
        ("--after 49", "event 50 is no longer kept", 51..=150),
        ("--last 110", "events 41 to 50 are no longer kept", 51..=150),
        ("--before 60", "events 1 to 50 are no longer kept", 51..=59),
        ("--after 50", "", 51..=150),
        ("--last 100", "", 51..=150),
    ] {
        let read = history(&server, flags).await;
        assert_eq!(sequences(&read.stdout), Vec::from_iter(range), "{flags}");
        assert_eq!(read.code, 0, "{flags}");
        let wanted = match told {
            "" => String::new(),
            told => format!("chitchat: {told}\n"),
        };
        assert_eq!(read.stderr, wanted, "{flags}");
    }
    let gone = history(&server, "--before 20").await;
    assert_eq!(
        (gone.stdout.as_str(), gone.stderr.as_str()),
        ("", "chitchat: events 1 to 19 are no longer kept\n")
    );
}

#[tokio::test]
async fn what_falls_out_between_two_pages_is_told() {
    let (server, mut bob) = long_room(3_000, |config| config.limits.history_events = 3_000).await;

    // It has the first page, and can write no more than a pipe holds.
    let mut reader = piped::start(&["history", "--json", "--server", &server.url()]);
    let first = reader.next().await;
    say(&mut bob, 2_000).await;
    let mut read = vec![first];
    read.extend(reader.rest().await);

    let (code, told) = reader.ended().await;
    let mut read = sequences(&read.join("\n")).into_iter();
    let page: Vec<u64> = (1..=1_000).collect();
    assert_eq!(read.by_ref().take(1_000).collect::<Vec<_>>(), page);
    assert_eq!(read.collect::<Vec<_>>(), Vec::from_iter(2_001..=5_000));
    assert_eq!(
        (code, told.as_str()),
        (
            Some(0),
            "chitchat: events 1001 to 2000 are no longer kept\n"
        )
    );
}

#[tokio::test]
async fn a_line_of_json_has_all_that_an_event_has() {
    let server = server::start().await;
    let mut bob = server.joined("bob").await;
    bob.send(chitchat::wire::v1::JoinMsgLeave {
        message_id: "5f6c".into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        ..crate::support::raw::said("one", 7)
    });
    bob.next().await;

    let read = history(&server, "").await;

    let lines: Vec<Value> = read
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let wanted: Vec<Value> = server.history("lobby").await.iter().map(as_json).collect();
    assert_eq!(lines, wanted);
    assert_eq!(lines[1]["message_id"], "5f6c");
}

/// All fields of an event, as [`chitchat::client::render`] names them.
fn as_json(event: &ServerMessage) -> Value {
    let kind = event.r#type().as_str_name().to_lowercase();
    let mut json = json!({
        "kind": kind,
        "room": event.room,
        "sequence": event.sequence,
        "logical_time": event.timestamp,
        "sender_id": event.sender_id,
        "sender_name": event.sender_name,
        "text": event.msg_stream,
        "accepted_at": event.accepted_at.unwrap().to_string(),
    });
    if event.sent_timestamp > 0 {
        json["sent_timestamp"] = event.sent_timestamp.into();
    }
    if !event.message_id.is_empty() {
        json["message_id"] = event.message_id.as_str().into();
    }
    if let Some(trace_id) = event.traceparent.split('-').nth(1) {
        json["trace_id"] = trace_id.into();
    }
    json
}

#[tokio::test]
async fn who_follows_reads_on_after_a_break_and_is_told_in_a_line_each() {
    let (server, mut bob) = long_room(3, |_| {}).await;
    let network = Proxy::start(server.address()).await;
    let mut reader = follow(&network).await;

    network.cut_for_long();
    network.connected(1).await;
    say(&mut bob, 2).await;
    network.mend();

    assert_eq!(sequences(&reader.next().await), [4]);
    assert_eq!(sequences(&reader.next().await), [5]);
    let told = stopped(reader).await;
    let [lost, back] = &told[..] else {
        panic!("a line each: {told:?}");
    };
    assert!(lost.contains("Connection lost ("), "{lost}");
    assert_eq!(back, "chitchat: Back. Nothing was missed.");
}

#[tokio::test]
async fn who_follows_and_misses_what_is_no_longer_kept_is_told_what() {
    let (server, mut bob) = long_room(3, |config| config.limits.history_events = 20).await;
    let network = Proxy::start(server.address()).await;
    let mut reader = follow(&network).await;

    network.cut_for_long();
    network.connected(1).await;
    say(&mut bob, 100).await;
    network.mend();

    for sequence in 84..=103 {
        assert_eq!(sequences(&reader.next().await), [sequence]);
    }
    bob.say("live again", 0);
    assert_eq!(sequences(&reader.next().await), [104]);
    let told = stopped(reader).await;
    let [_, back] = &told[..] else {
        panic!("a line each: {told:?}");
    };
    assert_eq!(
        back,
        "chitchat: Back, but events 4 to 83 are no longer kept."
    );
}

#[tokio::test]
async fn who_follows_a_room_of_which_nothing_is_kept_reads_what_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = [
        ("CHITCHAT_LIMITS__HISTORY_AGE", "500ms"),
        ("CHITCHAT_LOG__LEVEL", "debug"),
    ];
    let mut server = ServerProcess::with(directory.path(), &settings).await;
    let (mut bob, _) = server.enter(join("bob")).await;
    say(&mut bob, 2).await;
    server.logs("the history of lobby begins with 4").await;

    let url = format!("http://{}", server.address());
    let mut reader = piped::start(&["history", "--follow", "--json", "--server", &url]);
    let told = reader.told().await;
    bob.say("new", 0);

    assert_eq!(told, "chitchat: events 1 to 3 are no longer kept");
    assert_eq!(sequences(&reader.next().await), [4]);
}

/// A room with so many events, and bob in it, who made them.
async fn long_room(
    events: usize,
    change: impl FnOnce(&mut chitchat::config::Config),
) -> (TestServer, Raw) {
    let server = server::start_with(|config| {
        config.limits.rate = 0;
        change(config);
    })
    .await;
    let mut bob = server.joined("bob").await;
    say(&mut bob, events - 1).await;
    (server, bob)
}

async fn say(bob: &mut Raw, texts: usize) {
    for number in 0..texts {
        bob.say(&format!("number {number}"), 0);
        if number % 500 == 499 {
            bob.take(500).await;
        }
    }
    bob.take(texts % 500).await;
}

async fn history(server: &TestServer, flags: &str) -> Finished {
    let url = server.url();
    let mut arguments = vec!["history", "--json", "--server", &url];
    arguments.extend(flags.split_whitespace());
    ask(&arguments).await
}

fn sequences(lines: &str) -> Vec<u64> {
    let sequence = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["sequence"].as_u64().unwrap()
    };
    lines.lines().map(sequence).collect()
}

/// Follows through `network`, and has read the three events that there are.
async fn follow(network: &Proxy) -> Piped {
    let url = network.url();
    let mut reader = piped::start(&["history", "--follow", "--json", "--server", &url]);
    for sequence in 1..=3 {
        assert_eq!(sequences(&reader.next().await), [sequence]);
    }
    reader
}

/// Ends it: what it told.
async fn stopped(mut reader: Piped) -> Vec<String> {
    reader.signal(Signal::INT);
    let (code, told) = reader.ended().await;
    assert_eq!(code, Some(0), "{told}");
    told.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn who_lists_those_who_are_there() {
    let server = server::start().await;
    let _ada = server.joined("ada").await;

    let lines = ask(&["who", "--server", &server.url()]).await;
    assert!(
        lines.stdout.starts_with("ada (ID=") && lines.stdout.ends_with(") since L=1\n"),
        "{}",
        lines.stdout
    );
    let json = ask(&["who", "--server", &server.url(), "--json"]).await;
    let one: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&one["name"], &one["joined_sequence"], &one["bot"]),
        (&"ada".into(), &1.into(), &false.into())
    );
}

#[tokio::test]
async fn health_says_in_a_word_and_an_exit_code_whether_the_server_serves() {
    let server = server::start().await;
    let url = server.url();

    let well = ask(&["health", "--server", &url]).await;
    assert_eq!(
        (well.code, well.stdout.as_str(), well.stderr.as_str()),
        (0, "SERVING\n", "")
    );
    server.stop().await;
    let gone = ask(&["health", "--server", &url]).await;
    assert_eq!((gone.code, gone.stdout.as_str()), (1, ""));
    assert_eq!(gone.stderr.lines().count(), 1, "{}", gone.stderr);
}

#[tokio::test]
async fn health_does_not_wait_for_a_server_that_does_not_answer() {
    // Takes connections, by the system's hand, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());

    let asked = ask(&["health", "--server", &url]).await;

    assert_eq!(asked.code, 1);
    assert!(
        asked.stderr.contains("no answer within 3 s"),
        "{}",
        asked.stderr
    );
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let server = server::start().await;
    let url = server.url();
    server.stop().await;

    for command in ["history", "who"] {
        let asked = ask(&[command, "--server", &url]).await;
        assert_eq!((asked.code, asked.stdout.as_str()), (1, ""));
        assert!(asked.stderr.contains(&url), "{}", asked.stderr);
    }
}

#[tokio::test]
async fn what_a_hostile_server_sends_is_shown_harmless() {
    let server = hostile::start().await;

    let history = ask(&["history", "--server", &server.url()]).await;
    assert_eq!(
        history.stdout,
        format!("[Server @ L=1] {0}: {0}\n", hostile::HARMLESS)
    );
    let traces = ask(&["history", "--traces", "--server", &server.url()]).await;
    assert_eq!(traces.stdout, format!("{}  no trace\n", history.stdout));
    let who = ask(&["who", "--server", &server.url()]).await;
    assert_eq!(
        who.stdout,
        format!("{} (ID=7) since L=0\n", hostile::HARMLESS)
    );
    let followed = ask(&["history", "--follow", "--server", &server.url()]).await;
    assert_eq!(followed.code, 1, "a refusal is not retried for ever");
    assert!(
        followed.stderr.contains(hostile::HARMLESS),
        "{}",
        followed.stderr
    );
}
