//! Chit Chat's own: `ChatService.Chat` of `proto/chitchat/v1/chat.proto`, by gRPC over HTTP/2.
//!
//! Every subscriber is a participant with a stream of its own, and so is the publisher. Flow control is kept both ways with
//! the windows that HTTP/2 begins with: what is read is given back as WINDOW_UPDATE when half a window is used up.

use anyhow::{Context as _, bail, ensure};
use chitchat::wire::v1::{EventType, JoinMsgLeave};
use prost::Message as _;

use super::{
    Opening, Role, SUBJECT, Wire,
    http2::{self, Frame},
};
use crate::tally::TEXT_BYTES;

const PATH: &str = "/chitchat.v1.ChatService/Chat";

/// Bytes before each gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The stream's window of a reader that stalls. Unit: bytes; some events, so that it has begun to read when it stalls.
const STALLED_WINDOW: u32 = 1_024;

pub struct Grpc {
    role: Role,
    streams: Vec<Stream>,
    /// Bytes that were read on the connection and not yet given back.
    read: u32,
    /// Bytes that may be sent on the connection.
    window: i64,
    /// Bytes that may be sent on a new stream.
    initial_window: i64,
    /// A DATA frame with one message, whose last bytes are the text.
    message: Vec<u8>,
    /// Frames for which there is no window yet.
    waiting: Vec<u8>,
}

struct Stream {
    id: u32,
    joined: bool,
    /// The beginning of a gRPC message whose end is in a later frame.
    part: Vec<u8>,
    /// Bytes that were read and not yet given back.
    read: u32,
    /// Bytes that may be sent.
    window: i64,
}

impl Wire for Grpc {
    const PUBLISHER_HEARS: bool = true;

    fn open(opening: &Opening, out: &mut Vec<u8>) -> Self {
        let window = match opening.role {
            Role::Stalled => STALLED_WINDOW,
            Role::Frozen => http2::WINDOW_MAX,
            Role::Publisher | Role::Subscriber => http2::WINDOW,
        };
        out.extend_from_slice(http2::PREFACE);
        let settings = [
            (http2::SETTING_ENABLE_PUSH, 0),
            (http2::SETTING_INITIAL_WINDOW_SIZE, window),
        ];
        http2::push_settings(&settings, out);
        if opening.role == Role::Frozen {
            http2::push_window_update(0, http2::WINDOW_MAX - http2::WINDOW, out);
        }
        let streams = (0..opening.streams).map(|index| {
            let stream = Stream {
                id: 1 + 2 * u32::try_from(index).expect("streams are few"),
                joined: false,
                part: Vec::new(),
                read: 0,
                window: http2::WINDOW.into(),
            };
            http2::push_frame(
                http2::HEADERS,
                http2::END_HEADERS,
                stream.id,
                &http2::call_headers(PATH),
                out,
            );
            stream
        });
        let mut grpc = Self {
            role: opening.role,
            streams: streams.collect(),
            read: 0,
            window: http2::WINDOW.into(),
            initial_window: http2::WINDOW.into(),
            message: message(),
            waiting: Vec::new(),
        };
        for (index, stream) in grpc.streams.iter().enumerate() {
            push_message(stream.id, &join(opening.first + index), &mut grpc.waiting);
        }
        grpc.send_waiting(out);
        grpc
    }

    fn is_ready(&self) -> bool {
        self.streams.iter().all(|stream| stream.joined)
    }

    fn is_held_back(&self) -> bool {
        let mut streams = self.streams.iter();
        self.role == Role::Stalled && streams.all(|stream| stream.read >= STALLED_WINDOW)
    }

    fn publish(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let begin = self.message.len() - text.len();
        self.message[begin..].copy_from_slice(text);
        self.waiting.extend_from_slice(&self.message);
        self.send_waiting(out);
    }

    fn read(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut deliver: impl FnMut(usize, &[u8]),
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some(frame) = Frame::read(&input[used..]) {
            used += frame.len();
            self.take(&frame, out, &mut deliver)?;
        }
        Ok(used)
    }
}

impl Grpc {
    fn take(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        deliver: &mut impl FnMut(usize, &[u8]),
    ) -> anyhow::Result<()> {
        match frame.kind {
            http2::DATA => self.take_data(frame, out, deliver)?,
            http2::HEADERS if frame.has(http2::END_STREAM) => {
                bail!("the server ended the stream: its trailers say why")
            }
            http2::RST_STREAM => bail!("the server reset the stream: code {}", frame.number(0)),
            http2::GOAWAY => bail!(
                "the server ends the connection: GOAWAY, code {}, {:?}",
                frame.number(4),
                String::from_utf8_lossy(frame.payload.get(8..).unwrap_or_default())
            ),
            http2::SETTINGS if !frame.has(http2::ACK) => {
                http2::push_frame(http2::SETTINGS, http2::ACK, 0, &[], out);
                if let Some(window) = http2::setting(frame, http2::SETTING_INITIAL_WINDOW_SIZE) {
                    self.resize_windows(window.into());
                }
                self.send_waiting(out);
            }
            http2::PING if !frame.has(http2::ACK) => {
                http2::push_frame(http2::PING, http2::ACK, 0, frame.payload, out);
            }
            http2::WINDOW_UPDATE => {
                let more = i64::from(frame.number(0));
                match frame.stream {
                    0 => self.window += more,
                    id => {
                        let index = self.index(id)?;
                        self.streams[index].window += more;
                    }
                }
                self.send_waiting(out);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_data(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        deliver: &mut impl FnMut(usize, &[u8]),
    ) -> anyhow::Result<()> {
        let index = self.index(frame.stream)?;
        let stream = &mut self.streams[index];
        stream.take(frame.data(), |text| deliver(index, text))?;
        // What is padding counts as well.
        let length = u32::try_from(frame.payload.len())?;
        give_back(&mut self.read, length, 0, out);
        match self.role {
            Role::Stalled => stream.read += length,
            _ => give_back(&mut stream.read, length, stream.id, out),
        }
        ensure!(
            !frame.has(http2::END_STREAM),
            "the server ended the stream without trailers"
        );
        Ok(())
    }

    /// Which stream has this id.
    fn index(&self, id: u32) -> anyhow::Result<usize> {
        let index = id.saturating_sub(1) as usize / 2;
        ensure!(
            !id.is_multiple_of(2) && index < self.streams.len(),
            "the server speaks on stream {id}, which nobody opened"
        );
        Ok(index)
    }

    fn resize_windows(&mut self, initial: i64) {
        for stream in &mut self.streams {
            stream.window += initial - self.initial_window;
        }
        self.initial_window = initial;
    }

    /// Sends the frames that the windows allow, in order.
    fn send_waiting(&mut self, out: &mut Vec<u8>) {
        let mut sent = 0;
        while let Some(frame) = Frame::read(&self.waiting[sent..]) {
            let length = frame.payload.len() as i64;
            let stream = self.streams.iter_mut().find(|it| it.id == frame.stream);
            let stream = stream.expect("only own streams are sent on");
            if length > self.window || length > stream.window {
                break;
            }
            self.window -= length;
            stream.window -= length;
            sent += frame.len();
        }
        out.extend_from_slice(&self.waiting[..sent]);
        self.waiting.drain(..sent);
    }
}

impl Stream {
    /// Reads gRPC messages, which begin and end anywhere in frames.
    fn take(&mut self, data: &[u8], mut deliver: impl FnMut(&[u8])) -> anyhow::Result<()> {
        if self.part.is_empty() {
            let used = self.take_messages(data, &mut deliver)?;
            self.part.extend_from_slice(&data[used..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.part);
        all.extend_from_slice(data);
        let used = self.take_messages(&all, &mut deliver)?;
        all.drain(..used);
        self.part = all;
        Ok(())
    }

    /// Reads those that are complete and returns how many bytes they are.
    fn take_messages(
        &mut self,
        data: &[u8],
        deliver: &mut impl FnMut(&[u8]),
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some((prefix, rest)) = data[used..].split_first_chunk::<PREFIX_BYTES>() {
            let [compressed, length @ ..] = *prefix;
            ensure!(compressed == 0, "the server compresses, unasked");
            let length = u32::from_be_bytes(length) as usize;
            let Some(message) = rest.get(..length) else {
                break;
            };
            used += PREFIX_BYTES + length;
            let event = Event::read(message).context("this is no ServerMessage")?;
            self.joined |= event.welcome;
            match event {
                Event {
                    kind: MESSAGE,
                    sender: 0,
                    text,
                    ..
                } => {
                    bail!("the server says {:?}", String::from_utf8_lossy(text))
                }
                Event {
                    kind: MESSAGE,
                    text,
                    ..
                } => deliver(text),
                // Who joins and who leaves.
                _ => {}
            }
        }
        Ok(used)
    }
}

const MESSAGE: u64 = EventType::Message as u64;

/// What of a `ServerMessage` is looked at.
#[derive(Default)]
struct Event<'a> {
    /// 0: a notice or another private word of the server.
    sender: u64,
    kind: u64,
    text: &'a [u8],
    /// It carries a welcome: this stream has joined.
    welcome: bool,
}

impl<'a> Event<'a> {
    /// Walks over all fields; none if the bytes are no protobuf.
    fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut event = Self::default();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            match (tag >> 3, tag & 7) {
                (field, 0) => {
                    let value = varint(&mut bytes)?;
                    match field {
                        1 => event.sender = value,
                        5 => event.kind = value,
                        _ => {}
                    }
                }
                (field, 2) => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    let (value, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    match field {
                        4 => event.text = value,
                        24 => event.welcome = true,
                        _ => {}
                    }
                }
                (_, 1) => bytes = bytes.get(8..)?,
                (_, 5) => bytes = bytes.get(4..)?,
                _ => return None,
            }
        }
        Some(event)
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Adds what was read; when half the window is used up, lets the server send as much again.
fn give_back(read: &mut u32, length: u32, stream: u32, out: &mut Vec<u8>) {
    *read += length;
    if *read >= http2::WINDOW / 2 {
        http2::push_window_update(stream, *read, out);
        *read = 0;
    }
}

fn join(number: usize) -> JoinMsgLeave {
    JoinMsgLeave {
        client_name: format!("bench {number}"),
        room: SUBJECT.into(),
        r#type: EventType::Join.into(),
        ..JoinMsgLeave::default()
    }
}

/// The template of [`Grpc::message`]. A publisher has one stream.
fn message() -> Vec<u8> {
    let kind = JoinMsgLeave {
        r#type: EventType::Message.into(),
        ..JoinMsgLeave::default()
    };
    let text = JoinMsgLeave {
        msg: " ".repeat(TEXT_BYTES),
        ..JoinMsgLeave::default()
    };
    // Fields may come in any order; here the text comes last.
    let fields = [kind.encode_to_vec(), text.encode_to_vec()].concat();
    let mut frame = Vec::new();
    push_encoded(1, &fields, &mut frame);
    frame
}

fn push_message(stream: u32, message: &JoinMsgLeave, out: &mut Vec<u8>) {
    push_encoded(stream, &message.encode_to_vec(), out);
}

fn push_encoded(stream: u32, message: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(message.len()).expect("a message is short");
    let data = [&[0], &length.to_be_bytes()[..], message].concat();
    http2::push_frame(http2::DATA, 0, stream, &data, out);
}
