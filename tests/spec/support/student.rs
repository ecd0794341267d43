//! Another implementation of the protocol, as a student might hand it in: right and small, or with some of the faults that
//! such servers were found to have. It knows no rooms, refuses a held id or name, and tells at once of who crashes.

use std::{convert::Infallible, sync::Arc};

use chitchat::{
    check::Path,
    wire::v1::{
        EventType, GetHistoryRequest, GetHistoryResponse, JoinMsgLeave, ListParticipantsRequest,
        ListParticipantsResponse, ListRoomsRequest, ListRoomsResponse, SendMessageResponse,
        ServerMessage, WatchRequest,
        chat_service_server::{ChatService, ChatServiceServer},
    },
};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, body::Body, server::NamedService};
use tower::Service;

use super::fake::{self, Fake};

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    // Joining.
    JoinHiddenFromOthers,
    JoinHiddenFromNewcomer,
    JoinTextLacksTime,
    JoinTextHasTheSendersTime,
    LateJoinerGetsThePast,
    // Talking.
    SpeakerHearsNothing,
    BroadcastLacksName,
    MangledText,
    SpeaksUnderAnyName,
    UnaryAnswersWithoutTime,
    // Time and order.
    ClockStands,
    NoMerge,
    LosesOne,
    TaskPerRecipient,
    TimePerRecipient,
    SharedTime,
    TimesFall,
    SwapsASender,
    // Texts.
    LimitOneTooLow,
    LimitInBytes,
    NoLimit,
    RefusesInSilence,
    RefusalToAll,
    LongEndsTheStream,
    LongEndsTheOthers,
    EmptyEndsTheStream,
    // Names and ids.
    IdTakesTheSlot,
    NameTakesTheSlot,
    // Leaving.
    LeaveHidden,
    LeaveTwice,
    LeaveTextOther,
    LeaveDoesNotTick,
    LeaverStays,
    LeaverGetsEof,
    HalfCloseTextLacksTime,
    // Slow, dead and broken clients.
    SlowReaderBlocks,
    CrashHidden,
    CrashTwice,
    CrashTextOther,
    CrashHasJoinTime,
    BrokenConnectionEndsAll,
    BadMessageEndsAll,
    HugeTextEndsAll,
    JunkEndsAll,
}

/// The faults of the report's own server, by reading: a goroutine for each recipient, bytes for characters, a map by id, no
/// name but the message's; a broken stream stays in the map, and an end is returned as the error it is to Go.
pub const REPORT: &[Fault] = &[
    Fault::TaskPerRecipient,
    Fault::LimitInBytes,
    Fault::SpeaksUnderAnyName,
    Fault::IdTakesTheSlot,
    Fault::LeaverGetsEof,
    Fault::HalfCloseTextLacksTime,
    Fault::CrashHidden,
];

/// Messages for one recipient that may wait: more than there are in any test, or hardly any.
const QUEUE: usize = 100_000;
const SHORT_QUEUE: usize = 4;

/// Which message of a participant meets a fault that one message meets, and among how many: many are said, by many, only
/// where order is looked at.
const MET: u32 = 31;
const MET_AMONG: usize = 4;

/// Starts one with these faults.
pub async fn start(path: Path, faults: &[Fault]) -> Fake {
    let student = Student {
        faults: faults.into(),
        room: Arc::default(),
    };
    match path {
        Path::Ours if student.has(Fault::JunkEndsAll) => startled(student).await,
        Path::Ours => fake::serve(student).await,
        Path::Original => fake::serve_as(Original(ChatServiceServer::new(student))).await,
    }
}

/// One that clears the room when a connection does not begin as HTTP/2 does.
async fn startled(student: Student) -> Fake {
    let listener = fake::listener().await;
    let address = listener.local_addr().expect("it has an address");
    let (looked_at, connections) = mpsc::channel(1);
    let service = ChatServiceServer::new(student.clone());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (student, looked_at) = (student.clone(), looked_at.clone());
            tokio::spawn(async move {
                let mut first = [0];
                if connection.peek(&mut first).await.is_ok() && first != *b"P" {
                    student.room.lock().await.members.clear();
                }
                // Whoever waits for connections has gone.
                let _ = looked_at.send(Ok(connection)).await;
            });
        }
    });
    fake::serve_those(address, ReceiverStream::new(connections), service)
}

#[derive(Clone)]
struct Student {
    faults: Arc<[Fault]>,
    room: Arc<Mutex<Room>>,
}

#[derive(Default)]
struct Room {
    clock: i64,
    members: Vec<Member>,
    joined: u64,
    past: Vec<ServerMessage>,
    /// Waits for the next one to overtake it.
    held: Option<(u64, JoinMsgLeave)>,
    held_back: Option<ServerMessage>,
}

struct Member {
    key: u64,
    id: i32,
    name: String,
    joined_at: i64,
    said: u32,
    outbox: Outbox,
}

type Outbox = mpsc::Sender<Result<ServerMessage, Status>>;

/// How somebody goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    Leave,
    HalfClose,
    Crash,
}

impl Student {
    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    async fn hear(self, mut inbound: Streaming<JoinMsgLeave>, outbox: Outbox) {
        let Ok(Some(join)) = inbound.message().await else {
            return;
        };
        let key = match self.join(&join, &outbox).await {
            Ok(key) => key,
            Err(refused) => {
                let _ = outbox.send(Err(refused)).await;
                return;
            }
        };
        loop {
            match inbound.message().await {
                Ok(Some(message)) if message.r#type() == EventType::Leave => {
                    self.go(key, message.timestamp, Going::Leave).await;
                    if self.has(Fault::LeaverGetsEof) {
                        let _ = outbox.send(Err(Status::unknown("EOF"))).await;
                    }
                    if self.has(Fault::LeaverStays) {
                        outbox.closed().await;
                    }
                    return;
                }
                Ok(Some(message)) => {
                    if let Err(ended) = self.say(key, message, &outbox).await {
                        let _ = outbox.send(Err(ended)).await;
                        self.go(key, 0, Going::Crash).await;
                        return;
                    }
                }
                Ok(None) => return self.go(key, 0, Going::HalfClose).await,
                Err(status) => {
                    let bad_message = status.message().contains("decode");
                    if bad_message && self.has(Fault::BadMessageEndsAll)
                        || !bad_message && self.has(Fault::BrokenConnectionEndsAll)
                    {
                        self.room.lock().await.members.clear();
                    }
                    return self.go(key, 0, Going::Crash).await;
                }
            }
        }
    }

    async fn join(&self, join: &JoinMsgLeave, outbox: &Outbox) -> Result<u64, Status> {
        let mut room = self.room.lock().await;
        let name = join.client_name.trim().to_owned();
        for (held, takes) in [
            (
                room.members.iter().position(|member| member.id == join.id),
                self.has(Fault::IdTakesTheSlot),
            ),
            (
                room.members.iter().position(|member| member.name == name),
                self.has(Fault::NameTakesTheSlot),
            ),
        ] {
            match held {
                Some(place) if takes => drop(room.members.remove(place)),
                // The report's looks at the id alone.
                Some(_) if self.has(Fault::IdTakesTheSlot) => {}
                Some(_) => return Err(Status::already_exists("somebody has that")),
                None => {}
            }
        }
        if self.has(Fault::LateJoinerGetsThePast) {
            for past in &room.past {
                let _ = outbox.send(Ok(past.clone())).await;
            }
        }
        let time = self.tick(&mut room, join.timestamp);
        room.joined += 1;
        let member = Member {
            key: room.joined,
            id: join.id,
            name: name.clone(),
            joined_at: time,
            said: 0,
            outbox: outbox.clone(),
        };
        room.members.push(member);
        let shown_time = match self.has(Fault::JoinTextHasTheSendersTime) {
            true => join.timestamp,
            false => time,
        };
        let text = match self.has(Fault::JoinTextLacksTime) {
            true => format!("Participant {name} joined Chit Chat"),
            false => {
                format!("Participant {name} joined Chit Chat at logical time L={shown_time}")
            }
        };
        let event = event(join.id, &name, text, EventType::Join, time);
        let key = room.joined;
        let (others, newcomer) = (
            !self.has(Fault::JoinHiddenFromOthers),
            !self.has(Fault::JoinHiddenFromNewcomer),
        );
        let readers = move |member: &Member| if member.key == key { newcomer } else { others };
        self.broadcast(&mut room, event, readers).await;
        Ok(key)
    }

    async fn say(&self, key: u64, message: JoinMsgLeave, outbox: &Outbox) -> Result<(), Status> {
        let mut room = self.room.lock().await;
        let length = match self.has(Fault::LimitInBytes) {
            true => message.msg.len(),
            false => message.msg.chars().count(),
        };
        let limit = 128 - usize::from(self.has(Fault::LimitOneTooLow));
        if message.msg.len() > 100_000 && self.has(Fault::HugeTextEndsAll) {
            room.members.clear();
        }
        if length > limit && !self.has(Fault::NoLimit) {
            return self.refuse(&mut room, key, &message, outbox).await;
        }
        if length == 0 && self.has(Fault::EmptyEndsTheStream) {
            return Err(Status::invalid_argument("nothing is said"));
        }
        let among = room.members.len();
        let Some(member) = room.members.iter_mut().find(|member| member.key == key) else {
            return Ok(());
        };
        member.said += 1;
        let met = member.said == MET && among == MET_AMONG;
        if met && self.has(Fault::SwapsASender) {
            room.held = Some((key, message));
            return Ok(());
        }
        self.publish(&mut room, key, &message, met).await;
        if room.held.as_ref().is_some_and(|(held, _)| *held == key) {
            let (_, held) = room.held.take().expect("it is held");
            self.publish(&mut room, key, &held, false).await;
        }
        Ok(())
    }

    async fn publish(&self, room: &mut Room, key: u64, message: &JoinMsgLeave, met: bool) {
        let Some(member) = room.members.iter().find(|member| member.key == key) else {
            return;
        };
        let (mut id, mut name) = (member.id, member.name.clone());
        if self.has(Fault::SpeaksUnderAnyName) {
            (id, name) = (message.id, message.client_name.clone());
        }
        if self.has(Fault::BroadcastLacksName) {
            name.clear();
        }
        let time = if self.has(Fault::ClockStands) {
            room.clock = room.clock.max(message.timestamp + 1);
            room.clock
        } else if met && self.has(Fault::SharedTime) {
            room.clock
        } else {
            self.tick(room, message.timestamp)
        };
        let text = match self.has(Fault::MangledText) {
            true => message.msg.replace('🎉', "?"),
            false => message.msg.clone(),
        };
        let event = event(id, &name, text, EventType::Message, time);
        room.past.push(event.clone());
        if self.has(Fault::TimePerRecipient) {
            for place in 0..room.members.len() {
                room.clock += 1;
                let timestamp = room.clock;
                let copy = ServerMessage {
                    timestamp,
                    ..event.clone()
                };
                let _ = room.members[place].outbox.send(Ok(copy)).await;
            }
            return;
        }
        if met && self.has(Fault::TimesFall) && room.held_back.is_none() {
            room.held_back = Some(event);
            return;
        }
        // What one participant says stays in its order.
        let held = room.held_back.take();
        let (event, next) = match held {
            Some(held) if held.sender_id == id => (held, Some(event)),
            Some(held) => {
                self.broadcast(room, event, |_| true).await;
                (held, None)
            }
            None => (event, None),
        };
        room.held_back = next;
        let loses = met && self.has(Fault::LosesOne);
        let first = room.members[0].key;
        let echoes = !self.has(Fault::SpeakerHearsNothing);
        let readers =
            move |member: &Member| (!loses || member.key != first) && (echoes || member.key != key);
        self.broadcast(room, event, readers).await;
    }

    async fn refuse(
        &self,
        room: &mut Room,
        key: u64,
        message: &JoinMsgLeave,
        outbox: &Outbox,
    ) -> Result<(), Status> {
        if self.has(Fault::LongEndsTheStream) {
            return Err(Status::invalid_argument("too long"));
        }
        let time = self.tick(room, message.timestamp);
        let length = message.msg.chars().count();
        let text = format!("Message too long ({length} chars). Limit is 128.");
        let notice = event(0, "Server", text, EventType::Message, time);
        if self.has(Fault::RefusalToAll) {
            self.broadcast(room, notice, |_| true).await;
        } else if !self.has(Fault::RefusesInSilence) {
            let _ = outbox.send(Ok(notice)).await;
        }
        if self.has(Fault::LongEndsTheOthers) {
            room.members.retain(|member| member.key == key);
        }
        Ok(())
    }

    async fn go(&self, key: u64, timestamp: i64, going: Going) {
        let mut room = self.room.lock().await;
        let Some(place) = room.members.iter().position(|member| member.key == key) else {
            return;
        };
        let gone = room.members.remove(place);
        let name = &gone.name;
        let (crash, leave) = (going == Going::Crash, going == Going::Leave);
        if crash && self.has(Fault::CrashHidden) || leave && self.has(Fault::LeaveHidden) {
            return;
        }
        let time = if crash && self.has(Fault::CrashHasJoinTime) {
            gone.joined_at
        } else if leave && self.has(Fault::LeaveDoesNotTick) {
            room.clock
        } else {
            self.tick(&mut room, timestamp)
        };
        let text = if crash && self.has(Fault::CrashTextOther) {
            format!("{name} left us")
        } else if leave && self.has(Fault::LeaveTextOther) {
            format!("{name} has left at logical time {time}")
        } else if going == Going::HalfClose && self.has(Fault::HalfCloseTextLacksTime) {
            format!("Participant {name} left Chit Chat")
        } else {
            format!("Participant {name} left Chit Chat at logical time L={time}")
        };
        let event = event(gone.id, name, text, EventType::Leave, time);
        if crash && self.has(Fault::CrashTwice) || leave && self.has(Fault::LeaveTwice) {
            self.broadcast(&mut room, event.clone(), |_| true).await;
        }
        self.broadcast(&mut room, event, |_| true).await;
    }

    fn tick(&self, room: &mut Room, sent: i64) -> i64 {
        let sent = if self.has(Fault::NoMerge) { 0 } else { sent };
        room.clock = room.clock.max(sent) + 1;
        room.clock
    }

    /// Those of `readers` are sent the event; nothing comes between its stamp and this.
    async fn broadcast(
        &self,
        room: &mut Room,
        event: ServerMessage,
        readers: impl Fn(&Member) -> bool,
    ) {
        for member in room.members.iter().filter(|member| readers(member)) {
            let (outbox, event) = (member.outbox.clone(), event.clone());
            if self.has(Fault::TaskPerRecipient) {
                // What a scheduler may do to tasks.
                let turns_of_others = rand::random_range(0..64);
                tokio::spawn(async move {
                    for _ in 0..turns_of_others {
                        tokio::task::yield_now().await;
                    }
                    let _ = outbox.send(Ok(event)).await;
                });
            } else {
                // Who has gone hears nothing.
                let _ = outbox.send(Ok(event)).await;
            }
        }
    }
}

fn event(id: i32, name: &str, text: String, kind: EventType, time: i64) -> ServerMessage {
    ServerMessage {
        sender_id: id,
        sender_name: name.into(),
        msg_stream: text,
        r#type: kind.into(),
        timestamp: time,
        ..ServerMessage::default()
    }
}

type Messages = ReceiverStream<Result<ServerMessage, Status>>;

#[tonic::async_trait]
impl ChatService for Student {
    type ChatStream = Messages;
    type WatchStream = Messages;

    async fn chat(
        &self,
        request: Request<Streaming<JoinMsgLeave>>,
    ) -> Result<Response<Messages>, Status> {
        let short = self.has(Fault::SlowReaderBlocks);
        let (outbox, messages) = mpsc::channel(if short { SHORT_QUEUE } else { QUEUE });
        tokio::spawn(self.clone().hear(request.into_inner(), outbox));
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn send_message(
        &self,
        request: Request<JoinMsgLeave>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let message = request.into_inner();
        let mut room = self.room.lock().await;
        let time = self.tick(&mut room, message.timestamp);
        let name = &message.client_name;
        let event = event(-1, name, message.msg, EventType::Message, time);
        self.broadcast(&mut room, event, |_| true).await;
        let known = !self.has(Fault::UnaryAnswersWithoutTime);
        Ok(Response::new(SendMessageResponse {
            timestamp: if known { time } else { 0 },
            ..SendMessageResponse::default()
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

/// The same service under the name of the original's, which has but one method.
#[derive(Clone)]
struct Original(ChatServiceServer<Student>);

impl NamedService for Original {
    const NAME: &'static str = "itu.chitchat.ChatService";
}

impl Service<http::Request<Body>> for Original {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = <ChatServiceServer<Student> as Service<http::Request<Body>>>::Future;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let chat = request.uri().path() == chitchat::wire::ORIGINAL_CHAT_PATH;
        let path = if chat { super::raw::CHAT } else { "/" };
        *request.uri_mut() = http::Uri::from_static(path);
        self.0.call(request)
    }
}
