//! W3C `traceparent`: how a span's identity travels inside a chat message.
//!
//! Source: <https://www.w3.org/TR/trace-context/#traceparent-header>

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Length of version 00: `00-` 32 `-` 16 `-` 2.
const LENGTH: usize = 55;

/// Reads what a peer sent; `None` for anything that is not exactly a traceparent. Of the flags only `sampled` is kept:
/// the others have no meaning here, and a peer's bits are not passed on.
pub(super) fn parse(text: &str) -> Option<SpanContext> {
    let fields = text.as_bytes().get(..LENGTH)?;
    let version = hex(&fields[..2])?;
    let ends_well = match version {
        0x00 => text.len() == LENGTH,
        0xff => false,
        // A later version may say more behind a dash; what it shares with ours keeps its meaning.
        _ => text.as_bytes().get(LENGTH).is_none_or(|&byte| byte == b'-'),
    };
    if !ends_well || [2, 35, 52].iter().any(|&at| fields[at] != b'-') {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from(hex(&fields[3..35])?),
        SpanId::from(u64::try_from(hex(&fields[36..52])?).ok()?),
        TraceFlags::new(u8::try_from(hex(&fields[53..])?).ok()?) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

/// The trace that an event belongs to, from its `traceparent` as a peer sent it; none where that is not exactly a
/// traceparent, or says that nothing of the trace is recorded.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<TraceId> {
    parse(traceparent)
        .filter(SpanContext::is_sampled)
        .map(|context| context.trace_id())
}

/// Writes a span's identity, in version 00.
pub(super) fn format(context: &SpanContext) -> String {
    let sampled = u8::from(context.is_sampled());
    format!(
        "00-{}-{}-{sampled:02x}",
        context.trace_id(),
        context.span_id()
    )
}

/// Lowercase hexadecimal digits, as the standard demands (`from_str_radix` would also take `+` and capitals).
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_written_reads_back() {
        let context = parse(GOOD).expect("valid");
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(format(&context), GOOD);
    }

    #[test]
    fn only_a_trace_that_is_recorded_has_an_id() {
        let id = trace_id(GOOD).expect("valid").to_string();
        assert_eq!(id, "0af7651916cd43dd8448eb211c80319c");
        for none in [
            "",
            &GOOD.replace("-01", "-00"),
            &GOOD[..54],
            &GOOD.to_uppercase(),
            "00-0af7651916cd43dd8448eb211c80319c",
            "\u{1b}[2J-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(trace_id(none), None, "{none:?}");
        }
    }

    #[test]
    fn only_the_sampled_flag_is_kept() {
        let flags = |digits: &str| {
            parse(&format!("{}{digits}", &GOOD[..53])).map(|c| c.trace_flags().to_u8())
        };
        assert_eq!(flags("00"), Some(0));
        assert_eq!(flags("ff"), Some(1));
        assert_eq!(flags("fe"), Some(0));
    }

    #[test]
    fn a_later_version_may_say_more() {
        assert!(parse(&format!("01{}", &GOOD[2..])).is_some());
        assert!(parse(&format!("01{}-more", &GOOD[2..])).is_some());
        assert!(parse(&format!("01{}more", &GOOD[2..])).is_none());
    }

    #[test]
    fn anything_else_is_no_traceparent() {
        for bad in [
            String::new(),
            GOOD[..54].into(),
            format!("{GOOD}-"),
            format!("{GOOD} "),
            format!(" {GOOD}"),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            format!("ff{}", &GOOD[2..]),
            GOOD.replace("b7ad", "+7ad"),
            GOOD.replace("b7ad", "g7ad"),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("b7a", "é0"),
        ] {
            assert!(parse(&bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC*|[0-9a-f-]{50,60}") {
            if let Some(context) = parse(&text) {
                prop_assert_eq!(&format(&context)[3..52], &text[3..52]);
            }
        }
    }
}
