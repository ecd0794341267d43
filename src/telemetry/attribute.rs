//! Names of span and resource attributes: OpenTelemetry's semantic conventions (messaging, service, host) where they
//! have a name, `chat.*` and `lamport.*` where they have none.

/// Integer: the process's Lamport clock after the tick of the step that the span stands for.
pub const LAMPORT_TIME: &str = "lamport.time";
/// Integer: the timestamp that the message carried when it arrived.
pub const LAMPORT_MESSAGE_TIME: &str = "lamport.message.time";
/// `server`, or the participant's id: whose clock it is.
pub const LAMPORT_PROCESS_ID: &str = "lamport.process.id";

/// `join`, `message`, `leave` or `refusal`.
pub const CHAT_EVENT_TYPE: &str = "chat.event.type";
/// Who the event is about.
pub const CHAT_PARTICIPANT_NAME: &str = "chat.participant.name";
/// Integer: the event's place in its room.
pub const CHAT_ROOM_SEQUENCE: &str = "chat.room.sequence";
/// The identity of the history that the event is part of.
pub const CHAT_HISTORY_EPOCH: &str = "chat.history.epoch";
/// Integer: the how-manieth span of its process (`service.instance.id`) this is: 1, 2, 3 ... A number that is missing is a
/// span that was lost on its way; without the numbers nobody could tell that from a step that never happened.
pub const CHAT_STEP_NUMBER: &str = "chat.step.number";
/// What was said; only with `telemetry.text`.
pub const CHAT_MESSAGE_TEXT: &str = "chat.message.text";
/// Integer: how many streams the event was handed to.
pub const CHAT_BROADCAST_RECIPIENTS: &str = "chat.broadcast.recipients";

/// Boolean, true on a delivery alone: it was read in the replay of what was missed while the connection was lost. Else
/// left out.
pub const CHAT_EVENT_REPLAYED: &str = "chat.event.replayed";
/// Integer: how often the participant's session had been resumed on a new connection before this step. Left out before
/// the first time, and of a server.
pub const CHAT_SESSION_RESUMES: &str = "chat.session.resumes";

/// Always `chitchat`.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The first word of the span's name.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// `send` or `process`.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The room.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// The sender's own id of the message.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// As [`LAMPORT_PROCESS_ID`].
pub const MESSAGING_CLIENT_ID: &str = "messaging.client.id";
/// Why a step failed: few values, made for counting.
pub const ERROR_TYPE: &str = "error.type";

/// Tells processes apart: `chitchat-server`, `alex` ...
pub const SERVICE_NAME: &str = "service.name";
/// Always `chitchat`.
pub const SERVICE_NAMESPACE: &str = "service.namespace";
/// This crate's version.
pub const SERVICE_VERSION: &str = "service.version";
/// Another one for each start of a process.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Equal for processes that share a machine, and so a wall clock; Jaeger warns about traces without it.
pub const HOST_ID: &str = "host.id";
