//! The way to a server: one gRPC connection.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tower_service::Service;

use crate::{
    telemetry::log::ClientLog,
    wire::v1::{JoinMsgLeave, ServerMessage, chat_service_client::ChatServiceClient},
};

/// How long a connection may take to come about.
///
/// Source: three retransmissions of a SYN (1 s, 2 s apart) and some.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a stream may be on its way unread.
///
/// Unit: bytes. When full: the server keeps what follows. Small, so that what was sent is soon what was read: with the
/// default of 2 MiB a server runs ten thousand messages ahead of a reader that has stopped.
const WINDOW_BYTES: u32 = 64 * 1024;

/// How much of a connection may be on its way unread.
///
/// Unit: bytes. Never reached, for a connection has one long stream; it stands for a limit that h2 derives from it: unread
/// DATA frames of less than 256 bytes may cost half of it, each what it lacks to 256, and more end the connection with
/// ENHANCE_YOUR_CALM. A stream's window full of events is to fit, the shortest of which make frames of 40 bytes.
const CONNECTION_WINDOW_BYTES: u32 = 16 * WINDOW_BYTES;
const _: () = assert!(CONNECTION_WINDOW_BYTES / 2 > WINDOW_BYTES / 32 * (256 - 32));

/// How long the service may take to answer a JOIN, connecting included.
///
/// When it is over the attempt counts as one at a server that is away. Source: twice the time to connect.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages that may wait for the connection to carry them.
///
/// When full: the rest waits in the session. Small, for what waits here is lost to it when the connection breaks (and
/// is then sent again).
const OUTBOX_CAPACITY: usize = 16;

/// The address of a server is not one.
#[derive(Debug, thiserror::Error)]
#[error("{server:?} is not the address of a server, such as http://127.0.0.1:50052")]
pub struct AddressError {
    /// What was given.
    pub server: String,
    /// What is wrong with it.
    #[source]
    source: tonic::transport::Error,
}

/// A client for single calls (history, participants, rooms). Connects with its first call, and again when it must.
///
/// A silent connection is asked after `keepalive` whether the server is still there, and given as long to answer.
///
/// # Errors
/// [`AddressError`] when `server` is not `http://host:port`; `http://` may be left out.
pub fn service(
    server: &str,
    keepalive: Duration,
) -> Result<ChatServiceClient<Channel>, AddressError> {
    Ok(ChatServiceClient::new(
        endpoint(server, keepalive)?.connect_lazy(),
    ))
}

/// Where a server is, and how a connection to it is made.
#[derive(Debug, Clone)]
pub(super) struct Route {
    endpoint: Endpoint,
    dial: Dial,
}

impl Route {
    /// # Errors
    /// [`AddressError`]
    pub(super) fn new(server: &str, keepalive: Duration, dial: Dial) -> Result<Self, AddressError> {
        let endpoint = endpoint(server, keepalive)?;
        Ok(Self { endpoint, dial })
    }
}

/// Makes the connection under a session's gRPC: over TCP ([`Dial::default`]), or otherwise in a simulation.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(String, u16) -> Dialling + Send + Sync>);

type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

impl Dial {
    /// `connect` makes a connection to a host (a name or an address) and a port.
    pub fn new<C, F, I>(connect: C) -> Self
    where
        C: Fn(String, u16) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<I>> + Send + 'static,
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self(Arc::new(move |host, port| {
            let connecting = connect(host, port);
            Box::pin(async move { Ok(Box::new(connecting.await?) as Box<dyn Io>) })
        }))
    }
}

impl Default for Dial {
    fn default() -> Self {
        Self::new(|host, port| async move {
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            Ok(tcp)
        })
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Dial")
    }
}

/// Bytes both ways.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> Io for I {}

/// A participant's stream on a connection of its own. Dropping it cuts the connection: no half-close, nothing that the
/// server could take for a farewell.
#[derive(Debug)]
pub(super) struct Connection {
    /// Stands first because fields are dropped in their order: the cut comes before the end of the outbox.
    _cut: DropGuard,
    /// Towards the server. Ending it would be a half-close, and so a LEAVE: the connection is to be cut before.
    pub(super) outbox: mpsc::Sender<JoinMsgLeave>,
    /// From the server.
    pub(super) inbound: Streaming<ServerMessage>,
}

impl Connection {
    /// Connects, says `join` and reads the service's answer: the message with the welcome. A JOIN that has a connection
    /// to go on is logged.
    pub(super) async fn open(
        route: &Route,
        join: JoinMsgLeave,
        log: ClientLog,
    ) -> Result<(Self, ServerMessage), Status> {
        tokio::time::timeout(OPEN_TIMEOUT, Self::open_unhurried(route, join, log))
            .await
            .unwrap_or_else(|_| {
                let seconds = OPEN_TIMEOUT.as_secs();
                Err(Status::unavailable(format!("no answer within {seconds} s")))
            })
    }

    async fn open_unhurried(
        route: &Route,
        join: JoinMsgLeave,
        log: ClientLog,
    ) -> Result<(Self, ServerMessage), Status> {
        // Declared before the guard of the cut, and so dropped after it, however this function is left.
        let (outbox, messages) = mpsc::channel(OUTBOX_CAPACITY);
        let token = CancellationToken::new();
        let cut = token.clone().drop_guard();
        let connector = Connector {
            dial: route.dial.clone(),
            cut: token,
        };
        let channel = route.endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(unavailable)?;

        log.joining(&join.client_name, join.timestamp);
        outbox
            .send(join)
            .await
            .map_err(|_| Status::internal("the stream of messages is gone"))?;
        let mut inbound = ChatServiceClient::new(channel)
            .chat(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let first = inbound
            .message()
            .await?
            .ok_or_else(|| Status::unavailable("the stream ended before the welcome"))?;
        let connection = Self {
            _cut: cut,
            outbox,
            inbound,
        };
        Ok((connection, first))
    }
}

fn unavailable(error: tonic::transport::Error) -> Status {
    let mut status = Status::unavailable("cannot connect");
    status.set_source(Arc::new(error));
    status
}

/// The settings of every connection to a server.
pub(crate) fn endpoint(server: &str, keepalive: Duration) -> Result<Endpoint, AddressError> {
    let uri = if server.contains("://") {
        server.to_owned()
    } else {
        format!("http://{server}")
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|source| AddressError {
        server: server.to_owned(),
        source,
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        // Between two single calls there is no stream; one should not find out only by the next call's timeout.
        .keep_alive_while_idle(true))
}

/// Makes what is under a [`Connection`], and keeps the means to cut it.
#[derive(Debug)]
struct Connector {
    dial: Dial,
    cut: CancellationToken,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let cut = Box::pin(self.cut.clone().cancelled_owned());
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(80);
        let dialling = (self.dial.0)(host.trim_matches(['[', ']']).to_owned(), port);
        Box::pin(async move {
            let io = dialling.await?;
            Ok(TokioIo::new(Wire { io, cut }))
        })
    }
}

/// A connection that can be cut from elsewhere.
///
/// gRPC knows no way to end a stream but in good order: a body that merely stays silent would hold the connection for
/// ever, one that ends is a half-close.
struct Wire {
    io: Box<dyn Io>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    fn poll_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
