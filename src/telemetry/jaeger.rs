//! Where a person looks at a trace: Jaeger's pages.

use std::{fmt, str::FromStr};

use opentelemetry::trace::TraceId;
use serde::{Deserialize, Serialize};

/// The address of a Jaeger's pages as a browser reaches them, from which those of its traces follow.
///
/// Printable ASCII throughout, so that it may be shown on a terminal as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JaegerUi {
    /// Without a slash at its end.
    base: String,
}

/// A text that no address of a trace can begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", JaegerUi::RIGHT)]
pub struct JaegerUiError;

impl JaegerUi {
    /// What is parsed, in words.
    pub const RIGHT: &'static str = "\"http://HOST:PORT\" or \"https://HOST\", and a path if Jaeger has one: no spaces, user, query or fragment";

    /// The address of a trace, with all its steps opened: the search for `lamport` finds the logical time in each.
    #[must_use]
    pub fn trace(&self, id: TraceId) -> String {
        format!("{}/trace/{id}?uiFind=lamport", self.base)
    }
}

impl FromStr for JaegerUi {
    type Err = JaegerUiError;

    fn from_str(text: &str) -> Result<Self, JaegerUiError> {
        if is_base(text) {
            let base = text.trim_end_matches('/').to_owned();
            Ok(Self { base })
        } else {
            Err(JaegerUiError)
        }
    }
}

fn is_base(text: &str) -> bool {
    // What `Uri` does not tell: it takes characters beyond ASCII, and drops a fragment.
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    printable
        && !text.contains('#')
        && matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.authority().is_some_and(is_host_and_port)
        && uri.query().is_none()
}

/// No user: what is printed is no place for a password.
fn is_host_and_port(authority: &http::uri::Authority) -> bool {
    let host = authority.host();
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    !host.is_empty()
        && match authority.as_str().strip_prefix(host) {
            Some("") => true,
            Some(behind) => behind.strip_prefix(':').is_some_and(is_port),
            None => false,
        }
}

impl TryFrom<String> for JaegerUi {
    type Error = JaegerUiError;

    fn try_from(text: String) -> Result<Self, JaegerUiError> {
        text.parse()
    }
}

impl From<JaegerUi> for String {
    fn from(ui: JaegerUi) -> Self {
        ui.base
    }
}

impl fmt::Display for JaegerUi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: TraceId =
        TraceId::from_bytes(*b"\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c");

    #[test]
    fn a_trace_is_below_the_base_wherever_that_is_and_however_it_ends() {
        for (base, wanted) in [
            ("http://localhost:16686", "http://localhost:16686"),
            ("http://localhost:16686/", "http://localhost:16686"),
            ("https://tools.example", "https://tools.example"),
            (
                "https://tools.example/jaeger",
                "https://tools.example/jaeger",
            ),
            (
                "https://tools.example/a/jaeger//",
                "https://tools.example/a/jaeger",
            ),
            ("http://[::1]:16686", "http://[::1]:16686"),
        ] {
            let ui: JaegerUi = base.parse().expect(base);
            assert_eq!(
                ui.trace(ID),
                format!("{wanted}/trace/0af7651916cd43dd8448eb211c80319c?uiFind=lamport")
            );
            assert_eq!(ui.to_string(), wanted);
        }
    }

    #[test]
    fn an_id_keeps_its_leading_zeros() {
        let ui: JaegerUi = "http://a".parse().expect("an address");
        let id = TraceId::from(1);
        assert!(
            ui.trace(id)
                .contains("/trace/00000000000000000000000000000001?")
        );
    }

    #[test]
    fn what_is_no_address_of_pages_is_refused() {
        for bad in [
            "",
            "/",
            "localhost:16686",
            "//localhost:16686",
            "ftp://localhost",
            "javascript:alert(1)",
            "http://",
            "http:///trace",
            "http://:16686",
            "http://localhost:",
            "http://localhost:0",
            "http://localhost:65536",
            "http://localhost:x",
            "http://localhost:+80",
            "http://ada@localhost",
            "http://ada:secret@localhost:16686",
            "http://localhost:1@localhost",
            "http://localhost:16686/?a=b",
            "http://localhost:16686/#a",
            "http://local host",
            " http://localhost",
            "http://localhost ",
            "http://localhost/a b",
            "http://localhost/\t",
            "http://localhost/\u{1b}]8;;",
            "http://localhost/\u{7f}",
            "http://localhost/\u{202e}",
            "http://jæger",
        ] {
            assert_eq!(bad.parse::<JaegerUi>(), Err(JaegerUiError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_can_be_shown_and_read_again(text in "https?://\\PC{0,30}|\\PC*") {
            if let Ok(ui) = text.parse::<JaegerUi>() {
                let address = ui.trace(ID);
                prop_assert!(address.bytes().all(|byte| byte.is_ascii_graphic()));
                let uri = address.parse::<http::Uri>().expect("an address");
                prop_assert_eq!(uri.query(), Some("uiFind=lamport"));
                prop_assert_eq!(String::from(ui.clone()).parse(), Ok(ui));
            }
        }
    }
}
