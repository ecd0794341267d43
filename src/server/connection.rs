//! HTTP/2 connections: accepted, served, and ended when the server drains.
//!
//! One task for each connection polls hyper's state machine and the responses of all its streams. hyper would have each
//! response in a task of its own: an event would wake that one, which would wake the connection's. Here an event wakes
//! one task, which takes all that there is for all its streams and writes it.
//!
//! Where an event's wake-ups are: the connection's task hands what its client sends to the stream's task (`chat`), that
//! one wakes the order, and the order wakes each connection that has a reader of the room. So an event that a thousand
//! others read costs a thousand wake-ups and two; what comes while a task is awake or has been woken costs none.
//!
//! # What a silent participant holds
//!
//! Of 26.8 KiB resident, measured by `chitchat bench connections` with 5,000, which set aside (what was never written to is
//! not resident):
//!
//! | bytes | what | whose |
//! |---|---|---|
//! | 16,384 | buffer for frames that go out | h2, `DEFAULT_BUFFER_CAPACITY` |
//! | 8,192 | buffer for frames that come in | tokio-util, below h2 |
//! | 4,096 | buffer for headers that come in | h2, HPACK |
//! | 2,176 | the stream's task | `chat::serve` |
//! | 600 | its JOIN: in the history in memory, and in the feed | `journal`, `feed` |
//! | 500 | what comes in: decoder, and [its buffer](super::inbound) | `inbound`, tonic |
//! | 250 | response body and outbox | `subscriber`, `outbox` |
//! | the rest | its place in the room, streams' and connections' states, wakers, the allocator | all of them |

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use http::Request;
use hyper::{
    body::Incoming as Inbound, rt::Executor, server::conn::http2::Builder, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinError, JoinSet},
};
use tonic::body::Body;

use super::{
    drain::Drain,
    gather::gather,
    incoming::{Connection, Incoming, Listener},
    outbox::IN_FLIGHT_MAX,
    service::Services,
};
use crate::config;

/// Streams that one connection may have open.
///
/// When reached: a further one is refused, and a gRPC client waits with it. Source: of each reader that takes nothing h2
/// holds [`SEND_BUFFER`] in pieces of one event each at the worst, with some 300 bytes of its own for each, and the
/// reader itself a page of the past of 64 KiB, so what a connection is sent costs 3 MiB at the worst.
const STREAMS_PER_CONNECTION: u32 = 16;

/// Streams that a connection may make us reset before it is closed: RUSTSEC-2024-0003, which tonic's default leaves open.
const RESETS_PER_CONNECTION: usize = 128;

/// Streams that a client may reset before we have accepted them: CVE-2023-44487.
const PENDING_RESETS: usize = 20;

/// What a client may send ahead of us on one stream, in bytes: HTTP/2's own default. A smaller one is asking for trouble: a
/// client may fill the default before it has heard of ours, and some never look.
const STREAM_WINDOW: u32 = 65_535;

/// What a client may send ahead of us on one connection, in bytes. Its streams' windows bound that already; this is so
/// large because h2 ends a connection whose small unread DATA frames lack more than half of it (see the assertion). It
/// keeps about 250 bytes for each such frame: 8 MiB of a connection at the worst.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

// h2 0.4.20 charges each unread DATA frame what it lacks to 256 bytes. An honest client must not lose its connection to
// that while we are slow: on all its streams it may be as far ahead as any of them may be (`IN_FLIGHT_MAX`), and as much
// again, with the shortest of messages.
const _: () = {
    const SHORTEST: u32 = 10;
    const CHARGED_TO: u32 = 256;
    let frames = STREAMS_PER_CONNECTION * 2 * IN_FLIGHT_MAX as u32;
    assert!(frames * (CHARGED_TO - SHORTEST) <= CONNECTION_WINDOW / 2);
};

/// What HTTP/2 may hold of one stream that its connection's socket has not taken yet, in bytes: one DATA frame, and what
/// the last piece is longer. Of events it holds no copies, but what it holds cannot be let go of. When full: the stream's
/// reader is not asked for more.
const SEND_BUFFER: usize = 16_384;

/// All headers of a request, in bytes; HTTP/2's own default. A request with more is answered 431 by hyper.
const HEADERS_BYTES: u32 = 16_384;

/// How often a connection's task goes round before others have their turn.
///
/// Once is enough, but when a request comes in or something happens meanwhile. Bounded because a socket that has used up
/// its task's share of time says so by waking it (tokio's cooperative budget).
const ROUNDS_MAX: usize = 4;

type Response = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves whoever comes until `drained`, and then until all connections have ended. Dropping it cuts them.
pub(super) async fn serve<L: Listener>(
    mut incoming: Incoming<L>,
    services: Services,
    config: config::Server,
    drained: Drain,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = drained.begun() => break,
            accepted = incoming.accept() => {
                connections.spawn(serve_one(accepted, services.clone(), config.clone(), drained.clone()));
            }
            Some(ended) = connections.join_next() => unless_panicked(ended),
        }
    }
    // Whoever comes now is told by the closed port that nobody is here.
    drop(incoming);
    while let Some(ended) = connections.join_next().await {
        unless_panicked(ended);
    }
}

fn unless_panicked(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection was cut: its task failed");
    }
}

async fn serve_one<Io>(
    io: Connection<Io>,
    services: Services,
    config: config::Server,
    drained: Drain,
) where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let peer = io.peer();
    let service = service_fn(move |request: Request<Inbound>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        services.call(request)
    });
    let (io, out) = gather(io);
    let begun = Arc::new(Begun::default());
    let http =
        http2(&config, Begin(Arc::downgrade(&begun))).serve_connection(TokioIo::new(io), service);
    let mut http = pin!(http);
    let mut responses: Vec<Response> = Vec::new();
    let mut drained = Some(drained.waiting());
    let mut bells = None;
    poll_fn(|context| {
        let Bells {
            state,
            of_http,
            of_responses,
        } = Bells::of(context.waker(), &mut bells);
        let (mut http_context, mut response_context) = (
            Context::from_waker(of_http),
            Context::from_waker(of_responses),
        );
        state.wake_up();
        for _ in 0..ROUNDS_MAX {
            // The responses first: what they hand over is written in the same round.
            if begun.take_into(&mut responses) | state.take(RESPONSES) {
                responses.retain_mut(|one| goes_on(one, &mut response_context));
            }
            state.take(HTTP);
            if let Some(waiting) = &mut drained
                && waiting.poll(&mut http_context).is_ready()
            {
                drained = None;
                http.as_mut().graceful_shutdown();
            }
            // How a connection ends is nobody's concern but its client's, who knows.
            if http.as_mut().poll(&mut http_context).is_ready() {
                return Poll::Ready(());
            }
            if let Poll::Ready(Err(_)) = out.poll_write(&mut http_context) {
                return Poll::Ready(());
            }
            if begun.is_empty() && state.may_sleep() {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether there is more of a response. One that panics is cut, and none but that one.
fn goes_on(response: &mut Response, context: &mut Context<'_>) -> bool {
    let polled = catch_unwind(AssertUnwindSafe(|| response.as_mut().poll(context)));
    polled.is_ok_and(|polled| polled.is_pending())
}

fn http2(config: &config::Server, begin: Begin) -> Builder<Begin> {
    let mut builder = Builder::new(begin);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_local_error_reset_streams(RESETS_PER_CONNECTION)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_BYTES)
        .max_frame_size(16_384);
    builder
}

/// The responses that hyper has begun and that are not among those polled yet.
#[derive(Default)]
struct Begun(Mutex<Vec<Response>>);

/// Where hyper puts them. Each response keeps one of these, so it must not keep alive what holds the response.
#[derive(Clone)]
struct Begin(Weak<Begun>);

impl Begun {
    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether there were any.
    fn take_into(&self, responses: &mut Vec<Response>) -> bool {
        let mut begun = self.lock();
        let are_some = !begun.is_empty();
        responses.append(&mut begun);
        are_some
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Response>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begin {
    fn execute(&self, response: F) {
        // Without a connection there is nobody to answer.
        if let Some(begun) = self.0.upgrade() {
            begun.lock().push(Box::pin(response));
        }
    }
}

/// Something happened on the connection, or a response has handed something over.
const HTTP: u8 = 1;
/// Something happened that a response waits for.
const RESPONSES: u8 = 2;
/// The task is at it.
const AWAKE: u8 = 4;

/// What has happened since a connection's task last looked.
///
/// A task is woken for it only when it sleeps. What it causes itself while it is at it (a response hands something over,
/// a client's window lets a response go on) is heard without that, by the round that it is part of or by the next one.
struct State {
    happened: AtomicU8,
    task: Waker,
}

impl State {
    /// The task is at it.
    fn wake_up(&self) {
        self.happened.fetch_or(AWAKE, Ordering::SeqCst);
    }

    /// Whether `what` has happened; it is looked at now.
    fn take(&self, what: u8) -> bool {
        self.happened.fetch_and(!what, Ordering::SeqCst) & what != 0
    }

    /// Whether nothing has happened that was not looked at; then the task sleeps, and the next ring wakes it.
    fn may_sleep(&self) -> bool {
        self.happened
            .compare_exchange(AWAKE, 0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// Says that something has happened.
struct Bell {
    state: Arc<State>,
    what: u8,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = self.state.happened.fetch_or(self.what, Ordering::SeqCst);
        // Asleep, and nobody has woken it yet.
        if before == 0 {
            self.state.task.wake_by_ref();
        }
    }
}

/// A task's two bells.
struct Bells {
    state: Arc<State>,
    of_http: Waker,
    of_responses: Waker,
}

impl Bells {
    /// The bells of `task`. A task that is woken otherwise than before gets other ones, for everybody to ring.
    fn of<'a>(task: &Waker, bells: &'a mut Option<Self>) -> &'a Self {
        let fit = |bells: &Self| bells.state.task.will_wake(task);
        if !bells.as_ref().is_some_and(fit) {
            *bells = None;
        }
        bells.get_or_insert_with(|| {
            let state = Arc::new(State {
                // All is to be looked at.
                happened: AtomicU8::new(HTTP | RESPONSES),
                task: task.clone(),
            });
            let bell = |what| {
                let state = Arc::clone(&state);
                Waker::from(Arc::new(Bell { state, what }))
            };
            let (of_http, of_responses) = (bell(HTTP), bell(RESPONSES));
            Self {
                state,
                of_http,
                of_responses,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    #[test]
    fn a_task_that_sleeps_is_woken_once_and_one_that_is_awake_sleeps_only_when_it_has_looked_at_all()
     {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let mut bells = None;
        let Bells {
            state,
            of_http,
            of_responses,
        } = Bells::of(&task, &mut bells);
        state.wake_up();
        assert!(
            state.take(RESPONSES) && state.take(HTTP),
            "first all is looked at"
        );
        assert!(state.may_sleep());

        of_responses.wake_by_ref();
        of_http.wake_by_ref();
        of_responses.wake_by_ref();
        assert_eq!(count.take(), 1);

        state.wake_up();
        assert!(state.take(RESPONSES));
        assert!(!state.may_sleep(), "the connection is to be looked at");
        of_responses.wake_by_ref();
        assert!(state.take(HTTP));
        assert!(
            !state.may_sleep(),
            "it rang after the look at the responses"
        );
        assert!(state.take(RESPONSES) && !state.take(RESPONSES));
        assert!(state.may_sleep());
        assert_eq!(count.take(), 0, "it was awake");
    }

    #[test]
    fn a_task_that_is_woken_otherwise_gets_other_bells() {
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let tasks = counts.clone().map(Waker::from);
        let mut bells = None;
        for (task, count) in tasks.iter().zip(&counts) {
            let Bells { state, of_http, .. } = Bells::of(task, &mut bells);
            state.wake_up();
            assert!(state.take(RESPONSES) && state.take(HTTP) && state.may_sleep());
            of_http.wake_by_ref();
            assert_eq!(count.take(), 1);
        }
        assert_eq!(counts[0].take(), 0);
    }
}
