//! `chitchat history`, `who` and `health`: reading without taking part.

use crate::support::{
    hostile,
    program::{Finished, chitchat},
    server,
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
