//! The response body of `Chat` and `Watch`: a cursor into a room's feed, as ready gRPC frames.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response, header::CONTENT_TYPE};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, body::Body};

use super::{
    outbox::{Next, Outbox, Private, Start},
    status::Fault,
};
use crate::{
    feed::{Read, Reader},
    journal::{self, Journal, Page, Range},
    order::Order,
    wire::{Frame, notice, v1::NoticeCode},
};

/// What a subscriber that is behind the feed reads of the journal at once.
///
/// It holds that until its client takes it. So small that many who read slowly, or not at all, do not fill the memory:
/// with h2's own buffer one costs half a megabyte at the worst.
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
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    reader: Option<Reader>,
    /// A page of the past that is being read, because the feed does not hold it any more.
    catching_up: Option<CatchingUp>,
    /// The last sequence that was sent, or skipped.
    cursor: u64,
    /// Frames after `cursor` that are taken and not sent yet.
    taken: VecDeque<Frame>,
    /// The last sequence that may be sent before the outbox is looked at again.
    cleared: u64,
    ended: bool,
}

impl Subscriber {
    pub(super) fn new(
        sources: Sources,
        outbox: Arc<Outbox>,
        draining: WaitForCancellationFutureOwned,
    ) -> Self {
        Self {
            sources,
            outbox,
            draining: Some(Box::pin(draining)),
            reader: None,
            catching_up: None,
            cursor: 0,
            taken: VecDeque::new(),
            cleared: 0,
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

    /// The next thing to send.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Frame, Status>> {
        self.notice_drain(context);
        loop {
            if self.cursor < self.cleared
                && let Some(frame) = self.taken.pop_front()
            {
                self.cursor += 1;
                return Poll::Ready(Ok(frame));
            }
            match self.outbox.next(self.cursor, context) {
                Next::Start(Start { reader, cursor }) => {
                    (self.reader, self.cursor) = (Some(reader), cursor);
                }
                Next::Private(private) => return Poll::Ready(Ok(self.private(private))),
                Next::End(status) => return Poll::Ready(Err(status)),
                // Only frames that were taken before this look: what belongs between them was in the outbox before they
                // could be taken, while what is taken now may have overtaken what the outbox has got since.
                Next::Events { until } if !self.taken.is_empty() => self.cleared = until,
                Next::Events { until } => {
                    self.cleared = 0;
                    if let Err(status) = ready!(self.poll_take(until, context)) {
                        return Poll::Ready(Err(status));
                    }
                }
            }
        }
    }

    fn private(&mut self, private: Private) -> Frame {
        self.cursor = self.cursor.max(private.stands_for);
        private.frame
    }

    /// Takes what the room has after the cursor; pending until there is something.
    ///
    /// # Errors
    ///
    /// The next event fell out of the history while this subscriber was on its way to it, or cannot be read. A gap is
    /// never silent, so the stream ends here, whatever else waits in the outbox for events that will not come.
    fn poll_take(&mut self, until: u64, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let Some(reader) = &self.reader else {
            return Poll::Pending;
        };
        if self.catching_up.is_none() {
            match reader.read(self.cursor, until, context) {
                Read::Frames(frames) => {
                    self.taken = frames.into();
                    return Poll::Ready(Ok(()));
                }
                Read::Nothing => return Poll::Pending,
                Read::Behind => {
                    self.catching_up = Some(self.sources.catch_up(reader, self.cursor, until))
                }
            }
        }
        let Some(page) = &mut self.catching_up else {
            return Poll::Pending;
        };
        let page = ready!(page.as_mut().poll(context));
        self.catching_up = None;
        match self.next_events(page) {
            Ok(frames) => {
                self.taken = frames;
                Poll::Ready(Ok(()))
            }
            Err(status) => {
                self.outbox.interrupt(status.clone());
                Poll::Ready(Err(status))
            }
        }
    }

    /// What is on a page of the past, if it begins where this subscriber's reading ended.
    fn next_events(&self, page: Result<Page, journal::Fault>) -> Result<VecDeque<Frame>, Status> {
        let events = page.map_err(|fault| Status::from(&fault))?.events;
        match events.first() {
            Some((first, _)) if *first == self.cursor + 1 => {
                Ok(events.into_iter().map(|(_, frame)| frame).collect())
            }
            _ => Err(Fault::TooFarBehind.into()),
        }
    }

    /// When the server drains: what the room has until now, for whoever reads; one last notice; then the end.
    fn notice_drain(&mut self, context: &mut Context<'_>) {
        let Some(draining) = &mut self.draining else {
            return;
        };
        if draining.as_mut().poll(context).is_pending() {
            return;
        }
        self.draining = None;
        // In this order: an end is there before the events that must not come after it can be read.
        let last = self.reader.as_ref().map_or(0, Reader::last);
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
        let frame = match ready!(self.poll_next(context)) {
            Ok(frame) => http_body::Frame::data(frame.bytes()),
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
