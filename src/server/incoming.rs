//! Accepts connections: bounded in number, each with a deadline for its first words.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

use crate::config;

/// How long to wait when the system cannot accept (out of file descriptors, say). Without a pause the accept loop would
/// take most of a core until a connection closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every HTTP/2 client says first, in bytes (RFC 9113, section 3.4). A connection that has not said that much takes
/// no part in HTTP/2's shutdown and keepalive, so it is on a deadline of its own.
const PREFACE_BYTES: usize = 24;

/// Where connections come from: TCP in the product, a simulated network in tests.
pub trait Listener: Send + Unpin + 'static {
    /// An accepted connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection, and the address it comes from. It is ready for small messages: nothing delays them.
    fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Self::Io, SocketAddr)>>;

    /// The address that connections are made to.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Self::Io, SocketAddr)>> {
        let (io, peer) = ready!(TcpListener::poll_accept(self, context))?;
        // Without it a small message waits for the acknowledgement of the one before (40 ms on Linux). Where it fails the
        // connection is gone already, as reading it will show.
        let _ = io.set_nodelay(true);
        Poll::Ready(Ok((io, peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

/// Connections as they come in. Beyond `server.connections` a new one is closed at once.
pub(super) struct Incoming<L> {
    listener: L,
    places: Arc<Semaphore>,
    preface_timeout: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

/// Whose connection a request came on: one of its extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// An accepted connection. Its place is free again when it is dropped.
pub(super) struct Connection<Io> {
    io: Io,
    peer: SocketAddr,
    /// Until the preface is complete: how much of it is missing, and when that takes too long.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

impl<L: Listener> Incoming<L> {
    pub(super) fn new(listener: L, config: &config::Server) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(config.connections)),
            preface_timeout: config.first_byte_timeout,
            pause: None,
        }
    }

    fn admit(&self, io: L::Io, peer: SocketAddr) -> Option<Connection<L::Io>> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Connection {
            io,
            peer,
            preface: Some((PREFACE_BYTES, Box::pin(sleep(self.preface_timeout)))),
            _place: place,
        })
    }

    /// The next connection. Nothing is lost where this is dropped and called again.
    pub(super) async fn accept(&mut self) -> Connection<L::Io> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Connection<L::Io>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((io, peer)) => match self.admit(io, peer) {
                    Some(connection) => return Poll::Ready(connection),
                    None => {
                        tracing::warn!(%peer, "closed a connection: no place is left (server.connections)")
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection now");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl<Io> Connection<Io> {
    /// Who is at the other end; which of our addresses it came to is nobody's question.
    pub(super) fn peer(&self) -> Peer {
        Peer(self.peer)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Connection<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        if let Some((missing, deadline)) = &mut self.preface {
            *missing = missing.saturating_sub(read);
            if *missing == 0 {
                self.preface = None;
            } else if deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Connection<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
