//! One participant's stream, from its JOIN to its departure.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{sleep, timeout};
use tonic::Status;

use super::{
    Shared,
    inbound::{Inbound, Received},
    outbox::{Ended, Outbox, Private, Start},
    rate::Allowance,
    status::Fault,
};
use crate::{
    order::Stopped,
    room::{
        Action, Answer, Command, Digest, Incarnation, Join, Outcome, Refusal, Rejection, Resume,
        text::MESSAGE_ID_BYTES_MAX,
    },
    telemetry::Step,
    wire::{
        self, Frame, room_or_default,
        v1::{EventType, JoinMsgLeave, NoticeCode, ServerMessage, Welcome},
    },
};

/// How long a stream may take to say its JOIN.
///
/// Long enough for a person who types it into grpcurl. When it is over: FAILED_PRECONDITION.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How many ids the server picks before it gives up; with 2^31 to pick from, the second one is rare already.
const PICKS_MAX: usize = 16;

/// Which path a stream came in on: the original's clients are sent neither a welcome nor a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Ours,
    Original,
}

/// The streams that are open, so that a newer incarnation of a participant can end the older one's.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<(Arc<str>, i32), Newest>>);

/// A participant's newest stream.
#[derive(Debug)]
struct Newest {
    incarnation: Incarnation,
    outbox: Arc<Outbox>,
}

/// A participant, on its stream.
struct Participant {
    room: Arc<str>,
    id: i32,
    name: Arc<str>,
    incarnation: Incarnation,
    /// It was given a session, so it can come back when its stream breaks.
    can_return: bool,
}

/// How a stream ended.
#[derive(Debug)]
enum Departure {
    /// By a LEAVE.
    Leave {
        timestamp: i64,
        traceparent: String,
    },
    HalfClose,
    /// By something the protocol does not allow.
    Fault(Fault),
    /// The service ended it and does not want it back: refused, or superseded.
    Dismissed,
    /// It broke, or was cut for being slow: it may come back.
    Broken,
    /// The server stops: nobody departs, everybody is expected back.
    Drain,
}

/// Serves one stream to its end. The response body reads `outbox` meanwhile.
pub(super) async fn serve(
    shared: Arc<Shared>,
    mut inbound: Inbound<JoinMsgLeave>,
    outbox: Arc<Outbox>,
    dialect: Dialect,
) {
    let joined = tokio::select! {
        biased;
        joined = join(&shared, &mut inbound, &outbox, dialect) => joined,
        () = shared.draining.begun() => return,
    };
    let participant = match joined {
        Ok(participant) => participant,
        Err(status) => return outbox.end(0, status),
    };
    let mut stream = Stream {
        shared: &shared,
        participant: &participant,
        outbox: &outbox,
        allowance: Allowance::whole(Instant::now()),
    };
    let departure = stream.listen(&mut inbound).await;
    // The request goes before the response can end, or a server that drains would wait for it.
    drop(inbound);
    stream.depart(departure).await;
    shared.streams.remove(&participant);
}

/// Hears the first message, and has the order decide about it.
async fn join(
    shared: &Arc<Shared>,
    inbound: &mut Inbound<JoinMsgLeave>,
    outbox: &Arc<Outbox>,
    dialect: Dialect,
) -> Result<Participant, Status> {
    let first = match timeout(JOIN_TIMEOUT, inbound.next()).await {
        Err(_) => return Err(Fault::NoJoin(JOIN_TIMEOUT).into()),
        Ok(Received::Message(message)) => message,
        Ok(Received::HalfClose | Received::Broken) => return Err(Fault::NotJoined.into()),
        Ok(Received::Fault(fault)) => return Err(fault.into()),
    };
    if first.r#type != i32::from(EventType::Join) {
        return Err(Fault::NotJoined.into());
    }
    let request = Request::new(shared, first, dialect)?;
    let outcome = request.ask(shared).await?;
    request.admit(shared, outbox, outcome)
}

/// A JOIN on its way.
struct Request {
    message: JoinMsgLeave,
    room: Arc<str>,
    dialect: Dialect,
    /// The session that a fresh participant will be given.
    session: String,
}

impl Request {
    fn new(shared: &Shared, mut message: JoinMsgLeave, dialect: Dialect) -> Result<Self, Status> {
        if message.id < 0 {
            return Err(Rejection::BadId.into());
        }
        if dialect == Dialect::Original {
            (message.resume, message.backlog) = (None, 0);
        }
        Ok(Self {
            room: room_or_default(&message.room).into(),
            session: shared.new_session(),
            message,
            dialect,
        })
    }

    fn can_return(&self) -> bool {
        self.dialect == Dialect::Ours
    }

    /// Asks the order, again with another id where it was the server that picked one that is held.
    async fn ask(&self, shared: &Shared) -> Result<Outcome, Stopped> {
        let mut picks_left = if self.message.id == 0 { PICKS_MAX } else { 1 };
        loop {
            picks_left -= 1;
            let outcome = self.ask_once(shared).await?;
            let held = matches!(outcome.answer, Answer::Rejected(Rejection::IdHeld { .. }));
            if !held || picks_left == 0 {
                return Ok(outcome);
            }
        }
    }

    async fn ask_once(&self, shared: &Shared) -> Result<Outcome, Stopped> {
        let message = &self.message;
        let join = Join {
            id: shared.pick_if_none(message.id),
            name: message.client_name.clone(),
            bot: message.bot,
            session_given: self.can_return().then(|| digest(&self.session)),
            session_held: (!message.session.is_empty()).then(|| digest(&message.session)),
            resume: message.resume.as_ref().map(|resume| Resume {
                epoch: resume.epoch.clone(),
                after_sequence: resume.after_sequence,
            }),
            backlog: message.backlog as usize,
        };
        let span = shared.tracer.order(&message.traceparent, &self.room);
        let command = command(
            &self.room,
            Some(message.timestamp),
            &span,
            Action::Join(join),
        );
        shared.order.ask(command, span).await
    }

    /// The order has spoken: start the reading where it says.
    fn admit(
        self,
        shared: &Shared,
        outbox: &Arc<Outbox>,
        outcome: Outcome,
    ) -> Result<Participant, Status> {
        let (id, name, incarnation, resumed, reading, timestamp) = match outcome.answer {
            Answer::Joined {
                id,
                name,
                incarnation,
                resumed,
                reading,
                timestamp,
            } => (id, name, incarnation, resumed, reading, timestamp),
            Answer::Rejected(rejection) => return Err(rejection.into()),
            _ => unreachable!("a JOIN is granted or rejected"),
        };
        let welcome = Welcome {
            id,
            session: if resumed {
                self.message.session.clone()
            } else {
                self.session.clone()
            },
            epoch: shared.epoch.clone(),
            recovered: reading.recovered,
            head: reading.head,
        };
        let plain = self.message.resume.is_none() && self.message.backlog == 0;
        let first = match (self.dialect, outcome.events.last()) {
            (Dialect::Original, _) => None,
            (Dialect::Ours, Some(own)) if plain => Some(own_join(wire::event(own), welcome)),
            (Dialect::Ours, _) => Some(private_welcome(&self.room, timestamp, welcome)),
        };
        let participant = Participant {
            room: Arc::clone(&self.room),
            id,
            name,
            incarnation,
            can_return: self.can_return(),
        };
        shared.streams.insert(&participant, outbox);
        let reader = shared.feeds.open(&self.room).subscribe();
        outbox.start(
            Start {
                reader,
                cursor: reading.after,
            },
            first,
        );
        Ok(participant)
    }
}

/// The newcomer's own copy of its JOIN, with its welcome on it.
fn own_join(mut join: ServerMessage, mut welcome: Welcome) -> Private {
    welcome.head = join.sequence;
    let stands_for = join.sequence;
    join.welcome = Some(welcome);
    Private {
        after: stands_for - 1,
        stands_for,
        frame: Frame::of(&join),
        _place: None,
    }
}

/// A welcome before the first event.
pub(super) fn private_welcome(room: &str, timestamp: i64, welcome: Welcome) -> Private {
    let message = ServerMessage {
        welcome: Some(welcome),
        ..wire::private(room, timestamp, String::new())
    };
    Private {
        after: 0,
        stands_for: 0,
        frame: Frame::of(&message),
        _place: None,
    }
}

/// A participant's stream while it is open.
struct Stream<'a> {
    shared: &'a Shared,
    participant: &'a Participant,
    outbox: &'a Arc<Outbox>,
    allowance: Allowance,
}

impl Stream<'_> {
    /// Hands what the client sends to the order, without waiting for answers, until the stream ends.
    async fn listen(&mut self, inbound: &mut Inbound<JoinMsgLeave>) -> Departure {
        let draining = &self.shared.draining;
        loop {
            match self.outbox.ended() {
                Some(Ended { may_return: true }) => return Departure::Broken,
                Some(Ended { may_return: false }) => return Departure::Dismissed,
                None => {}
            }
            if draining.has_begun() {
                return Departure::Drain;
            }
            // What has arrived is heard first, even if the client is gone already: a LEAVE is always obeyed. Where there is
            // something, the rest is not asked, which for a busy stream is most of the time.
            let received = tokio::select! {
                biased;
                received = inbound.next() => received,
                () = draining.begun() => return Departure::Drain,
                () = self.outbox.gone() => Received::Broken,
            };
            match received {
                Received::Message(message) => {
                    let heard = tokio::select! {
                        biased;
                        heard = self.hear(message) => heard,
                        () = draining.begun() => Some(Departure::Drain),
                    };
                    if let Some(departure) = heard {
                        return departure;
                    }
                }
                Received::Broken if self.outbox.ended().is_some() => {}
                Received::HalfClose => return Departure::HalfClose,
                Received::Broken => return Departure::Broken,
                Received::Fault(fault) => return Departure::Fault(fault),
            }
        }
    }

    /// One message after the JOIN. `id`, `client_name` and `room` are the JOIN's and not looked at again.
    async fn hear(&mut self, message: JoinMsgLeave) -> Option<Departure> {
        let Participant {
            id, incarnation, ..
        } = *self.participant;
        let refuse = |refusal, message_id| Action::Refuse {
            id,
            incarnation,
            refusal,
            message_id,
        };
        let action = match EventType::try_from(message.r#type) {
            Ok(EventType::Leave) => {
                return Some(Departure::Leave {
                    timestamp: message.timestamp,
                    traceparent: message.traceparent,
                });
            }
            // The order rejects an id that is too long; no notice carries it back.
            _ if message.message_id.len() <= MESSAGE_ID_BYTES_MAX && !self.is_in_time() => {
                return self.too_fast(message).await;
            }
            Ok(EventType::Message) => Action::Say {
                id,
                incarnation,
                text: message.msg,
                message_id: message.message_id,
            },
            Ok(EventType::Join) => refuse(Refusal::AlreadyJoined, message.message_id),
            Err(_) => refuse(Refusal::UnknownType(message.r#type), message.message_id),
        };
        let Some(place) = self.outbox.place().await else {
            return Some(Departure::Broken);
        };
        let room = &self.participant.room;
        let span = self.shared.tracer.order(&message.traceparent, room);
        let command = command(room, Some(message.timestamp), &span, action);
        let outbox = Arc::clone(self.outbox);
        let room = Arc::clone(room);
        let reply = Box::new(
            move |outcome: Outcome| match answer(&room, outcome.answer) {
                Ok(None) => {}
                Ok(Some((after, notice))) => outbox.push(Private {
                    after,
                    stands_for: 0,
                    frame: Frame::of(&notice),
                    _place: Some(place),
                }),
                Err(status) => outbox.end(0, status),
            },
        );
        match self.shared.order.submit(command, span, reply).await {
            Ok(()) => None,
            Err(Stopped) => Some(Departure::Drain),
        }
    }

    fn is_in_time(&mut self) -> bool {
        let rate = self.shared.limits.rate;
        rate == 0 || self.allowance.take(rate, Instant::now())
    }

    async fn too_fast(&self, message: JoinMsgLeave) -> Option<Departure> {
        let Some(place) = self.outbox.place().await else {
            return Some(Departure::Broken);
        };
        let fault = Fault::TooFast {
            limit: self.shared.limits.rate,
        };
        let mut notice = wire::notice(
            &self.participant.room,
            self.shared.order.now(),
            NoticeCode::TooFast,
            format!("Too fast: {fault}. This one was not taken."),
        );
        answering(&mut notice, message.message_id);
        self.outbox.push(Private {
            after: 0,
            stands_for: 0,
            frame: Frame::of(&notice),
            _place: Some(place),
        });
        None
    }

    /// The stream has ended, one way or another: the participant's departure is announced once, when it is due.
    async fn depart(&self, departure: Departure) {
        let Participant { name, id, room, .. } = self.participant;
        match departure {
            Departure::Drain => {}
            Departure::Leave {
                timestamp,
                traceparent,
            } => self.leave(Some(timestamp), &traceparent).await,
            Departure::HalfClose => self.leave(None, "").await,
            Departure::Fault(fault) => {
                tracing::info!("{name} (ID={id}) in {room} is sent away: {fault}");
                self.outbox.end(0, fault.into());
                self.leave(None, "").await;
            }
            Departure::Dismissed => self.leave(None, "").await,
            Departure::Broken if self.participant.can_return => {
                let grace = self.shared.grace;
                tracing::info!(
                    "connection of {name} (ID={id}) in {room} broke; it may return within {grace:?}"
                );
                tokio::select! {
                    () = sleep(grace) => self.leave(None, "").await,
                    () = self.shared.draining.begun() => {}
                }
            }
            Departure::Broken => self.leave(None, "").await,
        }
    }

    /// Tells everybody, unless a newer incarnation of the participant is there.
    async fn leave(&self, timestamp: Option<i64>, traceparent: &str) {
        let Participant {
            room,
            id,
            incarnation,
            ..
        } = self.participant;
        let span = self.shared.tracer.order(traceparent, room);
        let action = Action::Leave {
            id: *id,
            incarnation: *incarnation,
        };
        let command = command(room, timestamp, &span, action);
        let outbox = Arc::clone(self.outbox);
        let reply = Box::new(move |outcome: Outcome| {
            if let Answer::Left { sequence, .. } = outcome.answer {
                outbox.end(sequence - 1, Status::ok(""));
            }
        });
        // If the order has stopped, so does the server, and nobody is there to be told.
        let _ = self.shared.order.submit(command, span, reply).await;
    }
}

/// What the sender of a message is told, and after which event; or how its stream ends.
fn answer(room: &str, answer: Answer) -> Result<Option<(u64, ServerMessage)>, Status> {
    match answer {
        Answer::Refused(refused) => {
            let code = code(&refused.refusal);
            let mut notice = wire::notice(room, refused.timestamp, code, refused.words);
            answering(&mut notice, refused.message_id);
            notice.traceparent = refused.traceparent;
            notice.sent_timestamp = refused.sent_timestamp.unwrap_or(0);
            Ok(Some((refused.after, notice)))
        }
        Answer::Duplicate {
            timestamp,
            sequence,
            message_id,
        } => {
            let text = format!("Already stored as message {sequence} (L={timestamp}).");
            let mut notice = wire::notice(room, timestamp, NoticeCode::Duplicate, text);
            answering(&mut notice, message_id);
            if let Some(notice) = &mut notice.notice {
                notice.sequence = sequence;
            }
            Ok(Some((0, notice)))
        }
        Answer::Rejected(rejection) => Err(rejection.into()),
        Answer::Stored { .. } | Answer::Joined { .. } | Answer::Left { .. } | Answer::Void => {
            Ok(None)
        }
    }
}

/// Says which message a notice answers.
fn answering(message: &mut ServerMessage, message_id: String) {
    if let Some(notice) = &mut message.notice {
        notice.message_id.clone_from(&message_id);
    }
    message.message_id = message_id;
}

fn code(refusal: &Refusal) -> NoticeCode {
    match refusal {
        Refusal::TooManyChars { .. } | Refusal::TooManyBytes { .. } => NoticeCode::TooLong,
        Refusal::Empty => NoticeCode::Empty,
        Refusal::Forbidden(_) => NoticeCode::ForbiddenCharacters,
        Refusal::ImpossibleTimestamp => NoticeCode::ImpossibleTimestamp,
        Refusal::AlreadyJoined => NoticeCode::AlreadyJoined,
        Refusal::UnknownType(_) => NoticeCode::UnknownType,
    }
}

/// A command as this server received it, now.
pub(super) fn command(
    room: &Arc<str>,
    timestamp: Option<i64>,
    span: &Step,
    action: Action,
) -> Command {
    Command {
        room: Arc::clone(room),
        timestamp,
        accepted_at: SystemTime::now(),
        traceparent: span.traceparent(),
        action,
    }
}

pub(super) fn digest(session: &str) -> Digest {
    Digest::of(&[session.as_bytes()])
}

impl Streams {
    /// This stream is the participant's now; an older one ends.
    fn insert(&self, participant: &Participant, outbox: &Arc<Outbox>) {
        let this = Newest {
            incarnation: participant.incarnation,
            outbox: Arc::clone(outbox),
        };
        let mut streams = self.lock();
        let key = (Arc::clone(&participant.room), participant.id);
        let older = match streams.get(&key) {
            // Two resumes at once: the order has said which one counts.
            Some(newest) if newest.incarnation > this.incarnation => Some(this),
            _ => streams.insert(key, this),
        };
        drop(streams);
        if let Some(older) = older {
            older.outbox.end(0, Fault::Superseded.into());
        }
    }

    fn remove(&self, participant: &Participant) {
        let mut streams = self.lock();
        let key = (Arc::clone(&participant.room), participant.id);
        if let Entry::Occupied(newest) = streams.entry(key)
            && newest.get().incarnation == participant.incarnation
        {
            newest.remove();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Arc<str>, i32), Newest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
