//! The report's session in one process.

use crate::support::{
    collector::{assert_lamport_rises, read_lines},
    program::chitchat,
};

/// The first column of each row that has one: the logical times of what was read.
fn times(table: &str) -> Vec<i64> {
    table
        .lines()
        .filter_map(|line| line.get(..3)?.trim().parse().ok())
        .collect()
}

#[tokio::test]
async fn the_demo_replays_the_report_s_session_with_clocks_that_merge() {
    let directory = tempfile::tempdir().expect("a directory");
    let demo = chitchat(["demo"]).inside(&directory).run().await;
    assert_eq!(demo.code, 0, "{}", demo.stderr);
    // Each by Lamport's rule from the scripts: what a participant sends is later than all it has read.
    let expected = [
        2, 5, 6, 9, 12, 15, 16, 19, 20, 23, 26, 29, 32, 35, 36, 39, 42, 45,
    ];
    assert_eq!(times(&demo.stdout), expected, "{}", demo.stdout);
    for said in [
        "Alex: Hello World!",
        "> Aske: exitexit",
        "> Bob: Oh, great.",
    ] {
        assert!(demo.stdout.contains(said), "{said}: {}", demo.stdout);
    }
    assert_eq!(
        demo.stdout.matches("Message is empty.").count(),
        1,
        "Bob alone is told: {}",
        demo.stdout
    );
}

#[tokio::test]
async fn as_reported_the_demo_has_the_report_s_own_numbers() {
    let directory = tempfile::tempdir().expect("a directory");
    let demo = chitchat(["demo", "--as-reported"])
        .inside(&directory)
        .run()
        .await;
    assert_eq!(demo.code, 0, "{}", demo.stderr);
    let expected: Vec<i64> = (1..=18).collect();
    assert_eq!(times(&demo.stdout), expected, "{}", demo.stdout);
    assert!(
        demo.stdout.contains("clock-condition is BROKEN"),
        "clocks that never merge: {}",
        demo.stdout
    );
}

#[tokio::test]
async fn the_demo_needs_no_port_and_no_directory_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let demo = || chitchat(["demo"]).inside(&directory);
    let (one, other) = tokio::join!(demo().run(), demo().run());
    assert_eq!((one.code, other.code), (0, 0));
    assert_eq!(one.stdout, other.stdout);
}

#[tokio::test]
async fn with_skewed_clocks_an_answer_is_before_its_question_but_not_in_logical_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("spans.jsonl");
    let demo = chitchat(["demo", "--skew"])
        .inside(&directory)
        .variable("CHITCHAT_TELEMETRY__FILE", &file)
        .run()
        .await;
    assert_eq!(demo.code, 0, "{}", demo.stderr);
    let spans = read_lines(&file);
    let delivered_to_aske_by_alex = spans.iter().find(|deliver| {
        let of_alex = deliver.text("chat.participant.name") == Some("Alex");
        deliver.service() == "aske" && deliver.name() == "deliver lobby" && of_alex
    });
    let deliver = delivered_to_aske_by_alex.expect("Aske hears Alex");
    let send = spans
        .iter()
        .find(|send| send.raw.trace_id == deliver.raw.trace_id && send.is_root());
    let send = send.expect("Alex said it");
    // Alex is 1.5 s ahead, Aske 2 s behind.
    let early = send.raw.start_time_unix_nano - deliver.raw.end_time_unix_nano;
    assert!((2_500_000_000..=3_500_000_000).contains(&early), "{early}");
    assert_lamport_rises(&spans);
}

#[tokio::test]
async fn the_demo_ends_with_the_audit_s_verdict_and_draws_the_session() {
    let directory = tempfile::tempdir().expect("a directory");
    for (arguments, drawing, beginning) in [
        (&[][..], "chitchat-demo.svg", "<svg"),
        (&["-o", "page.html"], "page.html", "<!DOCTYPE html>"),
    ] {
        let demo = chitchat(["demo"])
            .arguments(arguments)
            .inside(&directory)
            .run()
            .await;
        assert_eq!(demo.code, 0, "{}", demo.stderr);
        let ending = format!("\nHeld: all 9 rules.\nDrawn by logical time: {drawing}\n");
        assert!(demo.stdout.ends_with(&ending), "{}", demo.stdout);
        let drawn = std::fs::read_to_string(directory.path().join(drawing)).expect("drawn");
        assert!(drawn.trim_start().starts_with(beginning), "{drawn:.200}");
        assert!(drawn.contains("Hello World!"));
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_written_matters_only_to_who_named_it() {
    let demo = chitchat(["demo"]).inside("/proc").run().await;
    assert_eq!(demo.code, 0, "{}", demo.stderr);
    assert!(demo.stderr.contains("not drawn"), "{}", demo.stderr);

    let demo = chitchat(["demo", "-o", "/proc/session.svg"]).run().await;
    assert_eq!(demo.code, 1, "{}", demo.stderr);
    assert!(demo.stderr.contains("/proc/session.svg"), "{}", demo.stderr);

    let demo = chitchat(["demo", "-o", "session.docx"]).run().await;
    assert_eq!(demo.code, 2, "nothing was played: {}", demo.stdout);
    assert_eq!(demo.stdout, "");
}
