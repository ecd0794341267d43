//! The protocol as Rust types: code generated from `proto/chitchat/v1/chat.proto`, and the few conversions around it.
//!
//! The proto file is the dictionary; its comments are the documentation of the types in [`v1`].

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, message};
use prost_types::Timestamp;

use crate::room::{Event, Kind, Past, text};

/// Generated from `proto/chitchat/v1/chat.proto`.
#[allow(clippy::all, clippy::unwrap_used, unreachable_pub, missing_docs)]
pub mod v1 {
    tonic::include_proto!("chitchat.v1");
}

/// The descriptor set of `proto/`, as server reflection serves it.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("chitchat_descriptor");

/// The path of the original's bidirectional stream, which the server answers with the same handler as its own `Chat`.
pub const ORIGINAL_CHAT_PATH: &str = "/itu.chitchat.ChatService/Chat";

/// The room of a message that names none.
pub const DEFAULT_ROOM: &str = "lobby";

/// The room that a message names.
#[must_use]
pub fn room_or_default(room: &str) -> String {
    if room.is_empty() { DEFAULT_ROOM } else { room }.to_owned()
}

/// The bytes that gRPC puts before each message: one for compression (always 0 here), four for the length.
const PREFIX_BYTES: usize = 5;

/// One message as it goes over the wire: gRPC's length prefix, then the protobuf bytes. Encoded once, sent to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// Encodes `message`.
    #[must_use]
    pub fn of(message: &impl prost::Message) -> Self {
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
        Self::append(message, &mut bytes);
        Self(bytes.freeze())
    }

    /// Encodes `message` behind other frames, for a sender that sends several in one piece.
    pub fn append(message: &impl prost::Message, frames: &mut BytesMut) {
        let length = message.encoded_len();
        frames.reserve(PREFIX_BYTES + length);
        frames.put_u8(0);
        frames.put_u32(u32::try_from(length).expect("no message of ours comes near 4 GiB"));
        message
            .encode(frames)
            .expect("the buffer has room for the encoded length");
    }

    /// A message that is encoded already.
    #[must_use]
    pub fn of_encoded(message: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(message.len()).expect("no message of ours comes near 4 GiB"));
        bytes.put_slice(message);
        Self(bytes.freeze())
    }

    /// The encoded message, without gRPC's prefix.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.0[PREFIX_BYTES..]
    }

    /// The bytes, shared, not copied.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The bytes, to be looked at.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// How many bytes it is.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The message again.
    ///
    /// # Errors
    ///
    /// If the bytes are not a message of that type, which for a frame made by [`Frame::of`] does not happen.
    pub fn decode<M: prost::Message + Default>(&self) -> Result<M, prost::DecodeError> {
        M::decode(self.message())
    }
}

/// An event as everybody receives it.
#[must_use]
pub fn event(event: &Event) -> v1::ServerMessage {
    v1::ServerMessage {
        sender_id: event.sender_id,
        sender_name: event.sender_name.to_string(),
        msg_stream: event.text.clone(),
        r#type: event_type(event.kind).into(),
        timestamp: event.timestamp,
        room: event.room.to_string(),
        message_id: event.message_id.clone(),
        sequence: event.sequence,
        sent_timestamp: event.sent_timestamp.unwrap_or(0),
        traceparent: event.traceparent.clone(),
        accepted_at: Some(event.accepted_at.into()),
        bot: event.bot,
        notice: None,
        welcome: None,
    }
}

fn event_type(kind: Kind) -> v1::EventType {
    match kind {
        Kind::Join => v1::EventType::Join,
        Kind::Message => v1::EventType::Message,
        Kind::Leave => v1::EventType::Leave,
    }
}

/// The frame of [`event`], to the byte, without the copies of all its texts; the numbers are those of `ServerMessage`.
/// `scratch` is kept by the caller for its memory.
#[must_use]
pub fn frame(event: &Event, scratch: &mut Vec<u8>) -> Frame {
    scratch.clear();
    scratch.put_bytes(0, PREFIX_BYTES);
    // A negative number takes ten bytes, of an int32 too.
    put_number(1, i64::from(event.sender_id) as u64, scratch);
    put_text(2, &event.sender_name, scratch);
    put_text(4, &event.text, scratch);
    put_number(5, event_type(event.kind) as u64, scratch);
    put_number(6, event.timestamp as u64, scratch);
    put_text(16, &event.room, scratch);
    put_text(17, &event.message_id, scratch);
    put_number(18, event.sequence, scratch);
    put_number(19, event.sent_timestamp.unwrap_or(0) as u64, scratch);
    put_text(20, &event.traceparent, scratch);
    message::encode(21, &Timestamp::from(event.accepted_at), scratch);
    put_number(22, u64::from(event.bot), scratch);
    let length = u32::try_from(scratch.len() - PREFIX_BYTES);
    let length = length.expect("no message of ours comes near 4 GiB");
    scratch[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Frame(Bytes::copy_from_slice(scratch))
}

/// A field that is left out when it is 0, as proto3 has it.
fn put_number(field: u32, number: u64, bytes: &mut Vec<u8>) {
    if number != 0 {
        encode_key(field, WireType::Varint, bytes);
        encode_varint(number, bytes);
    }
}

/// A field that is left out when it is empty.
fn put_text(field: u32, text: &str, bytes: &mut Vec<u8>) {
    if !text.is_empty() {
        encode_key(field, WireType::LengthDelimited, bytes);
        encode_varint(text.len() as u64, bytes);
        bytes.put_slice(text.as_bytes());
    }
}

impl<M: prost::Message> From<M> for Frame {
    fn from(message: M) -> Self {
        Self::of(&message)
    }
}

/// What the rules remember of an event, so that a retry of it is recognized; none if it is not a message with an id.
#[must_use]
pub fn past(event: &v1::ServerMessage) -> Option<Past> {
    let is_message = event.r#type == i32::from(v1::EventType::Message);
    (is_message && !event.message_id.is_empty()).then(|| {
        Past::new(
            &event.message_id,
            &event.sender_name,
            &event.msg_stream,
            event.timestamp,
            event.sequence,
        )
    })
}

/// What the service itself says to one subscriber: the sender, type and sequence that notices and welcomes share.
#[must_use]
pub fn private(room: &str, timestamp: i64, text: String) -> v1::ServerMessage {
    v1::ServerMessage {
        sender_name: text::SERVER_NAME.into(),
        msg_stream: text,
        r#type: v1::EventType::Message.into(),
        timestamp,
        room: room.into(),
        ..v1::ServerMessage::default()
    }
}

/// A notice: a private word about something that its receiver sent, or about the service.
#[must_use]
pub fn notice(room: &str, timestamp: i64, code: v1::NoticeCode, text: String) -> v1::ServerMessage {
    v1::ServerMessage {
        notice: Some(v1::Notice {
            code: code.into(),
            ..v1::Notice::default()
        }),
        ..private(room, timestamp, text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn times() -> impl Strategy<Value = SystemTime> {
        let latest = 253_402_300_799u64;
        (0..=latest, 0..1_000_000_000u32, any::<bool>()).prop_map(|(seconds, nanos, before)| {
            let since = Duration::new(seconds, nanos);
            match before {
                true => UNIX_EPOCH - since / 8,
                false => UNIX_EPOCH + since,
            }
        })
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Join), Just(Kind::Message), Just(Kind::Leave)]
    }

    prop_compose! {
        fn events()(
            texts in prop::array::uniform5(prop_oneof![Just(String::new()), ".{0,200}"]),
            numbers in (any::<i32>(), any::<u64>(), any::<i64>(), any::<Option<i64>>(), any::<bool>()),
            kind in kinds(),
            accepted_at in times(),
        ) -> Event {
            let [room, sender_name, text, message_id, traceparent] = texts;
            let (sender_id, sequence, timestamp, sent_timestamp, bot) = numbers;
            Event {
                room: room.into(),
                sequence,
                timestamp,
                kind,
                sender_id,
                sender_name: sender_name.into(),
                bot,
                text,
                message_id,
                sent_timestamp,
                accepted_at,
                traceparent,
            }
        }
    }

    proptest! {
        #[test]
        fn an_event_s_frame_is_that_of_its_message_to_the_byte(any in events()) {
            prop_assert_eq!(frame(&any, &mut vec![1, 2, 3]), Frame::of(&event(&any)));
        }
    }
}
