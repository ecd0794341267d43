//! Any server of the protocol can be checked: each fault is told by its rule's name, and by no other.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use chitchat::check::{self, Path, Plan, RULES, Report, Verdict};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::LocalSet,
};

use crate::support::{
    fake, hostile,
    program::{Finished, chitchat},
    server,
    student::{self, Fault, REPORT},
};

/// How long an answer may take. Long, because many servers are checked at one time; what is waited for in vain takes it.
const PATIENCE: Duration = Duration::from_secs(3);

async fn checked(address: SocketAddr, path: Option<Path>) -> Report {
    let plan = Plan {
        server: format!("http://{address}/").parse().unwrap(),
        path,
        patience: PATIENCE,
        crash_patience: PATIENCE,
        rules: RULES.iter().collect(),
    };
    check::run(&plan, |_| {}).await.unwrap()
}

fn failed(report: &Report) -> BTreeSet<&'static str> {
    let failed = report.checked.iter();
    let failed = failed.filter(|checked| matches!(checked.verdict, Verdict::Failed(_)));
    failed.map(|checked| checked.rule.id).collect()
}

fn undecided(report: &Report) -> Vec<(&'static str, &str)> {
    let verdicts = report.checked.iter();
    let undecided = verdicts.filter_map(|checked| match &checked.verdict {
        Verdict::Undecided { reason } => Some((checked.rule.id, reason.as_str())),
        _ => None,
    });
    undecided.collect()
}

/// Servers with one fault each break these rules, and no others.
async fn assert_found(faults: &[(Fault, &'static [&'static str])]) {
    let local = LocalSet::new();
    let runs: Vec<_> = faults
        .iter()
        .map(|&(fault, rules)| {
            local.spawn_local(async move {
                let student = student::start(Path::Ours, &[fault]).await;
                let report = checked(student.address(), None).await;
                let expected = rules.iter().copied().collect();
                (failed(&report) != expected).then(|| format!("{fault:?}: {}", report.table()))
            })
        })
        .collect();
    local.await;
    let mut wrong = String::new();
    for run in runs {
        wrong.extend(run.await.unwrap());
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn our_server_keeps_every_rule() {
    let server = server::start().await;

    let report = checked(server.address(), None).await;

    assert_eq!(report.path, "chitchat.v1.ChatService/Chat");
    assert_eq!(report.counts(), (RULES.len(), 0, 0), "{}", report.table());
}

#[tokio::test]
async fn our_server_keeps_every_rule_on_the_original_s_path_where_nothing_unary_is() {
    let server = server::start().await;

    let report = checked(server.address(), Some(Path::Original)).await;

    assert_eq!(report.path, "itu.chitchat.ChatService/Chat");
    assert_eq!(failed(&report), [].into(), "{}", report.table());
    let reason = "needs the unary SendMessage, which the original does not have";
    assert_eq!(undecided(&report), [("unary-publish", reason)]);
}

#[tokio::test]
async fn another_implementation_can_keep_every_rule() {
    let student = student::start(Path::Ours, &[]).await;
    let report = checked(student.address(), None).await;
    assert_eq!(report.counts(), (RULES.len(), 0, 0), "{}", report.table());
}

#[tokio::test]
async fn the_original_s_path_is_found_where_ours_is_not_offered() {
    let student = student::start(Path::Original, &[]).await;
    let report = checked(student.address(), None).await;
    assert_eq!(report.path, "itu.chitchat.ChatService/Chat");
    assert_eq!(
        report.counts(),
        (RULES.len() - 1, 0, 1),
        "{}",
        report.table()
    );
}

#[tokio::test]
async fn faults_in_joining_and_talking_are_told_by_name() {
    assert_found(&[
        (
            Fault::JoinHiddenFromOthers,
            &["join-announced", "concurrent-joins"],
        ),
        (Fault::JoinHiddenFromNewcomer, &["join-shown-to-newcomer"]),
        (Fault::JoinTextLacksTime, &["join-text"]),
        (Fault::JoinTextHasTheSendersTime, &["join-time"]),
        (Fault::LateJoinerGetsThePast, &["late-joiner"]),
        (Fault::BroadcastLacksName, &["broadcast-complete"]),
        (Fault::MangledText, &["content-unchanged"]),
        (Fault::SpeaksUnderAnyName, &["no-impersonation"]),
        (Fault::UnaryAnswersWithoutTime, &["unary-publish"]),
    ])
    .await;
}

/// It fails many rules, for many scenes wait for one's own words; but nobody that it cannot talk to before an attack is
/// said to be harmed by the attack.
#[tokio::test]
async fn a_server_that_tells_the_others_alone_is_not_accused_of_what_broken_clients_do() {
    let student = student::start(Path::Ours, &[Fault::SpeakerHearsNothing]).await;

    let report = checked(student.address(), None).await;

    let failed = failed(&report);
    assert!(failed.contains("broadcast-to-all"), "{}", report.table());
    let undecided = undecided(&report);
    for rule in [
        "bad-message-spares-others",
        "bad-utf8-spares-others",
        "huge-message-spares-others",
        "reset-spares-others",
        "junk-spares-others",
    ] {
        let reason = undecided.iter().find(|(undecided, _)| *undecided == rule);
        let reason = reason.map(|(_, reason)| *reason).unwrap_or_default();
        assert!(
            reason.starts_with("before anything was broken, "),
            "{}",
            report.table()
        );
    }
}

#[tokio::test]
async fn faults_in_time_and_order_are_told_by_name() {
    assert_found(&[
        (Fault::ClockStands, &["clock-advances"]),
        (Fault::NoMerge, &["clock-merges"]),
        (Fault::LosesOne, &["all-delivered-once"]),
        (Fault::TaskPerRecipient, &["one-order"]),
        (Fault::TimePerRecipient, &["one-time-per-message"]),
        (Fault::SharedTime, &["times-unique"]),
        (Fault::TimesFall, &["order-follows-times"]),
        (Fault::SwapsASender, &["sender-order-kept"]),
    ])
    .await;
}

#[tokio::test]
async fn faults_in_what_is_too_long_or_held_are_told_by_name() {
    assert_found(&[
        (Fault::LimitOneTooLow, &["limit-128-accepted"]),
        (Fault::LimitInBytes, &["limit-counts-characters"]),
        (Fault::NoLimit, &["limit-129-refused"]),
        (Fault::RefusesInSilence, &["refusal-told"]),
        (Fault::RefusalToAll, &["refusal-private"]),
        (Fault::LongEndsTheStream, &["refusal-spares-sender"]),
        // To that server 1 MiB is too long like any other text.
        (
            Fault::LongEndsTheOthers,
            &["refusal-spares-others", "huge-message-spares-others"],
        ),
        (Fault::EmptyEndsTheStream, &["empty-text-harmless"]),
        (Fault::IdTakesTheSlot, &["duplicate-id"]),
        (Fault::NameTakesTheSlot, &["duplicate-name"]),
    ])
    .await;
}

#[tokio::test]
async fn faults_in_leaving_are_told_by_name() {
    assert_found(&[
        (Fault::LeaveHidden, &["leave-announced"]),
        (Fault::LeaveTwice, &["leave-announced-once"]),
        (Fault::LeaveTextOther, &["leave-text"]),
        (Fault::LeaveDoesNotTick, &["leave-time"]),
        (Fault::LeaverStays, &["leaver-stream-ends"]),
        (Fault::LeaverGetsEof, &["leaver-stream-ends"]),
        (Fault::HalfCloseTextLacksTime, &["half-close-leaves"]),
    ])
    .await;
}

#[tokio::test]
async fn faults_with_slow_dead_and_broken_clients_are_told_by_name() {
    assert_found(&[
        (Fault::SlowReaderBlocks, &["slow-reader-spares-others"]),
        (Fault::CrashHidden, &["crash-announced"]),
        (Fault::CrashTwice, &["crash-announced-once"]),
        (Fault::CrashTextOther, &["crash-text"]),
        (Fault::CrashHasJoinTime, &["crash-time-fresh"]),
        (
            Fault::BrokenConnectionEndsAll,
            &[
                "crash-spares-others",
                "crash-announced",
                "reset-spares-others",
            ],
        ),
        (
            Fault::BadMessageEndsAll,
            &["bad-message-spares-others", "bad-utf8-spares-others"],
        ),
        (Fault::HugeTextEndsAll, &["huge-message-spares-others"]),
        (Fault::JunkEndsAll, &["junk-spares-others"]),
    ])
    .await;
}

#[tokio::test]
async fn the_report_s_own_server_breaks_these() {
    let student = student::start(Path::Original, REPORT).await;

    let report = checked(student.address(), None).await;

    // Shown with --nocapture.
    println!("{}", report.table());
    assert_eq!(report.path, "itu.chitchat.ChatService/Chat");
    let expected = [
        "no-impersonation",
        "one-order",
        "limit-counts-characters",
        "duplicate-id",
        "leaver-stream-ends",
        "half-close-leaves",
        "crash-announced",
    ];
    assert_eq!(failed(&report), expected.into(), "{}", report.table());
    let undecided = undecided(&report).into_iter().map(|(rule, _)| rule);
    let expected = [
        "unary-publish",
        "order-follows-times",
        "sender-order-kept",
        "crash-announced-once",
        "crash-text",
        "crash-time-fresh",
    ];
    assert_eq!(undecided.collect::<Vec<_>>(), expected);
}

/// The program, against the server at `address`.
async fn run(address: SocketAddr, arguments: &str) -> Finished {
    let address = address.to_string();
    let words = ["check", &address].into_iter();
    chitchat(words.chain(arguments.split_whitespace()))
        .run()
        .await
}

#[tokio::test]
async fn the_program_says_good_to_a_server_that_breaks_no_rule() {
    let server = server::start().await;

    let ran = run(server.address(), "--only join-text,join-announced").await;

    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(
        lines[0].contains("/chitchat.v1.ChatService/Chat, rooms check-"),
        "{}",
        ran.stdout
    );
    assert!(lines[2].starts_with("passed     join-announced"));
    assert!(lines[3].starts_with("passed     join-text"));
    assert_eq!(*lines.last().unwrap(), "2 passed, 0 failed");
}

#[tokio::test]
async fn the_program_says_no_to_one_that_does_and_shows_what_was_read() {
    let student = student::start(Path::Ours, &[Fault::JoinTextLacksTime]).await;

    let ran = run(student.address(), "--only join-text,join-time").await;

    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let expected = r"(?x)
        FAILED\ +join-text.*\n
        \ +expected:\ the\ text\ .Participant\ Bob-[0-9a-f]{4}-\d{3}\ joined\ Chit\ Chat\ at\ logical\ time\ L=\.\.\..*\n
        \ +happened:\ the\ text\ is\ .Participant\ Bob-[0-9a-f]{4}-\d{3}\ joined\ Chit\ Chat.\n
        (\ +Ada-[0-9a-f]{4}-\d{3}\ read:\ L=\d+\ JOIN\ .*\n)+
        undecided\ +join-time.*\n
        \ +there\ is\ no\ logical\ time\ in\ the\ text\n
        \n
        0\ passed,\ 1\ failed,\ 1\ undecided\n$";
    let expected = regex::Regex::new(expected).unwrap();
    assert!(expected.is_match(&ran.stdout), "{}", ran.stdout);
}

#[tokio::test]
async fn programs_get_one_document_of_json() {
    let student = student::start(Path::Ours, &[Fault::JoinTextLacksTime]).await;

    let only = "--only join-announced,join-text,join-time --json";
    let ran = run(student.address(), only).await;

    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let report: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(report["server"], format!("http://{}/", student.address()));
    assert_eq!(report["path"], "chitchat.v1.ChatService/Chat");
    assert!(report["rooms"].as_str().unwrap().starts_with("check-"));
    let counts = ["passed", "failed", "undecided"].map(|count| report[count].as_u64());
    assert_eq!(counts, [Some(1); 3], "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    let verdicts: Vec<_> = checks
        .iter()
        .map(|check| {
            (
                check["id"].as_str().unwrap(),
                check["verdict"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("join-announced", "passed"),
        ("join-text", "failed"),
        ("join-time", "undecided"),
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(checks[0]["sources"], serde_json::json!(["S5"]));
    for field in ["rule", "expected", "happened"] {
        assert!(checks[1][field].is_string(), "{field}: {report:#}");
    }
    assert!(!checks[1]["seen"].as_array().unwrap().is_empty());
    assert!(checks[2]["reason"].is_string(), "{report:#}");
}

#[tokio::test]
async fn where_nothing_can_be_decided_that_is_no_good_verdict() {
    let student = student::start(Path::Original, &[]).await;
    let ran = run(student.address(), "--only unary-publish").await;
    assert_eq!(ran.code, 2, "{}", ran.stdout);
    assert!(ran.stdout.ends_with("0 passed, 0 failed, 1 undecided\n"));
}

#[tokio::test]
async fn what_the_participants_are_told_cannot_deceive_a_terminal() {
    let server = hostile::start().await;
    let ran = run(server.address(), "--timeout 300ms --only join-announced").await;
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stdout.contains(hostile::HARMLESS), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'));
}

/// A server of which one thing is known: what it does with a connection.
async fn listening(reply: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut tcp, _)) = listener.accept().await {
            if let Some(reply) = reply {
                let _ = tcp.read(&mut [0; 1024]).await;
                let _ = tcp.write_all(reply).await;
            } else {
                open.push(tcp);
            }
        }
    });
    address
}

#[tokio::test]
async fn where_there_is_no_server_of_the_protocol_it_says_so_soon() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (_, health) = tonic_health::server::health_reporter();
    let health = fake::serve_as(health).await;
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    for (address, words) in [
        (nobody, "cannot connect"),
        (
            listening(None).await,
            "it accepts the connection, but answers neither a JOIN nor a MESSAGE within 300ms",
        ),
        (listening(Some(http)).await, "is that a gRPC server?"),
        (listening(Some(b"")).await, "is that a gRPC server?"),
        (
            health.address(),
            "it does not offer chitchat.v1.ChatService/Chat, nor itu.chitchat.ChatService/Chat",
        ),
    ] {
        let begin = Instant::now();
        let ran = run(address, "--timeout 300ms").await;

        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{words}");
        let start = format!("chitchat: http://{address}/: ");
        assert!(ran.stderr.starts_with(&start), "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert!(begin.elapsed() < Duration::from_secs(5), "{words}");
    }
}

#[tokio::test]
async fn a_path_that_is_asked_for_is_the_only_one_that_is_tried() {
    let student = student::start(Path::Original, &[]).await;
    let ran = run(student.address(), "--path chitchat.v1").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    let words = "it does not offer chitchat.v1.ChatService/Chat\n";
    assert!(ran.stderr.ends_with(words), "{}", ran.stderr);
}

#[tokio::test]
async fn a_wrong_command_line_starts_nothing() {
    for arguments in [
        "check",
        "check 127.0.0.1",
        "check https://127.0.0.1:1",
        "check 127.0.0.1:1 --only no-such-rule",
        "check 127.0.0.1:1 --path elsewhere",
        "check 127.0.0.1:1 --timeout 0s",
        "check 127.0.0.1:1 --timeout 5",
    ] {
        let ran = chitchat(arguments.split_whitespace()).run().await;
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments}");
    }
}

#[tokio::test]
async fn the_rules_can_be_listed_and_help_says_what_is_done_to_a_server() {
    let listed = chitchat(["check", "--list"]).run().await;
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    for rule in RULES {
        assert!(listed.stdout.contains(rule.id), "{}", rule.id);
    }
    let help = chitchat(["check", "--help"]).run().await.stdout;
    assert!(help.contains("What it does to the server"), "{help}");
}
