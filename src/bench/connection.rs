//! gRPC without a client: one HTTP/2 connection and its streams, polled by whoever owns them.
//!
//! A load generator shares the machine with the server it measures, so what it spends is missing there. tonic's client
//! takes three tasks and as many wake-ups for what one task does here; it decodes every field of a message, this only
//! what is looked at ([`Heard`]). And DATA frames go past h2 ([`Tap`]).

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client};
use http::{Method, Request, StatusCode, Uri, Version, header};
use prost::Message as _;
use tokio::{net::TcpStream, time::timeout};
use tonic::{Code, Status};

use super::{
    heard::Heard,
    tap::{Intake, Tap},
};
use crate::wire::{
    Frame,
    v1::{JoinMsgLeave, ServerMessage, WatchRequest},
};

/// The path of the stream that participants take part on.
const CHAT_PATH: &str = "/chitchat.v1.ChatService/Chat";

/// The path of the stream that a room is read by without taking part.
const WATCH_PATH: &str = "/chitchat.v1.ChatService/Watch";

/// How long a connection, or the answer to the first message of a stream, may take; then the run fails.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that a connection may carry: what a server of ours allows.
pub(super) const STREAMS_MAX: u16 = 16;

/// How much of a stream may be on its way unread.
///
/// Unit: bytes. When full: the server keeps what follows. Source: two thousand events, more than a burst that a stream
/// waits for; nothing is held back in the measuring but by the server itself.
pub(super) const WINDOW_BYTES: u32 = 256 * 1024;

/// The same for a reader that stands still, by intention.
///
/// Unit: bytes. When full: it stays so. Source: HTTP/2's own default, which most clients have.
pub(super) const STALLED_WINDOW_BYTES: u32 = 65_535;

/// The bytes that gRPC puts before each message.
const PREFIX_BYTES: usize = 5;

/// A longer message than this is none of an event's.
///
/// Unit: bytes. When reached: the stream is given up. Source: gRPC clients take 4 MiB.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One connection. Nothing happens on it unless it is driven.
pub(super) struct Connection {
    requests: client::SendRequest<Bytes>,
    driver: client::Connection<Tap<TcpStream>, Bytes>,
    intake: Intake,
    server: Uri,
    closed: bool,
}

/// A stream of messages from the service, and to it unless it is one of `Watch`.
pub(super) struct Stream {
    id: u32,
    outbound: SendStream<Bytes>,
    inbound: Inbound,
    intake: Intake,
    /// What has come and is not taken: some messages, and at its end perhaps a part of one.
    unread: BytesMut,
}

enum Inbound {
    /// The headers of the response are to come.
    Response(client::ResponseFuture),
    /// What comes of it is taken from the intake; how it ends is told here.
    Body(RecvStream),
}

/// Whole messages that came in one piece.
pub(super) struct Messages(Bytes);

impl Connection {
    /// Connects to `http://host:port`; each stream takes so many bytes that nobody has read.
    ///
    /// # Errors
    /// It does not come about.
    pub(super) async fn open(server: &Uri, window_bytes: u32) -> Result<Self, Status> {
        in_time(Self::open_unhurried(server, window_bytes)).await
    }

    async fn open_unhurried(server: &Uri, window_bytes: u32) -> Result<Self, Status> {
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, server.port_u16().unwrap_or(80)))
            .await
            .map_err(|error| unreachable(&error))?;
        tcp.set_nodelay(true)?;
        // All its streams' windows, so that it is never the connection that holds one back.
        let connection_bytes = u32::from(STREAMS_MAX) * window_bytes;
        let (tap, intake) = Tap::new(tcp, window_bytes, connection_bytes);
        let (requests, driver) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(window_bytes)
            .initial_connection_window_size(connection_bytes)
            .handshake(tap)
            .await
            .map_err(broken)?;
        Ok(Self {
            requests,
            driver,
            intake,
            server: server.clone(),
            closed: false,
        })
    }

    /// Reads and writes what there is to be read and written. To be called whenever the task is woken, before its
    /// streams are polled: what they then want to send wakes the task once more.
    ///
    /// # Errors
    /// The connection has ended. What had come before can still be read from its streams.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if !self.closed {
            match Pin::new(&mut self.driver).poll(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(_) => self.closed = true,
            }
        }
        Err(Status::unavailable("the server closed the connection"))
    }

    /// Takes part: begins a stream with `join`, and waits for the service's answer, the message with the welcome.
    ///
    /// # Errors
    /// As the service answers, or there is no answer in time.
    pub(super) async fn join(
        &mut self,
        join: &JoinMsgLeave,
    ) -> Result<(Stream, ServerMessage), Status> {
        in_time(self.begin(CHAT_PATH, Frame::of(join), false)).await
    }

    /// Reads a room without taking part, from the answer on, which is the message with the welcome.
    ///
    /// # Errors
    /// As [`Connection::join`].
    pub(super) async fn watch(
        &mut self,
        request: &WatchRequest,
    ) -> Result<(Stream, ServerMessage), Status> {
        in_time(self.begin(WATCH_PATH, Frame::of(request), true)).await
    }

    async fn begin(
        &mut self,
        path: &'static str,
        first: Frame,
        is_last: bool,
    ) -> Result<(Stream, ServerMessage), Status> {
        poll_fn(|context| {
            self.drive(context)?;
            self.requests.poll_ready(context).map_err(broken)
        })
        .await?;
        let mut stream = Stream::begin(self, path)?;
        let outbound = &mut stream.outbound;
        (outbound.send_data(first.bytes(), is_last)).map_err(broken)?;
        let answer = poll_fn(|context| {
            let driven = self.drive(context);
            match stream.poll_first(context) {
                Poll::Pending => {
                    driven.map_or_else(|status| Poll::Ready(Err(status)), |()| Poll::Pending)
                }
                answer => answer,
            }
        })
        .await?;
        Ok((stream, answer))
    }
}

impl Stream {
    fn begin(connection: &mut Connection, path: &'static str) -> Result<Self, Status> {
        let mut parts = connection.server.clone().into_parts();
        parts.path_and_query = Some(path.parse().expect("it is a path"));
        let uri = Uri::from_parts(parts).map_err(|error| Status::internal(error.to_string()))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        let grpc = tonic::metadata::GRPC_CONTENT_TYPE;
        request.headers_mut().insert(header::CONTENT_TYPE, grpc);
        let trailers = header::HeaderValue::from_static("trailers");
        request.headers_mut().insert(header::TE, trailers);
        let begun = connection.requests.send_request(request, false);
        let (response, outbound) = begun.map_err(broken)?;
        let id = outbound.stream_id().as_u32();
        connection.intake.open(id);
        Ok(Self {
            id,
            outbound,
            inbound: Inbound::Response(response),
            intake: connection.intake.clone(),
            unread: BytesMut::new(),
        })
    }

    /// Sends messages with their prefixes, as [`Frame`]s one behind the other. What the server does not take yet waits
    /// in memory: whoever sends bounds that.
    pub(super) fn send(&mut self, frames: Bytes) -> Result<(), Status> {
        self.outbound.send_data(frames, false).map_err(broken)
    }

    /// The next messages, as they came; none once the stream has ended with OK.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Messages>, Status>> {
        loop {
            let whole = whole_messages(&self.unread)?;
            if whole > 0 {
                let messages = self.unread.split_to(whole).freeze();
                return Poll::Ready(Ok(Some(Messages(messages))));
            }
            if !ready!(self.poll_more(context))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// The first message, all of it; none may have been taken before.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Result<ServerMessage, Status>> {
        loop {
            if let Some((message, rest)) = split_message(&self.unread)? {
                let first = ServerMessage::decode(message);
                let first = first.map_err(|error| Status::internal(error.to_string()))?;
                let taken = self.unread.len() - rest.len();
                let _ = self.unread.split_to(taken);
                return Poll::Ready(Ok(first));
            }
            if !ready!(self.poll_more(context))? {
                return Poll::Ready(Err(Status::unavailable("the stream ended at once")));
            }
        }
    }

    /// Waits for more to be unread; false once the stream has ended with OK.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Status>> {
        if let Inbound::Response(response) = &mut self.inbound {
            let response = ready!(Pin::new(response).poll(context)).map_err(broken)?;
            self.inbound = Inbound::Body(body(response)?);
        }
        let Inbound::Body(body) = &mut self.inbound else {
            return Poll::Pending;
        };
        if self.intake.take(self.id, &mut self.unread, context) {
            return Poll::Ready(Ok(true));
        }
        match ready!(body.poll_data(context)) {
            // DATA without data: it says no more than that the stream has ended.
            Some(data) => data.map(|_| true).map_err(broken).into(),
            None => {
                let trailers = ready!(body.poll_trailers(context)).map_err(broken)?;
                let status = trailers.and_then(|trailers| Status::from_header_map(&trailers));
                Poll::Ready(ending(status).map(|()| false))
            }
        }
    }
}

impl Messages {
    /// How many bytes they are.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// One after the other, in the order in which they were sent.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<Heard<'_>, Status>> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (message, after) = split_message(rest).ok()??;
            rest = after;
            Some(Heard::read(message).ok_or_else(no_message))
        })
    }
}

/// A message, without its prefix, and what is behind it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The first message of `bytes`, and what is behind it; none if it has not come as a whole.
///
/// # Errors
/// It is compressed, or longer than any message may be.
pub(crate) fn split_message(bytes: &[u8]) -> Result<Option<Split<'_>>, Status> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let [compressed, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length > MESSAGE_BYTES_MAX {
        return Err(no_message());
    }
    Ok(rest.split_at_checked(length))
}

/// How many of `bytes` are whole messages.
fn whole_messages(bytes: &[u8]) -> Result<usize, Status> {
    let mut rest = bytes;
    while let Some((_, after)) = split_message(rest)? {
        rest = after;
    }
    Ok(bytes.len() - rest.len())
}

fn no_message() -> Status {
    Status::internal("the server sends what is no message")
}

async fn in_time<T>(opening: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(OPEN_TIMEOUT, opening).await.unwrap_or_else(|_| {
        Err(Status::unavailable(format!(
            "no answer in {OPEN_TIMEOUT:?}"
        )))
    })
}

/// Why there is no connection, and for what a person can change, what to do.
fn unreachable(error: &io::Error) -> Status {
    let remedy = match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            ": all local ports are in use, of which one address has about 28,000; let streams share connections, or \
             wait a minute for ports of the last run"
        }
        _ => "",
    };
    Status::unavailable(format!("{error}{remedy}"))
}

/// The body of a response that is one of gRPC.
///
/// # Errors
/// The status in the headers, or that it is none of gRPC.
pub(crate) fn body(response: http::Response<RecvStream>) -> Result<RecvStream, Status> {
    let (parts, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers)
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    match parts.status {
        StatusCode::OK => Ok(body),
        other => Err(Status::unknown(format!("the server answers HTTP {other}"))),
    }
}

/// What the status at the end of a stream means to whoever reads it.
///
/// # Errors
/// Any status but OK; there is none.
pub(crate) fn ending(status: Option<Status>) -> Result<(), Status> {
    match status {
        Some(status) if status.code() == Code::Ok => Ok(()),
        Some(status) => Err(status),
        None => Err(Status::unknown("the stream ended without a status")),
    }
}

/// HTTP/2's word as gRPC's.
pub(crate) fn broken(error: h2::Error) -> Status {
    Status::from_error(Box::new(error))
}
