//! What the load client says to a server and reads from it, protocol by protocol.
//!
//! Written by hand and as thin as can be, so that the client costs little and every server gets the same one. Thin is not
//! careless: each reads the whole protocol as far as its server speaks it, and what it does not understand ends the run.

pub mod grpc;
mod http2;
pub mod nats;
pub mod raw;
pub mod redis;

/// What all publish to and subscribe to.
const SUBJECT: &str = "bench";

/// One connection's part of a protocol.
pub trait Wire: Sized {
    /// Whether a publisher hears itself, as a participant of a chat does; it then counts as one more subscriber.
    const PUBLISHER_HEARS: bool = false;

    /// Says hello and asks for what the connection is for.
    fn open(opening: &Opening, out: &mut Vec<u8>) -> Self;

    /// Whether the server has confirmed all of it: a message that is published now reaches the connection.
    fn is_ready(&self) -> bool;

    /// Whether the server may send nothing more, as far as the protocol tells.
    fn is_held_back(&self) -> bool {
        false
    }

    /// Appends one message.
    fn publish(&mut self, text: &[u8], out: &mut Vec<u8>);

    /// Reads as far as `input` has complete parts and returns how many bytes those were. Answers what must be answered;
    /// calls `deliver` for each message with the number of the stream that it came on.
    ///
    /// # Errors
    /// The server speaks otherwise than it should, refuses, or ends the conversation.
    fn read(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        deliver: impl FnMut(usize, &[u8]),
    ) -> anyhow::Result<usize>;
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    pub role: Role,
    /// Subscriptions on it, which is 1 where the protocol has no such thing.
    pub streams: usize,
    /// The number of its first stream among those of all connections.
    pub first: usize,
}

/// Who is at the client's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Publisher,
    Subscriber,
    /// A subscriber that never gives the server room to send more, after the first little.
    Stalled,
    /// A subscriber with all the room that the protocol knows, of whose socket nothing is read any more.
    Frozen,
}

impl Role {
    /// Gets everything, and is counted.
    pub fn keeps_up(self) -> bool {
        matches!(self, Self::Publisher | Self::Subscriber)
    }
}

/// Protocols of lines: a line without its end, and how many bytes it takes with it. None: it is not complete.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let newline = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..newline];
    Some((line.strip_suffix(b"\r").unwrap_or(line), newline + 1))
}

/// A decimal number and nothing else.
fn number(digits: &[u8]) -> anyhow::Result<usize> {
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| {
        anyhow::anyhow!(
            "the server sent {:?} where a number belongs",
            String::from_utf8_lossy(digits)
        )
    })
}
