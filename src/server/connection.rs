//! HTTP/2 connections: accepted, served, and ended when the server drains.
//!
//! One task for each connection polls hyper's state machine and the responses of all its streams. hyper would have each
//! response in a task of its own: an event would wake that one, which would wake the connection's. Here an event wakes
//! one task, which takes all that there is for all its streams and writes it.
//!
//! Where an event's wake-ups are: the connection's task hands what its client sends to the stream's task (`chat`), that
//! one wakes the order, and the order wakes each connection that has a reader of the room. So an event that a thousand
//! others read costs a thousand wake-ups and two; what comes while a task is awake or has been woken costs none.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{
    stream::{FuturesUnordered, StreamExt as _},
    task::AtomicWaker,
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
use tonic::{body::Body, service::Routes};
use tower_service::Service as _;

use super::{
    drain::Drain,
    incoming::{Connection, Incoming, Listener},
};
use crate::config;

/// Streams that one connection may have open.
///
/// When reached: a further one is refused, and a gRPC client waits with it. Source: for each reader that takes nothing
/// h2 may hold [`SEND_BUFFER`], and the reader itself a page of the past of 64 KiB, so a connection costs 2 MiB at the
/// worst.
const STREAMS_PER_CONNECTION: u32 = 16;

/// Streams that a connection may make us reset before it is closed: RUSTSEC-2024-0003, which tonic's default leaves open.
const RESETS_PER_CONNECTION: usize = 128;

/// Streams that a client may reset before we have accepted them: CVE-2023-44487.
const PENDING_RESETS: usize = 20;

/// What a client may send ahead of us on one stream, in bytes: HTTP/2's own default. A smaller one is asking for trouble: a
/// client may fill the default before it has heard of ours, and some never look.
const STREAM_WINDOW: u32 = 65_535;

/// What a client may send ahead of us on one connection, in bytes. Its streams' windows bound that already; this is so
/// large because h2 ends a connection whose small unread DATA frames lack more than half of it (see the assertion).
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

// h2 0.4.20 charges each unread DATA frame what it lacks to 256 bytes. An honest client that fills all its streams with
// the shortest of messages while we are slow must not lose its connection to that.
const _: () = {
    const SHORTEST: u32 = 10;
    const CHARGED_TO: u32 = 256;
    let frames = STREAMS_PER_CONNECTION * (STREAM_WINDOW / SHORTEST);
    assert!(frames * (CHARGED_TO - SHORTEST) <= CONNECTION_WINDOW / 2);
};

/// What HTTP/2 may hold of one stream that its connection's socket has not taken yet, in bytes. Of events it holds no
/// copies, but what it holds cannot be let go of. When full: the stream's reader is not asked for more.
const SEND_BUFFER: usize = 65_535;

/// All headers of a request, in bytes; HTTP/2's own default. A request with more is answered 431 by hyper.
const HEADERS_BYTES: u32 = 16_384;

/// How often a connection's task goes round before others have their turn.
///
/// Once is enough but when a request comes in, or when something happens meanwhile. Bounded because a socket that has
/// used up its task's share of time says so by waking it (tokio's cooperative budget), and is right only then.
const ROUNDS_MAX: usize = 4;

type Response = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves whoever comes until `drained`, and then until all connections have ended. Dropping it cuts them.
pub(super) async fn serve<L: Listener>(
    mut incoming: Incoming<L>,
    routes: Routes,
    config: config::Server,
    drained: Drain,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = drained.begun() => break,
            accepted = incoming.accept() => {
                connections.spawn(serve_one(accepted, routes.clone(), config.clone(), drained.clone()));
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

async fn serve_one<Io>(io: Connection<Io>, routes: Routes, config: config::Server, drained: Drain)
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let peer = io.peer();
    let service = service_fn(move |request: Request<Inbound>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        routes.clone().call(request)
    });
    let begun = Begun::default();
    let http = http2(&config, begun.clone()).serve_connection(TokioIo::new(io), service);
    let mut http = pin!(http);
    let mut responses = FuturesUnordered::new();
    let mut drained = Some(drained.waiting());
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    poll_fn(|context| {
        bell.answer(context.waker());
        for _ in 0..ROUNDS_MAX {
            if drained
                .as_mut()
                .is_some_and(|drained| drained.poll(context).is_ready())
            {
                drained = None;
                http.as_mut().graceful_shutdown();
            }
            // The responses first: what they hand over is written in the same round.
            while let Poll::Ready(Some(())) = responses.poll_next_unpin(context) {}
            bell.hush();
            // How a connection ends is nobody's concern but its client's, who knows.
            if http
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                return Poll::Ready(());
            }
            let has_begun = begun.take_into(&mut responses);
            if !has_begun && bell.is_silent() {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn http2(config: &config::Server, begun: Begun) -> Builder<Begun> {
    let mut builder = Builder::new(begun);
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
#[derive(Clone, Default)]
struct Begun(Arc<Mutex<Vec<Response>>>);

impl Begun {
    /// Whether there were any.
    fn take_into(&self, responses: &mut FuturesUnordered<Response>) -> bool {
        let mut begun = self.lock();
        let are_some = !begun.is_empty();
        responses.extend(begun.drain(..));
        are_some
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Response>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, response: F) {
        self.lock().push(Box::pin(response));
    }
}

/// Wakes a connection's task for what happens on the connection, but not for what the task itself causes while it is at
/// it: a response that hands something over rings, and is heard by the round that it is part of.
#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Bell {
    /// Nobody is at it: ringing wakes the task.
    const ASLEEP: u8 = 0;
    /// The task is at it, and nothing has happened since it last looked.
    const SILENT: u8 = 1;
    /// Something has happened.
    const RUNG: u8 = 2;

    /// The task is at it now; later it is to be woken by `task`.
    fn answer(&self, task: &Waker) {
        self.task.register(task);
        self.state.store(Self::SILENT, Ordering::SeqCst);
    }

    /// All that has happened until now will be looked at.
    fn hush(&self) {
        self.state.store(Self::SILENT, Ordering::SeqCst);
    }

    /// Whether nothing has happened since; then the task may sleep.
    fn is_silent(&self) -> bool {
        self.state
            .compare_exchange(
                Self::SILENT,
                Self::ASLEEP,
                Ordering::SeqCst,
                Ordering::SeqCst,
            )
            .is_ok()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(Self::RUNG, Ordering::SeqCst) == Self::ASLEEP {
            self.task.wake();
        }
    }
}
