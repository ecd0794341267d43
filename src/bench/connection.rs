//! gRPC without a client: one HTTP/2 connection and its streams, polled by whoever owns them.
//!
//! A load generator shares the machine with the server it measures, so what it spends is missing there. tonic's client
//! takes three tasks and as many wake-ups for what one task does here; it decodes every field of a message, this only
//! what is looked at, and copies nothing.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client};
use http::{Method, Request, StatusCode, Uri, Version, header};
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::wire::{
    Frame,
    v1::{JoinMsgLeave, Notice, Welcome},
};

/// The path of the stream that participants take part on.
const CHAT_PATH: &str = "/chitchat.v1.ChatService/Chat";

/// How long a connection, or the answer to a JOIN, may take; then the run fails.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that a connection may carry: what a server of ours allows.
pub(super) const STREAMS_MAX: u16 = 16;

/// How much of a stream may be on its way unread.
///
/// Unit: bytes. When full: the server keeps what follows. Source: two thousand events, more than a burst that a stream
/// waits for; nothing is held back in the measuring but by the server itself.
const WINDOW_BYTES: u32 = 256 * 1024;

/// The same for a connection: all its streams' windows, so that it is never what holds one back.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX as u32 * WINDOW_BYTES;

/// What h2 may charge for DATA frames that are unread and small (256 bytes each) before it takes them for an attack.
///
/// Unit: bytes. Never reached: every frame of a window that is full of the shortest events, 32 bytes and more.
const SMALL_FRAMES_BYTES: usize = CONNECTION_WINDOW_BYTES as usize / 32 * 256;

/// The bytes that gRPC puts before each message.
const PREFIX_BYTES: usize = 5;

/// A longer message than this is none of an event's.
///
/// Unit: bytes. When reached: the stream is given up. Source: gRPC clients take 4 MiB.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One connection. Nothing happens on it unless it is driven.
pub(super) struct Connection {
    requests: client::SendRequest<Bytes>,
    driver: client::Connection<TcpStream, Bytes>,
    chat: Uri,
    closed: bool,
}

/// A participant's stream.
pub(super) struct Chat {
    outbound: SendStream<Bytes>,
    inbound: Inbound,
    /// What has come and is not taken: some messages, and at its end perhaps a part of one.
    unread: Bytes,
}

enum Inbound {
    /// The headers of the response are to come.
    Response(client::ResponseFuture),
    Body(RecvStream),
}

/// Of what the service sends, what a load generator looks at; the fields are those of `ServerMessage`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Heard {
    #[prost(int32, tag = "1")]
    pub(super) sender_id: i32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) msg_stream: Bytes,
    #[prost(enumeration = "crate::wire::v1::EventType", tag = "5")]
    pub(super) r#type: i32,
    #[prost(int64, tag = "6")]
    pub(super) timestamp: i64,
    #[prost(bytes = "bytes", tag = "17")]
    pub(super) message_id: Bytes,
    #[prost(uint64, tag = "18")]
    pub(super) sequence: u64,
    #[prost(message, optional, tag = "23")]
    pub(super) notice: Option<Notice>,
    #[prost(message, optional, tag = "24")]
    pub(super) welcome: Option<Welcome>,
}

impl Connection {
    /// Connects to `http://host:port`.
    ///
    /// # Errors
    /// It does not come about.
    pub(super) async fn open(server: &Uri) -> Result<Self, Status> {
        tokio::time::timeout(OPEN_TIMEOUT, Self::open_unhurried(server))
            .await
            .unwrap_or_else(|_| {
                Err(Status::unavailable(format!(
                    "no answer in {OPEN_TIMEOUT:?}"
                )))
            })
    }

    async fn open_unhurried(server: &Uri) -> Result<Self, Status> {
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, server.port_u16().unwrap_or(80))).await?;
        tcp.set_nodelay(true)?;
        let (requests, driver) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .data_frame_budget(SMALL_FRAMES_BYTES)
            .handshake(tcp)
            .await
            .map_err(broken)?;
        let mut parts = server.clone().into_parts();
        parts.path_and_query = Some(CHAT_PATH.parse().expect("it is a path"));
        let chat = Uri::from_parts(parts).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self {
            requests,
            driver,
            chat,
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

    /// Begins a stream with `join` and waits for the service's answer, the message with the welcome.
    ///
    /// # Errors
    /// As the service answers, or there is no answer in time.
    pub(super) async fn join(&mut self, join: &JoinMsgLeave) -> Result<(Chat, Heard), Status> {
        tokio::time::timeout(OPEN_TIMEOUT, self.join_unhurried(join))
            .await
            .unwrap_or_else(|_| {
                Err(Status::unavailable(format!(
                    "no answer in {OPEN_TIMEOUT:?}"
                )))
            })
    }

    async fn join_unhurried(&mut self, join: &JoinMsgLeave) -> Result<(Chat, Heard), Status> {
        poll_fn(|context| {
            self.drive(context)?;
            self.requests.poll_ready(context).map_err(broken)
        })
        .await?;
        let mut chat = Chat::begin(&mut self.requests, &self.chat)?;
        chat.send(Frame::of(join).bytes())?;
        let first = poll_fn(|context| {
            let driven = self.drive(context);
            match chat.poll_next(context) {
                Poll::Pending => {
                    driven.map_or_else(|status| Poll::Ready(Err(status)), |()| Poll::Pending)
                }
                next => next,
            }
        })
        .await?;
        let first = first.ok_or_else(|| Status::unavailable("the stream ended at once"))?;
        Ok((chat, first))
    }
}

impl Chat {
    fn begin(requests: &mut client::SendRequest<Bytes>, uri: &Uri) -> Result<Self, Status> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.version_mut() = Version::HTTP_2;
        let grpc = tonic::metadata::GRPC_CONTENT_TYPE;
        request.headers_mut().insert(header::CONTENT_TYPE, grpc);
        let trailers = header::HeaderValue::from_static("trailers");
        request.headers_mut().insert(header::TE, trailers);
        let (response, outbound) = requests.send_request(request, false).map_err(broken)?;
        Ok(Self {
            outbound,
            inbound: Inbound::Response(response),
            unread: Bytes::new(),
        })
    }

    /// Sends messages with their prefixes, as [`Frame`]s one behind the other. What the server does not take yet waits
    /// in memory: whoever sends bounds that.
    pub(super) fn send(&mut self, frames: Bytes) -> Result<(), Status> {
        self.outbound.send_data(frames, false).map_err(broken)
    }

    /// The next message; none once the stream has ended with OK.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Heard>, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let body = match &mut self.inbound {
                Inbound::Body(body) => body,
                Inbound::Response(response) => {
                    let response = ready!(Pin::new(response).poll(context)).map_err(broken)?;
                    self.inbound = Inbound::Body(body(response)?);
                    continue;
                }
            };
            let Some(data) = ready!(body.poll_data(context)) else {
                let trailers = ready!(body.poll_trailers(context)).map_err(broken)?;
                let status = trailers.and_then(|trailers| Status::from_header_map(&trailers));
                return Poll::Ready(ending(status));
            };
            let data = data.map_err(broken)?;
            let _ = body.flow_control().release_capacity(data.len());
            self.append(data);
        }
    }

    fn append(&mut self, data: Bytes) {
        if self.unread.is_empty() {
            self.unread = data;
            return;
        }
        let mut whole = BytesMut::with_capacity(self.unread.len() + data.len());
        whole.extend_from_slice(&self.unread);
        whole.extend_from_slice(&data);
        self.unread = whole.freeze();
    }

    /// The first message of what has come, if it has come as a whole.
    fn take(&mut self) -> Result<Option<Heard>, Status> {
        let Some((prefix, rest)) = self.unread.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 || length > MESSAGE_BYTES_MAX {
            return Err(Status::internal("the server sends what is no message"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.unread.advance(PREFIX_BYTES);
        let message = Heard::decode(self.unread.split_to(length));
        message
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// The body of a response that is one of gRPC.
fn body(response: http::Response<RecvStream>) -> Result<RecvStream, Status> {
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
fn ending(status: Option<Status>) -> Result<Option<Heard>, Status> {
    match status {
        Some(status) if status.code() == Code::Ok => Ok(None),
        Some(status) => Err(status),
        None => Err(Status::unknown("the stream ended without a status")),
    }
}

/// HTTP/2's word as gRPC's.
fn broken(error: h2::Error) -> Status {
    Status::from_error(Box::new(error))
}
