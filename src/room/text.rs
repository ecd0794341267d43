//! What a text, a name and a room may be.
//!
//! Nothing is changed silently but for white space around it and Unicode NFC; what is not acceptable is refused, so
//! that what everybody reads is what the sender wrote.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark, is_nfc};

use super::Refusal;
use crate::config::Limits;

/// The longest `message_id`.
///
/// Unit: bytes; a UUID has 36. A longer one is refused with INVALID_ARGUMENT.
pub const MESSAGE_ID_BYTES_MAX: usize = 64;

/// The longest room name.
///
/// Unit: bytes. It stands in every event and span name. A longer one is refused with INVALID_ARGUMENT.
pub const ROOM_BYTES_MAX: usize = 64;

/// The name that notices come from, which nobody else may have.
pub const SERVER_NAME: &str = "Server";

/// A name as names are compared: without case. Two that are equal cannot both be in a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameKey(String);

/// Why a name is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Nothing but white space.
    #[error("the name is empty")]
    Empty,
    /// More characters than `limits.name_chars`.
    #[error("the name is too long ({chars} chars); the limit is {limit}")]
    TooLong {
        /// How many.
        chars: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A character that a name may not have there.
    #[error("the name may not have U+{:04X} there; a name starts with a letter or digit and goes on with those, space and . _ - '", u32::from(*.0))]
    Forbidden(char),
    /// The name that notices come from.
    #[error("the name is the service's own")]
    Reserved,
}

/// A text as it is stored: trimmed and in NFC.
///
/// # Errors
///
/// [`Refusal::Empty`], [`Refusal::TooManyChars`], [`Refusal::TooManyBytes`] or [`Refusal::Forbidden`].
pub fn message(raw: &str, limits: &Limits) -> Result<String, Refusal> {
    let text = tidy(raw);
    let is_plain = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_plain && text.chars().all(is_invisible) {
        return Err(Refusal::Empty);
    }
    check_length(&text, limits)?;
    if is_plain {
        // Printable ASCII, as most texts are: one look at each byte has told all there is to know.
        return Ok(text);
    }
    match text.chars().find(|&c| is_deceptive(c)) {
        Some(c) => Err(Refusal::Forbidden(c)),
        None => Ok(text),
    }
}

/// A text as a client sends it: as it would be stored, if its length allows; all else is for the service to judge.
///
/// # Errors
///
/// [`Refusal::TooManyChars`] or [`Refusal::TooManyBytes`].
pub fn outgoing(raw: &str, limits: &Limits) -> Result<String, Refusal> {
    let text = tidy(raw);
    check_length(&text, limits)?;
    Ok(text)
}

fn check_length(text: &str, limits: &Limits) -> Result<(), Refusal> {
    let (chars, bytes) = (text.chars().count(), text.len());
    if chars > limits.text_chars {
        return Err(Refusal::TooManyChars {
            chars,
            limit: limits.text_chars,
        });
    }
    if bytes > limits.text_bytes {
        return Err(Refusal::TooManyBytes {
            bytes,
            limit: limits.text_bytes,
        });
    }
    Ok(())
}

/// A name as it is shown: trimmed (the original's clients send it with a newline) and in NFC.
///
/// # Errors
///
/// Any [`NameFault`].
pub fn name(raw: &str, chars_max: usize) -> Result<String, NameFault> {
    let name = tidy(raw);
    let chars = name.chars().count();
    if chars == 0 {
        return Err(NameFault::Empty);
    }
    if chars > chars_max {
        return Err(NameFault::TooLong {
            chars,
            limit: chars_max,
        });
    }
    let fault = name.chars().enumerate().find(|&(at, c)| {
        let inner = at > 0 && (is_mark(c) || matches!(c, ' ' | '.' | '_' | '-' | '\''));
        !(is_letter(c) || inner)
    });
    if let Some((_, c)) = fault {
        return Err(NameFault::Forbidden(c));
    }
    if name_key(&name) == name_key(SERVER_NAME) {
        return Err(NameFault::Reserved);
    }
    Ok(name)
}

/// Whether `room` can be a room's name.
#[must_use]
pub fn is_room(room: &str) -> bool {
    !room.is_empty()
        && room.len() <= ROOM_BYTES_MAX
        && is_nfc(room)
        && room
            .chars()
            .all(|c| is_letter(c) || matches!(c, '.' | '_' | '-'))
}

/// Unicode's case folding, near enough, of what the standard library has: to lower case and then to upper, so that `ẞ`,
/// `ß` and `ss` are one, and so are both small sigmas, and `ſ` and `s`.
pub(crate) fn name_key(name: &str) -> NameKey {
    NameKey(name.to_lowercase().to_uppercase().nfc().collect())
}

/// A letter or digit that can be seen; some that Unicode counts as letters cannot (fillers of Hangul).
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() && !is_invisible(c)
}

/// An accent that can be seen.
fn is_mark(c: char) -> bool {
    is_combining_mark(c) && !is_invisible(c)
}

fn tidy(raw: &str) -> String {
    let trimmed = raw.trim();
    if trimmed.is_ascii() || is_nfc(trimmed) {
        trimmed.to_owned()
    } else {
        trimmed.nfc().collect()
    }
}

/// Characters that move the cursor, turn the direction of writing, or cannot be exchanged: what a terminal would obey
/// rather than show. No text has one, and whoever shows the words of a peer replaces them.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || matches!(code,
            0x2028 | 0x2029                       // line and paragraph separator
            | 0x061C | 0x200E | 0x200F            // direction marks
            | 0x202A..=0x202E | 0x2066..=0x2069   // embeddings, overrides, isolates (CVE-2021-42574)
            | 0xFFF9..=0xFFFB                     // interlinear annotation
            | 0xFDD0..=0xFDEF                     // noncharacters
            | 0xE0000..=0xE007F)                  // tags
        || code & 0xFFFE == 0xFFFE
}

/// Characters that leave nothing to see: a text of nothing else is empty.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            u32::from(c),
            0x00AD | 0x034F | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F
            | 0x200B..=0x200D | 0x2060..=0x2064 | 0x2800 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
            | 0xE0100..=0xE01EF
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::default()
    }

    #[test]
    fn a_text_of_128_characters_is_taken_and_one_more_is_not() {
        for letter in ["a", "ø", "🦀", "e\u{301}"] {
            assert!(message(&letter.repeat(128), &limits()).is_ok(), "{letter}");
            assert_eq!(
                message(&letter.repeat(129), &limits()),
                Err(Refusal::TooManyChars {
                    chars: 129,
                    limit: 128
                }),
                "{letter}"
            );
        }
    }

    #[test]
    fn a_text_is_bounded_in_bytes_too_where_the_limit_is_lower() {
        let limits = Limits {
            text_bytes: 8,
            ..limits()
        };
        assert!(message("🦀🦀", &limits).is_ok());
        assert_eq!(
            message("🦀🦀a", &limits),
            Err(Refusal::TooManyBytes { bytes: 9, limit: 8 })
        );
    }

    #[test]
    fn a_client_is_told_of_a_length_as_the_service_would_tell_it() {
        assert_eq!(outgoing(" e\u{301} ", &limits()), Ok("é".into()));
        assert_eq!(outgoing(" ", &limits()), Ok(String::new()));
        let refusal = outgoing(&"a".repeat(354), &limits()).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "Message too long (354 chars). Limit is 128."
        );
    }

    #[test]
    fn white_space_around_a_text_does_not_count_and_is_not_stored() {
        let padded = format!("\n\t {} \r\n", "a".repeat(128));
        assert_eq!(message(&padded, &limits()), Ok("a".repeat(128)));
    }

    #[test]
    fn a_text_is_stored_in_nfc() {
        assert_eq!(message("A\u{30a}", &limits()), Ok("\u{c5}".into()));
    }

    #[test]
    fn a_text_with_nothing_to_see_is_empty() {
        for blank in ["", "  \n", "\u{200b}\u{feff}", "\u{2800} \u{3164}"] {
            assert_eq!(message(blank, &limits()), Err(Refusal::Empty), "{blank:?}");
        }
    }

    #[test]
    fn characters_that_a_terminal_would_obey_are_refused() {
        for c in [
            '\u{1b}', '\u{0}', '\n', '\u{9b}', '\u{7f}', '\u{202e}', '\u{2066}', '\u{2028}',
            '\u{fffe}',
        ] {
            let text = format!("a{c}b");
            assert_eq!(
                message(&text, &limits()),
                Err(Refusal::Forbidden(c)),
                "{c:?}"
            );
        }
        assert!(message("👨\u{200d}👩\u{200d}👧 שלום", &limits()).is_ok());
    }

    #[test]
    fn a_name_of_32_characters_is_taken_and_one_more_is_not() {
        assert!(name(&"å".repeat(32), 32).is_ok());
        assert_eq!(
            name(&"å".repeat(33), 32),
            Err(NameFault::TooLong {
                chars: 33,
                limit: 32
            })
        );
    }

    #[test]
    fn the_newline_that_the_original_sends_with_a_name_is_taken_off() {
        assert_eq!(name("Alex\n", 32), Ok("Alex".into()));
    }

    #[test]
    fn names_are_words_in_any_script() {
        for good in [
            "Ada",
            "Zoë",
            "李雷",
            "Жан-Поль",
            "O'Hara",
            "Mary Ann",
            "r2_d2",
            "4",
        ] {
            assert!(name(good, 32).is_ok(), "{good}");
        }
        for bad in [
            "",
            " \n",
            "\u{1b}[31mAda",
            "a\nb",
            ".hidden",
            "-f",
            "a\u{202e}b",
            "<b>",
            "🦀",
        ] {
            assert!(name(bad, 32).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_service_s_own_name_cannot_be_taken() {
        assert_eq!(name("sErVeR ", 32), Err(NameFault::Reserved));
    }

    #[test]
    fn a_room_of_64_bytes_is_one_and_a_longer_one_is_not() {
        assert!(is_room(&"r".repeat(64)));
        for bad in ["", "a b", "a/b", "a\n", &"r".repeat(65)] {
            assert!(!is_room(bad), "{bad:?}");
        }
    }
}
