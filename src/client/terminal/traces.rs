//! Which trace each event that was shown belongs to: what `/trace` answers.

use std::collections::BTreeMap;

use opentelemetry::trace::TraceId;

use crate::{
    client::render::{Style, has_own_time},
    telemetry::{JaegerUi, trace_id},
    wire::v1::ServerMessage,
};

/// Events and refusals whose traces are remembered.
///
/// When full: the earliest is forgotten, and who asks for it is told that it is too long ago. Source: a day of lively
/// talk, in less than 1 MB.
const REMEMBERED: usize = 10_000;

/// The traces of what was shown.
#[derive(Debug)]
pub(super) struct Traces {
    jaeger: Option<JaegerUi>,
    hyperlinks: bool,
    /// By logical time; no trace where none was recorded.
    by_time: BTreeMap<i64, Option<TraceId>>,
    last: Option<(i64, Option<TraceId>)>,
    forgetful: bool,
}

impl Traces {
    /// None yet. With `jaeger` a trace is an address, on a terminal that knows `hyperlinks` one of those.
    pub(super) fn new(jaeger: Option<JaegerUi>, hyperlinks: bool) -> Self {
        Self {
            jaeger,
            hyperlinks,
            by_time: BTreeMap::new(),
            last: None,
            forgetful: false,
        }
    }

    /// Remembers what the room, or the service, has just said; of a notice only if it is of a logical time of its own.
    pub(super) fn heard(&mut self, message: &ServerMessage) {
        if has_own_time(message) {
            self.last = Some(self.remember(message));
        }
    }

    /// Remembers an event that was looked up in the history.
    pub(super) fn listed(&mut self, event: &ServerMessage) {
        self.remember(event);
    }

    /// Logical time starts anew: what was shown is of another history.
    pub(super) fn begin_anew(&mut self) {
        self.by_time.clear();
        self.last = None;
        self.forgetful = false;
    }

    /// Where the trace is of what was shown at `time`, or last; or why there is none. Clean.
    pub(super) fn tell(&self, time: Option<i64>, style: Style) -> String {
        let found = match time {
            None => self.last,
            Some(time) => self.by_time.get(&time).map(|&trace| (time, trace)),
        };
        let (time, trace) = match (found, time) {
            (Some(found), _) => found,
            (None, None) => return style.aside("Nothing was shown yet."),
            (None, Some(time)) if self.forgetful => {
                return style.aside(&format!(
                    "Nothing at L={time} is among the last {REMEMBERED} events shown here."
                ));
            }
            (None, Some(time)) => {
                return style.aside(&format!("Nothing at L={time} was shown here."));
            }
        };
        match (trace, &self.jaeger) {
            (None, _) => style.aside(&format!("L={time} has no trace: the server recorded none.")),
            (Some(id), None) => style.aside(&format!(
                "L={time}: trace {id} (client.jaeger makes it an address)"
            )),
            (Some(id), Some(jaeger)) => {
                let address = jaeger.trace(id);
                let shown = if self.hyperlinks {
                    hyperlink(&address)
                } else {
                    address
                };
                // On a line of its own, most of which a terminal of 80 columns has.
                format!(
                    "{}\n  {shown}",
                    style.aside(&format!("The trace of L={time}:"))
                )
            }
        }
    }

    fn remember(&mut self, message: &ServerMessage) -> (i64, Option<TraceId>) {
        let (time, trace) = (message.timestamp, trace_id(&message.traceparent));
        self.by_time.insert(time, trace);
        if self.by_time.len() > REMEMBERED {
            self.by_time.pop_first();
            self.forgetful = true;
        }
        (time, trace)
    }
}

/// Whether the terminal at standard output makes a hyperlink of OSC 8: one that takes escape sequences, and that the
/// environment tells to be of a kind that does (`VTE_VERSION`, `TERM_PROGRAM`, `KONSOLE_VERSION` ...). A terminal cannot
/// be asked. `FORCE_HYPERLINK` set to 1 or 0 decides for those that are not known, as within a container.
pub(super) fn hyperlinks(style: Style) -> bool {
    style == Style::Colours && supports_hyperlinks::supports_hyperlinks()
}

/// `address`, to be read and to be clicked.
///
/// Source: <https://gist.github.com/egmontkob/eb114294efbcd5adb1944c9f3cb5feda>
fn hyperlink(address: &str) -> String {
    format!("\u{1b}]8;;{address}\u{1b}\\{address}\u{1b}]8;;\u{1b}\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::{Notice, NoticeCode};

    fn event(time: i64) -> ServerMessage {
        ServerMessage {
            timestamp: time,
            sequence: 1,
            traceparent: format!("00-{time:032x}-b7ad6b7169203331-01"),
            ..ServerMessage::default()
        }
    }

    fn notice(time: i64, code: NoticeCode) -> ServerMessage {
        let notice = Notice {
            code: code.into(),
            ..Notice::default()
        };
        ServerMessage {
            sequence: 0,
            notice: Some(notice),
            ..event(time)
        }
    }

    fn traces() -> Traces {
        Traces::new(Some("http://j".parse().unwrap()), false)
    }

    fn told(traces: &Traces, time: Option<i64>) -> String {
        traces.tell(time, Style::Plain)
    }

    fn address(time: i64) -> String {
        format!("The trace of L={time}:\n  http://j/trace/{time:032x}?uiFind=lamport")
    }

    #[test]
    fn as_many_as_the_limit_are_remembered_and_of_one_more_the_earliest_is_forgotten() {
        let mut traces = traces();
        let last = i64::try_from(REMEMBERED).unwrap();
        for time in 1..=last {
            traces.heard(&event(time));
        }
        assert_eq!(told(&traces, Some(1)), address(1));
        assert_eq!(
            told(&traces, Some(last + 1)),
            "Nothing at L=10001 was shown here."
        );

        traces.heard(&event(last + 1));
        assert_eq!(
            told(&traces, Some(1)),
            "Nothing at L=1 is among the last 10000 events shown here."
        );
        assert_eq!(told(&traces, Some(2)), address(2));
        assert_eq!(told(&traces, None), address(last + 1));
        assert_eq!(traces.by_time.len(), REMEMBERED);
    }

    #[test]
    fn a_refusal_has_a_time_of_its_own_and_a_word_that_does_not_tick_has_none() {
        let mut traces = traces();
        assert_eq!(told(&traces, None), "Nothing was shown yet.");
        traces.heard(&event(5));
        for code in [
            NoticeCode::TooFast,
            NoticeCode::Duplicate,
            NoticeCode::Draining,
        ] {
            let other = ServerMessage {
                traceparent: String::new(),
                ..notice(5, code)
            };
            traces.heard(&other);
            traces.heard(&notice(6, code));
        }
        assert_eq!(told(&traces, Some(5)), address(5));
        assert_eq!(told(&traces, None), address(5));
        assert_eq!(told(&traces, Some(6)), "Nothing at L=6 was shown here.");

        traces.heard(&notice(7, NoticeCode::TooLong));
        assert_eq!(told(&traces, Some(7)), address(7));
        assert_eq!(told(&traces, None), address(7));
    }

    #[test]
    fn what_was_looked_up_is_not_the_last_that_was_heard() {
        let mut traces = traces();
        traces.heard(&event(5));
        traces.listed(&event(6));
        assert_eq!(told(&traces, None), address(5));
        assert_eq!(told(&traces, Some(6)), address(6));
    }

    #[test]
    fn a_new_history_has_new_times() {
        let mut traces = traces();
        traces.heard(&event(5));
        traces.begin_anew();
        assert_eq!(told(&traces, Some(5)), "Nothing at L=5 was shown here.");
        assert_eq!(told(&traces, None), "Nothing was shown yet.");
    }

    #[test]
    fn a_hyperlink_leads_where_its_text_says() {
        let mut traces = Traces::new(Some("http://j".parse().unwrap()), true);
        traces.heard(&event(5));
        let address = format!("http://j/trace/{:032x}?uiFind=lamport", 5);
        assert_eq!(
            told(&traces, None),
            format!("The trace of L=5:\n  \u{1b}]8;;{address}\u{1b}\\{address}\u{1b}]8;;\u{1b}\\")
        );
    }
}
