//! A recorded run is read from files and from a Jaeger: whole, each span once, and what is missing is told.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chitchat::{
    causality::{
        source::{
            Unusable, file,
            jaeger::{Jaeger, Limits},
            selection::Selection,
        },
        step::{Act, Process, Recording, Step},
    },
    cli::{self, exit::Exit},
    config,
    telemetry::{Environment, EventName, Facts, Sending, Telemetry},
};
use clap::Parser as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    jaeger::{self, ANY_SERVICE, SESSION, Store},
    spans::{self, conversation, line},
    traced::MESSAGE,
};

/// 2026-11-23T20:00:00Z, in nanoseconds since 1970.
const EVENING: u64 = 1_795_464_000 * SECOND;
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

// Files.

#[test]
fn a_line_reads_back_as_the_steps_that_it_was_written_from() {
    let mut steps = conversation(3, 4, EVENING, SECOND);
    let refusal = &mut steps[1];
    refusal.event = EventName::Refusal;
    refusal.error = "TOO_LONG".into();
    refusal.text = "Message \"too\" long\n(354 chars). Limit is 128.".into();
    refusal.sequence = None;
    steps[5].number = None;
    steps[5].message_time = None;

    let recording = read_text(&line(&steps)).unwrap();

    assert_eq!(sorted(recording.steps), sorted(steps));
    assert_eq!(recording.intake.spans, 20);
    assert_eq!(recording.intake.faulty, 0);
}

#[test]
fn what_our_programs_write_to_a_file_reads_back_as_what_they_did() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spans.jsonl");
    let config = config::Telemetry {
        file: Some(path.clone()),
        text: true,
        ..config::Telemetry::default()
    };
    let telemetry = Telemetry::start(&config, "Alex", &Environment::from([]));
    let send = telemetry.tracer().send(Sending::Join, "lobby");
    let order = telemetry.tracer().order(&send.traceparent(), "lobby");
    send.end(&Facts {
        event: EventName::Join,
        lamport_time: 1,
        ..MESSAGE
    });
    order.end(&Facts {
        event: EventName::Refusal,
        lamport_time: 2,
        lamport_message_time: Some(1),
        process_id: Process::SERVICE,
        epoch: "an epoch",
        text: "Message too long.",
        recipients: Some(1),
        error: Some("TOO_LONG"),
        ..MESSAGE
    });
    telemetry.shutdown();

    let mut steps = read_files(&[path]).unwrap().steps;
    steps.sort_by_key(|step| step.number);

    let [send, order] = &steps[..] else {
        panic!("{steps:?}");
    };
    assert_eq!(
        (send.act, send.event, send.number),
        (Act::Send, EventName::Join, Some(1))
    );
    assert_eq!(
        (&*send.process.id, &*send.service, send.time),
        ("3300", "alex", 1)
    );
    assert_eq!(
        (send.parent, send.message_time, &*send.participant),
        (None, None, "Alex")
    );
    assert_eq!(send.process.instance, send.instance);
    assert_eq!(
        (order.id.trace, order.parent),
        (send.id.trace, Some(send.id.span))
    );
    assert_eq!(
        (order.act, order.event, order.number),
        (Act::Order, EventName::Refusal, Some(2))
    );
    assert_eq!(
        (&*order.room, &*order.epoch, &*order.error),
        ("lobby", "an epoch", "TOO_LONG")
    );
    assert_eq!(
        (&*order.text, order.recipients, order.message_time),
        ("Message too long.", Some(1), Some(1))
    );
    // The service is one process, however often it starts.
    assert_eq!(
        (&*order.process.instance, &order.instance),
        ("", &send.instance)
    );
    assert!(0 < send.start && send.start <= send.end && send.start <= order.start);
}

#[test]
fn integers_may_be_texts_or_numbers_and_what_is_not_needed_may_be_missing_or_new() {
    let ours = json!({
        "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "parentSpanId": "",
        "kind": "SPAN_KIND_PRODUCER", "startTimeUnixNano": 1_795_464_000_000_000_000_u64, "events": [{ "name": "x" }],
        "status": null, "invented": { "later": [1, 2.5, null] },
        "attributes": [
            spans::text("messaging.system", "chitchat"), spans::text("messaging.operation.name", "send"),
            spans::text("chat.event.type", "message"), spans::text("lamport.process.id", "3300"),
            { "key": "lamport.time", "value": { "intValue": 7 } },
            { "key": "a.list", "value": { "arrayValue": { "values": [{ "doubleValue": 0.5 }] } } },
            { "key": "nothing" },
        ],
    });
    // A resource may come after its spans.
    let document = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[SPAN]}],"resource":{"attributes":[
        {"key":"service.name","value":{"stringValue":"alex"}}]},"schemaUrl":"x"}],"other":1}"#;

    let recording = read_text(&document.replace("SPAN", &ours.to_string())).unwrap();

    let [step] = &recording.steps[..] else {
        panic!("{recording:?}");
    };
    assert_eq!(
        step.id.to_string(),
        "5b8efff798038103d269b633813fc60c/eee19b7ec3c1b174"
    );
    assert_eq!(
        (step.parent, step.time, step.start, step.end),
        (None, 7, EVENING, 0)
    );
    assert_eq!(
        (&*step.service, &*step.process.id, &*step.process.instance),
        ("alex", "3300", "")
    );
}

#[test]
fn a_saved_answer_of_jaeger_is_a_recording_on_one_line_and_on_many() {
    let session: Value = serde_json::from_str(SESSION).unwrap();
    let on_many_lines = serde_json::to_string_pretty(&session).unwrap();

    let on_one = read_text(SESSION).unwrap();
    let on_many = read_text(&on_many_lines).unwrap();

    assert_eq!((on_one.steps.len(), traces(&on_one)), (64, 18));
    assert_eq!(sorted(on_one.steps), sorted(on_many.steps));
    let refused = on_many.intake;
    assert_eq!((refused.spans, refused.foreign, refused.faulty), (64, 0, 0));
}

#[test]
fn others_spans_are_counted_and_passed_over() {
    let recording = read_text(ANY_SERVICE).unwrap();

    assert_eq!(recording.steps.len(), 64);
    assert_eq!((recording.intake.spans, recording.intake.foreign), (91, 27));
}

#[test]
fn several_files_are_one_recording_and_what_is_in_two_is_kept_once() {
    let steps = conversation(2, 3, EVENING, SECOND);
    let files = Files::new(&[&line(&steps[..6]), &line(&steps[4..])]);

    let recording = files.read().unwrap();

    assert_eq!(sorted(recording.steps), sorted(steps));
    assert_eq!((recording.intake.spans, recording.intake.repeated), (14, 2));
}

#[test]
fn a_span_that_is_there_twice_with_different_contents_is_a_fault() {
    let steps = conversation(1, 1, EVENING, SECOND);
    let mut other = steps[0].clone();
    other.time += 1;

    let recording = read_text(&(line(&steps) + &line(&[other]))).unwrap();

    assert_eq!(recording.steps.len(), 3);
    assert_eq!((recording.intake.faulty, recording.intake.repeated), (1, 0));
    let fault = &recording.intake.faults[0];
    assert!(fault.ends_with("spans-0.jsonl, line 2: span 00000000000000000000100000000000/0000000000000004 is there twice, with different contents"), "{fault}");
}

#[test]
fn a_span_of_ours_that_lacks_what_a_step_needs_is_a_fault_and_the_others_count() {
    let steps = conversation(1, 2, EVENING, SECOND);
    for (name, replaced) in [
        ("lamport.time", json!({ "stringValue": "soon" })),
        ("lamport.process.id", json!({ "stringValue": "" })),
        (
            "messaging.operation.name",
            json!({ "stringValue": "ponder" }),
        ),
        ("chat.event.type", Value::Null),
        ("chat.step.number", json!({ "intValue": "-1" })),
    ] {
        let mut document = spans::document(&steps);
        let span = &mut document["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        let attributes = span["attributes"].as_array_mut().unwrap();
        let attribute = attributes
            .iter_mut()
            .find(|attribute| attribute["key"] == name);
        attribute.unwrap()["value"] = replaced;

        let recording = read_text(&document.to_string()).unwrap();

        assert_eq!(
            (recording.steps.len(), recording.intake.faulty),
            (5, 1),
            "{name}"
        );
        let fault = &recording.intake.faults[0];
        assert!(fault.ends_with(&format!("has no usable {name}")), "{fault}");
    }
}

#[test]
fn a_document_that_is_cut_off_is_told_and_spoils_nothing_else() {
    let steps = conversation(1, 3, EVENING, SECOND);
    let [first, second, third] = [0, 3, 6].map(|from| line(&steps[from..from + 3]));
    // What a killed process left; the next one to append began a line of its own.
    let torn = format!("{}\n", &second[..second.len() / 2]);
    for (text, cut) in [
        (format!("{first}{torn}{third}"), "line 2"),
        (format!("{first}{third}{}", torn.trim_end()), "line 3"),
    ] {
        let recording = read_text(&text).unwrap();

        assert_eq!(
            sorted(recording.steps),
            sorted([&steps[..3], &steps[6..]].concat())
        );
        let [warning] = &recording.intake.warnings[..] else {
            panic!("{:?}", recording.intake);
        };
        assert!(
            warning.contains(&format!("{cut}: cut off in the middle")),
            "{warning}"
        );
    }
}

#[test]
fn what_is_no_otlp_json_is_refused_with_its_place() {
    let good = line(&conversation(1, 1, EVENING, SECOND));
    for (text, words) in [
        (
            "hello\n".to_owned(),
            "line 1, column 1: expected value; expected OTLP JSON, as telemetry.file",
        ),
        (
            format!("{good}{{\"resourceSpans\":[}}\n{good}"),
            "line 2, column 19: expected value",
        ),
        (
            format!("{good}garbage\n{good}"),
            "line 2, column 1: expected value",
        ),
        (
            format!("{good}{{\"resourceSpans\":7}}\n"),
            "line 2, column 18: invalid type: integer `7`, expected an array",
        ),
        (
            "[1, 2]\n".to_owned(),
            "line 1, column 1: invalid type: sequence, expected an object",
        ),
        (
            "{\"resourceSpans\":\n  [{\"resource\": tru]}".to_owned(),
            "line 2, column 20: expected ident",
        ),
        (
            r#"{"data":[{"traceID":"1"}]}"#.to_owned(),
            "traces in Jaeger's own form",
        ),
        (
            r#"{"error":{"httpCode":404,"message":"No traces found"}}"#.to_owned(),
            "an answer of Jaeger without spans: No traces found",
        ),
        (
            "\u{fffd}\u{1}".to_owned(),
            "line 1, column 1: expected value",
        ),
    ] {
        assert_refused(read_text(&text), words);
    }
}

#[test]
fn what_has_no_step_is_refused_with_the_reason() {
    let own: Value = serde_json::from_str(ANY_SERVICE).unwrap();
    let own = own["result"]["resourceSpans"].as_array().unwrap().iter();
    let own: Vec<&Value> = own
        .filter(|of| of["resource"].to_string().contains("\"jaeger\""))
        .collect();
    let foreign = json!({ "resourceSpans": own }).to_string();
    let without_times = line(&conversation(1, 1, EVENING, SECOND)).replace("lamport.time", "time");
    for (text, words) in [
        ("", "no spans"),
        ("\n\n", "no spans"),
        ("{}\n", "no spans"),
        (
            &foreign,
            "27 spans, but none of Chit Chat's (which have messaging.system = chitchat)",
        ),
        (
            &without_times,
            "no span that can be used; the first that cannot: ",
        ),
        ("{\"resourceSp", "no spans; "),
    ] {
        assert_refused(read_text(text), words);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.jsonl");
    for (path, words) in [
        (missing.as_path(), "missing.jsonl: there is no such file"),
        (
            directory.path(),
            ": this is a directory; name the files in it",
        ),
    ] {
        assert_refused(read_files(&[path]), words);
    }
}

#[test]
fn a_file_without_spans_among_others_is_told() {
    let steps = conversation(1, 1, EVENING, SECOND);
    let files = Files::new(&[&line(&steps), ""]);

    let recording = files.read().unwrap();

    assert_eq!(recording.steps.len(), 3);
    let [warning] = &recording.intake.warnings[..] else {
        panic!("{:?}", recording.intake);
    };
    assert!(warning.ends_with("spans-1.jsonl: no spans"), "{warning}");
}

// Numbers.

#[test]
fn numbers_that_are_missing_between_two_are_lost() {
    let steps = conversation(1, 5, EVENING, SECOND);
    // The service orders each message once, so its numbers are 1 to 5.
    let (lost, kept): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(|step| {
        &*step.service == "chitchat-server" && matches!(step.number, Some(2 | 3))
    });

    let recording = read_text(&line(&kept)).unwrap();

    let [found] = &recording.lost[..] else {
        panic!("{:?}", recording.lost);
    };
    assert_eq!(
        (&*found.service, &*found.instance),
        ("chitchat-server", "instance-0")
    );
    assert_eq!(found.numbers, 2..=3);
    let number = |id| {
        kept.iter()
            .find(|step| step.id == id)
            .and_then(|step| step.number)
    };
    assert_eq!(
        (number(found.after), number(found.before)),
        (Some(1), Some(4))
    );
    assert_eq!(lost.len(), 2);
    assert!(recording.intake.warnings.is_empty());
}

#[test]
fn what_lies_before_the_first_step_or_after_the_last_is_not_called_lost() {
    let steps = conversation(1, 5, EVENING, SECOND);

    let recording = read_text(&line(&steps[6..12])).unwrap();

    assert_eq!(recording.lost, []);
    let [warning] = &recording.intake.warnings[..] else {
        panic!("{:?}", recording.intake);
    };
    let words = "the recording begins in the middle: it lacks chitchat-server's first 2, participant-1's first 4 spans;";
    assert!(warning.starts_with(words), "{warning}");
}

#[test]
fn what_was_not_asked_for_is_not_lost_and_what_was_lost_stays_lost() {
    let mut steps = conversation(1, 6, EVENING, SECOND);
    for step in &mut steps[6..9] {
        step.room = "kitchen".into();
    }
    let gap = steps.remove(4);
    let mut recording = read_text(&line(&steps)).unwrap();
    let before = recording.lost.clone();

    let lobby = Selection {
        room: Some("lobby".into()),
        ..Selection::default()
    };
    lobby.apply(&mut recording);

    assert_eq!(recording.lost, before);
    let [found] = &recording.lost[..] else {
        panic!("{:?}", recording.lost);
    };
    assert_eq!(found.numbers, gap.number.unwrap()..=gap.number.unwrap());
    assert_eq!((recording.steps.len(), recording.intake.left_out), (14, 3));
}

#[test]
fn a_gap_before_the_time_that_was_asked_for_is_nobodys_business() {
    let mut steps = conversation(1, 6, EVENING, SECOND);
    steps.remove(4);
    let files = Files::new(&[&line(&steps)]);
    for (since, gaps) in [(EVENING, 1), (EVENING + 2 * SECOND, 0)] {
        let recording = file::read(&files.paths, Some(since), &mut |_| ()).unwrap();

        assert_eq!(recording.lost.len(), gaps);
        assert!(recording.intake.warnings.is_empty());
    }
}

// What counts.

#[test]
fn an_event_is_selected_whole_or_not_at_all() {
    let session = read_text(SESSION).unwrap();
    let lobby = |room: &str| Selection {
        room: Some(room.into()),
        ..Selection::default()
    };
    let until = |time| Selection {
        until_time: Some(time),
        ..Selection::default()
    };
    let from = |sequence| Selection {
        from_sequence: Some(sequence),
        ..Selection::default()
    };
    let ordered = |recording: &Recording| {
        let steps = recording
            .steps
            .iter()
            .filter(|step| step.process.is_service());
        let mut times: Vec<i64> = steps.map(|step| step.time).collect();
        times.sort_unstable();
        times
    };
    let all = ordered(&session);
    // Events 12, 13 ... of the session come after L=29.
    let twelfth = session
        .steps
        .iter()
        .find(|step| step.sequence == Some(12) && step.process.is_service());
    let twelfth = twelfth.unwrap().time;
    let refusal = session
        .steps
        .iter()
        .find(|step| step.event == EventName::Refusal && step.process.is_service());
    let refusal = refusal.unwrap().time;
    for (selection, times) in [
        (lobby("lobby"), all.clone()),
        (lobby("kitchen"), vec![]),
        (
            until(refusal),
            all.iter()
                .copied()
                .filter(|time| *time <= refusal)
                .collect::<Vec<_>>(),
        ),
        (
            until(refusal - 1),
            all.iter().copied().filter(|time| *time < refusal).collect(),
        ),
        (
            from(12),
            all.iter()
                .copied()
                .filter(|time| *time >= twelfth)
                .collect(),
        ),
        (from(1), all.clone()),
    ] {
        let mut recording = session.clone();
        selection.apply(&mut recording);

        assert_eq!(ordered(&recording), times, "{selection:?}");
        let ids: BTreeSet<_> = recording
            .steps
            .iter()
            .map(|step| step.id.trace.to_bytes())
            .collect();
        let whole = session
            .steps
            .iter()
            .filter(|step| ids.contains(&step.id.trace.to_bytes()));
        assert_eq!(whole.count(), recording.steps.len(), "{selection:?}");
        assert_eq!(
            recording.intake.left_out as usize,
            64 - recording.steps.len()
        );
    }
}

#[test]
fn an_event_counts_since_a_time_if_one_of_its_steps_began_then() {
    let mut steps = conversation(1, 3, EVENING, SECOND);
    steps[2].start = EVENING + SECOND;
    let mut recording = read_text(&line(&steps)).unwrap();

    let since = Selection {
        since: Some(EVENING + SECOND),
        ..Selection::default()
    };
    since.apply(&mut recording);
    assert_eq!(recording.steps.len(), 9);

    let since = Selection {
        since: Some(EVENING + SECOND + 1),
        ..Selection::default()
    };
    since.apply(&mut recording);
    assert_eq!(recording.steps.len(), 6);
}

#[test]
fn an_event_that_may_count_does() {
    let steps = conversation(1, 2, EVENING, SECOND);
    // Of the second message only its sending is known.
    let mut recording = read_text(&line(&steps[..4])).unwrap();
    let sent = steps[3].time;
    for (until, kept) in [(sent + 1, 4), (sent, 3)] {
        let until = Selection {
            until_time: Some(until),
            from_sequence: Some(1),
            ..Selection::default()
        };
        until.apply(&mut recording);

        assert_eq!(recording.steps.len(), kept);
    }
}

// Jaeger.

#[tokio::test]
async fn what_jaeger_has_is_what_a_file_of_its_answer_has() {
    let store = Store::of_document(&serde_json::from_str(ANY_SERVICE).unwrap());
    let jaeger = store.start().await;

    let recording = read_jaeger(jaeger.url()).await.unwrap();

    let from_file = read_text(SESSION).unwrap();
    assert_eq!(sorted(recording.steps), sorted(from_file.steps));
    // Jaeger's own traces are not even asked for.
    assert_eq!((recording.intake.spans, recording.intake.foreign), (64, 0));
}

#[tokio::test]
async fn thousands_of_traces_arrive_whole_and_each_once() {
    let steps = conversation(1, 5000, EVENING, MILLISECOND);
    let jaeger = Store::of(&steps).start().await;

    let recording = read_jaeger(jaeger.url()).await.unwrap();

    assert_eq!(
        (recording.intake.spans, recording.intake.repeated),
        (15_000, 0)
    );
    assert_eq!(recording.lost, []);
    assert_eq!(recording.intake.warnings, [""; 0]);
    assert_eq!(sorted(recording.steps), sorted(steps));
    assert!(jaeger.searches() < 40, "{} questions", jaeger.searches());
}

#[tokio::test]
async fn a_trace_that_lies_in_many_windows_is_there_once() {
    let now = now();
    let mut steps = conversation(2, 40, now - 3600 * SECOND, 90 * SECOND);
    for (index, step) in steps.iter_mut().enumerate() {
        step.start += (index % 4) as u64 * 300 * SECOND;
        step.end = step.start + 1;
    }
    let limits = Limits {
        traces: 16,
        ..Limits::default()
    };
    let jaeger = Store::of(&steps).start().await;

    let recording = read_within(jaeger.url(), limits).await.unwrap();

    assert_eq!(
        (recording.intake.spans, recording.intake.repeated),
        (160, 0)
    );
    assert_eq!(sorted(recording.steps), sorted(steps));
}

#[tokio::test]
async fn clocks_may_be_ahead_and_behind() {
    let now = now();
    let mut steps = conversation(1, 2, now + 3600 * SECOND, SECOND);
    // A machine whose clock was never set.
    for step in &mut steps[3..] {
        step.start = 5 * SECOND;
        step.end = 6 * SECOND;
    }
    let jaeger = Store::of(&steps).start().await;

    let recording = read_jaeger(jaeger.url()).await.unwrap();

    assert_eq!(sorted(recording.steps), sorted(steps));
}

#[tokio::test]
async fn jaeger_is_asked_for_what_began_since_then() {
    let steps = conversation(1, 10, EVENING, SECOND);
    let jaeger = Store::of(&steps).start().await;
    let since = EVENING + 7 * SECOND;

    let recording = Jaeger::at(jaeger.url()).unwrap();
    let recording = recording.read(Some(since), &mut |_| ()).await.unwrap();

    assert_eq!(sorted(recording.steps), sorted(steps[21..].to_vec()));
    assert!(recording.intake.warnings.is_empty());
}

#[tokio::test]
async fn an_address_may_have_a_path_or_lack_its_scheme() {
    let steps = conversation(1, 1, EVENING, SECOND);
    let jaeger = Store::of(&steps).below("/observed/jaeger").start().await;
    let url = jaeger.url();
    for url in [
        url,
        &format!("{url}/"),
        url.strip_prefix("http://").unwrap(),
    ] {
        let recording = read_jaeger(url).await.unwrap();

        assert_eq!(recording.steps.len(), 3);
    }
}

#[tokio::test]
async fn a_storage_that_searches_one_service_at_a_time_gives_the_same() {
    let steps = conversation(3, 20, EVENING, SECOND);
    let jaeger = Store::of(&steps).needing_a_service().start().await;

    let recording = read_jaeger(jaeger.url()).await.unwrap();

    assert_eq!(
        (recording.intake.spans, recording.intake.repeated),
        (100, 0)
    );
    assert_eq!(sorted(recording.steps), sorted(steps));
}

#[tokio::test]
async fn a_jaeger_that_keeps_few_traces_is_asked_for_fewer() {
    let steps = conversation(1, 90, EVENING, SECOND);
    let jaeger = Store::of(&steps).with_max_traces(100).start().await;

    let recording = read_jaeger(jaeger.url()).await.unwrap();

    assert_eq!(sorted(recording.steps), sorted(steps));
}

#[tokio::test]
async fn answers_that_are_too_large_are_asked_for_in_parts() {
    let steps = conversation(1, 200, EVENING, SECOND);
    let jaeger = Store::of(&steps).start().await;
    let one = line(&steps[..3]).len();
    let limits = |traces: usize| Limits {
        bytes: traces * one,
        ..Limits::default()
    };

    let recording = read_within(jaeger.url(), limits(40)).await.unwrap();
    assert_eq!(sorted(recording.steps), sorted(steps));

    let refused = read_within(jaeger.url(), limits(5)).await;
    assert_refused(
        refused,
        "its answers are too large, even for a few traces; let the programs write",
    );
}

#[tokio::test]
async fn more_traces_in_a_nanosecond_than_jaeger_gives_are_told() {
    let mut steps = conversation(1, 12, EVENING, SECOND);
    for step in &mut steps {
        (step.start, step.end) = (EVENING, EVENING + 1);
    }
    let jaeger = Store::of(&steps).start().await;
    let limits = |traces| Limits {
        traces,
        ..Limits::default()
    };

    let all = read_within(jaeger.url(), limits(13)).await.unwrap();
    assert_eq!((all.steps.len(), all.intake.warnings.len()), (36, 0));

    let some = read_within(jaeger.url(), limits(12)).await.unwrap();
    let warning = &some.intake.warnings[0];
    assert!(
        warning.contains("12 traces begin in the nanosecond of 2026-11-23T20:00:00"),
        "{warning}"
    );
}

#[tokio::test]
async fn a_jaeger_without_our_traces_says_what_it_has() {
    let empty = Store::of(&[]).start().await;
    assert_refused(
        read_jaeger(empty.url()).await,
        "no spans; it has no traces at all",
    );

    let foreign = line(&conversation(1, 1, EVENING, SECOND)).replace("\"chitchat\"", "\"kafka\"");
    let foreign = Store::of_document(&serde_json::from_str(&foreign).unwrap());
    let foreign = foreign.start().await;
    let words = "no spans; it has traces of chitchat-server, participant-1";
    assert_refused(read_jaeger(foreign.url()).await, words);

    let old = Store::of(&conversation(1, 1, EVENING, SECOND))
        .start()
        .await;
    let since = Some(EVENING + 60 * SECOND);
    let refused = Jaeger::at(old.url())
        .unwrap()
        .read(since, &mut |_| ())
        .await;
    assert_refused(
        refused,
        "no spans since 2026-11-23T20:01:00.000000000Z; it has traces of",
    );
}

#[tokio::test]
async fn what_is_no_jaeger_is_told_with_what_to_do() {
    let html = "<!doctype html><title>Jaeger UI</title>";
    let is_it = "Is --jaeger the address of Jaeger's UI, such as http://localhost:16686";
    for (bytes, words) in [
        (
            response("200 OK", "text/html", html),
            ["its answer is not Jaeger's", is_it],
        ),
        (
            response("404 Not Found", "text/plain", "404 page not found"),
            ["answers 404 Not Found", is_it],
        ),
        (
            response("401 Unauthorized", "text/plain", ""),
            ["wants a login (401 Unauthorized)", "forward a port"],
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: /jaeger/ui\r\nContent-Length: 0\r\n\r\n".into(),
            ["redirects to /jaeger/ui", "give the address"],
        ),
        (
            response(
                "500 Internal Server Error",
                "text/plain",
                r#"{"error":{"httpCode":500,"message":"disk is full"}}"#,
            ),
            ["Jaeger refuses: disk is full (500)", ""],
        ),
        // The first frame of a gRPC server.
        (
            "\0\0\u{6}\u{4}\0\0\0\0\0\0\u{5}\0\0@\0".into(),
            ["does not speak HTTP/1.1", is_it],
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"services\"".into(),
            ["the connection broke", is_it],
        ),
    ] {
        let other = jaeger::Jaeger::that_answers(bytes).await;
        let refused = read_jaeger(other.url())
            .await
            .map(|_| ())
            .unwrap_err()
            .to_string();

        assert!(refused.starts_with(other.url()), "{refused}");
        assert!(
            words.iter().all(|words| refused.contains(words)),
            "{refused}: {words:?}"
        );
    }
}

#[tokio::test]
async fn a_silent_or_absent_jaeger_is_not_waited_for_without_end() {
    let silent = jaeger::Jaeger::that_answers("").await;
    let limits = Limits {
        patience: Duration::from_millis(50),
        ..Limits::default()
    };
    let refused = read_within(silent.url(), limits).await;
    assert_refused(refused, "no complete answer within 50ms");

    let absent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = absent.local_addr().unwrap().to_string();
    drop(absent);
    assert_refused(
        read_jaeger(&address).await,
        "cannot connect: Connection refused",
    );
}

#[test]
fn an_address_that_cannot_be_used_is_refused() {
    for (url, words) in [
        (
            "https://jaeger.example",
            "https://jaeger.example: only http:// is supported; behind https,",
        ),
        ("ftp://jaeger.example", "only http:// is supported"),
        (
            "http://me:secret@jaeger.example",
            "names and passwords are not supported",
        ),
        ("http://", "not an address such as http://localhost:16686"),
        ("", "not an address such as"),
        ("a b", "not an address such as"),
    ] {
        let refused = Jaeger::at(url).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

// On the command line.

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    recording: cli::recording::Recording,
}

async fn load<'a>(arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Recording> {
    let arguments = ["chitchat"].into_iter().chain(arguments);
    Command::try_parse_from(arguments)?.recording.load().await
}

#[tokio::test]
async fn a_run_is_read_from_files_or_from_a_jaeger() {
    let steps = conversation(1, 4, EVENING, SECOND);
    let files = Files::new(&[&line(&steps[..6]), &line(&steps[6..])]);
    let [first, second] = [0, 1].map(|file| files.paths[file].to_str().unwrap());
    let jaeger = Store::of(&steps).start().await;
    for (arguments, kept) in [
        (vec!["--spans", first, second], 12),
        (
            vec!["--spans", first, "--spans", second, "--room", "lobby"],
            12,
        ),
        (vec!["--jaeger", jaeger.url(), "--from-sequence", "4"], 3),
        (vec!["--jaeger", jaeger.url(), "--until-time", "2"], 3),
        (
            vec!["--jaeger", jaeger.url(), "--since", "2026-11-23T20:00:02Z"],
            6,
        ),
        (
            vec!["--spans", first, second, "--since", "2026-11-23T20:00:01Z"],
            9,
        ),
        (vec!["--spans", first, second, "--since", "9999d"], 12),
    ] {
        let recording = load(arguments.clone()).await.unwrap();

        assert_eq!(recording.steps.len(), kept, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_source_that_cannot_be_used_is_a_mistake_in_usage() {
    let steps = conversation(1, 4, EVENING, SECOND);
    let files = Files::new(&[&line(&steps)]);
    let path = files.paths[0].to_str().unwrap();
    for (arguments, words) in [
        (
            vec!["--spans", "/nowhere/spans.jsonl"],
            "/nowhere/spans.jsonl: there is no such file",
        ),
        (
            vec!["--jaeger", "https://jaeger.example"],
            "only http:// is supported",
        ),
        (
            vec!["--spans", path, "--room", "kitchen"],
            "nothing is left of the 12 spans of Chit Chat: --room, --since, --from-sequence and --until-time leave all of them out; the rooms are lobby",
        ),
    ] {
        let error = load(arguments).await.unwrap_err();

        assert_eq!(cli::exit::of(&error), Exit::Usage);
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
    for (arguments, words) in [
        (vec![], "<--spans <FILE>...|--jaeger <URL>>"),
        (
            vec!["--spans", path, "--jaeger", "http://localhost"],
            "cannot be used with",
        ),
        (
            vec!["--spans", path, "--since", "yesterday"],
            "neither a time such as 2026-11-23T20:00:00Z nor a duration such as 1h",
        ),
        (vec!["--spans", path, "--since", "5"], "neither a time"),
    ] {
        let error = load(arguments).await.unwrap_err();

        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
}

// Vocabulary.

/// Files with spans.
struct Files {
    _directory: TempDir,
    paths: Vec<PathBuf>,
}

impl Files {
    fn new(texts: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = texts.iter().enumerate().map(|(index, text)| {
            let path = directory.path().join(format!("spans-{index}.jsonl"));
            fs::write(&path, text).unwrap();
            path
        });
        Self {
            paths: paths.collect(),
            _directory: directory,
        }
    }

    fn read(&self) -> Result<Recording, Unusable> {
        read_files(&self.paths)
    }
}

fn read_files<P: AsRef<Path>>(paths: &[P]) -> Result<Recording, Unusable> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.as_ref().into()).collect();
    file::read(&paths, None, &mut |_| ())
}

fn read_text(text: &str) -> Result<Recording, Unusable> {
    Files::new(&[text]).read()
}

async fn read_jaeger(url: &str) -> Result<Recording, Unusable> {
    read_within(url, Limits::default()).await
}

async fn read_within(url: &str, limits: Limits) -> Result<Recording, Unusable> {
    let jaeger = Jaeger::at(url).unwrap().with_limits(limits);
    jaeger.read(None, &mut |_| ()).await
}

fn assert_refused(outcome: Result<Recording, Unusable>, words: &str) {
    match outcome {
        Ok(recording) => panic!("{recording:?} instead of {words:?}"),
        Err(refused) => {
            let refused = refused.to_string();
            assert!(refused.contains(words), "{refused:?} instead of {words:?}");
        }
    }
}

fn response(status: &str, content_type: &str, body: &str) -> String {
    let bytes = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {bytes}\r\n\r\n{body}"
    )
}

fn sorted(mut steps: Vec<Step>) -> Vec<Step> {
    steps.sort_by_key(|step| step.id.to_string());
    steps
}

fn traces(recording: &Recording) -> usize {
    let traces: BTreeSet<String> = recording
        .steps
        .iter()
        .map(|step| step.id.trace.to_string())
        .collect();
    traces.len()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}
