//! Traces and logs.

/// Makes the spans of a chat event's trace. Cheap to clone; does nothing where tracing is off.
#[derive(Debug, Clone, Default)]
pub struct Tracer {}

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

/// What is known about a step when it ends; becomes the span's attributes (see `design` names in the comments).
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
    /// `chat.message.text`, if `telemetry.text` allows it.
    pub text: &'a str,
    /// `chat.broadcast.recipients`
    pub recipients: Option<usize>,
    /// `error.type`, and status ERROR.
    pub error: Option<&'static str>,
}

/// One step of an event's trace that is under way; dropped without [`Step::end`] it leaves no span.
#[derive(Debug, Default)]
pub struct Step {}

impl Tracer {
    /// The sending client's step: a root, kind PRODUCER, named `send {room}` (or `join`, `leave`).
    #[must_use]
    pub fn send(&self, _sending: Sending, _room: &str) -> Step {
        Step {}
    }

    /// The server's step: `order {room}`, kind CONSUMER, child of `traceparent`; without one (or with a bad one) a root
    /// that the sampler decides about.
    #[must_use]
    pub fn order(&self, _traceparent: &str, _room: &str) -> Step {
        Step {}
    }

    /// A receiving client's step: `deliver {room}`, kind CONSUMER, child of `traceparent`; nothing without one.
    #[must_use]
    pub fn deliver(&self, _traceparent: &str, _room: &str) -> Step {
        Step {}
    }
}

impl Step {
    /// This step's span as a W3C `traceparent`; empty when there is none or it is not sampled.
    #[must_use]
    pub fn traceparent(&self) -> String {
        String::new()
    }

    /// Ends the step now, with what is known about it.
    pub fn end(self, _facts: &Facts<'_>) {}
}

impl From<crate::room::Kind> for EventName {
    fn from(kind: crate::room::Kind) -> Self {
        match kind {
            crate::room::Kind::Join => Self::Join,
            crate::room::Kind::Message => Self::Message,
            crate::room::Kind::Leave => Self::Leave,
        }
    }
}
