//! What became of a command.

use std::{sync::Arc, time::SystemTime};

use super::{Incarnation, Reading, text::NameFault};

/// What became of one command: the events that it made (none, one, or a LEAVE and a JOIN), and the answer for whoever
/// sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// New events of the command's room, in order.
    pub events: Vec<Event>,
    /// For the sender.
    pub answer: Answer,
}

/// One event of a room's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The room.
    pub room: Arc<str>,
    /// Its place in the room: 1, 2, 3 ...
    pub sequence: u64,
    /// Its logical time.
    pub timestamp: i64,
    /// What it is.
    pub kind: Kind,
    /// The participant that it is about.
    pub sender_id: i32,
    /// That participant's name.
    pub sender_name: Arc<str>,
    /// Whether that is a program.
    pub bot: bool,
    /// The text to show.
    pub text: String,
    /// The sender's id for the message; empty for none.
    pub message_id: String,
    /// The timestamp that the message carried, if it did and it was possible.
    pub sent_timestamp: Option<i64>,
    /// When it was accepted, by a server's wall clock.
    pub accepted_at: SystemTime,
    /// The server's span; empty when unsampled.
    pub traceparent: String,
}

impl Event {
    /// What the participant said; empty for a JOIN or a LEAVE, whose text is the service's.
    #[must_use]
    pub fn said(&self) -> &str {
        match self.kind {
            Kind::Message => &self.text,
            Kind::Join | Kind::Leave => "",
        }
    }
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody entered.
    Join,
    /// Somebody said something.
    Message,
    /// Somebody left.
    Leave,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The participant is in the room.
    Joined {
        /// Its id.
        id: i32,
        /// Its name, as it is shown.
        name: Arc<str>,
        /// This stream.
        incarnation: Incarnation,
        /// It was in the room already, and continues.
        resumed: bool,
        /// Where its reading starts; `head` is the last sequence before the events of this command.
        reading: Reading,
        /// The JOIN's logical time, or the clock as it stands when nothing new happened.
        timestamp: i64,
    },
    /// The message is an event.
    Stored {
        /// Its logical time.
        timestamp: i64,
        /// Its place.
        sequence: u64,
    },
    /// The message was stored before.
    Duplicate {
        /// The first result's logical time.
        timestamp: i64,
        /// The first result's place.
        sequence: u64,
        /// The id that is known.
        message_id: String,
    },
    /// The content was refused: a tick, and no event.
    Refused(Refused),
    /// The request was refused: no tick, nothing changed.
    Rejected(Rejection),
    /// The participant left.
    Left {
        /// The LEAVE's logical time.
        timestamp: i64,
        /// The LEAVE's place.
        sequence: u64,
    },
    /// It was about a participant or a stream that is not there any more: nothing changed.
    Void,
}

/// Content that was refused: what its sender is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The room.
    pub room: Arc<str>,
    /// Who sent it.
    pub id: i32,
    /// That participant's name.
    pub participant: Arc<str>,
    /// Why.
    pub refusal: Refusal,
    /// Why, in the words that the sender reads.
    pub words: String,
    /// The logical time of the refusal.
    pub timestamp: i64,
    /// The sender's id for the message; empty for none.
    pub message_id: String,
    /// The timestamp that the message carried, if it did and it was possible.
    pub sent_timestamp: Option<i64>,
    /// The server's span; empty when unsampled.
    pub traceparent: String,
    /// The room's last sequence before it: where its notice belongs in what the sender reads.
    pub after: u64,
}

/// Why content was refused; its text is what the sender reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More characters than `limits.text_chars`.
    #[error("Message too long ({chars} chars). Limit is {limit}.")]
    TooManyChars {
        /// How many.
        chars: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// More bytes than `limits.text_bytes`.
    #[error("Message too long ({bytes} bytes). Limit is {limit}.")]
    TooManyBytes {
        /// How many.
        bytes: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Nothing to see.
    #[error("Message is empty.")]
    Empty,
    /// A character that could deceive a reader's terminal.
    #[error("Message has a character that is not allowed (U+{:04X}).", u32::from(*.0))]
    Forbidden(char),
    /// A timestamp that no honest clock shows.
    #[error(
        "Timestamp is not possible: it must not be negative nor far ahead of the service's clock."
    )]
    ImpossibleTimestamp,
    /// A JOIN on a stream that has joined.
    #[error("Already joined: a stream joins once.")]
    AlreadyJoined,
    /// A type that this server does not know.
    #[error("Unknown event type {0}.")]
    UnknownType(i32),
}

/// Why a request was refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The name is not a name.
    #[error(transparent)]
    BadName(NameFault),
    /// The id is negative.
    #[error("the id must be positive, or 0 for one that the server picks")]
    BadId,
    /// The room's name is not one.
    #[error("a room is 1 to 64 bytes of letters, digits and . _ -")]
    BadRoom,
    /// The message id is too long.
    #[error("a message_id is at most 64 bytes")]
    BadMessageId,
    /// A timestamp that no honest clock shows, where it cannot be passed over.
    #[error(
        "timestamp {timestamp} is not possible: the service's clock shows {clock}, and 0 to {jump} ahead of it is allowed"
    )]
    ImpossibleTimestamp {
        /// What came.
        timestamp: i64,
        /// What the service's clock shows.
        clock: i64,
        /// `limits.clock_jump`
        jump: i64,
    },
    /// The id is held.
    #[error(
        "id {id} is in use: its holder is present, or its connection broke and it may still return"
    )]
    IdHeld {
        /// The id.
        id: i32,
    },
    /// The name is held.
    #[error(
        "name {name:?} is in use: its holder is present, or its connection broke and it may still return"
    )]
    NameHeld {
        /// The name.
        name: String,
    },
    /// The message id stands for other content.
    #[error("this message_id was used for another message")]
    MessageIdReused,
    /// No such participant.
    #[error("nobody in this room has the id {id}")]
    NotInRoom {
        /// The id.
        id: i32,
    },
    /// The session shown is not that participant's.
    #[error("the session is not the one that was given to id {id}")]
    NotYourSession {
        /// The id.
        id: i32,
    },
    /// One more room than `limits.rooms`.
    #[error("this service has {limit} rooms, which is its limit")]
    TooManyRooms {
        /// `limits.rooms`
        limit: usize,
    },
}

impl Refusal {
    /// One word for programs: `error.type` of the span, and what the notice's code says.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooManyChars { .. } | Self::TooManyBytes { .. } => "TOO_LONG",
            Self::Empty => "EMPTY",
            Self::Forbidden(_) => "FORBIDDEN_CHARACTERS",
            Self::ImpossibleTimestamp => "IMPOSSIBLE_TIMESTAMP",
            Self::AlreadyJoined => "ALREADY_JOINED",
            Self::UnknownType(_) => "UNKNOWN_TYPE",
        }
    }
}

impl Outcome {
    pub(super) fn rejected(rejection: Rejection) -> Self {
        Self {
            events: vec![],
            answer: Answer::Rejected(rejection),
        }
    }

    pub(super) fn void() -> Self {
        Self {
            events: vec![],
            answer: Answer::Void,
        }
    }
}

/// What everybody reads when somebody enters or leaves; the words are the assignment's.
pub(super) fn announcement(name: &str, verb: &str, timestamp: i64) -> String {
    format!("Participant {name} {verb} Chit Chat at logical time L={timestamp}")
}
