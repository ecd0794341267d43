//! One participant's way to the server: a connection of its own with one stream, and nothing between the checker and
//! what comes and goes on it. It can be cut, reset, and carry what is no message.

use std::{fmt, future::poll_fn, pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, client};
use http::{Method, Request, Uri, Version, header};
use prost::Message as _;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, metadata::GRPC_CONTENT_TYPE};

use crate::{
    bench::connection::{body, broken, ending, split_message},
    client::status::because,
    wire::v1::ServerMessage,
};

/// How much of a stream may be on its way unread.
///
/// Unit: bytes. Source: several times what any scene has a participant miss while another one is read from.
pub(super) const WINDOW_BYTES: u32 = 1024 * 1024;

/// The same for a participant that is not going to read.
///
/// Unit: bytes. When full: the server has to keep what follows. Small, so that it is soon full.
pub(super) const NARROW_WINDOW_BYTES: u32 = 16 * 1024;

/// The least that HTTP/2 has for a connection.
const CONNECTION_WINDOW_BYTES_MIN: u32 = 65_535;

/// A stream that is to be judged, and the connection under it; dropping it cuts the connection without a farewell.
pub(super) struct Stream {
    outbound: SendStream<Bytes>,
    inbound: Inbound,
    unread: BytesMut,
    /// Moves the bytes of the connection. Its end is the connection's.
    driver: AbortOnDropHandle<()>,
}

enum Inbound {
    Response(client::ResponseFuture),
    Body(RecvStream),
    Ended(Status),
}

/// What reading came to.
#[derive(Debug)]
pub(super) enum Read {
    /// A message, and how many bytes it took.
    Message(Box<ServerMessage>, usize),
    /// The stream has ended, with this status.
    Ended(Status),
    /// Nothing came in time.
    Silence,
}

impl Stream {
    /// Connects to `http://host:port` and calls the method at `path`. No answer is waited for, since many servers give
    /// none before the first message.
    ///
    /// # Errors
    /// There is no connection within `patience`, with the reason for a person.
    pub(super) async fn open(
        server: &Uri,
        path: &'static str,
        window_bytes: u32,
        patience: Duration,
    ) -> Result<Self, String> {
        timeout(patience, Self::open_unhurried(server, path, window_bytes))
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {patience:?}")))
    }

    async fn open_unhurried(
        server: &Uri,
        path: &'static str,
        window_bytes: u32,
    ) -> Result<Self, String> {
        let tcp = connect(server).await?;
        let (mut requests, connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(window_bytes)
            .initial_connection_window_size(window_bytes.max(CONNECTION_WINDOW_BYTES_MIN))
            .handshake(tcp)
            .await
            .map_err(words)?;
        // How it ends, the stream tells.
        let driver = AbortOnDropHandle::new(tokio::spawn(async {
            let _ = connection.await;
        }));
        poll_fn(|context| requests.poll_ready(context))
            .await
            .map_err(words)?;
        let (response, outbound) = requests
            .send_request(request(server, path)?, false)
            .map_err(words)?;
        Ok(Self {
            outbound,
            inbound: Inbound::Response(response),
            unread: BytesMut::new(),
            driver,
        })
    }

    /// Sends bytes as they are. If the server has ended the stream, reading tells.
    pub(super) fn send(&mut self, bytes: Bytes) {
        let _ = self.outbound.send_data(bytes, false);
    }

    /// Says that nothing more will be sent.
    pub(super) fn half_close(&mut self) {
        let _ = self.outbound.send_data(Bytes::new(), true);
    }

    /// Resets the stream; the connection stays.
    pub(super) fn reset(&mut self) {
        self.outbound.send_reset(Reason::CANCEL);
    }

    /// Cuts the connection, and waits until it is cut.
    pub(super) async fn cut(self) {
        self.driver.abort();
        let _ = self.driver.await;
    }

    /// The next message, if there is one before `until`.
    pub(super) async fn next(&mut self, until: Instant) -> Read {
        match timeout_at(until, self.next_unhurried()).await {
            Ok(read) => read,
            Err(_) => Read::Silence,
        }
    }

    /// Whoever drops this before it is done loses nothing.
    async fn next_unhurried(&mut self) -> Read {
        loop {
            match self.take_message() {
                Ok(Some((message, bytes))) => return Read::Message(Box::new(message), bytes),
                Ok(None) => {}
                Err(status) => self.inbound = Inbound::Ended(status),
            }
            match &mut self.inbound {
                Inbound::Response(response) => {
                    let response = Pin::new(response).await.map_err(broken);
                    self.inbound = match response.and_then(body) {
                        Ok(body) => Inbound::Body(body),
                        Err(status) => Inbound::Ended(status),
                    };
                }
                Inbound::Body(body) => match body.data().await {
                    Some(Ok(data)) => {
                        let _ = body.flow_control().release_capacity(data.len());
                        self.unread.extend_from_slice(&data);
                    }
                    Some(Err(error)) => self.inbound = Inbound::Ended(broken(error)),
                    None => {
                        let trailers = body.trailers().await.map_err(broken);
                        let ended = trailers.and_then(|trailers| {
                            ending(trailers.and_then(|map| Status::from_header_map(&map)))
                        });
                        self.inbound = Inbound::Ended(ended.err().unwrap_or(Status::ok("")));
                    }
                },
                Inbound::Ended(status) => return Read::Ended(status.clone()),
            }
        }
    }

    fn take_message(&mut self) -> Result<Option<(ServerMessage, usize)>, Status> {
        let Some((message, rest)) = split_message(&self.unread)? else {
            return Ok(None);
        };
        let bytes = self.unread.len() - rest.len();
        let decoded = ServerMessage::decode(message).map_err(|error| {
            Status::internal(format!("the server sent what is no ServerMessage: {error}"))
        });
        let _ = self.unread.split_to(bytes);
        Ok(Some((decoded?, bytes)))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Stream")
    }
}

/// A connection without gRPC on it.
///
/// # Errors
/// It does not come about, with the reason for a person.
pub(super) async fn connect(server: &Uri) -> Result<TcpStream, String> {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = server.port_u16().unwrap_or(80);
    let tcp = TcpStream::connect((host, port)).await;
    let tcp = tcp.map_err(|error| format!("cannot connect: {error}"))?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(tcp)
}

fn request(server: &Uri, path: &'static str) -> Result<Request<()>, String> {
    let mut parts = server.clone().into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static(path));
    let uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
    Ok(request)
}

fn words(error: h2::Error) -> String {
    no_grpc(&because(&broken(error)))
}

/// The connection ended before the server had said anything in gRPC.
pub(super) fn no_grpc(why: &str) -> String {
    format!("the connection broke: {why}; is that a gRPC server?")
}

/// How a stream ended, for a person: `UNAVAILABLE: connection refused`.
pub(super) fn status_words(status: &Status) -> String {
    let because = because(status);
    let code = format!("{:?}", status.code());
    if because.is_empty() {
        code
    } else {
        format!("{code}: {because}")
    }
}
