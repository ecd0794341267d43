//! What stands at the front of each text, so that whoever reads it can judge it without asking anybody.

use std::fmt::Write as _;

/// Characters of a label: 8 hexadecimal digits for the number, 16 for the time, 1 for the mark.
pub(in crate::bench) const LABEL_CHARS: usize = 25;

/// Of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    /// 0, 1, 2 ... from each publisher.
    pub(super) number: u32,
    /// When it was to be sent: nanoseconds since the run began.
    pub(super) due_ns: u64,
    pub(super) mark: Mark,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    WarmUp,
    Measured,
    /// It says that its publisher has nothing more to say, and is none of the messages.
    Last,
}

impl Mark {
    fn letter(self) -> u8 {
        match self {
            Self::WarmUp => b'w',
            Self::Measured => b'm',
            Self::Last => b'l',
        }
    }
}

impl Label {
    /// Puts it behind what `text` holds.
    pub(super) fn write(self, text: &mut String) {
        let (number, due_ns) = (self.number, self.due_ns);
        // A String takes whatever is written to it.
        let _ = write!(text, "{number:08x}{due_ns:016x}");
        text.push(self.mark.letter().into());
    }

    /// Reads the label of `text`, and gives what is behind it; none if there is no label.
    pub(super) fn read(text: &[u8]) -> Option<(Self, &[u8])> {
        let (label, rest) = text.split_first_chunk::<LABEL_CHARS>()?;
        let marks = [Mark::WarmUp, Mark::Measured, Mark::Last];
        let letter = label[LABEL_CHARS - 1];
        let label = Self {
            number: u32::try_from(hex(&label[..8])?).ok()?,
            due_ns: hex(&label[8..24])?,
            mark: marks.into_iter().find(|mark| mark.letter() == letter)?,
        };
        Some((label, rest))
    }
}

/// The number that at most sixteen digits stand for.
fn hex(digits: &[u8]) -> Option<u64> {
    let mut number = 0;
    for &digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u64::from(value);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for mark in [Mark::WarmUp, Mark::Measured, Mark::Last] {
            for (number, due_ns) in [(0, 0), (u32::MAX, u64::MAX), (0x0123_4567, 0x89ab_cdef)] {
                let label = Label {
                    number,
                    due_ns,
                    mark,
                };
                let mut text = String::new();
                label.write(&mut text);
                assert_eq!(text.len(), LABEL_CHARS);
                text.push_str("rest");
                assert_eq!(Label::read(text.as_bytes()), Some((label, &b"rest"[..])));
            }
        }
    }

    #[test]
    fn what_is_none_is_not_taken_for_one() {
        let mut text = String::new();
        let label = Label {
            number: 1,
            due_ns: 2,
            mark: Mark::Measured,
        };
        label.write(&mut text);
        assert_eq!(Label::read(&text.as_bytes()[1..]), None);
        assert_eq!(Label::read(text.replace('m', "x").as_bytes()), None);
        assert_eq!(Label::read(text.replace('1', "G").as_bytes()), None);
    }
}
