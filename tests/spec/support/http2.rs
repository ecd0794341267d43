//! A client that sends what no well-made client would: any bytes on a gRPC stream, any frames on a connection.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chitchat::wire::{Frame, v1::ServerMessage};
use h2::{
    RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Status;

use super::within;

/// The largest window there is: a client that has it never makes the server wait.
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// One connection, whose streams carry what the test wants.
pub struct Connection {
    requests: SendRequest<Bytes>,
    authority: String,
}

/// One stream of a connection.
pub struct Stream {
    sending: SendStream<Bytes>,
    receiving: Receiving,
    received: BytesMut,
}

enum Receiving {
    Headers(ResponseFuture),
    Body(RecvStream),
    /// The response had no body: these are its headers.
    Nothing(HeaderMap),
}

impl Connection {
    /// Connects, with windows as HTTP/2 has them by default.
    pub async fn to(address: SocketAddr) -> Self {
        Self::with_window(address, 65_535).await
    }

    /// Connects, ready to receive so many bytes on each stream and on all of them.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        Self::with_windows(address, window, window).await
    }

    /// Connects, ready to receive so many bytes on each stream, and on all of them together.
    pub async fn with_windows(address: SocketAddr, stream: u32, all: u32) -> Self {
        let io = TcpStream::connect(address)
            .await
            .expect("the server should accept");
        let (requests, connection) = client::Builder::new()
            .initial_window_size(stream)
            .initial_connection_window_size(all)
            .handshake(io)
            .await
            .expect("the server should speak HTTP/2");
        // Ends with the connection; how it ends, the streams tell.
        tokio::spawn(connection);
        Self {
            requests,
            authority: address.to_string(),
        }
    }

    /// Opens a stream for the method at `path`.
    pub async fn open(&mut self, path: &str) -> Stream {
        let request = Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("the path is a path");
        let ready = within("a place for a stream", self.requests.clone().ready()).await;
        let mut requests = ready.expect("the connection should be open");
        let (response, sending) = requests
            .send_request(request, false)
            .expect("a stream should open");
        Stream {
            sending,
            receiving: Receiving::Headers(response),
            received: BytesMut::new(),
        }
    }
}

impl Stream {
    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl Into<Bytes>) -> &mut Self {
        // The server may have ended the stream; then reading tells.
        let _ = self.sending.send_data(bytes.into(), false);
        self
    }

    /// Says END_STREAM.
    pub fn end(&mut self) -> &mut Self {
        let _ = self.sending.send_data(Bytes::new(), true);
        self
    }

    /// Waits for the response's headers.
    pub async fn opened(&mut self) {
        if let Receiving::Headers(response) = &mut self.receiving {
            let response = within("headers", response)
                .await
                .expect("a response should come");
            self.receiving = if response.body().is_end_stream() {
                Receiving::Nothing(response.headers().clone())
            } else {
                Receiving::Body(response.into_body())
            };
        }
    }

    /// The next message; none if the stream ends.
    pub async fn next(&mut self) -> Option<ServerMessage> {
        self.opened().await;
        loop {
            if let Some(message) = self.take_message() {
                return Some(message);
            }
            let data = self.data().await?;
            self.received.extend_from_slice(&data);
        }
    }

    /// The message of an answer that has one.
    pub async fn answer<M: prost::Message + Default>(&mut self) -> M {
        self.opened().await;
        while let Some(data) = self.data().await {
            self.received.extend_from_slice(&data);
        }
        M::decode(&self.received[5..]).expect("the server should send messages")
    }

    /// How the stream ends, whatever comes before.
    pub async fn status(&mut self) -> Status {
        self.opened().await;
        while self.data().await.is_some() {}
        let headers = match &mut self.receiving {
            Receiving::Headers(_) => unreachable!("they have been read"),
            Receiving::Nothing(headers) => headers.clone(),
            Receiving::Body(body) => {
                let trailers = within("trailers", body.trailers()).await;
                trailers
                    .expect("the stream should not be reset")
                    .expect("there should be trailers")
            }
        };
        Status::from_header_map(&headers).expect("a response should have a status")
    }

    async fn data(&mut self) -> Option<Bytes> {
        let Receiving::Body(body) = &mut self.receiving else {
            return None;
        };
        let data = within("more data", body.data()).await?.ok()?;
        let _ = body.flow_control().release_capacity(data.len());
        Some(data)
    }

    fn take_message(&mut self) -> Option<ServerMessage> {
        let length = self
            .received
            .get(1..5)
            .map(|mut bytes| bytes.get_u32() as usize)?;
        (self.received.len() >= 5 + length).then(|| {
            let frame = self.received.split_to(5 + length);
            prost::Message::decode(&frame[5..]).expect("the server should send messages")
        })
    }
}

/// A message as gRPC sends it.
pub fn framed(message: &impl prost::Message) -> Bytes {
    Frame::of(message).bytes()
}

/// Any bytes in a gRPC message's place, with any flag and any claim of their length.
pub fn prefixed(flag: u8, length: u32, bytes: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(flag);
    framed.put_u32(length);
    framed.put_slice(bytes);
    framed.freeze()
}

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An HTTP/2 connection with frames made by hand.
pub struct Frames {
    io: TcpStream,
    outgoing: BytesMut,
    incoming: BytesMut,
}

/// A frame as it came.
#[derive(Debug)]
pub struct RawFrame {
    /// What kind (RFC 9113, section 6).
    pub kind: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Bytes,
}

impl Frames {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    const END_HEADERS: u8 = 4;

    /// Connects and says the preface and no settings.
    pub async fn to(address: SocketAddr) -> Self {
        let io = TcpStream::connect(address)
            .await
            .expect("the server should accept");
        let mut frames = Self {
            io,
            outgoing: BytesMut::from(PREFACE),
            incoming: BytesMut::new(),
        };
        frames.put(Self::SETTINGS, 0, 0, &[]);
        frames
    }

    /// Puts a frame on its way; [`Frames::flush`] sends it.
    pub fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.outgoing.put_uint(payload.len() as u64, 3);
        self.outgoing.put_u8(kind);
        self.outgoing.put_u8(flags);
        self.outgoing.put_u32(stream);
        self.outgoing.put_slice(payload);
    }

    /// Opens a stream for the method at `path`, of fewer than 128 bytes.
    pub fn put_request(&mut self, stream: u32, path: &str) {
        // HPACK (RFC 7541): indexed fields, and literals with an indexed name.
        let (post, http, path_name) = (0x83, 0x86, 0x04);
        let mut block = vec![post, http, path_name, path.len() as u8];
        block.extend_from_slice(path.as_bytes());
        let (content_type_name, value) = ([0x0f, 0x10], b"application/grpc");
        block.extend_from_slice(&content_type_name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
        self.put(Self::HEADERS, Self::END_HEADERS, stream, &block);
    }

    /// Allows the server `bytes` more on `stream`.
    pub fn put_window(&mut self, stream: u32, bytes: u32) {
        self.put(Self::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    /// Sends what was put.
    pub async fn flush(&mut self) {
        // The server may have closed the connection; then reading tells.
        let _ = self.io.write_all(&self.outgoing.split()).await;
    }

    /// The next frame; none if the connection is closed.
    pub async fn next(&mut self) -> Option<RawFrame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            let read = within("the next frame", self.io.read_buf(&mut self.incoming)).await;
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    fn take_frame(&mut self) -> Option<RawFrame> {
        let mut header = self.incoming.get(..9)?;
        let length = header.get_uint(3) as usize;
        let (kind, _flags, stream) = (header.get_u8(), header.get_u8(), header.get_u32());
        (self.incoming.len() >= 9 + length).then(|| {
            let mut frame = self.incoming.split_to(9 + length);
            frame.advance(9);
            RawFrame {
                kind,
                stream,
                payload: frame.freeze(),
            }
        })
    }
}
