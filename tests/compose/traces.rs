//! The traces, where there is no Jaeger to look at them with: files in a volume, OTLP JSON lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chitchat::{
    causality::{
        diagram::{self, Format, Options},
        run::Run,
        source,
    },
    wire::v1::{EventType, ServerMessage},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};

use tempfile::TempDir;

use crate::{
    PATIENCE, PLAYERS, drawn,
    jaeger::Store,
    system::{System, output, shell},
};

/// How often to look again while a process that goes on has not yet written its last spans.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Holds the rules of telemetry against the spans of the events in `history`.
pub async fn hold(system: &System, history: &[ServerMessage]) {
    if fs::read_to_string(".env").is_ok_and(|choices| !choices.contains("no-jaeger")) {
        println!("(Jaeger has the traces)");
        return;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let directory = copy(system).await;
        let traces = read(directory.path());
        let fault = match fault(&traces, history) {
            None => audit_fault(directory.path()).await,
            fault => fault,
        };
        match fault {
            None => return drawn(directory.path(), history).await,
            Some(fault) => assert!(Instant::now() < deadline, "{fault}\n{traces:#?}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What the audit does not hold, or cannot decide: of the files, and of a Jaeger that has the same spans.
async fn audit_fault(directory: &Path) -> Option<String> {
    let files = files(directory);
    let recording = source::file::read(&files, None, &mut |_| {}).unwrap();
    let jaeger = Store::of(&recording.steps).start().await;
    let of_files = files.iter().map(|file| file.display().to_string());
    let of_files = of_files.collect::<Vec<_>>().join(" ");
    for source in [
        format!("--spans {of_files}"),
        format!("--jaeger {}", jaeger.url()),
    ] {
        let program = env!("CARGO_BIN_EXE_chitchat");
        let audit = output(&format!("{program} audit --room lobby {source}")).await;
        let said = String::from_utf8_lossy(&audit.stdout);
        println!("{said}");
        if audit.status.code() != Some(0) || !said.ends_with("Held: all 9 rules.\n") {
            return Some(format!("{source}: {said}"));
        }
    }
    None
}

/// Every event of `history` is drawn at its logical time, and each of its steps at its own on its process's line.
async fn drawn(directory: &Path, history: &[ServerMessage]) {
    let files = files(directory);
    let recording = source::file::read(&files, None, &mut |_| {}).unwrap();
    let steps = recording.steps.clone();
    let svg = diagram::draw(&Run::new(recording), Format::Svg, &Options::default()).unwrap();
    let drawn = drawn::read(&svg.concat());
    for event in history {
        let of_event = drawn
            .events
            .iter()
            .filter(|drawn| drawn.sequence == Some(event.sequence));
        let times: Vec<_> = of_event.map(|drawn| drawn.time).collect();
        assert_eq!(times, [event.timestamp], "{event:?}");
    }
    for step in steps {
        let (_, point) = drawn.of_span(&step.id.span.to_string());
        assert_eq!(
            (&*point.process, point.time),
            (&*step.process.id, step.time)
        );
    }
}

/// A step of an event's way: a span with its numbers.
#[derive(Debug)]
struct Step {
    service: String,
    name: String,
    id: Vec<u8>,
    parent: Vec<u8>,
    time: i64,
    message_time: Option<i64>,
    sequence: Option<i64>,
}

type Traces = BTreeMap<Vec<u8>, Vec<Step>>;

/// The files of the volume.
async fn copy(system: &System) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let server = system.container("server").await;
    shell(&format!(
        "docker cp {server}:/traces/. {}",
        directory.path().display()
    ))
    .await;
    directory
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

fn read(directory: &Path) -> Traces {
    let mut traces = Traces::new();
    for file in files(directory) {
        let text = fs::read_to_string(file).unwrap();
        // The last line may be on its way.
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        for line in lines {
            let export: ExportTraceServiceRequest = serde_json::from_str(line).unwrap();
            for resource in export.resource_spans {
                let of = resource.resource.unwrap_or_default().attributes;
                let service = text_of(&of, "service.name");
                for span in resource
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans)
                {
                    traces
                        .entry(span.trace_id.clone())
                        .or_default()
                        .push(step(&service, &span));
                }
            }
        }
    }
    traces
}

fn step(service: &str, span: &Span) -> Step {
    let number = |key: &str| match value(&span.attributes, key) {
        Some(Value::IntValue(number)) => Some(number),
        None => None,
        other => panic!("{key} should be an integer: {other:?}"),
    };
    Step {
        service: service.to_owned(),
        name: span.name.clone(),
        id: span.span_id.clone(),
        parent: span.parent_span_id.clone(),
        time: number("lamport.time").unwrap_or_else(|| panic!("no logical time: {span:?}")),
        message_time: number("lamport.message.time"),
        sequence: number("chat.room.sequence"),
    }
}

fn value(
    attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue],
    key: &str,
) -> Option<Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.clone()
}

fn text_of(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} should be a text: {other:?}"),
    }
}

/// What is not as it should be, or not yet.
fn fault(traces: &Traces, history: &[ServerMessage]) -> Option<String> {
    let mut present = BTreeSet::new();
    for event in history {
        let who = event.sender_name.to_lowercase();
        match event.r#type() {
            EventType::Join if PLAYERS.contains(&who.as_str()) => drop(present.insert(who)),
            EventType::Leave => drop(present.remove(&who)),
            EventType::Join | EventType::Message => {}
        }
        let is_this = |step: &&Step| {
            step.name.starts_with("order ") && step.sequence == Some(event.sequence.cast_signed())
        };
        let mut of_event = traces
            .values()
            .filter(|steps| steps.iter().any(|step| is_this(&step)));
        let (Some(steps), None) = (of_event.next(), of_event.next()) else {
            return Some(format!("there should be one trace of {event:?}"));
        };
        let order = steps.iter().find(is_this)?;
        if order.time != event.timestamp {
            return Some(format!("{order:?} has another time than {event:?}"));
        }
        let delivered = steps
            .iter()
            .filter(|step| step.name.starts_with("deliver "));
        let mut readers: Vec<_> = delivered.map(|step| step.service.clone()).collect();
        readers.retain(|reader| PLAYERS.contains(&reader.as_str()));
        readers.sort();
        if !readers.iter().eq(&present) {
            return Some(format!(
                "{event:?} was for {present:?}, and read by {readers:?}"
            ));
        }
        if let Some(fault) = tree_fault(steps) {
            return Some(fault);
        }
    }
    None
}

/// One root, and time that rises along every branch.
fn tree_fault(steps: &[Step]) -> Option<String> {
    let roots = steps.iter().filter(|step| step.parent.is_empty()).count();
    if roots != 1 {
        return Some(format!("{roots} roots in {steps:#?}"));
    }
    for step in steps {
        let Some(parent) = steps.iter().find(|parent| parent.id == step.parent) else {
            if step.parent.is_empty() {
                continue;
            }
            return Some(format!("the parent of {step:?} is missing in {steps:#?}"));
        };
        let carried = step.message_time.unwrap_or(parent.time);
        if step.time <= parent.time || step.time <= carried {
            return Some(format!("{step:?} is not after {parent:?}"));
        }
    }
    None
}
