//! Every status that the service ends a call with: cause, code, reason, in one table.
//!
//! The proto's table says what each asks of a client.

use std::{collections::HashMap, error::Error as _};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    journal,
    order::Stopped,
    room::{Refusal, Rejection},
};

/// The domain of our `google.rpc.ErrorInfo`.
const DOMAIN: &str = "chitchat";

/// In the metadata of a STALLED: the last sequence that the stream had.
const LAST_SEQUENCE: &str = "last_sequence";

/// Why a call ends that is not the rules' doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the first message must be a JOIN")]
    NotJoined,
    #[error("no JOIN came within {0:?}")]
    NoJoin(std::time::Duration),
    #[error("the message cannot be decoded: {0}")]
    Malformed(String),
    #[error("a message is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("more than {limit} messages a second")]
    TooFast { limit: u32 },
    #[error("too many rooms are open")]
    TooManyRooms,
    #[error("the server is stopping; come back in a moment")]
    Draining,
    #[error("nothing was read for {limit:?}; what was sent goes up to {last}")]
    Stalled {
        limit: std::time::Duration,
        last: u64,
    },
    #[error("what comes after {last} in this room has been dropped from its history")]
    TooFarBehind { last: u64 },
    #[error("the answer was not read in time; ask again")]
    Unread,
    #[error("this participant continues on a newer stream")]
    Superseded,
    #[error("a session is needed to speak for id {0}")]
    NoSession(i32),
    #[error("unknown method {0}")]
    UnknownMethod(String),
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let (code, reason) = match &fault {
            Fault::NotJoined => (Code::FailedPrecondition, "FIRST_MESSAGE_NOT_JOIN"),
            Fault::NoJoin(_) => (Code::FailedPrecondition, "NO_JOIN"),
            Fault::Malformed(_) => (Code::InvalidArgument, "MALFORMED"),
            Fault::TooLarge { .. } => (Code::ResourceExhausted, "TOO_LARGE"),
            Fault::TooFast { .. } => (Code::ResourceExhausted, "TOO_FAST"),
            Fault::TooManyRooms => (Code::ResourceExhausted, "LIMIT"),
            Fault::Draining => (Code::Unavailable, "DRAINING"),
            Fault::Stalled { .. } | Fault::TooFarBehind { .. } | Fault::Unread => {
                (Code::ResourceExhausted, "STALLED")
            }
            Fault::Superseded => (Code::Aborted, "SUPERSEDED"),
            Fault::NoSession(_) => (Code::Unauthenticated, "NO_SESSION"),
            Fault::UnknownMethod(_) => (Code::Unimplemented, "UNKNOWN_METHOD"),
        };
        let metadata = match &fault {
            Fault::Stalled { last, .. } | Fault::TooFarBehind { last } => {
                HashMap::from([(LAST_SEQUENCE.into(), last.to_string())])
            }
            _ => HashMap::new(),
        };
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, DOMAIN, metadata);
        Status::with_error_details(code, fault.to_string(), details)
    }
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        status(Code::Unavailable, "ORDER", None, stopped.to_string())
    }
}

/// The history cannot be read. Where it lives is for the operator's eyes alone.
impl From<&journal::Fault> for Status {
    fn from(fault: &journal::Fault) -> Self {
        tracing::error!("a reader was not served: {fault}: {:?}", fault.source());
        match fault {
            journal::Fault::Damaged { .. } => {
                let words = "this part of the history is damaged, and is not shown";
                status(Code::DataLoss, "DAMAGED", None, words.into())
            }
            _ => {
                let words = "the history cannot be read at present";
                status(Code::Unavailable, "STORAGE", None, words.into())
            }
        }
    }
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        let (code, reason, field) = match &rejection {
            Rejection::BadName(_) => (Code::InvalidArgument, "BAD_NAME", Some("client_name")),
            Rejection::BadId => (Code::InvalidArgument, "BAD_ID", Some("id")),
            Rejection::BadRoom => (Code::InvalidArgument, "BAD_ROOM", Some("room")),
            Rejection::BadMessageId => {
                (Code::InvalidArgument, "BAD_MESSAGE_ID", Some("message_id"))
            }
            Rejection::ImpossibleTimestamp { .. } => (
                Code::InvalidArgument,
                "IMPOSSIBLE_TIMESTAMP",
                Some("timestamp"),
            ),
            Rejection::IdHeld { .. } => (Code::AlreadyExists, "ID_HELD", None),
            Rejection::NameHeld { .. } => (Code::AlreadyExists, "NAME_HELD", None),
            Rejection::MessageIdReused => (Code::AlreadyExists, "MESSAGE_ID_REUSED", None),
            Rejection::NotInRoom { .. } => (Code::NotFound, "NOT_IN_ROOM", None),
            Rejection::NotYourSession { .. } => (Code::PermissionDenied, "NOT_YOUR_SESSION", None),
            Rejection::TooManyRooms { .. } => (Code::ResourceExhausted, "LIMIT", None),
        };
        status(code, reason, field, rejection.to_string())
    }
}

/// Refused content where there is no stream to send a notice on.
impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let field = match refusal {
            Refusal::ImpossibleTimestamp => "timestamp",
            Refusal::AlreadyJoined | Refusal::UnknownType(_) => "type",
            _ => "msg",
        };
        status(
            Code::InvalidArgument,
            refusal.name(),
            Some(field),
            refusal.to_string(),
        )
    }
}

/// `field`: the request's field that is wrong, for `google.rpc.BadRequest`.
fn status(code: Code, reason: &str, field: Option<&str>, message: String) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    if let Some(field) = field {
        details.add_bad_request_violation(field, &message);
    }
    Status::with_error_details(code, message, details)
}
