//! A client that does nothing by itself: raw messages on a raw gRPC stream.

use chitchat::wire::v1::{EventType, JoinMsgLeave, ServerMessage};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use super::within;

/// One stream, both directions; dropping it resets the stream, as a process that vanishes does.
pub struct Raw {
    sending: Option<mpsc::UnboundedSender<JoinMsgLeave>>,
    receiving: Streaming<ServerMessage>,
}

impl Raw {
    /// Opens a stream at `path`.
    pub async fn open(channel: Channel, path: &'static str) -> Self {
        let (sending, outgoing) = mpsc::unbounded_channel();
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.expect("the connection should be ready");
        let request = Request::new(UnboundedReceiverStream::new(outgoing));
        let codec = ProstCodec::<JoinMsgLeave, ServerMessage>::default();
        let path = PathAndQuery::from_static(path);
        let response = within("headers", grpc.streaming(request, path, codec)).await;
        Self {
            sending: Some(sending),
            receiving: response.expect("a stream should open").into_inner(),
        }
    }

    /// Sends `message`.
    pub fn send(&self, message: JoinMsgLeave) {
        let sending = self.sending.as_ref().expect("half-closed already");
        // The server may have ended the stream; then reading tells.
        let _ = sending.send(message);
    }

    /// Sends a MESSAGE that says `text`, with the sender's clock.
    pub fn say(&self, text: &str, timestamp: i64) {
        self.send(said(text, timestamp));
    }

    /// Sends LEAVE.
    pub fn leave(&self, timestamp: i64) {
        self.send(JoinMsgLeave {
            r#type: EventType::Leave.into(),
            timestamp,
            ..JoinMsgLeave::default()
        });
    }

    /// Says END_STREAM.
    pub fn half_close(&mut self) {
        self.sending = None;
    }

    /// Joins the lobby as `name` and reads the own JOIN.
    pub async fn join(&mut self, name: &str) -> ServerMessage {
        self.send(join(name));
        let own = self.next().await;
        assert_eq!(own.r#type(), EventType::Join, "{own:?}");
        own
    }

    /// The next message.
    pub async fn next(&mut self) -> ServerMessage {
        within("the next message", self.receiving.message())
            .await
            .expect("the stream should go on")
            .expect("the stream should not end")
    }

    /// The next `count` messages.
    pub async fn take(&mut self, count: usize) -> Vec<ServerMessage> {
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            taken.push(self.next().await);
        }
        taken
    }

    /// Reads until the stream ends: what came, and how it ended.
    pub async fn rest(&mut self) -> (Vec<ServerMessage>, Result<(), Status>) {
        let mut rest = Vec::new();
        loop {
            match within("the end of the stream", self.receiving.message()).await {
                Ok(Some(message)) => rest.push(message),
                Ok(None) => return (rest, Ok(())),
                Err(status) => return (rest, Err(status)),
            }
        }
    }

    /// Reads until the stream ends with an error.
    pub async fn failure(&mut self) -> Status {
        let (_, ended) = self.rest().await;
        ended.expect_err("the stream should end with an error")
    }
}

/// A JOIN of the lobby.
pub fn join(name: &str) -> JoinMsgLeave {
    JoinMsgLeave {
        client_name: name.into(),
        r#type: EventType::Join.into(),
        ..JoinMsgLeave::default()
    }
}

/// A MESSAGE.
pub fn said(text: &str, timestamp: i64) -> JoinMsgLeave {
    JoinMsgLeave {
        msg: text.into(),
        r#type: EventType::Message.into(),
        timestamp,
        ..JoinMsgLeave::default()
    }
}
