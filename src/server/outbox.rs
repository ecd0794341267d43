//! What one subscriber is to hear beside the room's events: notices, its welcome, and how the stream ends.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{stall::Pulse, status::Fault};
use crate::{feed::Reader, wire::Frame};

/// Messages of one stream that may be on their way through the order, or be answered by a notice that its client has
/// not read yet.
///
/// Unit: messages. When full: nothing more is read from that client until it reads its notices; nobody else is touched.
pub(super) const IN_FLIGHT_MAX: usize = 1_024;

/// One subscriber's outbox: the stream's task and the order write, the response body reads.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    places: Arc<Semaphore>,
    /// Cancelled when the response body is gone, or is not read: nobody reads any more.
    gone: CancellationToken,
    /// What the body did last.
    pub(super) pulse: Pulse,
}

#[derive(Debug, Default)]
struct State {
    start: Option<Start>,
    private: VecDeque<Private>,
    /// What the body has read ahead.
    kept: VecDeque<Piece>,
    end: Option<End>,
    reader: Option<Waker>,
}

/// Where the reading of a room starts.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) reader: Reader,
    /// The last sequence that is not to be sent.
    pub(super) cursor: u64,
}

/// Events that are sent at once, and the sequence of the last of them.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    pub(super) last: u64,
}

/// A message for this subscriber alone.
#[derive(Debug)]
pub(super) struct Private {
    /// Goes out once the event of this sequence has; 0 for at once.
    pub(super) after: u64,
    /// The sequence of the event that it stands for: the newcomer's own copy of its JOIN. Otherwise 0.
    pub(super) stands_for: u64,
    pub(super) frame: Frame,
    /// Held until it is sent.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

/// How the stream ends.
#[derive(Debug)]
struct End {
    /// Everything up to this sequence goes out before.
    after: u64,
    why: Why,
    may_return: bool,
}

#[derive(Debug)]
enum Why {
    Status(Status),
    /// The client took nothing for so long. How far it came is known when it reads again.
    Stalled(Duration),
}

/// The service has ended the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// The participant is expected back, on a new stream.
    pub(super) may_return: bool,
}

/// What the body finds when it looks.
#[derive(Debug)]
pub(super) enum Next {
    /// The reading starts here; look again.
    Start(Start),
    /// Send this.
    Private(Private),
    /// Send this, which the body has read ahead.
    Kept(Piece),
    /// Events, up to this sequence, come first; then look again.
    Events { until: u64 },
    /// End with this.
    End(Status),
}

impl Outbox {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            gone: CancellationToken::new(),
            pulse: Pulse::default(),
        })
    }

    /// A place for one more message of the client; waits while there is none, and gives none once nobody reads.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            place = Arc::clone(&self.places).acquire_owned() => place.ok(),
            () = self.gone.cancelled() => None,
        }
    }

    pub(super) fn start(&self, start: Start, first: Option<Private>) {
        let mut state = self.lock();
        state.start = Some(start);
        state.private.extend(first);
        Self::wake(state);
    }

    pub(super) fn push(&self, private: Private) {
        let mut state = self.lock();
        if state.end.as_ref().is_some_and(End::is_stall) {
            return;
        }
        state.private.push_back(private);
        Self::wake(state);
    }

    /// Ends the stream once the event `after` is out; the first end counts.
    pub(super) fn end(&self, after: u64, status: Status) {
        self.end_with(after, status, false);
    }

    /// Ends the stream now; its client is to resume on a new one.
    pub(super) fn interrupt(&self, status: Status) {
        self.end_with(0, status, true);
    }

    fn end_with(&self, after: u64, status: Status, may_return: bool) {
        let end = End {
            after,
            why: Why::Status(status),
            may_return,
        };
        let mut state = self.lock();
        match &state.end {
            None => state.end = Some(end),
            // Who has stalled is told so in its own time. If it came back by a newer stream meanwhile, say, it is not to
            // come back once more.
            Some(first) if first.is_stall() && end.is_final() => state.end = Some(end),
            Some(_) => {}
        }
        Self::wake(state);
    }

    /// Ends the stream of a client that took nothing for `limit`, and lets go of what waits for it.
    ///
    /// Nobody asks its body for anything, so this also tells the stream's task that nobody reads.
    pub(super) fn stall(&self, limit: Duration) {
        let mut state = self.lock();
        let unread = mem::take(&mut state.private);
        match &state.end {
            // What was to be said without delay is said, when it is read.
            Some(end) if end.after == 0 => {}
            _ => {
                state.end = Some(End {
                    after: 0,
                    why: Why::Stalled(limit),
                    may_return: true,
                });
            }
        }
        Self::wake(state);
        drop(unread);
        self.set_gone();
    }

    /// Whether the service has ended the stream.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.lock().end.as_ref().map(|end| Ended {
            may_return: end.may_return,
        })
    }

    /// Waits until nobody reads any more.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Nobody reads any more, or nobody does for now.
    pub(super) fn set_gone(&self) {
        self.lock().kept = VecDeque::new();
        self.gone.cancel();
    }

    /// For the body: keeps what it has read ahead, until it asks what comes next. Here that can be let go of when nobody
    /// asks the body any more.
    pub(super) fn keep(&self, pieces: VecDeque<Piece>) {
        self.lock().kept = pieces;
    }

    /// For the body: what comes after the event `cursor`. Whatever changes that wakes `context`.
    pub(super) fn next(&self, cursor: u64, context: &Context<'_>) -> Next {
        let mut state = self.lock();
        // In one look with the rest: the newcomer's own JOIN must not be found without its place.
        if let Some(start) = state.start.take() {
            return Next::Start(start);
        }
        match &mut state.reader {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        if let Some(private) = state
            .private
            .pop_front_if(|private| private.after <= cursor)
        {
            return Next::Private(private);
        }
        let until = match (state.private.front(), &state.end) {
            (Some(private), _) => private.after,
            (None, Some(end)) if end.after <= cursor => return Next::End(end.status(cursor)),
            (None, Some(end)) => end.after,
            (None, None) => u64::MAX,
        };
        match state.kept.pop_front() {
            // It was known that nothing belongs between these when they were read.
            Some(piece) => Next::Kept(piece),
            None => Next::Events { until },
        }
    }

    fn wake(mut state: MutexGuard<'_, State>) {
        let reader = state.reader.take();
        drop(state);
        if let Some(waker) = reader {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    fn is_stall(&self) -> bool {
        matches!(self.why, Why::Stalled(_))
    }

    fn is_final(&self) -> bool {
        self.after == 0 && !self.may_return
    }

    /// `cursor`: the last sequence that was handed over.
    fn status(&self, cursor: u64) -> Status {
        match &self.why {
            Why::Status(status) => status.clone(),
            Why::Stalled(limit) => Fault::Stalled {
                limit: *limit,
                last: cursor,
            }
            .into(),
        }
    }
}
