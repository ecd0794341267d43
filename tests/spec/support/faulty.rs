//! A server that keeps all of its promises but one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use chitchat::wire::v1::{
    EventType, GetHistoryRequest, GetHistoryResponse, JoinMsgLeave, ListParticipantsRequest,
    ListParticipantsResponse, ListRoomsRequest, ListRoomsResponse, SendMessageResponse,
    ServerMessage, WatchRequest, Welcome, chat_service_server::ChatService,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::fake::{self, Fake};

/// What it does with every tenth message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing wrong.
    None,
    /// It forgets the message.
    Loses,
    /// It shows the next one first.
    Swaps,
    /// It shows it twice, as two events.
    Repeats,
    /// It leaves out a sequence before it.
    SkipsASequence,
    /// It gives it the logical time of the event before.
    StopsTheClock,
    /// It ends the stream with OK.
    EndsTheStream,
}

/// Messages from one with a fault to the next.
pub const EVERY: u64 = 10;

/// Starts it, on any port of 127.0.0.1.
pub async fn start(fault: Fault) -> Fake {
    fake::serve(Service {
        fault,
        posted: Arc::default(),
    })
    .await
}

struct Service {
    fault: Fault,
    /// Messages that came by `SendMessage`.
    posted: Arc<AtomicU64>,
}

/// One participant's room.
struct Room {
    fault: Fault,
    /// Messages that came.
    heard: u64,
    sequence: u64,
    timestamp: i64,
    /// Waits for the next one to overtake it.
    overtaken: Option<JoinMsgLeave>,
}

impl Room {
    fn event(&mut self, said: &JoinMsgLeave) -> ServerMessage {
        self.sequence += 1;
        self.timestamp = self.timestamp.max(said.timestamp) + 1;
        ServerMessage {
            sender_id: 7,
            msg_stream: said.msg.clone(),
            r#type: said.r#type,
            timestamp: self.timestamp,
            message_id: said.message_id.clone(),
            sequence: self.sequence,
            ..ServerMessage::default()
        }
    }

    /// What the room shows of one message; none to end the stream.
    fn hear(&mut self, said: JoinMsgLeave) -> Option<Vec<ServerMessage>> {
        self.heard += 1;
        if let Some(overtaken) = self.overtaken.take() {
            return Some(vec![self.event(&said), self.event(&overtaken)]);
        }
        if !self.heard.is_multiple_of(EVERY) {
            return Some(vec![self.event(&said)]);
        }
        let events = match self.fault {
            Fault::None => vec![self.event(&said)],
            Fault::Loses => vec![],
            Fault::Swaps => {
                self.overtaken = Some(said);
                vec![]
            }
            Fault::Repeats => vec![self.event(&said), self.event(&said)],
            Fault::SkipsASequence => {
                self.sequence += 1;
                vec![self.event(&said)]
            }
            Fault::StopsTheClock => {
                let event = self.event(&said);
                self.timestamp -= 1;
                vec![ServerMessage {
                    timestamp: event.timestamp - 1,
                    ..event
                }]
            }
            Fault::EndsTheStream => return None,
        };
        Some(events)
    }
}

type Messages = ReceiverStream<Result<ServerMessage, Status>>;

#[tonic::async_trait]
impl ChatService for Service {
    type ChatStream = Messages;
    type WatchStream = Messages;

    async fn chat(
        &self,
        request: Request<Streaming<JoinMsgLeave>>,
    ) -> Result<Response<Messages>, Status> {
        let mut said = request.into_inner();
        let join = said.next().await.expect("a JOIN")?;
        let mut room = Room {
            fault: self.fault,
            heard: 0,
            sequence: 0,
            timestamp: 0,
            overtaken: None,
        };
        let (send, messages) = tokio::sync::mpsc::channel(16);
        let own = ServerMessage {
            welcome: Some(Welcome {
                id: 7,
                head: 1,
                ..Welcome::default()
            }),
            ..room.event(&join)
        };
        tokio::spawn(async move {
            let _ = send.send(Ok(own)).await;
            while let Some(Ok(message)) = said.next().await {
                if message.r#type() == EventType::Leave {
                    return;
                }
                let Some(events) = room.hear(message) else {
                    return;
                };
                for event in events {
                    let _ = send.send(Ok(event)).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn send_message(
        &self,
        _: Request<JoinMsgLeave>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let mut sequence = self.posted.fetch_add(1, Ordering::SeqCst) + 1;
        if self.fault == Fault::Repeats && sequence.is_multiple_of(EVERY) {
            sequence -= 1;
        }
        if self.fault == Fault::SkipsASequence && sequence >= EVERY {
            sequence += 1;
        }
        Ok(Response::new(SendMessageResponse {
            timestamp: i64::try_from(sequence).expect("few messages"),
            sequence,
            duplicate: false,
        }))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Messages>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_history(
        &self,
        _: Request<GetHistoryRequest>,
    ) -> Result<Response<GetHistoryResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_participants(
        &self,
        _: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_rooms(
        &self,
        _: Request<ListRoomsRequest>,
    ) -> Result<Response<ListRoomsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
