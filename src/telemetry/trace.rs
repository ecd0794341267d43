//! The spans of a chat event's trace.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::{attribute, delivery, traceparent};
use crate::{
    config::{self, Offset},
    room::Kind,
};

/// Bytes of one attribute's text; what is longer is cut at a character.
///
/// Names and texts come from peers, and a client's peer is a server that may not know our limits: without this one, 16
/// MB messages could wait in the queue of [`delivery`]. Twice `limits.text_bytes`, so nothing of ours is ever cut.
pub(crate) const ATTRIBUTE_BYTES: usize = 1024;

/// Makes the spans of a chat event's trace. Cheap to clone; does nothing where tracing is off.
#[derive(Debug, Clone, Default)]
pub struct Tracer {
    on: Option<Arc<On>>,
}

#[derive(Debug)]
struct On {
    sdk: SdkTracer,
    /// `telemetry.text`
    text: bool,
    /// `telemetry.clock_offset`
    clock_offset: Offset,
    /// Steps that have ended, so that each can be numbered.
    ended: AtomicU64,
}

/// What a sender's span stands for; also the first word of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// `join {room}`
    Join,
    /// `send {room}`
    Message,
    /// `leave {room}`
    Leave,
}

/// What kind of event a step belongs to: `chat.event.type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EventName {
    /// `join`
    Join,
    /// `message`
    #[default]
    Message,
    /// `leave`
    Leave,
    /// `refusal`
    Refusal,
}

/// What is known about a step when it ends; becomes the span's attributes, named in the comments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// `chat.event.type`
    pub event: EventName,
    /// `lamport.time`: the process's clock after the tick of this step.
    pub lamport_time: i64,
    /// `lamport.message.time`: the timestamp that the message carried in; none for a root, and where it was refused.
    pub lamport_message_time: Option<i64>,
    /// `lamport.process.id` and `messaging.client.id`: `server`, or the participant's id.
    pub process_id: &'a str,
    /// `chat.participant.name`: who the event is about.
    pub participant: &'a str,
    /// `messaging.message.id`; empty: left out.
    pub message_id: &'a str,
    /// `chat.room.sequence`; 0: left out.
    pub sequence: u64,
    /// `chat.history.epoch`; empty: left out.
    pub epoch: &'a str,
    /// What was said: `chat.message.text`. Of a refusal: the notice's words, the status description beside an `error`.
    /// Both only if `telemetry.text` allows it.
    pub text: &'a str,
    /// `chat.broadcast.recipients`
    pub recipients: Option<usize>,
    /// `chat.event.replayed`; false: left out.
    pub replayed: bool,
    /// `chat.session.resumes`; 0: left out.
    pub resumes: u64,
    /// `error.type`, and status ERROR.
    pub error: Option<&'static str>,
}

/// One step of an event's trace that is under way; dropped without [`Step::end`] it leaves no span.
#[derive(Debug, Default)]
pub struct Step(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    /// A sender's decision not to sample, which the server has to know.
    Unsampled(SpanContext),
    // Boxed, because a step waits inside a command.
    Recording(Box<Recording>),
}

#[derive(Debug)]
struct Recording {
    span: Span,
    started: SystemTime,
    /// The wall clock may be set back meanwhile; a step still must not end before it began.
    began: Instant,
    of: Arc<On>,
}

/// What the conventions call an operation: the verb of the span's name, and how it looks from outside.
struct Operation {
    name: &'static str,
    kind: SpanKind,
    operation_type: &'static str,
}

impl Tracer {
    pub(super) fn new(sdk: SdkTracer, config: &config::Telemetry) -> Self {
        Self {
            on: Some(Arc::new(On {
                sdk,
                text: config.text,
                clock_offset: config.clock_offset,
                ended: AtomicU64::new(0),
            })),
        }
    }

    /// The sending client's step: a root, kind PRODUCER, named `send {room}` (or `join`, `leave`).
    #[must_use]
    pub fn send(&self, sending: Sending, room: &str) -> Step {
        let operation = Operation {
            name: match sending {
                Sending::Join => "join",
                Sending::Message => "send",
                Sending::Leave => "leave",
            },
            kind: SpanKind::Producer,
            operation_type: "send",
        };
        self.start(operation, room, &Context::new())
    }

    /// The server's step: `order {room}`, kind CONSUMER, child of `traceparent`; without one (or with a bad one) a root
    /// that the sampler decides about. A sender that does not sample is obeyed: no span.
    #[must_use]
    pub fn order(&self, traceparent: &str, room: &str) -> Step {
        let parent = match traceparent::parse(traceparent) {
            Some(parent) if !parent.is_sampled() => return Step::default(),
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        self.start(consumer("order"), room, &parent)
    }

    /// A receiving client's step: `deliver {room}`, kind CONSUMER, child of `traceparent`; nothing without one.
    #[must_use]
    pub fn deliver(&self, traceparent: &str, room: &str) -> Step {
        match traceparent::parse(traceparent) {
            Some(parent) if parent.is_sampled() => {
                let parent = Context::new().with_remote_span_context(parent);
                self.start(consumer("deliver"), room, &parent)
            }
            _ => Step::default(),
        }
    }

    fn start(&self, operation: Operation, room: &str, parent: &Context) -> Step {
        let Some(of) = &self.on else {
            return Step::default();
        };
        let sdk = &of.sdk;
        let (started, began) = (of.clock_offset.at(SystemTime::now()), Instant::now());
        let mut span = sdk
            .span_builder(operation.name)
            .with_kind(operation.kind.clone())
            .with_start_time(started)
            .start_with_context(sdk, parent);
        if !span.is_recording() {
            let context = span.span_context();
            return match operation.kind {
                SpanKind::Producer if context.is_valid() => Step(State::Unsampled(context.clone())),
                _ => Step::default(),
            };
        }
        let room = cut(room);
        span.update_name(format!("{} {room}", operation.name));
        span.set_attributes([
            KeyValue::new(attribute::MESSAGING_SYSTEM, "chitchat"),
            KeyValue::new(attribute::MESSAGING_OPERATION_NAME, operation.name),
            KeyValue::new(
                attribute::MESSAGING_OPERATION_TYPE,
                operation.operation_type,
            ),
            text_attribute(attribute::MESSAGING_DESTINATION_NAME, room),
        ]);
        Step(State::Recording(Box::new(Recording {
            span,
            started,
            began,
            of: Arc::clone(of),
        })))
    }
}

fn consumer(name: &'static str) -> Operation {
    Operation {
        name,
        kind: SpanKind::Consumer,
        operation_type: "process",
    }
}

impl Step {
    /// This step's span as a W3C `traceparent`; empty when there is none.
    ///
    /// A step that is not sampled has none, but for a sender's: that one says so in its flags, because a server that
    /// knew nothing would let its own sampler decide and leave traces without a beginning.
    #[must_use]
    pub fn traceparent(&self) -> String {
        match &self.0 {
            State::Nothing => String::new(),
            State::Unsampled(context) => traceparent::format(context),
            State::Recording(recording) => traceparent::format(recording.span.span_context()),
        }
    }

    /// Ends the step now, with what is known about it.
    pub fn end(mut self, facts: &Facts<'_>) {
        if let State::Recording(recording) = mem::take(&mut self.0) {
            recording.end(facts);
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // The SDK ends and exports a span that is dropped; this one never happened.
        if let State::Recording(recording) = &mut self.0 {
            recording.span.update_name(delivery::DISCARDED);
        }
    }
}

impl Recording {
    fn end(mut self, facts: &Facts<'_>) {
        // Steps of one clock end in the order of its ticks, but for a JOIN, which ends when it is answered.
        let number = self.of.ended.fetch_add(1, Ordering::Relaxed) + 1;
        let span = &mut self.span;
        span.set_attributes([
            integer_attribute(attribute::CHAT_STEP_NUMBER, number),
            KeyValue::new(attribute::CHAT_EVENT_TYPE, facts.event.as_str()),
            text_attribute(attribute::CHAT_PARTICIPANT_NAME, facts.participant),
            KeyValue::new(attribute::LAMPORT_TIME, facts.lamport_time),
            text_attribute(attribute::LAMPORT_PROCESS_ID, facts.process_id),
            text_attribute(attribute::MESSAGING_CLIENT_ID, facts.process_id),
        ]);
        if let Some(time) = facts.lamport_message_time {
            span.set_attribute(KeyValue::new(attribute::LAMPORT_MESSAGE_TIME, time));
        }
        if facts.sequence != 0 {
            span.set_attribute(integer_attribute(
                attribute::CHAT_ROOM_SEQUENCE,
                facts.sequence,
            ));
        }
        if let Some(recipients) = facts.recipients {
            span.set_attribute(integer_attribute(
                attribute::CHAT_BROADCAST_RECIPIENTS,
                recipients,
            ));
        }
        if facts.replayed {
            span.set_attribute(KeyValue::new(attribute::CHAT_EVENT_REPLAYED, true));
        }
        if facts.resumes != 0 {
            span.set_attribute(integer_attribute(
                attribute::CHAT_SESSION_RESUMES,
                facts.resumes,
            ));
        }
        for (name, value) in [
            (attribute::MESSAGING_MESSAGE_ID, facts.message_id),
            (attribute::CHAT_HISTORY_EPOCH, facts.epoch),
        ] {
            if !value.is_empty() {
                span.set_attribute(text_attribute(name, value));
            }
        }
        let text = if self.of.text { cut(facts.text) } else { "" };
        if let Some(error) = facts.error {
            span.set_attribute(KeyValue::new(attribute::ERROR_TYPE, error));
            span.set_status(Status::error(text.to_owned()));
        } else if facts.event != EventName::Refusal && !text.is_empty() {
            span.set_attribute(text_attribute(attribute::CHAT_MESSAGE_TEXT, text));
        }
        span.end_with_timestamp(self.started + self.began.elapsed());
    }
}

impl From<Kind> for EventName {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Join => Self::Join,
            Kind::Message => Self::Message,
            Kind::Leave => Self::Leave,
        }
    }
}

impl EventName {
    /// As attributes and log lines name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Message => "message",
            Self::Leave => "leave",
            Self::Refusal => "refusal",
        }
    }
}

fn text_attribute(name: &'static str, value: &str) -> KeyValue {
    KeyValue::new(name, cut(value).to_owned())
}

/// OpenTelemetry's integers are signed; counts never come near the end of their range.
fn integer_attribute(name: &'static str, value: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(name, value.try_into().unwrap_or(i64::MAX))
}

fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(ATTRIBUTE_BYTES)]
}
