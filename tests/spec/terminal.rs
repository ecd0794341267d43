//! `chitchat chat` on a real pseudo-terminal, read as a person would: by what stands on the screen.

use std::time::Duration;

use chitchat::{config::Config, wire::v1::EventType};

use crate::support::{
    hostile,
    raw::Raw,
    server::{self, TestServer},
    tty::{self, Terminal},
};

/// A server, and ada in its lobby: JOIN sent at 1, stored at 2, read at 3.
async fn ada() -> (TestServer, Terminal) {
    let server = server::start_with(|config| config.server.grace = Duration::from_secs(600)).await;
    let mut ada = tty::chat(&server.url(), &["--name", "ada"]).start();
    ada.see_last("ada L=3>").await;
    (server, ada)
}

async fn bob(server: &TestServer, ada: &mut Terminal) -> Raw {
    let bob = server.joined("bob").await;
    ada.see("bob joined Chit Chat").await;
    bob
}

/// The next message of `bob` is a LEAVE of ada: with a grace that no test waits for, it was her own word.
async fn reads_that_ada_left(bob: &mut Raw) {
    let left = bob.next().await;
    assert_eq!(
        (left.r#type(), left.sender_name.as_str()),
        (EventType::Leave, "ada")
    );
}

#[tokio::test]
async fn a_person_is_asked_for_a_name_and_reads_the_own_join() {
    let server = server::start().await;

    let mut ada = tty::chat(&server.url(), &[]).start();
    ada.see_last("Enter your name:").await;
    assert_eq!(
        ada.before_cursor(),
        "Enter your name:",
        "the cursor is one behind it"
    );
    ada.line("ada").await;

    ada.see("Enter your name: ada").await;
    ada.see("[Server @ L=2] ada: Participant ada joined Chit Chat at logical time L=2")
        .await;
    assert_eq!(server.names("lobby").await, ["ada"]);
}

#[tokio::test]
async fn what_is_typed_ahead_is_said() {
    let server = server::start().await;

    let mut ada = tty::chat(&server.url(), &[]).start();
    ada.keys("ada\rone\rtwo\rthree\rexit\r").await;

    assert_eq!(ada.ended().await, Some(0));
    let events = server.history("lobby").await;
    let texts: Vec<_> = events
        .iter()
        .map(|event| event.msg_stream.as_str())
        .collect();
    assert_eq!(texts[1..4], ["one", "two", "three"]);
    assert_eq!(events.last().unwrap().r#type(), EventType::Leave);
}

#[tokio::test]
async fn a_program_that_types_may_end_its_lines_with_a_line_feed() {
    let (server, mut ada) = ada().await;

    ada.keys("hello\nexit\n").await;

    assert_eq!(ada.ended().await, Some(0));
    assert_eq!(server.history("lobby").await[1].msg_stream, "hello");
}

#[tokio::test]
async fn a_name_that_is_held_is_asked_for_again() {
    let server = server::start().await;
    let _holder = server.joined("Ada").await;

    let mut ada = tty::chat(&server.url(), &["--name", "ada"]).start();
    ada.see("Choose another name, or this one again in a moment: it may come free.")
        .await;
    ada.see_last("Enter your name:").await;
    ada.line("no\u{a7}name").await;
    ada.see("Choose another name.").await;
    ada.line("grace").await;

    ada.see("Participant grace joined Chit Chat").await;
    assert_eq!(server.names("lobby").await.len(), 2);
}

#[tokio::test]
async fn a_newcomer_sees_the_last_events_first() {
    let server = server::start().await;
    let mut bob = server.joined("bob").await;
    for number in 1..=30 {
        bob.say(&format!("number {number}"), 0);
    }
    bob.take(30).await;

    let mut ada = tty::chat(&server.url(), &["--name", "ada", "--backlog", "3"]).start();
    ada.see("Participant ada joined").await;

    let lines = ada.lines();
    let said: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("number"))
        .collect();
    assert_eq!(
        said,
        [
            "[Server @ L=29] bob: number 28",
            "[Server @ L=30] bob: number 29",
            "[Server @ L=31] bob: number 30"
        ]
    );
}

#[tokio::test]
async fn the_prompt_shows_the_own_clock_also_while_one_types() {
    let (server, mut ada) = ada().await;
    ada.keys("half a").await;

    let bob = bob(&server, &mut ada).await;
    ada.see_last("ada L=4> half a").await;
    bob.say("hi", 0);
    ada.see_last("ada L=5> half a").await;
    ada.line(" word").await;

    ada.see("[Server @ L=7] ada: half a word").await;
    ada.see_last("ada L=8>").await;
}

#[tokio::test]
async fn arriving_messages_never_tear_the_input_line() {
    let (server, mut ada) = ada().await;
    let bob = bob(&server, &mut ada).await;
    ada.keys("half a sent").await;
    ada.see_last("ada L=4> half a sent").await;

    for number in 1..=200 {
        bob.say(&format!("number {number}."), 0);
        if number % 50 == 0 {
            ada.keys("e").await;
        }
    }
    ada.see("number 200.").await;
    ada.see_last("ada L=204> half a senteeee").await;

    let lines = ada.lines();
    let said: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("number"))
        .collect();
    let wanted: Vec<_> = (1..=200)
        .map(|n| format!("[Server @ L={}] bob: number {n}.", n + 3))
        .collect();
    assert_eq!(
        said,
        wanted.iter().collect::<Vec<_>>(),
        "each on a line of its own, in order"
    );
    assert_eq!(
        lines.iter().filter(|line| line.contains("half a")).count(),
        1,
        "one input line"
    );
    assert_eq!(ada.before_cursor(), *lines.last().unwrap());
}

#[tokio::test]
async fn a_long_input_line_is_not_torn_either() {
    let server = server::start().await;
    let mut ada = tty::chat(&server.url(), &["--name", "ada"])
        .size(100, 40)
        .start();
    ada.see_last("ada L=3>").await;
    let bob = server.joined("bob").await;
    ada.see_last("ada L=4>").await;
    let text = "0123456789".repeat(10);
    ada.keys(&text).await;
    let input = format!("ada L=4> {text}");
    let on_screen = |lines: &[String]| {
        lines
            .iter()
            .rev()
            .take(3)
            .rev()
            .cloned()
            .collect::<String>()
    };
    ada.until("three lines of input", |lines| on_screen(lines) == input)
        .await;

    for number in 1..=20 {
        bob.say(&format!("number {number}."), 0);
    }
    ada.see("bob: number 20.").await;
    let input = format!("ada L=24> {text}");
    ada.until("the input below the messages", |lines| {
        on_screen(lines) == input
    })
    .await;

    let lines = ada.lines();
    assert_eq!(
        lines.iter().filter(|line| line.contains("number")).count(),
        20
    );
    assert_eq!(
        lines.iter().filter(|line| line.contains("0123")).count(),
        3,
        "{lines:#?}"
    );
}

#[tokio::test]
async fn own_messages_are_told_apart() {
    let (server, mut ada) = ada().await;
    let bob = bob(&server, &mut ada).await;

    bob.say("from bob", 0);
    ada.line("from ada").await;
    ada.see("] ada: from ada").await;
    ada.see("] bob: from bob").await;

    assert!(ada.is_bold("] ada: from ada"));
    assert!(!ada.is_bold("] bob: from bob"));
}

#[tokio::test]
async fn without_colours_own_messages_are_told_apart_by_a_sign() {
    let server = server::start().await;

    let mut ada = tty::chat(&server.url(), &["--name", "ada"])
        .variable("NO_COLOR", "1")
        .start();
    ada.see_last("ada L=3>").await;
    ada.line("hello").await;
    ada.see("> [Server @ L=5] ada: hello").await;

    let colours = ada
        .raw
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair == b"\x1b[")
        .filter(|(at, _)| {
            let sequence = ada.raw[at + 2..].iter();
            sequence.copied().find(|byte| byte.is_ascii_alphabetic()) == Some(b'm')
        });
    assert_eq!(colours.count(), 0, "{}", String::from_utf8_lossy(&ada.raw));
}

#[tokio::test]
async fn a_dumb_terminal_gets_no_escape_sequence_at_all() {
    let server = server::start().await;

    let mut ada = tty::chat(&server.url(), &[])
        .variable("TERM", "dumb")
        .start();
    ada.see("Enter your name:").await;
    ada.line("ada").await;
    ada.see("Participant ada joined").await;
    ada.line("hello").await;
    ada.see("> [Server @ L=5] ada: hello").await;
    ada.line("exit").await;

    assert_eq!(ada.ended().await, Some(0));
    assert!(
        !ada.raw.contains(&0x1b),
        "{}",
        String::from_utf8_lossy(&ada.raw)
    );
}

#[tokio::test]
async fn what_a_hostile_server_sends_does_nothing_to_the_terminal() {
    let server = hostile::start().await;
    // The terminal of the tests does not show the replacement character.
    let shown = hostile::HARMLESS.replace('\u{fffd}', "");

    let mut ada = tty::chat(&server.url(), &["--name", "ada"]).start();
    ada.see(&format!("[Server @ L=3] {shown}: {shown}")).await;
    ada.line("/who").await;
    ada.see(&format!("{shown} (ID=7)")).await;
    ada.line("/history").await;
    ada.see("The last 1:").await;
    ada.line("/trace 3").await;
    ada.see("L=3 has no trace").await;

    let sent = String::from_utf8_lossy(&ada.raw);
    assert!(sent.contains(hostile::HARMLESS));
    for part in ["\u{1b}[2J", "\u{1b}]0", "\u{7}", "\u{9b}", "\u{202e}"] {
        assert!(!sent.contains(part), "{part:?} reached the terminal");
    }
}

#[tokio::test]
async fn commands_are_not_sent_and_two_slashes_say_one() {
    let (server, mut ada) = ada().await;

    ada.line("/help").await;
    ada.see("/history [N]").await;
    ada.line("/wohs").await;
    ada.see("/wohs is not a command and was not sent.").await;
    ada.line("/who").await;
    ada.see("1 here:").await;
    ada.see("since L=2").await;
    ada.line("//who").await;
    ada.see("[Server @ L=5] ada: /who").await;
    ada.line("/history 2").await;
    ada.see("The last 2:").await;
    ada.see("  [Server @ L=5] ada: /who").await;

    let texts: Vec<_> = server
        .history("lobby")
        .await
        .into_iter()
        .map(|event| event.msg_stream)
        .collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
}

#[tokio::test]
async fn the_clock_shows_how_each_event_came_by_its_time() {
    let (server, mut ada) = ada().await;
    let bob = bob(&server, &mut ada).await;

    ada.line("/clock").await;
    ada.see("  sent 1 | server max(1 or less, 1) + 1 = 2 | me max(1, 2) + 1 = 3")
        .await;
    ada.see("  no time sent | server 2 + 1 = 3 | me max(3, 3) + 1 = 4")
        .await;
    bob.say("hi", 2);
    ada.see("  sent 2 | server max(3, 2) + 1 = 4 | me max(4, 4) + 1 = 5")
        .await;
    ada.line("hello").await;
    ada.see("  sent 6 | server max(6 or less, 6) + 1 = 7 | me max(6, 7) + 1 = 8")
        .await;
    ada.line("/clock").await;
    ada.see("Sums are off.").await;
}

#[tokio::test]
async fn a_text_of_the_limit_is_sent_and_a_longer_one_is_refused_here() {
    let (server, mut ada) = ada().await;

    ada.line(&"x".repeat(354)).await;
    ada.see("Message too long (354 chars). Limit is 128.").await;
    ada.line(&"y".repeat(128)).await;
    ada.see("[Server @ L=5] ada: yyy").await;

    let events = server.history("lobby").await;
    assert_eq!(
        events.len(),
        2,
        "the long one was not even sent, or the clock would stand higher"
    );
    assert_eq!(events[1].timestamp, 5);
}

#[tokio::test]
async fn leaving_is_read_by_the_others_at_once_and_gives_the_terminal_back() {
    for way in ["exit\r", "/leave\r", "\u{3}", "\u{4}"] {
        let (server, mut ada) = ada().await;
        let mut bob = bob(&server, &mut ada).await;

        ada.keys(way).await;
        reads_that_ada_left(&mut bob).await;

        assert_eq!(ada.ended().await, Some(0), "{way:?}");
        assert!(ada.lines().contains(&"Leaving chat...".into()), "{way:?}");
        assert!(ada.is_cooked(), "{way:?}");
    }
}

#[tokio::test]
async fn a_signal_and_a_closed_window_leave_properly_too() {
    let (server, mut ada) = ada().await;
    let mut bob = bob(&server, &mut ada).await;
    ada.signal(rustix::process::Signal::TERM);
    reads_that_ada_left(&mut bob).await;
    assert_eq!(ada.ended().await, Some(0));
    assert!(ada.is_cooked());

    let mut ada = tty::chat(&server.url(), &["--name", "ada"]).start();
    ada.see("Participant ada joined").await;
    bob.next().await;
    let ended = ada.hang_up().await;
    reads_that_ada_left(&mut bob).await;
    assert_eq!(ended, Some(0));
}

#[tokio::test]
async fn nobody_at_the_terminal_nothing_on_it_and_nobody_in_the_room() {
    let server = server::start().await;

    let mut ada = tty::chat(&server.url(), &["--name", "ada"])
        .unattached()
        .start();
    ada.raw_mode().await;
    assert_eq!(server.names("lobby").await, Vec::<String>::new());
    assert!(ada.is_silent());
    ada.attach(40, 100);
    ada.see("Ctrl-P Ctrl-Q").await;
    // The prompt may be ahead of what is printed.
    ada.see("joined Chit Chat").await;
    ada.see_last("ada L=3>").await;

    let sent = String::from_utf8_lossy(&ada.raw);
    assert!(
        sent.find("Chit Chat").unwrap() < sent.find("joined").unwrap(),
        "the banner comes first: {sent}"
    );
}

#[tokio::test]
async fn a_key_is_a_sign_of_a_person_too_and_is_not_lost() {
    let server = server::start().await;

    let mut ada = tty::chat(&server.url(), &[]).unattached().start();
    ada.raw_mode().await;
    ada.keys("ad").await;
    ada.see_last("Enter your name: ad").await;
    ada.line("a").await;

    ada.see_last("ada L=3>").await;
}

#[tokio::test]
async fn attaching_again_repaints_the_input_line() {
    let (_server, mut ada) = ada().await;
    ada.keys("half a").await;
    ada.see_last("ada L=3> half a").await;

    // What attaching does, so that there is a change even if the size is the same.
    ada.attach(40, 101);
    ada.attach(40, 100);
    ada.see_last("ada L=3> half a").await;
    ada.line(" word").await;

    ada.see("[Server @ L=5] ada: half a word").await;
}

#[tokio::test]
async fn the_input_line_follows_the_width_of_the_window() {
    let (_server, mut ada) = ada().await;
    ada.keys("0123456789").await;
    ada.see_last("ada L=3> 0123456789").await;

    ada.resize(40, 12);
    ada.see_last("3456789").await;
    ada.resize(40, 60);
    ada.see_last("ada L=3> 0123456789").await;
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let server = server::start().await;
    let address = server.address();
    server.stop().await;

    let mut ada = tty::chat(&format!("http://{address}"), &["--name", "ada"]).start();
    ada.see(&format!(
        "Cannot reach http://{address}. Waiting for it; Ctrl-C gives up."
    ))
    .await;
    ada.see_last("waiting>").await;
    ada.line("hello?").await;
    ada.see("Not in the chat yet; this was not sent.").await;
    let _server = server::start_with(|config: &mut Config| config.server.listen = address).await;

    ada.see_last("ada L=3>").await;
    assert_eq!(
        ada.lines()
            .iter()
            .filter(|line| line.contains("Cannot reach"))
            .count(),
        1,
        "said once"
    );
}

#[tokio::test]
async fn waiting_for_a_server_can_be_given_up() {
    for way in ["\u{3}", "\u{4}", "exit\r"] {
        let server = server::start().await;
        let url = server.url();
        server.stop().await;

        let mut ada = tty::chat(&url, &["--name", "ada"]).start();
        ada.see("Cannot reach").await;
        ada.keys(way).await;

        assert_eq!(ada.ended().await, Some(1), "{way:?}");
        assert!(ada.is_cooked(), "{way:?}");
    }
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_told_in_a_line_each() {
    let (server, mut ada) = ada().await;
    let address = server.address();
    ada.keys("half a").await;

    server.stop().await;
    ada.see("Connection lost").await;
    let server = server::start_with(|config: &mut Config| config.server.listen = address).await;
    ada.see("Back").await;
    ada.line(" word").await;

    ada.see("ada: half a word").await;
    assert_eq!(server.names("lobby").await, ["ada"]);
    for told in ["Connection lost", "Back"] {
        assert_eq!(
            ada.lines()
                .iter()
                .filter(|line| line.contains(told))
                .count(),
            1,
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_terminal_that_does_not_read_keeps_nobody_from_leaving() {
    let (server, mut ada) = ada().await;
    let mut bob = bob(&server, &mut ada).await;

    // Far more than a terminal holds.
    for number in 1..=900 {
        bob.say(&format!("number {number} {}", "x".repeat(100)), 0);
    }
    ada.signal(rustix::process::Signal::TERM);

    // Whether by its own word, or because it did not take what it was sent.
    while bob.next().await.r#type() != EventType::Leave {}
}

#[tokio::test]
async fn a_line_editor_that_breaks_leaves_properly_and_gives_the_terminal_back() {
    let (server, mut ada) = ada().await;
    let mut bob = bob(&server, &mut ada).await;

    // The editor divides by the width of the window.
    ada.no_size();
    reads_that_ada_left(&mut bob).await;

    assert_eq!(ada.ended().await, Some(1));
    assert!(ada.is_cooked());
}

#[tokio::test]
async fn that_traces_were_not_taken_is_told_when_the_chat_is_left() {
    let server = server::start().await;
    // Nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut ada = tty::chat(&server.url(), &["--name", "ada"])
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.leak())
        .start();
    ada.see_last("ada L=3>").await;
    ada.line("hello").await;
    ada.see("] ada: hello").await;
    ada.line("exit").await;

    assert_eq!(ada.ended().await, Some(0));
    let lines = ada.lines();
    let place = |words: &str| lines.iter().position(|line| line.contains(words));
    let (left, told) = (place("Leaving chat..."), place("traces: "));
    assert!(told.is_some() && left < told, "{lines:#?}");
}

#[tokio::test]
async fn what_was_said_before_can_be_had_again() {
    let (_server, mut ada) = ada().await;
    ada.line("hello").await;
    ada.see_last("ada L=6>").await;

    ada.keys("\u{1b}[A").await;
    ada.see_last("ada L=6> hello").await;
    ada.line(" again").await;

    ada.see("[Server @ L=8] ada: hello again").await;
}
