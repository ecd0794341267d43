//! What a client sends: gRPC messages from a request body, and how that body ended.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, Streaming, body::Body, codec::BufferSettings};
use tonic_prost::ProstDecoder;

use super::status::Fault;

/// What a stream sets aside for what comes in.
///
/// Unit: bytes; a message of the usual length and its prefix. When full: it grows to what the message needs, at most
/// `limits.message_bytes`. tonic's own 8 KiB for each stream would be a third of what a silent participant costs.
const BUFFER_BYTES: usize = 256;

/// The messages of one request.
pub(super) struct Inbound<M> {
    messages: Streaming<M>,
    ending: Ending,
    message_bytes: usize,
}

/// What came next.
pub(super) enum Received<M> {
    Message(M),
    /// The client said END_STREAM: all is said.
    HalfClose,
    /// The stream broke off: reset, connection lost, process gone.
    Broken,
    /// Something that is no message of this protocol, or too large.
    Fault(Fault),
}

impl<M: prost::Message + Default + 'static> Inbound<M> {
    /// `message_bytes`: `limits.message_bytes`; a longer message is a [`Fault::TooLarge`].
    pub(super) fn new(body: Body, message_bytes: usize) -> Self {
        let ending = Ending::default();
        let watched = Watched {
            body,
            ending: ending.clone(),
        };
        // The other number is for senders.
        let decoder = ProstDecoder::<M>::new(BufferSettings::new(BUFFER_BYTES, BUFFER_BYTES));
        Self {
            messages: Streaming::new_request(decoder, watched, None, Some(message_bytes)),
            ending,
            message_bytes,
        }
    }

    pub(super) async fn next(&mut self) -> Received<M> {
        match self.messages.message().await {
            Ok(Some(message)) => Received::Message(message),
            Ok(None) if self.ending.is(Ending::HALF_CLOSED) => Received::HalfClose,
            Ok(None) => Received::Broken,
            Err(_) if self.ending.is(Ending::BROKEN) => Received::Broken,
            Err(status) => Received::Fault(self.fault(&status)),
        }
    }

    /// What tonic says of bad input, in our words and codes.
    fn fault(&self, status: &Status) -> Fault {
        match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => Fault::TooLarge {
                limit: self.message_bytes,
            },
            _ => Fault::Malformed(status.message().into()),
        }
    }
}

/// How a request body ended. tonic's `Streaming` ends alike for a half-close and for a stream that broke; the body below
/// it knows.
#[derive(Debug, Clone, Default)]
struct Ending(Arc<AtomicU8>);

impl Ending {
    const HALF_CLOSED: u8 = 1;
    const BROKEN: u8 = 2;

    fn is(&self, ending: u8) -> bool {
        self.0.load(Ordering::Acquire) == ending
    }

    fn set(&self, ending: u8) {
        self.0.store(ending, Ordering::Release);
    }
}

/// A request body that notes how it ended.
struct Watched {
    body: Body,
    ending: Ending,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) => {}
            None if self.body.is_end_stream() => self.ending.set(Ending::HALF_CLOSED),
            None | Some(Err(_)) => self.ending.set(Ending::BROKEN),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
