//! The methods of `ChatService`, by path.

use std::{
    convert::Infallible,
    future::ready,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body::Frame as BodyFrame;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use tokio::time::timeout;
use tonic::{Code, Status, body::Body, service::Routes};
use tower_service::Service as _;

use super::{
    Shared,
    chat::{self, Dialect, command, digest, private_welcome},
    inbound::{Inbound, Received},
    incoming::Peer,
    outbox::{Next, Outbox, Piece, Start},
    status::Fault,
    subscriber::{Subscriber, trailers},
};
use crate::{
    feed::CHUNK_BYTES_MAX,
    journal::{Page, Range},
    room::{Action, Answer, PAGE_EVENTS_MAX, Poster, Rejection, Resume, text},
    wire::{
        Frame, ORIGINAL_CHAT_PATH, room_or_default,
        v1::{
            self, GetHistoryRequest, GetHistoryResponse, JoinMsgLeave, ListParticipantsRequest,
            ListParticipantsResponse, ListRoomsRequest, ListRoomsResponse, SendMessageResponse,
            WatchRequest, Welcome,
        },
    },
};

/// Events that one page of history has when the request does not say.
const PAGE_EVENTS_DEFAULT: usize = 100;

/// How long a call with a single request message may take to send it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The service's own name.
pub(super) const CHAT_SERVICE: &str = "chitchat.v1.ChatService";

/// The name that the original's clients know it by: for `Chat` alone.
const ORIGINAL_CHAT_SERVICE: &str = "itu.chitchat.ChatService";

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Everything that can be called.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) shared: Arc<Shared>,
    /// Health and reflection.
    pub(super) others: Routes,
}

impl Services {
    /// Answers a request. The chat is found without a router between: that one would wrap each body once more.
    pub(super) fn call(&self, request: Request<Body>) -> Answering {
        let shared = Arc::clone(&self.shared);
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        match service {
            Some((CHAT_SERVICE, method)) => {
                let method = method.to_owned();
                Box::pin(async move { Ok(route(shared, &method, request).await) })
            }
            Some((ORIGINAL_CHAT_SERVICE, _)) => Box::pin(ready(Ok(original(&shared, request)))),
            _ => Box::pin(self.others.clone().call(request)),
        }
    }
}

/// The chat as the original's clients know it: one stream, and nothing else.
fn original(shared: &Arc<Shared>, request: Request<Body>) -> Response<Body> {
    match request.uri().path() {
        ORIGINAL_CHAT_PATH => chat(shared, request, Dialect::Original),
        unknown => unknown_method(unknown),
    }
}

async fn route(shared: Arc<Shared>, method: &str, request: Request<Body>) -> Response<Body> {
    match method {
        "Chat" => chat(&shared, request, Dialect::Ours),
        "Watch" => watch(&shared, request).await,
        "SendMessage" => {
            let peer = peer(&request);
            unary(&shared, request, async |request| {
                send_message(&shared, peer, request).await
            })
            .await
        }
        "GetHistory" => {
            unary(&shared, request, async |request| {
                get_history(&shared, &request).await
            })
            .await
        }
        "ListParticipants" => {
            unary(&shared, request, async |request| {
                list_participants(&shared, request).await
            })
            .await
        }
        "ListRooms" => {
            unary(&shared, request, async |ListRoomsRequest {}| {
                list_rooms(&shared).await
            })
            .await
        }
        _ => unknown_method(request.uri().path()),
    }
}

fn unknown_method(path: &str) -> Response<Body> {
    Status::from(Fault::UnknownMethod(path.into())).into_http()
}

fn peer(request: &Request<Body>) -> Option<IpAddr> {
    let Peer(address) = request.extensions().get()?;
    Some(address.ip())
}

/// Taking part: a task hears the client, the response body tells it.
fn chat(shared: &Arc<Shared>, request: Request<Body>, dialect: Dialect) -> Response<Body> {
    let inbound = Inbound::new(request.into_body(), shared.limits.message_bytes);
    let outbox = Outbox::new();
    let subscriber = shared.subscriber(&outbox);
    shared
        .tasks
        .spawn(chat::serve(Arc::clone(shared), inbound, outbox, dialect));
    subscriber.into_response()
}

/// Reading without taking part.
async fn watch(shared: &Shared, request: Request<Body>) -> Response<Body> {
    match subscribe(shared, request).await {
        Ok(subscriber) => subscriber.into_response(),
        Err(status) => status.into_http(),
    }
}

async fn subscribe(shared: &Shared, request: Request<Body>) -> Result<Subscriber, Status> {
    let request: WatchRequest = only_message(shared, request).await?;
    let room = room_named(&request.room)?;
    let feed = shared.feeds.watch(&room).ok_or(Fault::TooManyRooms)?;
    let resume = request.resume.map(|resume| Resume {
        epoch: resume.epoch,
        after_sequence: resume.after_sequence,
    });
    let name = room.clone();
    let (reading, timestamp) = shared
        .order
        .look(move |service| {
            let backlog = request.backlog as usize;
            (
                service.reading(&name, resume.as_ref(), backlog),
                service.now(),
            )
        })
        .await?;
    let welcome = Welcome {
        id: 0,
        session: String::new(),
        epoch: shared.epoch.clone(),
        recovered: reading.recovered,
        head: reading.head,
    };
    let outbox = Outbox::new();
    outbox.start(
        Start {
            reader: feed.subscribe(),
            cursor: reading.after,
        },
        Some(private_welcome(&room, timestamp, welcome)),
    );
    Ok(shared.subscriber(&outbox))
}

async fn send_message(
    shared: &Shared,
    peer: Option<IpAddr>,
    message: JoinMsgLeave,
) -> Result<SendMessageResponse, Status> {
    let room: Arc<str> = room_or_default(&message.room).into();
    let rate = shared.limits.rate;
    let poster = match message.id {
        ..0 => return Err(Rejection::BadId.into()),
        0 => Poster::Outsider {
            id: shared.pick_if_none(0),
            name: message.client_name,
            bot: message.bot,
        },
        id if message.session.is_empty() => return Err(Fault::NoSession(id).into()),
        id => Poster::Participant {
            id,
            session: digest(&message.session),
        },
    };
    let in_time = match &poster {
        Poster::Outsider { .. } => shared.outsiders.take(peer, rate, Instant::now()),
        Poster::Participant { session, .. } => {
            shared.unary_senders.take(*session, rate, Instant::now())
        }
    };
    if !in_time {
        return Err(Fault::TooFast { limit: rate }.into());
    }
    let action = Action::Post {
        poster,
        text: message.msg,
        message_id: message.message_id,
    };
    let span = shared.tracer.order(&message.traceparent, &room);
    let command = command(&room, Some(message.timestamp), &span, action);
    match shared.order.ask(command, span).await?.answer {
        Answer::Stored {
            timestamp,
            sequence,
        } => Ok(SendMessageResponse {
            timestamp,
            sequence,
            duplicate: false,
        }),
        Answer::Duplicate {
            timestamp,
            sequence,
            ..
        } => Ok(SendMessageResponse {
            timestamp,
            sequence,
            duplicate: true,
        }),
        Answer::Refused(refused) => Err(Status::from(&refused.refusal)),
        Answer::Rejected(rejection) => Err(rejection.into()),
        Answer::Joined { .. } | Answer::Left { .. } | Answer::Void => {
            unreachable!("a post is stored or not")
        }
    }
}

async fn get_history(shared: &Shared, request: &GetHistoryRequest) -> Result<Frame, Status> {
    let room = room_named(&request.room)?;
    let range = match (request.after_sequence, request.before_sequence) {
        (0, before) if before > 0 => Range::Before(before),
        (after, before) => Range::After { after, before },
    };
    let limit = match request.limit as usize {
        0 => PAGE_EVENTS_DEFAULT,
        limit => limit.min(PAGE_EVENTS_MAX),
    };
    let page = shared.journal.read(&room, range, limit).await;
    let page = page.map_err(|fault| Status::from(&fault))?;
    let rest = GetHistoryResponse {
        events: Vec::new(),
        more: page.more,
        epoch: shared.epoch.clone(),
    };
    Ok(history(&page, &rest))
}

/// The number of `GetHistoryResponse.events` in the proto.
const EVENTS_FIELD: u32 = 1;

/// A `GetHistoryResponse` with the events of `page` in it as they are stored: decoding and encoding them again would cost
/// the live rooms ten times what reading them does.
fn history(page: &Page, rest: &GetHistoryResponse) -> Frame {
    let mut response =
        Vec::with_capacity(page.events.iter().map(|(_, frame)| frame.len() + 8).sum());
    for (_, event) in &page.events {
        encode_key(EVENTS_FIELD, WireType::LengthDelimited, &mut response);
        encode_varint(event.message().len() as u64, &mut response);
        response.extend_from_slice(event.message());
    }
    response.extend(rest.encode_to_vec());
    Frame::of_encoded(&response)
}

async fn list_participants(
    shared: &Shared,
    request: ListParticipantsRequest,
) -> Result<ListParticipantsResponse, Status> {
    let room = room_named(&request.room)?;
    let response = shared.order.look(move |service| ListParticipantsResponse {
        participants: service
            .participants(&room)
            .map(|member| v1::Participant {
                id: member.id,
                name: member.name.to_string(),
                bot: member.bot,
                joined_sequence: member.joined_sequence,
                joined_timestamp: member.joined_timestamp,
            })
            .collect(),
        timestamp: service.now(),
    });
    Ok(response.await?)
}

async fn list_rooms(shared: &Shared) -> Result<ListRoomsResponse, Status> {
    let response = shared.order.look(|service| ListRoomsResponse {
        rooms: service
            .rooms()
            .map(|room| v1::Room {
                name: room.name.to_string(),
                participants: u32::try_from(room.participants).unwrap_or(u32::MAX),
                head: room.head,
                first: room.first,
            })
            .collect(),
        timestamp: service.now(),
    });
    Ok(response.await?)
}

/// The room that a request names; it need not have a history.
fn room_named(room: &str) -> Result<String, Status> {
    let room = room_or_default(room);
    if text::is_room(&room) {
        Ok(room)
    } else {
        Err(Rejection::BadRoom.into())
    }
}

/// A call with one message each way.
async fn unary<Q, A>(
    shared: &Shared,
    request: Request<Body>,
    answer: impl AsyncFnOnce(Q) -> Result<A, Status>,
) -> Response<Body>
where
    Q: prost::Message + Default + 'static,
    A: Into<Frame>,
{
    let answered = match only_message(shared, request).await {
        Ok(message) => answer(message).await,
        Err(status) => Err(status),
    };
    match answered {
        Ok(message) => {
            let mut response = Response::new(Body::new(Reply::new(shared, &message.into())));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
            response
        }
        Err(status) => status.into_http(),
    }
}

/// The message of a call that has one.
async fn only_message<Q>(shared: &Shared, request: Request<Body>) -> Result<Q, Status>
where
    Q: prost::Message + Default + 'static,
{
    let mut inbound = Inbound::new(request.into_body(), shared.limits.message_bytes);
    let received = tokio::select! {
        biased;
        () = shared.draining.begun() => return Err(Fault::Draining.into()),
        received = timeout(REQUEST_TIMEOUT, inbound.next()) => received,
    };
    match received {
        Ok(Received::Message(message)) => Ok(message),
        Ok(Received::Fault(fault)) => Err(fault.into()),
        Ok(Received::HalfClose | Received::Broken) | Err(_) => {
            Err(Fault::Malformed("there is no request message".into()).into())
        }
    }
}

/// A response of one message, in pieces.
struct Reply {
    /// The message, if it is one piece.
    only: Option<Bytes>,
    /// What keeps a longer one until it is asked for. Nobody asks for a client that takes nothing, so it must not be where
    /// only this body could let go of it.
    long: Option<Arc<Outbox>>,
    /// The bytes of it that were sent.
    sent: u64,
    ended: bool,
}

impl Reply {
    fn new(shared: &Shared, message: &Frame) -> Self {
        let bytes = message.bytes();
        let mut reply = Self {
            only: None,
            long: None,
            sent: 0,
            ended: false,
        };
        if bytes.len() <= CHUNK_BYTES_MAX {
            reply.only = Some(bytes);
        } else {
            let outbox = Outbox::new();
            let last = bytes.len() as u64;
            outbox.end(last, Status::ok(""));
            outbox.keep([Piece { bytes, last }].into());
            shared.lookout.add(&outbox);
            reply.long = Some(outbox);
        }
        reply
    }

    /// The next piece, or how the response ends.
    fn next(&mut self, context: &Context<'_>) -> Result<Bytes, Status> {
        let Some(outbox) = &self.long else {
            return self.only.take().ok_or_else(|| Status::ok(""));
        };
        outbox.pulse.beat(true);
        match outbox.next(self.sent, context) {
            Next::Kept(Piece { mut bytes, last }) => {
                let next = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
                self.sent += next.len() as u64;
                if !bytes.is_empty() {
                    outbox.keep([Piece { bytes, last }].into());
                }
                // For itself in the memory: HTTP/2 holds one or two of these, and must not hold the rest with them.
                Ok(Bytes::copy_from_slice(&next))
            }
            Next::End(status) if status.code() == Code::Ok => Err(status),
            _ => Err(Fault::Unread.into()),
        }
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(match self.next(context) {
            Ok(bytes) => BodyFrame::data(bytes),
            Err(status) => {
                self.ended = true;
                BodyFrame::trailers(trailers(&status))
            }
        })))
    }
}
