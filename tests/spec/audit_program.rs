//! `chitchat audit` on recordings of real programs: what it prints, and its exit code.

use std::path::{Path, PathBuf};

use chitchat::{
    causality::{
        audit::{Findings, audit, report::Report},
        step::{Act, Step},
    },
    config,
    telemetry::{Environment, Telemetry},
};
use serde_json::Value;

use crate::support::{
    participant::{Participant, stop},
    program::{Finished, chitchat},
    proxy::Proxy,
    recorded::{Weather, conversation, run},
    server, spans,
};

async fn audit_of(file: &Path, more: &[&str]) -> Finished {
    let file = file.to_str().unwrap();
    let arguments = ["audit", "--spans", file]
        .into_iter()
        .chain(more.iter().copied());
    chitchat(arguments).run().await
}

/// The recording of `steps`, in a file.
fn recorded(directory: &Path, steps: &[Step]) -> PathBuf {
    let file = directory.join("spans.jsonl");
    std::fs::write(&file, spans::line(steps)).unwrap();
    file
}

async fn join(server: String, file: &Path, name: &str) -> Participant {
    Participant::join(server, telemetry(file, name), name).await
}

fn telemetry(file: &Path, name: &str) -> Telemetry {
    let config = config::Telemetry {
        file: Some(file.to_owned()),
        ..config::Telemetry::default()
    };
    Telemetry::start(&config, name, &Environment::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_with_a_refusal_a_crash_a_leave_and_returns_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("spans.jsonl");
    let traced_server = telemetry(&file, "chitchat-server");
    let server = server::start_traced(|_| {}, traced_server.tracer()).await;
    let proxy = Proxy::start(server.address()).await;

    let mut ada = join(server.url(), &file, "Ada").await;
    let mut bob = join(server.url(), &file, "Bob").await;
    let mut cyd = join(proxy.url(), &file, "Cyd").await;
    ada.hears("Cyd joined").await;
    bob.say(&"x".repeat(129)).await;
    bob.hears("Limit is 128").await;
    bob.session.crash();
    bob.end().await;
    // A short absence, and one that outlasts the grace: a resume, and a new JOIN with a replay.
    proxy.cut();
    ada.say("a word meanwhile").await;
    cyd.hears("a word meanwhile").await;
    proxy.cut_for_long();
    ada.hears("Cyd left").await;
    ada.say("gone, are they").await;
    proxy.mend();
    cyd.hears("Cyd left").await;
    cyd.hears("gone, are they").await;
    cyd.hears("Cyd joined").await;
    ada.hears("Cyd joined").await;
    cyd.session.leave();
    ada.hears("Cyd left").await;
    ada.session.leave();
    cyd.end().await;
    ada.end().await;
    server.stop().await;
    stop(traced_server).await;

    let audited = audit_of(&file, &[]).await;
    assert_eq!(audited.code, 0, "{}{}", audited.stdout, audited.stderr);
    assert!(
        audited.stdout.ends_with("Held: all 9 rules.\n"),
        "{}",
        audited.stdout
    );
    assert!(
        audited
            .stdout
            .contains("Apart: 2 departures that the service noticed"),
        "{}",
        audited.stdout
    );
}

#[tokio::test]
async fn the_demo_is_held_and_the_report_s_clients_are_found_broken() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, code) in [(&["demo"][..], 0), (&["demo", "--as-reported"], 1)] {
        let file = directory.path().join(format!("{}.jsonl", arguments.len()));
        let demo = chitchat(arguments)
            .inside(&directory)
            .variable("CHITCHAT_TELEMETRY__FILE", &file)
            .run()
            .await;
        assert_eq!(demo.code, 0, "{}", demo.stderr);

        let audited = audit_of(&file, &[]).await;
        assert_eq!(audited.code, code, "{}{}", audited.stdout, audited.stderr);
        let blamed = audited.stdout.contains("clock-condition is BROKEN");
        assert_eq!(blamed, code == 1, "{}", audited.stdout);
    }
}

#[tokio::test]
async fn the_exit_code_tells_held_from_broken_from_not_decidable() {
    let directory = tempfile::tempdir().unwrap();
    let whole = conversation(1, Weather::CLEAR);
    let receipt = whole
        .iter()
        .position(|step| step.act == Act::Deliver)
        .unwrap();
    let send = whole.iter().position(|step| step.act == Act::Send).unwrap();
    let mut broken = whole.clone();
    broken[receipt].time = 0;
    let mut lossy = whole.clone();
    lossy.remove(send);
    let mut both = broken.clone();
    both.remove(send);
    for (steps, code) in [(whole, 0), (broken, 1), (lossy, 2), (both, 1)] {
        let file = recorded(directory.path(), &steps);
        let audited = audit_of(&file, &[]).await;
        assert_eq!(audited.code, code, "{}{}", audited.stdout, audited.stderr);
        assert_eq!(audit_of(&file, &["--json"]).await.code, code);
    }
    let missing = audit_of(&directory.path().join("none"), &[]).await;
    assert_eq!(missing.code, 2, "{missing:?}");
    assert_eq!(missing.stdout, "");
}

#[tokio::test]
async fn spans_that_cannot_be_used_leave_the_verdict_open() {
    let directory = tempfile::tempdir().unwrap();
    let file = recorded(directory.path(), &conversation(1, Weather::CLEAR));
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        whole.replacen("\"lamport.time\"", "\"lamport.tame\"", 1),
    )
    .unwrap();
    let audited = audit_of(&file, &[]).await;
    assert_eq!(audited.code, 2, "{}", audited.stdout);
    assert!(
        audited.stdout.contains("1 span(s) could not be used"),
        "{}",
        audited.stdout
    );
}

#[tokio::test]
async fn json_is_one_document_with_a_verdict_for_each_rule_and_the_spans_that_show_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut steps = conversation(1, Weather::CLEAR);
    let receipt = steps
        .iter()
        .position(|step| step.act == Act::Deliver)
        .unwrap();
    steps[receipt].time = 0;
    let file = recorded(directory.path(), &steps);
    let audited = audit_of(&file, &["--json"]).await;
    let document: Value = serde_json::from_str(&audited.stdout).expect("one document");
    assert_eq!(document["verdict"], "broken");
    assert_eq!(document["steps"], steps.len());
    let rules = document["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 9);
    let clock = &rules[0];
    assert_eq!(clock["rule"], "clock-condition");
    assert_eq!(clock["verdict"], "broken");
    assert_eq!(clock["broken"], 1);
    let shown = &clock["findings"][0]["steps"][1];
    assert_eq!(shown["span_id"], steps[receipt].id.span.to_string());
    assert_eq!(shown["time"], 0);
    assert_eq!(shown["link"], Value::Null);
}

#[test]
fn with_a_jaeger_each_finding_has_a_link_to_its_trace() {
    let mut steps = conversation(1, Weather::CLEAR);
    let receipt = steps
        .iter()
        .position(|step| step.act == Act::Deliver)
        .unwrap();
    steps[receipt].time = 0;
    let run = run(&steps);
    let verdict = audit(&run);
    let jaeger = "http://localhost:16686/".parse().unwrap();
    let report = Report {
        run: &run,
        verdict: &verdict,
        jaeger: Some(&jaeger),
    };
    let trace = steps[receipt].id.trace;
    let link = format!("http://localhost:16686/trace/{trace}?uiFind=lamport\n");
    // Found by two rules, each of which shows it once.
    let findings = verdict.rules.iter().map(|judged| judged.broken.findings);
    assert_eq!(findings.sum::<u64>(), 2, "{report}");
    assert_eq!(report.to_string().matches(&link).count(), 2, "{report}");
}

#[test]
fn of_many_findings_the_first_are_told_and_all_are_counted() {
    let mut steps = conversation(1, Weather::CLEAR);
    let receipts = steps.iter_mut().filter(|step| step.act == Act::Deliver);
    let count = receipts.map(|step| step.time = 0).count();
    assert!(count > Findings::MAX);
    let run = run(&steps);
    let verdict = audit(&run);
    let report = Report {
        run: &run,
        verdict: &verdict,
        jaeger: None,
    };
    let clock = &verdict.rules[0];
    assert_eq!(clock.broken.total, count as u64);
    assert_eq!(clock.broken.first.len(), Findings::MAX);
    let more = format!("and {} more like these", count - Findings::MAX);
    assert!(report.to_string().contains(&more), "{report}");
}

#[test]
fn names_from_a_recording_cannot_steer_a_terminal() {
    let mut steps = conversation(1, Weather::CLEAR);
    for step in &mut steps {
        step.time = 0;
        step.participant = "\u{1b}[2J".into();
        step.room = "\u{1b}[2J".into();
    }
    let run = run(&steps);
    let verdict = audit(&run);
    let report = Report {
        run: &run,
        verdict: &verdict,
        jaeger: None,
    };
    assert!(!report.to_string().contains('\u{1b}'));
}
