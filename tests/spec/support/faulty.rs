//! A server that keeps all of its promises but one, to all or to one of its participants.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use chitchat::wire::v1::{
    EventType, GetHistoryRequest, GetHistoryResponse, JoinMsgLeave, ListParticipantsRequest,
    ListParticipantsResponse, ListRoomsRequest, ListRoomsResponse, SendMessageResponse,
    ServerMessage, WatchRequest, Welcome, chat_service_server::ChatService,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
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

/// The id of a participant that wants none.
const ID: i32 = 7;

/// Starts it, on any port of 127.0.0.1.
pub async fn start(fault: Fault) -> Fake {
    serve(fault, None).await
}

/// The same, but only the participant `victim` meets the fault.
pub async fn start_against(victim: &'static str, fault: Fault) -> Fake {
    serve(fault, Some(victim)).await
}

async fn serve(fault: Fault, victim: Option<&'static str>) -> Fake {
    fake::serve(Service {
        fault,
        victim,
        rooms: Arc::default(),
        posted: Arc::default(),
    })
    .await
}

struct Service {
    fault: Fault,
    /// Everybody, if it is nobody.
    victim: Option<&'static str>,
    rooms: Arc<Mutex<HashMap<String, Vec<Reader>>>>,
    /// Messages that came by `SendMessage`.
    posted: Arc<AtomicU64>,
}

/// A participant, and the room as it is shown to it.
struct Reader {
    id: i32,
    view: View,
    send: mpsc::UnboundedSender<Result<ServerMessage, Status>>,
}

/// A room as one participant sees it. All hear the same; what they are told about its order is their own.
#[derive(Clone)]
struct View {
    fault: Fault,
    /// Messages that came.
    heard: u64,
    sequence: u64,
    timestamp: i64,
    /// Waits for the next one to overtake it.
    overtaken: Option<(i32, JoinMsgLeave)>,
}

impl View {
    fn event(&mut self, id: i32, said: &JoinMsgLeave) -> ServerMessage {
        self.sequence += 1;
        self.timestamp = self.timestamp.max(said.timestamp) + 1;
        ServerMessage {
            sender_id: id,
            msg_stream: said.msg.clone(),
            r#type: said.r#type,
            timestamp: self.timestamp,
            message_id: said.message_id.clone(),
            sequence: self.sequence,
            ..ServerMessage::default()
        }
    }

    /// What is shown of one message; none to end the stream.
    fn hear(&mut self, id: i32, said: &JoinMsgLeave) -> Option<Vec<ServerMessage>> {
        self.heard += 1;
        if let Some((other, overtaken)) = self.overtaken.take() {
            return Some(vec![self.event(id, said), self.event(other, &overtaken)]);
        }
        if !self.heard.is_multiple_of(EVERY) {
            return Some(vec![self.event(id, said)]);
        }
        let events = match self.fault {
            Fault::None => vec![self.event(id, said)],
            Fault::Loses => vec![],
            Fault::Swaps => {
                self.overtaken = Some((id, said.clone()));
                vec![]
            }
            Fault::Repeats => vec![self.event(id, said), self.event(id, said)],
            Fault::SkipsASequence => {
                self.sequence += 1;
                vec![self.event(id, said)]
            }
            Fault::StopsTheClock => {
                let timestamp = self.timestamp;
                vec![ServerMessage {
                    timestamp,
                    ..self.event(id, said)
                }]
            }
            Fault::EndsTheStream => return None,
        };
        Some(events)
    }
}

impl Service {
    /// Everybody in the room hears of the newcomer; what it reads.
    fn join(&self, join: &JoinMsgLeave) -> (i32, Messages) {
        let mut rooms = self.rooms.lock().unwrap();
        let room = rooms.entry(join.room.clone()).or_default();
        let met = self.victim.is_none_or(|victim| victim == join.client_name);
        let (send, messages) = mpsc::unbounded_channel();
        let id = if join.id == 0 { ID } else { join.id };
        for reader in room.iter_mut() {
            let event = reader.view.event(id, join);
            let _ = reader.send.send(Ok(event));
        }
        // A newcomer is told of the order as the first one is; nobody joins once there are messages.
        let mut view = room.first().map_or(
            View {
                fault: Fault::None,
                heard: 0,
                sequence: 0,
                timestamp: 0,
                overtaken: None,
            },
            |first| View {
                sequence: first.view.sequence - 1,
                ..first.view.clone()
            },
        );
        view.fault = if met { self.fault } else { Fault::None };
        let own = view.event(id, join);
        let own = ServerMessage {
            welcome: Some(Welcome {
                id,
                head: own.sequence,
                ..Welcome::default()
            }),
            ..own
        };
        let _ = send.send(Ok(own));
        room.push(Reader { id, view, send });
        (id, UnboundedReceiverStream::new(messages))
    }
}

/// Everybody in `room` hears what the participant `id` said.
fn broadcast(room: &mut Vec<Reader>, id: i32, said: &JoinMsgLeave) {
    room.retain_mut(|reader| {
        let Some(events) = reader.view.hear(id, said) else {
            return false;
        };
        for event in events {
            let _ = reader.send.send(Ok(event));
        }
        true
    });
}

type Messages = UnboundedReceiverStream<Result<ServerMessage, Status>>;

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
        let (id, messages) = self.join(&join);
        let rooms = Arc::clone(&self.rooms);
        tokio::spawn(async move {
            while let Some(Ok(message)) = said.next().await {
                let mut rooms = rooms.lock().unwrap();
                let room = rooms.get_mut(&join.room).expect("it was joined");
                if message.r#type() == EventType::Leave {
                    room.retain(|reader| reader.id != id);
                    return;
                }
                broadcast(room, id, &message);
            }
        });
        Ok(Response::new(messages))
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
