//! A server that sends what no honest one would.

use chitchat::wire::v1::{
    GetHistoryRequest, GetHistoryResponse, JoinMsgLeave, ListParticipantsRequest,
    ListParticipantsResponse, ListRoomsRequest, ListRoomsResponse, Participant,
    SendMessageResponse, ServerMessage, WatchRequest, Welcome, chat_service_server::ChatService,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::fake::{self, Fake};

/// Clears the screen, sets the window's title, rings, goes back, turns the line around.
pub const ATTACK: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{8}\u{9b}31m\u{202e}evil";

/// What a person sees of [`ATTACK`].
pub const HARMLESS: &str =
    "\u{fffd}[2J\u{fffd}]0;owned\u{fffd}\u{fffd}\u{fffd}\u{fffd}31m\u{fffd}evil";

/// Starts a server whose texts and names are [`ATTACK`].
pub async fn start() -> Fake {
    fake::serve(Service).await
}

struct Service;

type Messages = ReceiverStream<Result<ServerMessage, Status>>;

fn event(sequence: u64) -> ServerMessage {
    ServerMessage {
        sender_id: 7,
        sender_name: ATTACK.into(),
        msg_stream: ATTACK.into(),
        r#type: 1,
        timestamp: i64::try_from(sequence).expect("few events"),
        room: ATTACK.into(),
        sequence,
        traceparent: format!("00-{ATTACK}-b7ad6b7169203331-01"),
        ..ServerMessage::default()
    }
}

#[tonic::async_trait]
impl ChatService for Service {
    type ChatStream = Messages;
    type WatchStream = Messages;

    async fn chat(
        &self,
        request: Request<Streaming<JoinMsgLeave>>,
    ) -> Result<Response<Messages>, Status> {
        let mut said = request.into_inner();
        let joined = said
            .next()
            .await
            .ok_or_else(|| Status::invalid_argument("no JOIN"))??;
        let (send, messages) = tokio::sync::mpsc::channel(16);
        let welcome = Welcome {
            id: 7,
            session: "s".into(),
            epoch: "e".into(),
            recovered: false,
            head: 1,
        };
        let first = ServerMessage {
            r#type: 1,
            welcome: Some(welcome),
            ..ServerMessage::default()
        };
        let own = ServerMessage {
            sender_name: joined.client_name,
            r#type: 0,
            ..event(2)
        };
        tokio::spawn(async move {
            for message in [first, event(1), own, event(3)] {
                let _ = send.send(Ok(message)).await;
            }
            while let Some(Ok(message)) = said.next().await {
                if message.r#type == 2 {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Messages>, Status> {
        Err(Status::permission_denied(ATTACK))
    }

    async fn send_message(
        &self,
        _: Request<JoinMsgLeave>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        Err(Status::permission_denied(ATTACK))
    }

    async fn get_history(
        &self,
        _: Request<GetHistoryRequest>,
    ) -> Result<Response<GetHistoryResponse>, Status> {
        Ok(Response::new(GetHistoryResponse {
            events: vec![event(1)],
            more: false,
            epoch: "e".into(),
        }))
    }

    async fn list_participants(
        &self,
        _: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        let one = Participant {
            id: 7,
            name: ATTACK.into(),
            ..Participant::default()
        };
        Ok(Response::new(ListParticipantsResponse {
            participants: vec![one],
            timestamp: 1,
        }))
    }

    async fn list_rooms(
        &self,
        _: Request<ListRoomsRequest>,
    ) -> Result<Response<ListRoomsResponse>, Status> {
        Err(Status::unimplemented(ATTACK))
    }
}
