//! What the fold is asked to do.

use std::{sync::Arc, time::SystemTime};

use super::{Digest, Incarnation, Refusal};

/// One command about one room, complete: everything that the fold cannot compute stands in it.
#[derive(Debug, Clone)]
pub struct Command {
    /// The room.
    pub room: Arc<str>,
    /// The timestamp that the message carried; none where no message was received (a broken stream's departure).
    pub timestamp: Option<i64>,
    /// When a server accepted it, by its wall clock; orders nothing.
    pub accepted_at: SystemTime,
    /// The accepting server's span as a W3C `traceparent`; empty when unsampled.
    pub traceparent: String,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Take part, or continue to.
    Join(Join),
    /// A participant's message on its stream.
    Say {
        /// Who.
        id: i32,
        /// Which of its streams.
        incarnation: Incarnation,
        /// As sent.
        text: String,
        /// The sender's id for it; empty for none.
        message_id: String,
    },
    /// A message outside any stream.
    Post {
        /// Who.
        poster: Poster,
        /// As sent.
        text: String,
        /// The sender's id for it; empty for none.
        message_id: String,
    },
    /// Something on a stream that is refused whatever the state (a second JOIN, an unknown type): a tick and a notice.
    Refuse {
        /// Who sent it.
        id: i32,
        /// Which of its streams.
        incarnation: Incarnation,
        /// Why.
        refusal: Refusal,
        /// The sender's id for it; empty for none.
        message_id: String,
    },
    /// The participant is gone, unless a newer incarnation of it is there.
    Leave {
        /// Who.
        id: i32,
        /// Which of its streams ended.
        incarnation: Incarnation,
    },
    /// The journal keeps nothing before `first` from now on.
    Trim {
        /// The oldest sequence that can be read.
        first: u64,
    },
}

impl Action {
    /// Whether it is compared with what the room remembers of its past: a message that may be a retry.
    #[must_use]
    pub fn may_be_retry(&self) -> bool {
        match self {
            Self::Say { message_id, .. } | Self::Post { message_id, .. } => !message_id.is_empty(),
            Self::Join(_) | Self::Refuse { .. } | Self::Leave { .. } | Self::Trim { .. } => false,
        }
    }
}

/// A request to take part.
#[derive(Debug, Clone)]
pub struct Join {
    /// The wanted or picked id; at least 1.
    pub id: i32,
    /// As sent.
    pub name: String,
    /// A program.
    pub bot: bool,
    /// What the session that it will be given hashes to, if it is given one.
    pub session_given: Option<Digest>,
    /// What the session that it came with hashes to.
    pub session_held: Option<Digest>,
    /// Where its earlier reading ended.
    pub resume: Option<Resume>,
    /// Events of the past to read first, when nothing is resumed.
    pub backlog: usize,
}

/// Where an earlier reading ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The history that was read.
    pub epoch: String,
    /// The last sequence that was read.
    pub after_sequence: u64,
}

/// Who posts outside a stream.
#[derive(Debug, Clone)]
pub enum Poster {
    /// A participant, proved by its session.
    Participant {
        /// Its id.
        id: i32,
        /// What the session that it showed hashes to.
        session: Digest,
    },
    /// Somebody who is not in the room.
    Outsider {
        /// Picked by the server.
        id: i32,
        /// As sent.
        name: String,
        /// A program.
        bot: bool,
    },
}
