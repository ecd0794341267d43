//! A scripted client does what its script says, driven by what it reads; whoever runs it learns what went wrong.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chitchat::wire::v1::EventType;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    listener::{Listener, join, join_with, options},
    piped::{self, Piped},
    program::{Finished, chitchat},
    proxy::Proxy,
    server::{self, TestServer},
};

/// The report's session as everybody could read it: refusals go to their sender alone.
const REPORTED: [&str; 16] = [
    "JOIN Alex",
    "Alex: Hello World!",
    "JOIN Aske",
    "Aske: Hello Alex",
    "Alex: I will try to type a really long message",
    "Aske: I could not see the msg",
    "Aske: Now I will leave the chat",
    "JOIN Bob",
    "Aske: exitexit",
    "LEAVE Aske",
    "Bob: Can I send a message now.",
    "Bob: Oh, great. It seems to work now.",
    "LEAVE Bob",
    "Alex: What about now",
    "Alex: I am alone",
    "Alex: goodbye",
];

/// A script of the report's session, or the guide's.
fn given(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/scripts")
        .join(name)
}

/// Scripts of the test's own.
struct Scripts(TempDir);

impl Scripts {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, text: &str) -> PathBuf {
        let file = self.0.path().join("script.toml");
        std::fs::write(&file, text).expect("a file");
        file
    }
}

/// Begins to play.
fn start(url: &str, script: &Path) -> Piped {
    piped::start(&["play", &script.display().to_string(), "--server", url])
}

/// Plays to the end.
async fn play(url: &str, script: &Path, more: &[&str]) -> Finished {
    let script = script.display().to_string();
    let arguments = ["play", &script, "--server", url];
    chitchat(arguments.iter().chain(more)).run().await
}

/// Plays a script of the test's own to the end.
async fn play_text(server: &TestServer, text: &str) -> Finished {
    let scripts = Scripts::new();
    play(&server.url(), &scripts.write(text), &[]).await
}

/// What happened in the lobby, as in [`REPORTED`].
async fn happened(server: &TestServer) -> Vec<String> {
    let history = server.history("lobby").await;
    let events = history.iter().map(|event| match event.r#type() {
        EventType::Message => format!("{}: {}", event.sender_name, event.msg_stream),
        kind => format!("{} {}", kind.as_str_name(), event.sender_name),
    });
    events.collect()
}

/// Awaits that `listener` reads `text`.
async fn reads(listener: &mut Listener, text: &str) {
    while listener.event().await.message.msg_stream != text {}
}

/// Awaits a line of the transcript with `part` in it.
async fn shows(player: &mut Piped, part: &str) -> String {
    loop {
        let line = player.next().await;
        if line.contains(part) {
            return line;
        }
    }
}

#[tokio::test]
async fn the_three_scripts_replay_the_reports_session_each_joining_as_late_as_it_can() {
    let server = server::start().await;
    let mut alex = start(&server.url(), &given("alex.toml"));
    shows(&mut alex, "Hello World!").await;
    let mut aske = start(&server.url(), &given("aske.toml"));
    shows(&mut aske, "Now I will leave the chat").await;
    let mut bob = start(&server.url(), &given("bob.toml"));

    for player in [&mut bob, &mut aske, &mut alex] {
        player.rest().await;
        let (code, told) = player.ended().await;
        assert_eq!(code, Some(0), "{told}");
    }
    let happened = happened(&server).await;
    assert_eq!(happened[..16], REPORTED);
    assert_eq!(happened[16..], ["LEAVE Alex"]);
}

#[tokio::test]
async fn started_all_at_once_they_replay_it_too_and_a_second_run_is_not_misled_by_the_first() {
    let server = server::start().await;
    let url = server.url();
    for run in 0..2 {
        let [alex, aske, bob] = ["alex.toml", "aske.toml", "bob.toml"].map(given);
        let (alex, aske, bob) = tokio::join!(
            play(&url, &alex, &[]),
            play(&url, &aske, &[]),
            play(&url, &bob, &[]),
        );
        for finished in [alex, aske, bob] {
            assert_eq!(finished.code, 0, "run {run}: {}", finished.stderr);
        }
    }
    let happened = happened(&server).await;
    assert_eq!(happened[..16], REPORTED);
    assert_eq!(happened[17..33], REPORTED);
}

#[tokio::test]
async fn what_is_too_long_is_sent_as_it_is_and_its_sender_alone_reads_the_refusal() {
    let server = server::start().await;
    let mut witness = join(&server.url(), "Witness").await;
    let mut alex = start(&server.url(), &given("alex.toml"));
    reads(&mut witness, "Hello World!").await;
    let _aske = start(&server.url(), &given("aske.toml"));

    let refusal = shows(&mut alex, "Server:").await;
    reads(&mut witness, "I will try to type a really long message").await;
    let next = witness.event().await.message;

    assert_eq!(next.msg_stream, "I could not see the msg");
    assert!(
        refusal.ends_with("] Server: Message too long (354 chars). Limit is 128."),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_transcript_shows_each_event_with_its_logical_time_and_the_farewell() {
    let server = server::start().await;
    let played = play_text(
        &server,
        r#"
        name = "Alex"
        id = 3300
        steps = ["join", { say = "Hello World!" }, "leave"]
        "#,
    )
    .await;
    assert_eq!(played.code, 0, "{}", played.stderr);
    assert_eq!(
        played.stdout.lines().collect::<Vec<_>>(),
        [
            "[Server @ L=2] Alex: Participant Alex joined Chit Chat at logical time L=2",
            "[Server @ L=5] Alex: Hello World!",
            "Leaving chat...",
        ]
    );
    assert_eq!(server.history("lobby").await[0].sender_id, 3300);
}

#[tokio::test]
async fn a_quiet_script_prints_no_transcript_but_its_log_has_it() {
    let server = server::start().await;
    let scripts = Scripts::new();
    let script = scripts.write(
        r#"
        name = "Alex"
        steps = ["join", { say = "Hello World!" }, "leave"]
        "#,
    );
    let played = play(&server.url(), &script, &["--quiet"]).await;
    assert_eq!(played.code, 0, "{}", played.stderr);
    assert_eq!(played.stdout, "");
    assert!(
        played.stderr.contains(" joined Chit Chat at logical time "),
        "{}",
        played.stderr
    );
}

#[tokio::test]
async fn an_await_before_join_misses_nothing_that_was_said_by_one_who_is_there() {
    let server = server::start().await;
    let mut alex = join(&server.url(), "Alex").await;
    alex.says("long ago").await;
    reads(&mut alex, "long ago").await;

    let played = play_text(
        &server,
        r#"
        name = "Aske"
        steps = [{ await = { from = "Alex", text = "long ago" } }, "join", "leave"]
        "#,
    )
    .await;

    assert_eq!(played.code, 0, "{}", played.stderr);
}

#[tokio::test]
async fn an_await_before_join_does_not_count_what_was_said_by_one_who_has_left() {
    let server = server::start().await;
    let mut alex = join(&server.url(), "Alex").await;
    alex.says("long ago").await;
    alex.leave();
    reads(&mut alex, "long ago").await;
    alex.ending().await;

    let played = play_text(
        &server,
        r#"
        name = "Aske"
        steps = [{ await = { from = "Alex", text = "long ago", within = "300ms" } }, "join"]
        "#,
    )
    .await;

    assert_eq!(played.code, 1, "{}", played.stdout);
    assert!(
        played.stderr.contains("read instead: nothing"),
        "{}",
        played.stderr
    );
    assert_eq!(server.names("lobby").await, [""; 0]);
}

#[tokio::test]
async fn an_await_before_join_does_not_count_what_an_earlier_run_of_the_script_was_there_for() {
    let server = server::start().await;
    let mut alex = join(&server.url(), "Alex").await;
    alex.says("in the earlier run").await;
    reads(&mut alex, "in the earlier run").await;
    let aske = join(&server.url(), "Aske").await;
    aske.crash();
    while alex.event().await.message.r#type() != EventType::Leave {}

    let played = play_text(
        &server,
        r#"
        name = "Aske"
        steps = [{ await = { from = "Alex", text = "in the earlier run", within = "300ms" } }, "join"]
        "#,
    )
    .await;

    assert_eq!(played.code, 1, "{}", played.stdout);
    assert!(
        played.stderr.contains("read instead: nothing"),
        "{}",
        played.stderr
    );
}

#[tokio::test]
async fn an_await_after_join_counts_only_what_follows_the_own_join() {
    let server = server::start().await;
    let mut alex = join(&server.url(), "Alex").await;
    alex.says("before").await;
    reads(&mut alex, "before").await;
    let scripts = Scripts::new();
    let script = scripts.write(
        r#"
        name = "Aske"
        steps = ["join", { await = { text = "before", within = "500ms" } }]
        "#,
    );
    let mut aske = start(&server.url(), &script);
    alex.event().await;
    alex.says("after").await;

    let (code, told) = aske.ended().await;

    assert_eq!(code, Some(1));
    assert!(
        told.contains("in vain for") && told.contains("\"before\""),
        "{told}"
    );
    assert!(
        told.contains("Alex: after"),
        "what was read instead: {told}"
    );
    // The room is left properly all the same.
    reads(&mut alex, "after").await;
    assert_eq!(alex.event().await.message.r#type(), EventType::Leave);
}

#[tokio::test]
async fn the_own_join_is_not_what_is_awaited_after_it() {
    let server = server::start().await;
    let played = play_text(
        &server,
        r#"
        name = "Aske"
        steps = ["join", { await = { type = "JOIN", within = "300ms" } }]
        "#,
    )
    .await;
    assert_eq!(played.code, 1, "{}", played.stdout);
}

#[tokio::test]
async fn a_script_that_is_none_is_told_with_line_and_column_and_joins_nobody() {
    let server = server::start().await;
    for (text, place) in [
        ("name = \"Aske\"\nsteps = []\ncolour = 1\n", ":3:1: "),
        (
            "name = \"Aske\"\nsteps = [\"join\",\n  \"dance\"]\n",
            ":3:3: ",
        ),
        ("name = \"Aske\"\nsteps = [{ pause = 5 }]\n", ":2:"),
        ("name = \"<Aske>\"\nsteps = [\"join\"]\n", ":1:8: "),
        ("name = \"Aske\"\nid = -1\nsteps = [\"join\"]\n", ":2:6: "),
        (
            "name = \"Aske\"\nroom = \"a b\"\nsteps = [\"join\"]\n",
            ":2:8: ",
        ),
    ] {
        let played = play_text(&server, text).await;
        assert_eq!(played.code, 2, "{}", played.stderr);
        assert!(played.stderr.contains(place), "{}", played.stderr);
    }
    assert!(server.history("lobby").await.is_empty());
}

#[tokio::test]
async fn what_came_too_fast_is_said_again_in_its_place() {
    let server = server::start_with(|config| config.limits.rate = 5).await;
    let said: Vec<String> = (1..=12).map(|number| format!("number {number}")).collect();
    let steps: Vec<String> = said
        .iter()
        .map(|text| format!("{{ say = \"{text}\" }}"))
        .collect();

    let played = play_text(
        &server,
        &format!(
            "name = \"Aske\"\nsteps = [\"join\", {}, \"leave\"]\n",
            steps.join(", ")
        ),
    )
    .await;

    assert_eq!(played.code, 0, "{}", played.stderr);
    let happened = happened(&server).await;
    let texts: Vec<_> = happened
        .iter()
        .filter_map(|line| line.strip_prefix("Aske: "))
        .collect();
    assert_eq!(texts, said);
    assert!(!played.stdout.contains("Server:"), "{}", played.stdout);
}

#[tokio::test]
async fn an_await_before_join_says_that_the_server_is_away_and_that_it_is_there() {
    let server = server::start().await;
    let network = Proxy::start(server.address()).await;
    network.cut_for_long();
    let scripts = Scripts::new();
    let script = scripts.write(
        "name = \"Aske\"\nsteps = [{ await = { from = \"Alex\", text = \"go\" } }, \"join\"]\n",
    );
    let mut aske = start(&network.url(), &script);
    let away = aske.next().await;
    network.mend();
    let there = aske.next().await;
    let mut alex = join(&server.url(), "Alex").await;
    alex.says("go").await;

    let rest = aske.rest().await;

    assert!(away.starts_with("Waiting for the server ("), "{away}");
    assert_eq!(there, "The server is there.");
    assert!(
        rest.iter().any(|line| line.contains("Aske joined")),
        "{rest:?}"
    );
    assert_eq!(aske.ended().await.0, Some(0));
    reads(&mut alex, "go").await;
}

#[tokio::test]
async fn an_await_that_runs_out_while_the_server_is_away_says_so() {
    let scripts = Scripts::new();
    let script = scripts
        .write("name = \"Aske\"\nsteps = [{ await = { from = \"Alex\", within = \"300ms\" } }]\n");
    let server = server::start().await;
    let url = server.url();
    server.stop().await;

    let played = play(&url, &script, &[]).await;

    assert_eq!(played.code, 1);
    assert!(
        played.stderr.contains("; the server is away ("),
        "{}",
        played.stderr
    );
}

#[tokio::test]
async fn a_join_is_logged_once_for_each_that_is_sent() {
    let server = server::start_with(|config| config.server.grace = Duration::from_secs(60)).await;
    let network = Proxy::start(server.address()).await;
    // Nobody listens there yet.
    let url = network.url();
    drop(network);
    let scripts = Scripts::new();
    let script = scripts.write("name = \"Aske\"\nsteps = [\"join\"]\n");
    let mut aske = start(&url, &script);
    let mut logged = Vec::new();
    let waiting = aske.next().await;
    let network = Proxy::start_at(&url, server.address()).await;
    aske.next().await;
    loop {
        let line = aske.told().await;
        let ends = line.contains("Stream closed");
        logged.push(line);
        if ends {
            break;
        }
    }
    drop(network);

    assert!(waiting.contains("cannot reach"), "{waiting}");
    let joins = logged.iter().filter(|line| line.contains("Sent JOIN"));
    assert_eq!(joins.count(), 1, "{logged:#?}");
}

#[tokio::test]
async fn a_crash_says_no_farewell_and_is_good() {
    let server = server::start_with(|config| config.server.grace = Duration::from_secs(1)).await;
    let mut witness = join(&server.url(), "Witness").await;
    let played = play_text(
        &server,
        r#"
        name = "Bob"
        steps = ["join", { say = "Oh, great." }, "crash"]
        "#,
    )
    .await;
    assert_eq!(played.code, 0, "{}", played.stderr);
    assert!(!played.stdout.contains("Leaving"), "{}", played.stdout);
    // It is held still: the departure comes when the grace is over.
    witness.says("is Bob there?").await;
    reads(&mut witness, "is Bob there?").await;
    assert_eq!(server.names("lobby").await.len(), 2);
    assert_eq!(witness.event().await.message.r#type(), EventType::Leave);
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for_and_so_is_a_name_that_is_held() {
    let server = server::start().await;
    let network = Proxy::start(server.address()).await;
    network.cut_for_long();
    let scripts = Scripts::new();
    let script = scripts.write("name = \"Aske\"\nsteps = [\"join\", \"leave\"]\n");
    let mut holder = join(&server.url(), "aske").await;
    let mut witness = join(&server.url(), "Witness").await;
    let mut aske = start(&network.url(), &script);

    holder.event().await;
    let away = aske.next().await;
    network.mend();
    let held = aske.next().await;
    holder.leave();
    holder.ending().await;

    let left = witness.event().await.message;
    assert_eq!(
        (left.r#type(), &*left.sender_name),
        (EventType::Leave, "aske")
    );
    let joined = witness.event().await.message;
    assert_eq!(
        (joined.r#type(), &*joined.sender_name),
        (EventType::Join, "Aske")
    );
    assert_eq!(aske.ended().await.0, Some(0));
    assert!(away.contains("waiting: cannot reach http://"), "{away}");
    assert!(held.contains("\"Aske\" is in use"), "{held}");
}

#[tokio::test]
async fn a_script_whose_join_was_taken_and_not_answered_waits_for_its_own_ghost_to_leave() {
    let server = server::start_with(|config| config.server.grace = Duration::from_secs(1)).await;
    let network = Proxy::start(server.address()).await;
    network.mend_requests();
    let mut witness = join(&server.url(), "Witness").await;
    let scripts = Scripts::new();
    let script = scripts.write("name = \"Aske\"\nid = 4800\nsteps = [\"join\", \"leave\"]\n");
    let mut aske = start(&network.url(), &script);
    let ghost = witness.event().await.message;
    network.cut();
    network.mend();

    aske.rest().await;
    let (code, told) = aske.ended().await;

    assert_eq!(code, Some(0), "{told}");
    assert_eq!(ghost.sender_name, "Aske");
    for kind in [EventType::Leave, EventType::Join, EventType::Leave] {
        let event = witness.event().await.message;
        assert_eq!((event.r#type(), event.sender_id), (kind, 4800));
    }
}

#[tokio::test]
async fn the_guide_greets_and_answers_people_and_never_a_program() {
    let server = server::start().await;
    let mut guide = start(&server.url(), &given("guide.toml"));
    guide.next().await;
    let bot = join_with({
        let mut options = options(&server.url(), "Bot");
        options.bot = true;
        options
    })
    .await;
    let mut ada = join(&server.url(), "Ada").await;
    let greeting = ada.event().await.message;
    assert!(greeting.bot && greeting.sender_name == "Guide");
    assert!(
        greeting.msg_stream.starts_with("Welcome, Ada."),
        "{greeting:?}"
    );

    bot.says("ping").await;
    ada.says("ping").await;
    ada.says("what is L?").await;

    let mut answers = Vec::new();
    let mut asked = 0;
    while answers.len() < 2 {
        let message = ada.event().await.message;
        match message.sender_name.as_str() {
            "Guide" => answers.push(message.msg_stream),
            "Ada" if message.msg_stream.contains("what is L") => asked = message.timestamp,
            _ => {}
        }
    }
    assert_eq!(answers[0], "pong, Ada", "once, and to Ada alone");
    assert!(answers[1].contains(&format!("L={asked}")), "{answers:?}");
    let history = happened(&server).await;
    let said = history.iter().filter(|line| line.starts_with("Guide:"));
    assert_eq!(said.count(), 3, "{history:?}");
}

#[tokio::test]
async fn a_resident_stays_until_it_is_told_to_stop_and_leaves_properly() {
    let server = server::start().await;
    let mut witness = join(&server.url(), "Witness").await;
    for signal in [Signal::TERM, Signal::INT] {
        let mut guide = start(&server.url(), &given("guide.toml"));
        assert_eq!(witness.event().await.message.sender_name, "Guide");
        guide.next().await;

        guide.signal(signal);

        let (code, told) = guide.ended().await;
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(witness.event().await.message.r#type(), EventType::Leave);
    }
}

#[tokio::test]
async fn a_resident_whose_server_has_gone_ends_well_all_the_same() {
    let server = server::start().await;
    let mut guide = start(&server.url(), &given("guide.toml"));
    guide.next().await;
    server.stop().await;
    while !guide.next().await.starts_with("Connection lost") {}

    guide.signal(Signal::TERM);

    let (code, told) = guide.ended().await;
    assert_eq!(code, Some(0), "{told}");
}

#[tokio::test]
async fn a_pace_is_a_pause_before_each_step() {
    let server = server::start().await;
    let scripts = Scripts::new();
    let script = scripts.write("name = \"Aske\"\nsteps = [\"join\", { say = \"x\" }, \"leave\"]\n");
    let begun = std::time::Instant::now();
    let played = play(&server.url(), &script, &["--pace", "200ms"]).await;
    assert_eq!(played.code, 0, "{}", played.stderr);
    assert!(begun.elapsed() >= Duration::from_millis(600));
    let wrong = play(&server.url(), &script, &["--pace", "200"]).await;
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
}

#[tokio::test]
async fn as_reported_the_clock_counts_what_was_sent() {
    let server = server::start().await;
    let scripts = Scripts::new();
    let script = scripts.write("name = \"Alex\"\nsteps = [\"join\", { say = \"x\" }, \"leave\"]\n");
    let played = play(&server.url(), &script, &["--as-reported"]).await;
    assert_eq!(played.code, 0, "{}", played.stderr);
    let history = server.history("lobby").await;
    let times: Vec<_> = history
        .iter()
        .map(|event| (event.sent_timestamp, event.timestamp))
        .collect();
    assert_eq!(times, [(0, 1), (1, 2), (2, 3)]);
}
