//! `chitchat chat` on pipes.

use chitchat::wire::v1::EventType;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    hostile,
    piped::{self, Piped},
    program::chitchat,
    server::{self, TestServer},
};

/// ada in the lobby; the own JOIN has been read.
async fn ada(server: &TestServer, more: &[&str]) -> Piped {
    let mut arguments = vec!["chat", "--name", "ada"];
    let url = server.url();
    arguments.extend(["--server", &url]);
    arguments.extend(more);
    let mut ada = piped::start(&arguments);
    let own = ada.next().await;
    assert!(
        own.contains("Participant ada joined Chit Chat at logical time L="),
        "{own}"
    );
    ada
}

#[tokio::test]
async fn lines_in_lines_out_and_nothing_else() {
    let server = server::start().await;
    let mut ada = ada(&server, &[]).await;
    let mut bob = server.joined("bob").await;

    ada.line("hello").await;
    assert_eq!(bob.next().await.msg_stream, "hello");
    bob.say("hi ada", 0);
    bob.next().await;
    ada.line("/who").await;
    assert_eq!(
        bob.next().await.msg_stream,
        "/who",
        "there are no commands on a pipe"
    );
    ada.end_input();

    let read = ada.rest().await;
    let said: Vec<_> = read
        .iter()
        .map(|line| line.split_once("] ").unwrap().1)
        .collect();
    assert_eq!(said[1..], ["ada: hello", "bob: hi ada", "ada: /who"]);
    assert!(
        said[0].starts_with("bob: Participant bob joined"),
        "{read:?}"
    );
    assert_eq!(ada.ended().await, (Some(0), String::new()));
    assert_eq!(bob.next().await.r#type(), EventType::Leave);
}

#[tokio::test]
async fn the_end_of_input_leaves_when_all_that_was_said_has_been_read() {
    let server = server::start_with(|config| config.limits.rate = 0).await;
    let mut ada = ada(&server, &[]).await;

    // The last line has no end.
    let lines: Vec<_> = (1..=2_000)
        .map(|number| format!("number {number}"))
        .collect();
    ada.write(&lines.join("\n")).await;
    ada.end_input();

    let read = ada.rest().await;
    let said: Vec<_> = read
        .iter()
        .map(|line| line.split_once("ada: ").unwrap().1)
        .collect();
    assert_eq!(said, lines);
    assert_eq!(ada.ended().await, (Some(0), String::new()));
    assert_eq!(server.names("lobby").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_fast_writer_loses_nothing_to_the_servers_rate() {
    let server = server::start_with(|config| config.limits.rate = 50).await;
    let mut ada = ada(&server, &[]).await;

    let lines: Vec<_> = (1..=200).map(|number| format!("number {number}")).collect();
    ada.write(&lines.join("\n")).await;
    ada.end_input();

    let read = ada.rest().await;
    let mut said: Vec<_> = read
        .iter()
        .filter_map(|line| line.split_once("ada: "))
        .map(|(_, text)| text)
        .collect();
    said.sort_by_key(|text| text[7..].parse::<u32>().unwrap());
    assert_eq!(said, lines);
    assert_eq!(ada.ended().await.0, Some(0));
}

#[tokio::test]
async fn json_is_one_object_a_line_with_fixed_fields() {
    let server = server::start().await;
    let mut bob = server.joined("bob").await;
    let url = server.url();
    let mut ada = piped::start(&["chat", "--json", "--name", "ada", "--server", &url]);
    ada.next().await;
    bob.next().await;
    let join: Value = serde_json::from_str(&ada.next().await).unwrap();
    assert_eq!(
        (&join["kind"], &join["own"], &join["past"]),
        (&"join".into(), &true.into(), &Value::Null)
    );

    ada.line("hello \u{2028}\u{e9}\u{1f680}").await;
    ada.line("again").await;
    ada.end_input();
    let notice: Value = serde_json::from_str(&ada.next().await).unwrap();
    let event: Value = serde_json::from_str(&ada.next().await).unwrap();

    assert_eq!(
        (&notice["kind"], &notice["code"]),
        (&"notice".into(), &"FORBIDDEN_CHARACTERS".into())
    );
    let stored = bob.next().await;
    assert_eq!(event["kind"], "message");
    assert_eq!(event["room"], "lobby");
    assert_eq!(event["sequence"], stored.sequence);
    assert_eq!(event["logical_time"], stored.timestamp);
    assert_eq!(event["sent_timestamp"], stored.sent_timestamp);
    assert_eq!(event["sender_id"], stored.sender_id);
    assert_eq!(event["sender_name"], "ada");
    assert_eq!(event["text"], "again");
    assert_eq!(event["message_id"], stored.message_id);
    assert_eq!(
        event["accepted_at"],
        stored.accepted_at.unwrap().to_string()
    );
    assert_eq!(event["own"], true);
    assert!(event["clock"].as_i64().unwrap() > stored.timestamp);
    assert_eq!(ada.ended().await.0, Some(1), "not everything was accepted");
}

#[tokio::test]
async fn a_text_too_long_is_refused_before_it_is_sent_and_fails_the_run() {
    let server = server::start().await;
    let mut ada = ada(&server, &[]).await;

    ada.line(&"x".repeat(354)).await;
    ada.line("   ").await;
    ada.line(&"y".repeat(128)).await;
    ada.line(&"z".repeat(1 << 20)).await;
    ada.end_input();

    let read = ada.rest().await;
    assert_eq!(read.len(), 1, "{read:?}");
    assert!(read[0].ends_with(&"y".repeat(128)));
    let (code, errors) = ada.ended().await;
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("line 1: Message too long (354 chars). Limit is 128."),
        "{errors}"
    );
    assert!(
        errors.contains("line 4: Message too long. Limit is 128."),
        "{errors}"
    );
    assert!(
        errors.contains("2 message(s) were not accepted"),
        "{errors}"
    );
}

#[tokio::test]
async fn without_a_name_nothing_is_started() {
    let run = chitchat(["chat"]).run().await;

    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("--name"), "{}", run.stderr);
}

#[tokio::test]
async fn a_name_that_is_held_and_a_server_that_is_away_fail_at_once() {
    let server = server::start().await;
    let _holder = server.joined("ada").await;
    let url = server.url();
    let held = chitchat(["chat", "--name", "ada", "--server", &url])
        .run()
        .await;
    assert_eq!((held.code, held.stdout.as_str()), (1, ""));
    assert_eq!(held.stderr.lines().count(), 1, "{}", held.stderr);

    server.stop().await;
    let away = chitchat(["chat", "--name", "ada", "--server", &url])
        .run()
        .await;
    assert_eq!((away.code, away.stdout.as_str()), (1, ""));
    assert!(
        away.stderr.contains(&format!("cannot reach {url}")),
        "{}",
        away.stderr
    );
}

#[tokio::test]
async fn a_reader_that_goes_away_is_an_end_like_another() {
    let server = server::start().await;
    let mut ada = ada(&server, &[]).await;
    let mut bob = server.joined("bob").await;

    ada.end_output();
    bob.say("is anybody there?", 0);
    bob.next().await;

    assert_eq!(bob.next().await.r#type(), EventType::Leave);
    assert_eq!(ada.ended().await, (Some(0), String::new()));
}

/// Once a connection ended with ENHANCE_YOUR_CALM when some hundred short events lay unread in it.
#[tokio::test]
async fn a_reader_that_pauses_misses_nothing_and_keeps_its_connection() {
    let server = server::start_with(|config| config.limits.rate = 0).await;
    let mut ada = ada(&server, &[]).await;
    let mut bob = server.joined("bob").await;

    for _ in 0..5_000 {
        bob.say("x", 0);
    }
    bob.take(5_000).await;
    bob.leave(0);
    let mut said = 0;
    loop {
        match ada.next().await {
            line if line.ends_with("] bob: x") => said += 1,
            line if line.contains("bob left") => break,
            line => assert!(line.contains("bob joined"), "{line}"),
        }
    }
    ada.end_input();

    assert_eq!(said, 5_000);
    assert_eq!(ada.ended().await, (Some(0), String::new()));
}

#[tokio::test]
async fn a_reader_that_does_not_read_keeps_nobody_from_leaving() {
    let server = server::start_with(|config| config.limits.rate = 0).await;
    let ada = ada(&server, &[]).await;
    let mut bob = server.joined("bob").await;

    // Far more than a pipe and all queues on the way hold.
    let text = "x".repeat(120);
    for _ in 0..5_000 {
        bob.say(&text, 0);
    }
    ada.signal(Signal::INT);

    // Whether by its own word, or because it did not take what it was sent.
    while bob.next().await.r#type() != EventType::Leave {}
}

#[tokio::test]
async fn a_signal_leaves_properly() {
    for signal in [Signal::INT, Signal::TERM] {
        let server = server::start().await;
        let mut ada = ada(&server, &[]).await;

        ada.signal(signal);

        assert_eq!(ada.ended().await, (Some(0), String::new()), "{signal:?}");
        assert_eq!(server.names("lobby").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_a_hostile_server_sends_is_harmless_as_lines_and_escaped_as_json() {
    let server = hostile::start().await;
    let url = server.url();

    let mut lines = piped::start(&["chat", "--name", "ada", "--server", &url]);
    assert_eq!(
        lines.next().await,
        format!("[Server @ L=1] {0}: {0}", hostile::HARMLESS)
    );
    lines.end_input();
    let mut json = piped::start(&["chat", "--json", "--name", "ada", "--server", &url]);
    let line = json.next().await;
    assert!(!line.contains('\u{1b}'), "{line}");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&event["text"], &event["past"]),
        (&hostile::ATTACK.into(), &true.into())
    );
}

#[tokio::test]
async fn history_can_be_followed() {
    let server = server::start().await;
    let address = server.address();
    let url = server.url();
    let bob = server.joined("bob").await;

    let mut reader = piped::start(&["history", "--follow", "--server", &url]);
    assert!(reader.next().await.contains("bob joined"));
    bob.say("one", 0);
    assert_eq!(reader.next().await, "[Server @ L=2] bob: one");
    server.stop().await;
    let server = server::start_with(|config| config.server.listen = address).await;
    let mut eve = server.joined("eve").await;
    assert!(
        reader.next().await.contains("eve joined"),
        "a new history is read from its beginning"
    );
    eve.say("two", 0);
    assert_eq!(reader.next().await, "[Server @ L=2] eve: two");
    reader.signal(Signal::INT);

    let (code, errors) = reader.ended().await;
    assert_eq!(code, Some(0));
    assert!(errors.contains("new history"), "{errors}");
    assert_eq!(
        eve.next().await.msg_stream,
        "two",
        "reading has told nobody"
    );
}
