//! What a source gives, becoming a [`Recording`]: spans become steps, each is kept once, and all are counted.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    iter, mem,
    sync::Arc,
};

use opentelemetry::{SpanId, TraceId};

use super::otlp::{Refusal, Resource, Span};
use crate::{
    causality::{
        lost::Numbered,
        step::{Act, Intake, Process, Recording, Step, StepId},
    },
    telemetry::{
        EventName,
        attribute::{self, MESSAGING_OPERATION_NAME},
    },
};

/// Steps that one recording may have.
///
/// Bounds the memory: a step takes some 500 bytes, and some 500 more while it is judged, so this is 2 GB. When it is
/// reached, reading fails and says how to read less. Source: 100,000 steps are what an audit is made for; ten times that
/// and some should not be refused.
const STEPS_MAX: usize = 2_000_000;

/// The program of a resource.
#[derive(Debug, Default, Clone)]
pub(super) struct Program {
    service: Arc<str>,
    instance: Arc<str>,
}

/// A recording that is being read.
///
/// A source reads in *answers*: a file is one, each window of a store is one. A trace comes whole with an answer, so
/// what a later answer has of it again, because its spans lie in two windows, is known already.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    recording: Recording,
    known: HashMap<StepId, usize>,
    traces: HashMap<TraceId, Answers>,
    /// The number of the answer that is read.
    answer: u32,
    /// Traces that the answer has.
    in_answer: usize,
    /// Spans whose resource is not complete yet: their trace, and when they began.
    pending: Vec<(TraceId, u64, Found)>,
    texts: HashSet<Arc<str>>,
    origin: String,
    /// A store's word on why there are no spans.
    pub(super) refusal: Option<Refusal>,
    /// A document has traces in Jaeger's own form.
    pub(super) other_form: bool,
}

/// The answers that a trace is in.
#[derive(Debug)]
struct Answers {
    first: u32,
    last: u32,
    /// When the last of its spans began.
    latest: u64,
}

/// A step, or none of ours, or what is wrong with one of ours.
type Found = Result<Option<Step>, String>;

impl Gathering {
    /// Begins to read an answer.
    pub(super) fn begin_answer(&mut self) {
        self.answer += 1;
        self.in_answer = 0;
    }

    /// Where the spans that follow come from, in the words of a fault.
    pub(super) fn come_from(&mut self, origin: String) {
        self.origin = origin;
    }

    /// How many traces the answer has, those that were known included.
    pub(super) fn traces_in_answer(&self) -> usize {
        self.in_answer
    }

    /// Of each trace that the answer has, when the last of its spans began.
    pub(super) fn latest_in_answer(&self) -> impl Iterator<Item = u64> {
        let in_answer = self.traces.values().filter(|of| of.last == self.answer);
        in_answer.map(|of| of.latest)
    }

    /// How many spans there are so far.
    pub(super) fn spans(&self) -> u64 {
        self.recording.intake.spans
    }

    /// Notes that something is missing.
    pub(super) fn warn(&mut self, words: String) {
        self.recording.intake.warnings.push(words);
    }

    /// The program that `resource` stands for.
    pub(super) fn program(&mut self, resource: &Resource<'_>) -> Program {
        let mut text = |name| self.text(resource.attributes.text(name));
        Program {
            service: text(attribute::SERVICE_NAME),
            instance: text(attribute::SERVICE_INSTANCE_ID),
        }
    }

    /// Takes a span, to be kept when its program is known.
    ///
    /// # Errors
    /// There are more than [`STEPS_MAX`].
    pub(super) fn take(&mut self, span: &Span<'_>) -> Result<(), String> {
        if self.recording.steps.len() + self.pending.len() >= STEPS_MAX {
            return Err(format!(
                "more than {STEPS_MAX} spans are too many for one run: give fewer files, or a shorter time with --since"
            ));
        }
        let trace = TraceId::from_bytes(span.trace_id.0.unwrap_or_default());
        let found = self.step(span);
        let start = span.start_time_unix_nano.get().unwrap_or(0);
        self.pending.push((trace, start, found));
        Ok(())
    }

    /// Keeps the spans that were taken: they are of `program`.
    pub(super) fn keep(&mut self, program: &Program) {
        for (trace, start, found) in mem::take(&mut self.pending) {
            let is_new = self.meet(trace, start);
            let intake = &mut self.recording.intake;
            match found {
                Ok(Some(step)) => self.keep_step(step, program, is_new),
                _ if !is_new => {}
                Ok(None) => {
                    intake.spans += 1;
                    intake.foreign += 1;
                }
                Err(fault) => {
                    intake.spans += 1;
                    intake.fault(|| fault);
                }
            }
        }
    }

    /// Forgets the spans that were taken and not kept.
    pub(super) fn discard(&mut self) {
        self.pending.clear();
    }

    /// Whether no answer before this one had this trace, of which a span began at `start`.
    fn meet(&mut self, trace: TraceId, start: u64) -> bool {
        let answer = self.answer;
        let answers = self.traces.entry(trace).or_insert(Answers {
            first: answer,
            last: 0,
            latest: 0,
        });
        answers.latest = start.max(answers.latest);
        if answers.last != answer {
            answers.last = answer;
            self.in_answer += 1;
        }
        answers.first == answer
    }

    fn keep_step(&mut self, mut step: Step, program: &Program, is_new: bool) {
        step.service = Arc::clone(&program.service);
        step.instance = Arc::clone(&program.instance);
        if !step.process.is_service() {
            step.process.instance = Arc::clone(&program.instance);
        }
        let Recording { steps, intake, .. } = &mut self.recording;
        match self.known.entry(step.id) {
            Entry::Vacant(place) => {
                place.insert(steps.len());
                steps.push(step);
                intake.spans += 1;
            }
            Entry::Occupied(_) if !is_new => {}
            Entry::Occupied(place) => {
                intake.spans += 1;
                if steps[*place.get()] == step {
                    intake.repeated += 1;
                } else {
                    intake.fault(|| {
                        let (origin, id) = (&self.origin, step.id);
                        format!("{origin}: span {id} is there twice, with different contents")
                    });
                }
            }
        }
    }

    /// All that was read. `since`, in nanoseconds since 1970, is where it was meant to begin.
    ///
    /// # Errors
    /// There is no step in it; in words.
    pub(super) fn finish(self, since: Option<u64>) -> Result<Recording, String> {
        let mut recording = self.recording;
        if recording.steps.is_empty() {
            let words = iter::once(nothing(&recording.intake));
            let words: Vec<String> = words.chain(recording.intake.warnings).collect();
            return Err(words.join("; "));
        }
        let numbered = Numbered::new(&recording.steps);
        let begun_before = numbered.begun_before();
        if since.is_none() && !begun_before.is_empty() {
            let words = begins_late(&begun_before);
            recording.intake.warnings.push(words);
        }
        recording.lost = numbered.lost(since.unwrap_or(0));
        Ok(recording)
    }

    fn step(&mut self, span: &Span<'_>) -> Found {
        let has = &span.attributes;
        if has.text(attribute::MESSAGING_SYSTEM) != "chitchat" {
            return Ok(None);
        }
        let (Some(trace), Some(id)) = (span.trace_id.0, span.span_id.0) else {
            let origin = &self.origin;
            return Err(format!(
                "{origin}: a span whose traceId is not 32 hexadecimal digits, or whose spanId not 16"
            ));
        };
        let id = StepId {
            trace: TraceId::from_bytes(trace),
            span: SpanId::from_bytes(id),
        };
        self.of_ours(id, span)
            .map(Some)
            .map_err(|missing| format!("{}: span {id} has no usable {missing}", self.origin))
    }

    /// The step of one of our spans, or the attribute that it lacks.
    fn of_ours(&mut self, id: StepId, span: &Span<'_>) -> Result<Step, &'static str> {
        let has = &span.attributes;
        let count = |name| match has.integer(name) {
            None if has.has(name) => Err(name),
            count => Ok(count),
        };
        let message_time = match has.integer(attribute::LAMPORT_MESSAGE_TIME) {
            None if has.has(attribute::LAMPORT_MESSAGE_TIME) => {
                return Err(attribute::LAMPORT_MESSAGE_TIME);
            }
            time => time,
        };
        let process = has.text(attribute::LAMPORT_PROCESS_ID);
        if process.is_empty() {
            return Err(attribute::LAMPORT_PROCESS_ID);
        }
        let said = has.text(attribute::CHAT_MESSAGE_TEXT);
        Ok(Step {
            id,
            parent: span.parent_span_id.0.map(SpanId::from_bytes),
            act: act(has.text(MESSAGING_OPERATION_NAME)).ok_or(MESSAGING_OPERATION_NAME)?,
            event: event(has.text(attribute::CHAT_EVENT_TYPE)).ok_or(attribute::CHAT_EVENT_TYPE)?,
            process: Process {
                id: self.text(process),
                instance: Arc::default(),
            },
            instance: Arc::default(),
            service: Arc::default(),
            number: count(attribute::CHAT_STEP_NUMBER)?,
            room: self.text(has.text(attribute::MESSAGING_DESTINATION_NAME)),
            epoch: self.text(has.text(attribute::CHAT_HISTORY_EPOCH)),
            time: has
                .integer(attribute::LAMPORT_TIME)
                .ok_or(attribute::LAMPORT_TIME)?,
            message_time,
            sequence: count(attribute::CHAT_ROOM_SEQUENCE)?,
            participant: self.text(has.text(attribute::CHAT_PARTICIPANT_NAME)),
            message_id: has.text(attribute::MESSAGING_MESSAGE_ID).to_owned(),
            text: if said.is_empty() {
                span.status.message.0.to_string()
            } else {
                said.to_owned()
            },
            recipients: count(attribute::CHAT_BROADCAST_RECIPIENTS)?,
            replayed: has.flag(attribute::CHAT_EVENT_REPLAYED),
            resumes: count(attribute::CHAT_SESSION_RESUMES)?.unwrap_or(0),
            error: has.text(attribute::ERROR_TYPE).to_owned(),
            start: span.start_time_unix_nano.get().unwrap_or(0),
            end: span.end_time_unix_nano.get().unwrap_or(0),
        })
    }

    /// `text`, each once in memory.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }
}

/// Why a recording has no step.
fn nothing(intake: &Intake) -> String {
    match (intake.spans, intake.faults.first()) {
        (0, _) => "no spans".into(),
        (_, Some(fault)) => format!("no span that can be used; the first that cannot: {fault}"),
        (spans, None) => format!(
            "{spans} spans, but none of Chit Chat's (which have {} = chitchat)",
            attribute::MESSAGING_SYSTEM
        ),
    }
}

/// That the programs' first steps are not there, and why that may be.
fn begins_late(programs: &[(&str, u64)]) -> String {
    const NAMED: usize = 3;
    let named = programs.iter().take(NAMED);
    let mut named: Vec<String> = named
        .map(|(service, spans)| format!("{service}'s first {spans}"))
        .collect();
    if programs.len() > NAMED {
        named.push(format!("those of {} more programs", programs.len() - NAMED));
    }
    format!(
        "the recording begins in the middle: it lacks {} spans; they were lost, or are older than what was kept (Jaeger's memory drops the oldest traces beyond max_traces)",
        named.join(", ")
    )
}

fn act(operation: &str) -> Option<Act> {
    match operation {
        "join" | "send" | "leave" => Some(Act::Send),
        "order" => Some(Act::Order),
        "deliver" => Some(Act::Deliver),
        _ => None,
    }
}

fn event(name: &str) -> Option<EventName> {
    use EventName::{Join, Leave, Message, Refusal};
    [Join, Message, Leave, Refusal]
        .into_iter()
        .find(|event| event.as_str() == name)
}
