//! The response body of `Chat` and `Watch`: a cursor into a room's feed, as ready gRPC frames.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, header::CONTENT_TYPE};
use tonic::{Status, body::Body};

use super::{
    drain,
    outbox::{Next, Outbox, Piece, Private, Start},
    status::Fault,
};
use crate::{
    feed::{CHUNK_BYTES_MAX, Read, Reader},
    journal::{self, Journal, Page, Range},
    order::Order,
    wire::{Frame, notice, v1::NoticeCode},
};

/// What a subscriber that is behind the feed reads of the journal at once.
///
/// It holds that until its client takes it, or is found to take nothing. So small that many who read slowly do not fill
/// the memory: with what h2 holds one costs 200 KiB at the worst.
const CATCH_UP: journal::Limit = journal::Limit {
    events: 256,
    bytes: 64 * 1024,
};

/// What a subscriber's body reads from.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) journal: Journal,
    pub(super) order: Order,
}

impl Sources {
    fn catch_up(&self, reader: &Reader, after: u64, until: u64) -> CatchingUp {
        let (journal, room) = (self.journal.clone(), Arc::clone(reader.room()));
        let range = Range::After {
            after,
            before: until.saturating_add(1),
        };
        Box::pin(async move { journal.read(&room, range, CATCH_UP).await })
    }
}

type CatchingUp = Pin<Box<dyn Future<Output = Result<Page, journal::Fault>> + Send>>;

/// One subscriber.
pub(super) struct Subscriber {
    sources: Sources,
    outbox: Arc<Outbox>,
    /// Until it has told its client.
    draining: Option<drain::Waiting>,
    reader: Option<Reader>,
    /// A page of the past that is being read, because the feed does not hold it any more.
    catching_up: Option<CatchingUp>,
    /// The last sequence that was sent, or skipped.
    cursor: u64,
    ended: bool,
}

impl Subscriber {
    pub(super) fn new(sources: Sources, outbox: Arc<Outbox>, draining: drain::Waiting) -> Self {
        Self {
            sources,
            outbox,
            draining: Some(draining),
            reader: None,
            catching_up: None,
            cursor: 0,
            ended: false,
        }
    }

    /// As the response of a gRPC call. Headers go out at once: some clients send their first message only after them.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::new(self));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
        response
    }

    /// The next thing to send: one or more frames.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        self.notice_drain(context);
        loop {
            // Before the look at the outbox: what belongs between events is in the outbox before those after it can be
            // read, so up to here the outbox knows all there is.
            let head = self.reader.as_ref().map_or(0, Reader::head);
            match self.outbox.next(self.cursor, context) {
                Next::Start(Start { reader, cursor }) => {
                    (self.reader, self.cursor) = (Some(reader), cursor);
                }
                Next::Private(private) => return Poll::Ready(Ok(self.private(private))),
                Next::Kept(piece) => return Poll::Ready(Ok(self.piece(piece))),
                Next::End(status) => return Poll::Ready(Err(status)),
                Next::Events { until } => {
                    if let Some(events) = ready!(self.poll_events(head, until, context)) {
                        return Poll::Ready(events);
                    }
                }
            }
        }
    }

    fn private(&mut self, private: Private) -> Bytes {
        self.cursor = self.cursor.max(private.stands_for);
        private.frame.bytes()
    }

    fn piece(&mut self, piece: Piece) -> Bytes {
        self.cursor = piece.last;
        piece.bytes
    }

    /// What the room has after the cursor, up to `head` and up to `until`; pending until there is something, none if all
    /// is to be looked at again.
    ///
    /// # Errors
    ///
    /// The next event fell out of the history while this subscriber was on its way to it, or cannot be read. A gap is
    /// never silent, so the stream ends here, whatever else waits in the outbox for events that will not come.
    fn poll_events(
        &mut self,
        head: u64,
        until: u64,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        let Some(reader) = &self.reader else {
            return Poll::Pending;
        };
        let last = head.min(until);
        if self.catching_up.is_none() {
            if last <= self.cursor {
                return reader.poll_beyond(head, context).map(|()| None);
            }
            match reader.read(self.cursor, last) {
                Read::Events(bytes, last) => {
                    return Poll::Ready(Some(Ok(self.piece(Piece { bytes, last }))));
                }
                Read::Behind => {
                    self.catching_up = Some(self.sources.catch_up(reader, self.cursor, last))
                }
            }
        }
        let Some(page) = &mut self.catching_up else {
            return Poll::Pending;
        };
        let page = ready!(page.as_mut().poll(context));
        self.catching_up = None;
        let events = self.next_events(page);
        if let Err(status) = &events {
            self.outbox.interrupt(status.clone());
        }
        Poll::Ready(Some(events))
    }

    /// What is on a page of the past, if it begins where this subscriber's reading ended: its first piece. The outbox keeps
    /// the others.
    fn next_events(&mut self, page: Result<Page, journal::Fault>) -> Result<Bytes, Status> {
        let events = page.map_err(|fault| Status::from(&fault))?.events;
        let too_far_behind = Fault::TooFarBehind { last: self.cursor };
        if events.first().map(|(first, _)| *first) != Some(self.cursor + 1) {
            return Err(too_far_behind.into());
        }
        let mut pieces = pieces(&events);
        let first = pieces.pop_front().ok_or(too_far_behind)?;
        self.outbox.keep(pieces);
        Ok(self.piece(first))
    }

    /// When the server drains: what the room has until now, for whoever reads; one last notice; then the end.
    fn notice_drain(&mut self, context: &mut Context<'_>) {
        let Some(draining) = &mut self.draining else {
            return;
        };
        if draining.poll(context).is_pending() {
            return;
        }
        self.draining = None;
        // In this order: an end is there before the events that must not come after it can be read.
        let last = self.reader.as_ref().map_or(0, Reader::head);
        if self.outbox.ended().is_some() {
            return;
        }
        // Who has no room yet waits for a welcome, and a notice is none: the status says all.
        if let Some(reader) = &self.reader {
            let farewell = notice(
                reader.room(),
                self.sources.order.now(),
                NoticeCode::Draining,
                Fault::Draining.to_string(),
            );
            self.outbox.push(Private {
                after: last,
                stands_for: 0,
                frame: Frame::of(&farewell),
                _place: None,
            });
        }
        self.outbox.interrupt(Fault::Draining.into());
    }
}

impl http_body::Body for Subscriber {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.poll_next(context);
        self.outbox.pulse.beat(next.is_ready());
        let frame = match ready!(next) {
            Ok(bytes) => http_body::Frame::data(bytes),
            Err(status) => {
                self.ended = true;
                http_body::Frame::trailers(trailers(&status))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.outbox.set_gone();
    }
}

/// A page as it is sent, each piece for itself in the memory: HTTP/2 holds the first ones while the client does not read.
fn pieces(events: &[(u64, Frame)]) -> VecDeque<Piece> {
    let mut pieces = VecDeque::new();
    let mut rest = events;
    while !rest.is_empty() {
        let (events, later) = rest.split_at(fit_into_a_piece(rest));
        let length = events.iter().map(|(_, frame)| frame.len()).sum();
        let mut bytes = BytesMut::with_capacity(length);
        let mut last = 0;
        for (sequence, frame) in events {
            bytes.extend_from_slice(frame.as_bytes());
            last = *sequence;
        }
        pieces.push_back(Piece {
            bytes: bytes.freeze(),
            last,
        });
        rest = later;
    }
    pieces
}

/// How many of `events` fit into one piece: one at least.
fn fit_into_a_piece(events: &[(u64, Frame)]) -> usize {
    let mut length = 0;
    let fit = events.iter().take_while(|(_, frame)| {
        length += frame.len();
        length <= CHUNK_BYTES_MAX
    });
    fit.count().max(1)
}

/// A status as gRPC sends it at the end of a response.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Its text could not be put into a header; its code can.
        trailers.clear();
        let _ = Status::new(status.code(), "").add_header(&mut trailers);
    }
    trailers
}
