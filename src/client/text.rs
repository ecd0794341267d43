//! What a text must be to be sent.

use unicode_normalization::UnicodeNormalization;

use crate::config::Limits;

/// `text` as it is sent and stored: without white space around it, in Unicode NFC.
///
/// # Errors
/// What to tell the person when it is longer than `limits` allow; in characters (Unicode scalar values), in the words of
/// the service.
pub(crate) fn outgoing(text: &str, limits: &Limits) -> Result<String, String> {
    let text: String = text.trim().nfc().collect();
    let (chars, bytes) = (text.chars().count(), text.len());
    if chars > limits.text_chars {
        return Err(format!(
            "Message too long ({chars} chars). Limit is {}.",
            limits.text_chars
        ));
    }
    if bytes > limits.text_bytes {
        return Err(format!(
            "Message too long ({bytes} bytes). Limit is {}.",
            limits.text_bytes
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_be_as_long_as_the_limit_and_no_longer() {
        let limits = Limits::default();
        assert_eq!(outgoing(&"a".repeat(128), &limits).unwrap().len(), 128);
        assert_eq!(
            outgoing(&"a".repeat(354), &limits).unwrap_err(),
            "Message too long (354 chars). Limit is 128."
        );
    }

    #[test]
    fn length_is_counted_after_trimming_and_composing() {
        let limits = Limits::default();
        let decomposed = format!("  {}  ", "e\u{301}".repeat(128));
        assert_eq!(outgoing(&decomposed, &limits).unwrap(), "é".repeat(128));
        let emoji = "🚀".repeat(129);
        assert_eq!(
            outgoing(&emoji, &limits).unwrap_err(),
            "Message too long (129 chars). Limit is 128."
        );
    }

    #[test]
    fn bytes_have_their_limit_too() {
        let limits = Limits {
            text_bytes: 7,
            ..Limits::default()
        };
        assert_eq!(
            outgoing("🚀🚀", &limits).unwrap_err(),
            "Message too long (8 bytes). Limit is 7."
        );
    }
}
