//! What a person at the terminal can type.

use crate::client::reading::PAGE;

/// What `/help` prints.
pub(super) const HELP: &str = "\
/who            who is here
/history [N]    the last N events of this room (20)
/clock          show or hide how each event came by its logical time
/trace [L]      where the trace can be seen of what was shown at L (last)
/leave, exit    leave the chat (Ctrl-C and Ctrl-D too)
//text          say a text that begins with a slash
/help           this list";

/// A line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// An empty line.
    Nothing,
    /// A text for the room.
    Say(String),
    /// `/help`
    Help,
    /// `/who`
    Who,
    /// `/history [N]`; without a number as many as a newcomer sees.
    History(Option<u32>),
    /// `/clock`
    Clock,
    /// `/trace [L]`: of what was shown at this logical time; without one, last.
    Trace(Option<i64>),
    /// `/leave`, `exit`
    Leave,
    /// Not a command, or not used as one: what to tell the person. Nothing is sent.
    Mistake(String),
}

impl Command {
    pub(super) fn parse(line: &str) -> Self {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("//") {
            return Self::Say(format!("/{text}"));
        }
        if line == "exit" {
            return Self::Leave;
        }
        if !line.starts_with('/') {
            return if line.is_empty() {
                Self::Nothing
            } else {
                Self::Say(line.to_owned())
            };
        }
        let mut words = line.split_whitespace();
        match (words.next().unwrap_or_default(), words.next(), words.next()) {
            ("/help", None, None) => Self::Help,
            ("/who", None, None) => Self::Who,
            ("/clock", None, None) => Self::Clock,
            ("/leave", None, None) => Self::Leave,
            ("/history", None, None) => Self::History(None),
            ("/history", Some(count), None) => match count.parse() {
                Ok(count @ 1..=PAGE) => Self::History(Some(count)),
                _ => Self::Mistake(format!("/history takes a number from 1 to {PAGE}.")),
            },
            ("/trace", None, None) => Self::Trace(None),
            ("/trace", Some(time), None) => {
                // As it is written before each event, or without that.
                match time.strip_prefix("L=").unwrap_or(time).parse() {
                    Ok(time @ 0..) => Self::Trace(Some(time)),
                    _ => Self::Mistake("/trace takes a logical time, such as 5 or L=5.".into()),
                }
            }
            (known @ ("/help" | "/who" | "/clock" | "/leave" | "/history" | "/trace"), ..) => {
                Self::Mistake(format!(
                    "{known} does not take that. /help lists the commands; //... says it."
                ))
            }
            (unknown, ..) => Self::Mistake(format!(
                "{unknown} is not a command and was not sent. /help lists the commands; //... says it."
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_without_the_white_space_around_it() {
        assert_eq!(
            Command::parse("  Hello World! \n"),
            Command::Say("Hello World!".into())
        );
        assert_eq!(Command::parse(" \t"), Command::Nothing);
    }

    #[test]
    fn exit_leaves_but_only_alone() {
        assert_eq!(Command::parse("exit "), Command::Leave);
        assert_eq!(Command::parse("/leave"), Command::Leave);
        assert_eq!(Command::parse("exitexit"), Command::Say("exitexit".into()));
        assert_eq!(Command::parse("exit now"), Command::Say("exit now".into()));
    }

    #[test]
    fn every_command_of_the_help_is_one() {
        for line in HELP.lines() {
            let word = line.split([' ', ',']).next().unwrap();
            assert!(
                !matches!(Command::parse(word), Command::Mistake(_)),
                "{word}"
            );
        }
    }

    #[test]
    fn two_slashes_say_one() {
        assert_eq!(
            Command::parse("//who knows"),
            Command::Say("/who knows".into())
        );
        assert_eq!(Command::parse("//"), Command::Say("/".into()));
    }

    #[test]
    fn an_unknown_word_is_said_to_be_one() {
        for line in ["/wohs", "/", "/etc/passwd is", "/WHO"] {
            let Command::Mistake(told) = Command::parse(line) else {
                panic!("{line} was taken")
            };
            assert!(told.contains("is not a command and was not sent"), "{told}");
        }
    }

    #[test]
    fn history_takes_a_number_within_its_limits() {
        assert_eq!(Command::parse("/history"), Command::History(None));
        assert_eq!(Command::parse("/history 1"), Command::History(Some(1)));
        assert_eq!(
            Command::parse("/history 1000"),
            Command::History(Some(1_000))
        );
        for line in [
            "/history 0",
            "/history 1001",
            "/history x",
            "/history 1 2",
            "/who ada",
        ] {
            assert!(
                matches!(Command::parse(line), Command::Mistake(_)),
                "{line}"
            );
        }
    }
    #[test]
    fn trace_takes_a_logical_time_as_it_is_shown_or_its_number() {
        assert_eq!(Command::parse("/trace"), Command::Trace(None));
        assert_eq!(Command::parse("/trace 5"), Command::Trace(Some(5)));
        assert_eq!(Command::parse("/trace L=5"), Command::Trace(Some(5)));
        assert_eq!(
            Command::parse("/trace 9223372036854775807"),
            Command::Trace(Some(i64::MAX))
        );
        for line in [
            "/trace x",
            "/trace L=",
            "/trace -1",
            "/trace 9223372036854775808",
            "/trace 1 2",
        ] {
            assert!(
                matches!(Command::parse(line), Command::Mistake(_)),
                "{line}"
            );
        }
    }
}
