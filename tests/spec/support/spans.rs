//! Spans as they come from a file or from Jaeger: steps written as OTLP JSON.

use chitchat::{
    causality::step::{Act, Process, Step, StepId},
    telemetry::{EventName, attribute},
};
use opentelemetry::{SpanId, TraceId};
use serde_json::{Map, Value, json};

/// One line of OTLP JSON, with its end of line, that reads back as these steps.
pub fn line(steps: &[Step]) -> String {
    document(steps).to_string() + "\n"
}

/// One OTLP JSON object with these steps: one resource for each program, in the order in which they first appear.
pub fn document(steps: &[Step]) -> Value {
    let mut programs: Vec<(&str, &str, Vec<Value>)> = Vec::new();
    for step in steps {
        let known = programs.iter_mut().find(|(service, instance, _)| {
            (*service, *instance) == (&step.service, &step.instance)
        });
        match known {
            Some((_, _, spans)) => spans.push(span(step)),
            None => programs.push((&step.service, &step.instance, vec![span(step)])),
        }
    }
    let resources = programs
        .into_iter()
        .map(|(service, instance, spans)| resource(service, instance, spans));
    json!({ "resourceSpans": resources.collect::<Vec<_>>() })
}

/// A program's spans, in its resource.
pub fn resource(service: &str, instance: &str, spans: Vec<Value>) -> Value {
    let mut attributes = vec![
        text(attribute::SERVICE_NAME, service),
        text(attribute::SERVICE_NAMESPACE, "chitchat"),
    ];
    if !instance.is_empty() {
        attributes.push(text(attribute::SERVICE_INSTANCE_ID, instance));
    }
    json!({
        "resource": { "attributes": attributes },
        "scopeSpans": [{ "scope": { "name": "chitchat" }, "spans": spans }],
    })
}

/// A step's span.
pub fn span(step: &Step) -> Value {
    let operation = operation(step);
    let mut attributes = vec![
        text(attribute::MESSAGING_SYSTEM, "chitchat"),
        text(attribute::MESSAGING_OPERATION_NAME, operation),
        text(attribute::MESSAGING_DESTINATION_NAME, &step.room),
        text(attribute::CHAT_EVENT_TYPE, step.event.as_str()),
        text(attribute::CHAT_PARTICIPANT_NAME, &step.participant),
        text(attribute::LAMPORT_PROCESS_ID, &step.process.id),
        integer(attribute::LAMPORT_TIME, step.time),
    ];
    let failed = !step.error.is_empty();
    let said = if failed { "" } else { &step.text };
    let texts = [
        (attribute::CHAT_HISTORY_EPOCH, &*step.epoch),
        (attribute::MESSAGING_MESSAGE_ID, &step.message_id),
        (attribute::CHAT_MESSAGE_TEXT, said),
        (attribute::ERROR_TYPE, &step.error),
    ];
    let texts = texts.into_iter().filter(|(_, value)| !value.is_empty());
    attributes.extend(texts.map(|(name, value)| text(name, value)));
    let count = |count: Option<u64>| count.map(|count| i64::try_from(count).expect("it fits"));
    let integers = [
        (attribute::CHAT_STEP_NUMBER, count(step.number)),
        (attribute::LAMPORT_MESSAGE_TIME, step.message_time),
        (attribute::CHAT_ROOM_SEQUENCE, count(step.sequence)),
        (attribute::CHAT_BROADCAST_RECIPIENTS, count(step.recipients)),
        (
            attribute::CHAT_SESSION_RESUMES,
            count(Some(step.resumes).filter(|&resumes| resumes > 0)),
        ),
    ];
    let integers = integers
        .into_iter()
        .filter_map(|(name, value)| Some(integer(name, value?)));
    attributes.extend(integers);
    if step.replayed {
        let yes = json!({ "boolValue": true });
        attributes.push(json!({ "key": attribute::CHAT_EVENT_REPLAYED, "value": yes }));
    }

    let mut span = Map::new();
    let mut set = |name: &str, value: Value| span.insert(name.to_owned(), value);
    set("traceId", step.id.trace.to_string().into());
    set("spanId", step.id.span.to_string().into());
    if let Some(parent) = step.parent {
        set("parentSpanId", parent.to_string().into());
    }
    set("name", format!("{operation} {}", step.room).into());
    set("kind", if step.act == Act::Send { 4 } else { 5 }.into());
    set("startTimeUnixNano", step.start.to_string().into());
    set("endTimeUnixNano", step.end.to_string().into());
    set("attributes", attributes.into());
    if failed {
        set("status", json!({ "message": step.text, "code": 2 }));
    }
    span.into()
}

fn operation(step: &Step) -> &'static str {
    match (step.act, step.event) {
        (Act::Order, _) => "order",
        (Act::Deliver, _) => "deliver",
        (Act::Send, EventName::Join) => "join",
        (Act::Send, EventName::Leave) => "leave",
        (Act::Send, EventName::Message | EventName::Refusal) => "send",
    }
}

/// An attribute with a text.
pub fn text(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}

/// An attribute with an integer, which OTLP JSON writes as a text.
pub fn integer(name: &str, value: i64) -> Value {
    json!({ "key": name, "value": { "intValue": value.to_string() } })
}

/// A conversation in the lobby, as a run without a fault leaves it: `messages` messages of `participants` participants
/// who have been there since before, each message its own trace of `participants` + 2 spans.
///
/// Message `n`, from 0, begins at `start` + `n` · `apart` nanoseconds and has sequence `n` + 1; every clock follows
/// Lamport's rule and every span has its number.
pub fn conversation(participants: usize, messages: usize, start: u64, apart: u64) -> Vec<Step> {
    let mut programs: Vec<Program> = (0..=participants).map(Program::new).collect();
    let mut steps = Vec::with_capacity(messages * (participants + 2));
    for message in 0..messages {
        let begin = start + message as u64 * apart;
        let sender = 1 + message % participants;
        let event = Event {
            trace: TraceId::from(0x1000_0000_0000 + message as u128),
            begin,
            participant: format!("Participant {sender}"),
            message_id: format!("message-{message}"),
            text: format!("This is message {message}."),
        };
        let sent = programs[sender].step(&event, Act::Send, None, None);
        let mut ordered =
            programs[0].step(&event, Act::Order, Some(&sent), Some(message as u64 + 1));
        ordered.recipients = Some(participants as u64);
        let delivered: Vec<Step> = programs[1..]
            .iter_mut()
            .map(|program| program.step(&event, Act::Deliver, Some(&ordered), ordered.sequence))
            .collect();
        steps.extend([sent, ordered]);
        steps.extend(delivered);
    }
    steps
}

struct Event {
    trace: TraceId,
    begin: u64,
    participant: String,
    message_id: String,
    text: String,
}

/// The service (0) or a participant's client, as it counts.
struct Program {
    index: usize,
    clock: i64,
    number: u64,
}

impl Program {
    fn new(index: usize) -> Self {
        Self {
            index,
            clock: 0,
            number: 0,
        }
    }

    fn step(
        &mut self,
        event: &Event,
        act: Act,
        cause: Option<&Step>,
        sequence: Option<u64>,
    ) -> Step {
        let message_time = cause.map(|cause| cause.time);
        self.clock = self.clock.max(message_time.unwrap_or(0)) + 1;
        self.number += 1;
        let (id, service) = match self.index {
            0 => (Process::SERVICE.to_owned(), "chitchat-server".to_owned()),
            index => ((1000 + index).to_string(), format!("participant-{index}")),
        };
        let instance = format!("instance-{}", self.index);
        let process = Process {
            instance: if self.index == 0 { "" } else { &instance }.into(),
            id: id.into(),
        };
        // Each program's steps of a trace have ids of their own: the sender has two.
        let span = 1 + 2 * self.index as u64 + u64::from(act == Act::Send);
        let start = event.begin + 1000 * (act as u64);
        Step {
            id: StepId {
                trace: event.trace,
                span: SpanId::from(span),
            },
            parent: cause.map(|cause| cause.id.span),
            act,
            event: EventName::Message,
            process,
            instance: instance.into(),
            service: service.into(),
            number: Some(self.number),
            room: "lobby".into(),
            epoch: if act == Act::Send { "" } else { "epoch" }.into(),
            time: self.clock,
            message_time,
            sequence,
            participant: event.participant.as_str().into(),
            message_id: event.message_id.clone(),
            text: event.text.clone(),
            recipients: None,
            replayed: false,
            resumes: 0,
            error: String::new(),
            start,
            end: start + 500,
        }
    }
}
