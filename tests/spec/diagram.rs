//! A recorded run is drawn as it was: each step on its process's line at its logical time, each message from its sending
//! through the service to each that read it. The drawings are read back by parsers that know nothing of how they were
//! written.

mod formats;
mod hostile;
mod marks;
mod pages;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use chitchat::causality::{
    diagram::{self, Format, Options},
    run::Run,
    step::{Recording, Step},
};
use serde_json::Value;

pub use self::hostile::hostile_run;
use crate::support::{
    drawn::{self, Drawn},
    program::chitchat,
};

/// The committed drawing of the report's session.
const SESSION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/session.svg");

/// Records the report's session in `directory`: real spans of real processes' clocks.
pub async fn recorded(directory: &Path) -> PathBuf {
    let spans = directory.join("spans.jsonl");
    let demo = chitchat(["demo"])
        .inside(directory)
        .variable("CHITCHAT_TELEMETRY__FILE", &spans)
        .variable("CHITCHAT_TELEMETRY__TEXT", "true")
        .run()
        .await;
    assert_eq!(demo.code, 0, "{}", demo.stderr);
    spans
}

/// A span, read without the program.
struct Span {
    id: String,
    parent: String,
    process: String,
    time: i64,
    act: &'static str,
}

fn spans(file: &Path) -> Vec<Span> {
    let lines = fs::read_to_string(file).unwrap();
    let documents = lines.lines().map(|line| {
        let document: Value = serde_json::from_str(line).unwrap();
        document
    });
    let mut spans = Vec::new();
    for document in documents {
        for resource in document["resourceSpans"].as_array().unwrap() {
            for scope in resource["scopeSpans"].as_array().unwrap() {
                spans.extend(scope["spans"].as_array().unwrap().iter().map(span));
            }
        }
    }
    spans
}

fn span(span: &Value) -> Span {
    let attribute = |name: &str| {
        let attributes = span["attributes"].as_array().unwrap();
        let found = attributes.iter().find(|one| one["key"] == name).unwrap();
        let value = &found["value"];
        let text = value["stringValue"].as_str().or(value["intValue"].as_str());
        text.unwrap().to_owned()
    };
    Span {
        id: span["spanId"].as_str().unwrap().to_owned(),
        parent: span["parentSpanId"].as_str().unwrap_or("").to_owned(),
        process: attribute("lamport.process.id"),
        time: attribute("lamport.time").parse().unwrap(),
        act: match attribute("messaging.operation.name").as_str() {
            "order" => "order",
            "deliver" => "deliver",
            _ => "send",
        },
    }
}

/// The session's spans, and their drawing.
async fn session() -> (Vec<Span>, Drawn) {
    let directory = tempfile::tempdir().unwrap();
    let recorded = recorded(directory.path()).await;
    let file = directory.path().join("session.svg");
    let run = chitchat(["diagram"])
        .argument("--spans")
        .argument(&recorded)
        .argument("-o")
        .argument(&file)
        .run()
        .await;
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    let drawing = fs::read_to_string(file).unwrap();
    (spans(&recorded), drawn::read(&drawing))
}

/// Draws steps, with all on one page.
fn draw(steps: Vec<Step>, format: Format) -> String {
    let mut pages = draw_pages(steps, format, &Options::default());
    assert_eq!(pages.len(), 1);
    pages.remove(0)
}

fn draw_pages(steps: Vec<Step>, format: Format, options: &Options) -> Vec<String> {
    let recording = Recording {
        steps,
        ..Recording::default()
    };
    diagram::draw(&Run::new(recording), format, options).expect("it is not too much")
}

fn svg(steps: Vec<Step>) -> Drawn {
    drawn::read(&draw(steps, Format::Svg))
}

#[tokio::test]
async fn every_step_of_the_report_s_session_stands_at_its_logical_time_on_its_process_s_line() {
    let (spans, drawn) = session().await;

    assert_eq!(drawn.steps.len(), spans.len());
    let mut rows: BTreeMap<i64, i64> = BTreeMap::new();
    for span in &spans {
        let (_, step) = drawn.of_span(&span.id);
        assert_eq!(
            (step.act.as_str(), &step.process, step.time),
            (span.act, &span.process, span.time)
        );
        let line = &drawn.lifelines[&step.lifeline];
        assert_eq!((&line.process, line.x), (&span.process, step.x));
        assert_eq!(*rows.entry(step.time).or_insert(step.y), step.y);
    }
    let places: Vec<i64> = rows.into_values().collect();
    assert!(
        places.is_sorted_by(|above, below| above < below),
        "time runs downwards: {places:?}"
    );
    let names: Vec<&str> = drawn.lifelines.values().map(|line| &*line.name).collect();
    assert_eq!(names, ["server", "Alex", "Aske", "Bob"]);
}

#[tokio::test]
async fn every_arrow_leads_from_the_step_that_caused_to_the_step_that_was_caused() {
    let (spans, drawn) = session().await;

    let caused: Vec<&Span> = spans
        .iter()
        .filter(|span| !span.parent.is_empty())
        .collect();
    assert_eq!(drawn.arrows.len(), caused.len());
    for span in caused {
        let (from, start) = drawn.of_span(&span.parent);
        let (to, end) = drawn.of_span(&span.id);
        let mut found = drawn.arrows.iter();
        let arrow = found.find(|arrow| arrow.from == from && arrow.to == to);
        let [x1, y1, x2, y2] = arrow.expect("each cause has its arrow").ends;
        for (step, x, y) in [(start, x1, y1), (end, x2, y2)] {
            let distance = (x - step.x as f64).hypot(y - step.y as f64);
            assert!(distance < 12.0, "{distance} from {step:?}");
        }
    }
}

#[tokio::test]
async fn the_session_s_crash_refusals_and_concurrency_meet_the_eye() {
    let (_, drawn) = session().await;

    let ends = |name: &str| drawn.line(name).lives.clone();
    assert_eq!(ends("Bob"), [(1, 36, "gone".to_owned())]);
    assert_eq!(drawn.line("Bob").breaks, [36]);
    assert_eq!(ends("Aske"), [(1, 25, "left".to_owned())]);
    assert_eq!(ends("Alex"), [(1, 47, "left".to_owned())]);
    assert_eq!(drawn.line("Alex").breaks, [0; 0]);

    let of_kind = |kind: &str| {
        let events = drawn.events.iter().filter(|event| event.kind == kind);
        let shown = events.map(|event| (event.time, event.words.as_str()));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(
        of_kind("refusal"),
        [
            (
                15,
                "Alex is refused: TOO_LONG: Message too long (354 chars). Limit is 128."
            ),
            (35, "Bob is refused: EMPTY: Message is empty."),
        ]
    );
    assert_eq!(
        of_kind("leave"),
        [
            (26, "Aske leaves"),
            (36, "Bob is gone"),
            (48, "Alex leaves")
        ]
    );

    // The report's own words: "I could not see the msg".
    let marked: Vec<_> = drawn
        .steps
        .values()
        .filter(|step| step.marks.contains("concurrent"))
        .collect();
    assert_eq!(marked.len(), 1);
    assert_eq!((marked[0].process.as_str(), marked[0].time), ("4800", 14));
    assert!(
        marked[0].tooltip.contains("L=15 Alex is refused"),
        "{}",
        marked[0].tooltip
    );
}

/// A JOIN of long ago, drawn when the service has it, would be drawn over the times of all that was said since.
#[tokio::test]
async fn what_was_sent_later_is_drawn_over_what_was_sent_earlier() {
    let (_, drawn) = session().await;
    let mut sent = vec![i64::MAX; drawn.events.len()];
    for step in drawn.steps.values() {
        sent[step.event] = sent[step.event].min(step.time);
    }
    assert!(sent.is_sorted(), "{sent:?}");
    let times: Vec<i64> = drawn.events.iter().map(|event| event.time).collect();
    assert!(!times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn the_committed_drawing_is_what_a_run_of_today_gives() {
    let (_, drawn) = session().await;
    let committed = drawn::read(&fs::read_to_string(SESSION).unwrap());
    assert_eq!(committed.logic(), drawn.logic());
}

#[tokio::test]
async fn a_tooltip_tells_both_clocks_and_the_span_and_the_event_leads_to_its_trace() {
    let directory = tempfile::tempdir().unwrap();
    let spans = recorded(directory.path()).await;
    let run = chitchat(["diagram", "--format", "svg"])
        .argument("--spans")
        .argument(&spans)
        .argument("--jaeger-links=https://traces.example/")
        .run()
        .await;
    let drawn = drawn::read(&run.stdout);

    for step in drawn.steps.values() {
        let event = &drawn.events[step.event];
        for told in [
            format!("logical time {}", step.time),
            "wall clock 20".to_owned(),
            format!("trace {}, span {}", event.trace, step.span),
        ] {
            assert!(step.tooltip.contains(&told), "{told}: {}", step.tooltip);
        }
        let link = format!(
            "https://traces.example/trace/{}?uiFind=lamport",
            event.trace
        );
        assert_eq!(event.link.as_ref(), Some(&link));
    }
}
