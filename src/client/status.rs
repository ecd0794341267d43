//! What a status at the end of a call asks of a client: the table at the top of the proto file.

use std::error::Error;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Whether to come back, after a pause. Everything else is a refusal that trying again does not change.
pub(crate) fn asks_to_resume(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => true,
        // The service has no such word; it is that of an own limit, or of a proxy on the way.
        Code::DeadlineExceeded => true,
        // Without a reason it is the transport's word (ENHANCE_YOUR_CALM), not the service's.
        Code::ResourceExhausted => reason(status).is_none_or(|reason| reason == "STALLED"),
        _ => false,
    }
}

/// Whether a JOIN was refused because somebody holds the name or the id.
pub(crate) fn is_held(status: &Status) -> bool {
    status.code() == Code::AlreadyExists
}

/// Whether a newer stream has resumed the participant.
pub(crate) fn is_superseded(status: &Status) -> bool {
    status.code() == Code::Aborted && reason(status).is_some_and(|reason| reason == "SUPERSEDED")
}

/// Whether somebody holds the wanted id, so that another name does not help.
pub(crate) fn is_id_held(status: &Status) -> bool {
    is_held(status) && reason(status).is_some_and(|reason| reason == "ID_HELD")
}

/// Whether the sender is to send less (`limits.rate`).
pub(crate) fn is_too_fast(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted
        && reason(status).is_some_and(|reason| reason == "TOO_FAST")
}

/// Why a call ended, for a person: what the status says, and what it comes from.
pub(crate) fn because(status: &Status) -> String {
    let mut root: Option<&dyn Error> = status.source();
    while let Some(deeper) = root.and_then(Error::source) {
        root = Some(deeper);
    }
    match root.map(ToString::to_string) {
        // The layers between say nothing that a person could use: "h2 protocol error: error reading a body from ...".
        Some(root) if status.message().is_empty() || is_of_transport(status) => root,
        Some(root) if !status.message().contains(&root) => {
            format!("{}: {root}", status.message())
        }
        _ => status.message().to_owned(),
    }
}

/// Whether HTTP/2 found the connection broken, and not the service or the connecting.
fn is_of_transport(status: &Status) -> bool {
    status.message().starts_with("h2 protocol error")
}

fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn with_reason(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, "chitchat", HashMap::new());
        Status::with_error_details(code, "why", details)
    }

    #[test]
    fn who_was_too_slow_or_cut_off_comes_back_and_who_was_refused_does_not() {
        for status in [
            with_reason(Code::Unavailable, "DRAINING"),
            with_reason(Code::ResourceExhausted, "STALLED"),
            Status::resource_exhausted("too_many_internal_resets"),
            Status::cancelled("Timeout expired"),
            Status::deadline_exceeded("the server does not answer"),
        ] {
            assert!(asks_to_resume(&status), "{status}");
        }
        for status in [
            with_reason(Code::ResourceExhausted, "TOO_LARGE"),
            with_reason(Code::ResourceExhausted, "LIMIT"),
            with_reason(Code::Aborted, "SUPERSEDED"),
            with_reason(Code::AlreadyExists, "ID_HELD"),
            Status::invalid_argument("why"),
            Status::data_loss("a stored event cannot be read"),
        ] {
            assert!(!asks_to_resume(&status), "{status}");
        }
    }

    #[test]
    fn of_a_broken_connection_the_cause_is_told_and_not_the_layers_above_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Layer(&'static str, #[source] Option<Box<Layer>>);
        let broken = |message| {
            let pipe = Layer("stream closed because of a broken pipe", None);
            let mut status = Status::unknown(message);
            status.set_source(std::sync::Arc::new(Layer("layer", Some(Box::new(pipe)))));
            because(&status)
        };
        assert_eq!(
            broken("h2 protocol error: error reading a body from connection"),
            "stream closed because of a broken pipe"
        );
        assert_eq!(
            broken("tcp connect error"),
            "tcp connect error: stream closed because of a broken pipe"
        );
    }

    #[test]
    fn a_held_id_is_told_from_a_held_name() {
        assert!(is_id_held(&with_reason(Code::AlreadyExists, "ID_HELD")));
        assert!(!is_id_held(&with_reason(Code::AlreadyExists, "NAME_HELD")));
    }
}
