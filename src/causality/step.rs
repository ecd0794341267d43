//! A step of a message's way, as its span tells it.

use std::{fmt, sync::Arc};

use opentelemetry::{SpanId, TraceId};

use super::lost::{Lost, Numbered};
use crate::telemetry::EventName;

/// What a step did with its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// A client sent it: `send {room}`, `join {room}`, `leave {room}`.
    Send,
    /// The service gave it its place and its time: `order {room}`.
    Order,
    /// A client received it: `deliver {room}`.
    Deliver,
}

impl Act {
    /// The word for it that spans are named with: `send`, `order`, `deliver`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Order => "order",
            Self::Deliver => "deliver",
        }
    }
}

/// Which span a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepId {
    /// The event's trace.
    pub trace: TraceId,
    /// The span in it.
    pub span: SpanId,
}

/// `{trace}/{span}`, in hexadecimal digits.
impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.trace, self.span)
    }
}

/// Whose clock a step moved.
///
/// A client that ends and starts again is another process, whatever its name: its clock starts anew. The service is one
/// process in Lamport's sense, however often it was started: its clock goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// `lamport.process.id`: `server`, or the participant's id.
    pub id: Arc<str>,
    /// `service.instance.id`: another one for each start of a program. Empty where the spans do not say, and for the service.
    pub instance: Arc<str>,
}

impl Process {
    /// The service's `lamport.process.id`.
    pub const SERVICE: &str = "server";

    /// Whether this is the service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        &*self.id == Self::SERVICE
    }
}

/// A step of a message's way: one span of ours, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which span it is.
    pub id: StepId,
    /// The span of the step that caused it, in the same trace; none for a root.
    pub parent: Option<SpanId>,
    /// What it did.
    pub act: Act,
    /// What kind of event it belongs to (`chat.event.type`).
    pub event: EventName,
    /// Whose clock it moved.
    pub process: Process,
    /// The program that recorded it (`service.instance.id`), of the service too; empty where the span does not say.
    pub instance: Arc<str>,
    /// What that program is called in traces (`service.name`).
    pub service: Arc<str>,
    /// The how-manieth span of that program it is (`chat.step.number`, from 1): a number that is missing is a span that
    /// was lost. None where the spans are not numbered.
    pub number: Option<u64>,
    /// The room (`messaging.destination.name`).
    pub room: Arc<str>,
    /// The history that the event is part of (`chat.history.epoch`); empty where it is not known.
    pub epoch: Arc<str>,
    /// The process's logical time after the step (`lamport.time`).
    pub time: i64,
    /// The timestamp that the message carried in (`lamport.message.time`); none for a send, a root, and where the timestamp was refused.
    pub message_time: Option<i64>,
    /// The event's place in its room (`chat.room.sequence`); none for a send and a refusal.
    pub sequence: Option<u64>,
    /// Who the event is about (`chat.participant.name`).
    pub participant: Arc<str>,
    /// The sender's own id of the message (`messaging.message.id`); empty where it has none.
    pub message_id: String,
    /// What was said (`chat.message.text`), or the words of a refusal (the status's description); empty where telemetry may not tell.
    pub text: String,
    /// How many streams the event was handed to (`chat.broadcast.recipients`), of an ordering alone.
    pub recipients: Option<u64>,
    /// Read in the replay of what was missed while the connection was lost (`chat.event.replayed`), of a delivery alone.
    pub replayed: bool,
    /// How often the participant's session had been resumed before (`chat.session.resumes`); 0 for the service's, and
    /// where the span does not say.
    pub resumes: u64,
    /// Why it failed (`error.type`), of a refusal's ordering alone; empty otherwise.
    pub error: String,
    /// When it began by the wall clock of its machine, in nanoseconds since 1970.
    pub start: u64,
    /// When it ended by the same clock.
    pub end: u64,
}

/// All steps that a source had, as they came, and what else it had.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Each span of ours once, in no particular order.
    pub steps: Vec<Step>,
    /// Spans of ours that were made and did not arrive, as far as their programs' numbers tell: of all that was read,
    /// before anything was left out on request.
    pub lost: Vec<Lost>,
    /// What was read beside them, and what is wrong with it.
    pub intake: Intake,
}

impl Recording {
    /// A recording of `steps`, all that was read.
    #[must_use]
    pub fn of(steps: Vec<Step>) -> Self {
        Self {
            lost: Numbered::new(&steps).lost(0),
            steps,
            intake: Intake::default(),
        }
    }
}

/// What became of everything that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intake {
    /// Spans read in all.
    pub spans: u64,
    /// Of others' programs: passed over.
    pub foreign: u64,
    /// That came more than once and were equal: counted here, kept once.
    pub repeated: u64,
    /// Passed over because of what the user asked for (room, time, sequence).
    pub left_out: u64,
    /// Of ours, but without what a step needs: each with its span and what is missing, [`Intake::FAULTS_MAX`] of them at most.
    pub faults: Vec<String>,
    /// How many faults there were in all.
    pub faulty: u64,
    /// What is known to be missing for a reason of the source (a store's limit that was reached, a line that is cut off), in words.
    pub warnings: Vec<String>,
}

impl Intake {
    /// Faults that are kept in words. What is more is counted alone: a person reads the first, and a wrong file has millions.
    pub const FAULTS_MAX: usize = 20;

    /// Notes a span of ours that cannot be used.
    pub fn fault(&mut self, words: impl FnOnce() -> String) {
        self.faulty += 1;
        if self.faults.len() < Self::FAULTS_MAX {
            self.faults.push(words());
        }
    }
}
