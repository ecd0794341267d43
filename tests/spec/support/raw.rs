//! A client that does nothing by itself: raw messages on a raw gRPC stream.

use chitchat::wire::v1::{
    EventType, GetHistoryRequest, JoinMsgLeave, ListParticipantsRequest, Resume, ServerMessage,
    Welcome, chat_service_client::ChatServiceClient,
};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use super::within;

/// The path of `Chat`.
pub const CHAT: &str = "/chitchat.v1.ChatService/Chat";

/// One stream, both directions; dropping it resets the stream, as a process that vanishes does.
pub struct Raw {
    sending: Option<mpsc::UnboundedSender<Outgoing>>,
    receiving: Streaming<ServerMessage>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The end of the messages alone would be a half-close, which the server might read before the reset: a LEAVE.
        if let Some(sending) = &self.sending {
            let _ = sending.send(Outgoing::Cut);
        }
    }
}

impl Raw {
    /// Opens a stream at `path`; nothing is sent before the server's headers are there.
    pub async fn open(channel: Channel, path: &'static str) -> Self {
        Self::open_with(channel, path, None).await
    }

    /// Opens a stream at `path` and sends `first` without waiting for the server's headers.
    pub async fn open_with(
        channel: Channel,
        path: &'static str,
        first: impl IntoIterator<Item = JoinMsgLeave>,
    ) -> Self {
        let (sending, outgoing) = mpsc::unbounded_channel();
        for message in first {
            let message = Outgoing::Message(message);
            sending.send(message).expect("the other end is here");
        }
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.expect("the connection should be ready");
        let request = Request::new(UnboundedReceiverStream::new(outgoing));
        let codec = Cuttable::default();
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
        let _ = sending.send(Outgoing::Message(message));
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

    /// Reads until an event says `text`; that is the last one of what it returns.
    pub async fn read_to(&mut self, text: &str) -> Vec<ServerMessage> {
        let mut read = Vec::new();
        loop {
            let message = self.next().await;
            let found = message.sequence > 0 && message.msg_stream == text;
            read.push(message);
            if found {
                return read;
            }
        }
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

/// A JOIN that continues the participant of `welcome`, which has read everything up to `after_sequence`.
pub fn resume(welcome: &Welcome, after_sequence: u64) -> JoinMsgLeave {
    JoinMsgLeave {
        session: welcome.session.clone(),
        resume: Some(Resume {
            epoch: welcome.epoch.clone(),
            after_sequence,
        }),
        ..join("")
    }
}

/// The welcome that `message` carries.
pub fn welcome(message: &ServerMessage) -> &Welcome {
    let welcome = message.welcome.as_ref();
    welcome.unwrap_or_else(|| panic!("a welcome should come with {message:?}"))
}

/// Why a call ended, in one word for programs.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("a reason should come with {status:?}"))
        .reason
}

/// The names of those in `room`.
pub async fn names(mut client: ChatServiceClient<Channel>, room: &str) -> Vec<String> {
    let request = ListParticipantsRequest { room: room.into() };
    let response = within("a list of participants", client.list_participants(request)).await;
    let list = response.expect("participants should be listed");
    let participants = list.into_inner().participants;
    participants.into_iter().map(|one| one.name).collect()
}

/// All events of `room`, page by page.
pub async fn history(mut client: ChatServiceClient<Channel>, room: &str) -> Vec<ServerMessage> {
    let mut events: Vec<ServerMessage> = Vec::new();
    loop {
        let request = GetHistoryRequest {
            room: room.into(),
            after_sequence: events.last().map_or(0, |last| last.sequence),
            limit: 1_000,
            ..GetHistoryRequest::default()
        };
        let response = within("a page of history", client.get_history(request)).await;
        let page = response.expect("history should be read").into_inner();
        events.extend(page.events);
        if !page.more {
            return events;
        }
    }
}

/// The sequences of `messages`.
pub fn sequences(messages: &[ServerMessage]) -> Vec<u64> {
    messages.iter().map(|message| message.sequence).collect()
}

/// The texts of `messages`.
pub fn texts(messages: &[ServerMessage]) -> Vec<&str> {
    messages.iter().map(|one| one.msg_stream.as_str()).collect()
}

/// What goes into a stream.
#[derive(Debug)]
enum Outgoing {
    Message(JoinMsgLeave),
    /// Nothing that can be sent: the stream is reset.
    Cut,
}

/// The messages' codec, which can fail on purpose.
#[derive(Debug, Default)]
struct Cuttable(ProstCodec<JoinMsgLeave, ServerMessage>);

struct CuttableEncoder<E>(E);

impl Codec for Cuttable {
    type Encode = Outgoing;
    type Decode = ServerMessage;
    type Encoder = CuttableEncoder<<ProstCodec<JoinMsgLeave, ServerMessage> as Codec>::Encoder>;
    type Decoder = <ProstCodec<JoinMsgLeave, ServerMessage> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        CuttableEncoder(self.0.encoder())
    }

    fn decoder(&mut self) -> Self::Decoder {
        self.0.decoder()
    }
}

impl<E: Encoder<Item = JoinMsgLeave, Error = Status>> Encoder for CuttableEncoder<E> {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, item: Outgoing, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Outgoing::Message(message) => self.0.encode(message, buffer),
            Outgoing::Cut => Err(Status::cancelled("cut")),
        }
    }
}
