//! A message of the service, read as far as a load generator looks at it.

use prost::{DecodeError, Message as _};

use crate::wire::v1::Notice;

/// The ways in which protobuf encodes a field.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

/// Of what the service sends, what a load generator looks at; the fields are those of `ServerMessage`.
///
/// It points into the bytes that were received: a delivery is read without an allocation and without a copy. Texts are
/// not checked for being UTF-8; whoever shows one does that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard<'a> {
    pub(super) sender_id: i32,
    pub(super) text: &'a [u8],
    /// An `EventType`.
    pub(super) kind: i32,
    pub(super) timestamp: i64,
    pub(super) message_id: &'a [u8],
    /// 0: not an event.
    pub(super) sequence: u64,
    /// As it is encoded.
    notice: Option<&'a [u8]>,
}

impl<'a> Heard<'a> {
    /// Reads `message`; none if it is none.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let mut heard = Self::default();
        let mut rest = message;
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let field = key >> 3;
            match key & 7 {
                VARINT => heard.number(field, varint(&mut rest)?),
                LENGTH_DELIMITED => {
                    let length = varint(&mut rest)?.try_into().ok()?;
                    let (bytes, after) = rest.split_at_checked(length)?;
                    rest = after;
                    heard.bytes(field, bytes);
                }
                FIXED64 => rest = rest.get(8..)?,
                FIXED32 => rest = rest.get(4..)?,
                _ => return None,
            }
        }
        Some(heard)
    }

    /// The notice, if it is one.
    ///
    /// # Errors
    /// What stands there is none.
    pub(super) fn notice(&self) -> Option<Result<Notice, DecodeError>> {
        self.notice.map(Notice::decode)
    }

    /// Protobuf keeps a number of 32 bits in the lower half of 64, and a signed one in its two's complement.
    fn number(&mut self, field: u64, value: u64) {
        match field {
            1 => self.sender_id = value as i32,
            5 => self.kind = value as i32,
            6 => self.timestamp = value as i64,
            18 => self.sequence = value,
            _ => {}
        }
    }

    fn bytes(&mut self, field: u64, bytes: &'a [u8]) {
        match field {
            4 => self.text = bytes,
            17 => self.message_id = bytes,
            23 => self.notice = Some(bytes),
            _ => {}
        }
    }
}

/// Takes a number off the front of `bytes`: seven bits in each byte, the lowest first, and the eighth says whether more
/// follow.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    // As most are.
    if first < 0x80 {
        *bytes = rest;
        return Some(first.into());
    }
    let mut value = 0;
    for (place, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            *bytes = &bytes[place + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::wire::v1::{EventType, NoticeCode, ServerMessage, Welcome};

    fn full() -> ServerMessage {
        ServerMessage {
            sender_id: i32::MAX,
            sender_name: "bench-0".into(),
            msg_stream: "Hello".into(),
            r#type: EventType::Leave.into(),
            timestamp: i64::MAX,
            room: "lobby".into(),
            message_id: "id".into(),
            sequence: u64::MAX,
            sent_timestamp: -1,
            traceparent: "00-".into(),
            accepted_at: Some(Timestamp {
                seconds: 1,
                nanos: 2,
            }),
            bot: true,
            notice: Some(Notice {
                code: NoticeCode::TooFast.into(),
                ..Notice::default()
            }),
            welcome: Some(Welcome::default()),
        }
    }

    #[test]
    fn it_reads_what_the_service_wrote() {
        let message = full().encode_to_vec();
        let heard = Heard::read(&message).unwrap();
        assert_eq!(heard.sender_id, i32::MAX);
        assert_eq!((heard.text, heard.message_id), (&b"Hello"[..], &b"id"[..]));
        assert_eq!(heard.kind, i32::from(EventType::Leave));
        assert_eq!((heard.timestamp, heard.sequence), (i64::MAX, u64::MAX));
        let notice = heard.notice().unwrap().unwrap();
        assert_eq!(notice.code(), NoticeCode::TooFast);
        assert_eq!(Heard::read(&[]), Some(Heard::default()));
    }

    #[test]
    fn what_is_cut_off_anywhere_within_a_field_is_no_message() {
        let message = full().encode_to_vec();
        let whole = (0..=message.len()).filter(|&length| Heard::read(&message[..length]).is_some());
        let fields = 14;
        assert_eq!(whole.count(), fields + 1, "between the fields it ends well");
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let mut message = full().encode_to_vec();
        let known = message.clone();
        // Fields 100 to 102: eight bytes, four bytes, a text.
        message.extend([0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8]);
        message.extend([0xad, 0x06, 1, 2, 3, 4]);
        message.extend([0xb2, 0x06, 2, 1, 2]);
        assert_eq!(Heard::read(&message), Heard::read(&known));
        // A group, which nobody sends any more.
        assert_eq!(Heard::read(&[0x0b]), None);
        // A number that does not end.
        assert_eq!(
            Heard::read(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
            None
        );
    }
}
