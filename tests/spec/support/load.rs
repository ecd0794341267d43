//! Clients that talk as fast as they are answered, and keep a record of all they do and hear for the [`checker`].
//!
//! [`checker`]: super::checker

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use chitchat::{
    client::session::{Ending, JoinError, Options, Received, Return, Session, Update},
    clock::LamportClock,
    wire::v1::{
        EventType, GetHistoryRequest, JoinMsgLeave, NoticeCode, Resume, ServerMessage,
        WatchRequest, chat_service_client::ChatServiceClient,
    },
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Code, transport::Channel};

use super::{
    PATIENCE,
    checker::{Clock, End, Heard, Run, Step, Stored, Transcript},
    within,
};

/// What a client has said and not had answered yet: a few, so that breaks find messages on their way.
pub(super) const WINDOW: usize = 4;

/// The longest that a client may take to talk again.
///
/// Its pauses between attempts are 3 s, and it may find its name held by its own ghost until a grace of 2 s is over: two
/// pauses and a grace are 8 s on a machine that has nothing else to do.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// Every so many texts one is too long, and so refused.
const REFUSED_EVERY: usize = 16;

/// How long a call may take before it is made again, and how long before a failed one is.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_PAUSE: Duration = Duration::from_millis(20);

/// A client at work; dropping it ends it like a crash.
pub struct Talker {
    name: String,
    stop: CancellationToken,
    answered: watch::Receiver<usize>,
    /// What it did and heard, and in words how it ended.
    talking: AbortOnDropHandle<(Transcript, String)>,
}

/// Joins as `options` say, as soon as that is possible, and talks.
pub async fn talk(options: Options) -> Talker {
    let name = options.name.clone();
    let session = within("a join", join(options)).await;
    Talker::spawn(name, |stop, answered| {
        Talk::new(session, answered).run(stop)
    })
}

/// Posts to `room` from outside, one message after the other, each again until it is answered.
pub fn post(url: &str, room: &str, name: &str) -> Talker {
    let channel = Channel::from_shared(url.to_owned()).expect("the address is an address");
    let client = ChatServiceClient::new(channel.connect_timeout(CALL_TIMEOUT).connect_lazy());
    let transcript = Transcript {
        client: name.into(),
        room: room.into(),
        steps: Vec::new(),
        end: End::Outside,
    };
    Talker::spawn(name.into(), |stop, answered| async move {
        let transcript = post_until(client, transcript, stop, answered).await;
        (transcript, "it was stopped".into())
    })
}

impl Talker {
    pub(super) fn spawn<F>(
        name: String,
        talk: impl FnOnce(CancellationToken, watch::Sender<usize>) -> F,
    ) -> Self
    where
        F: Future<Output = (Transcript, String)> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (answered, answered_now) = watch::channel(0);
        Self {
            name,
            talking: AbortOnDropHandle::new(tokio::spawn(talk(stop.clone(), answered))),
            answered: answered_now,
            stop,
        }
    }

    /// Waits until so many more of its messages are answered: it is connected, and talks.
    pub async fn goes_on(&mut self, messages: usize) {
        let before = *self.answered.borrow_and_update();
        let enough = |answered: &usize| *answered >= before + messages;
        match timeout(BACK_WITHIN, self.answered.wait_for(enough)).await {
            Ok(Ok(_)) => return,
            Ok(Err(_)) => {}
            Err(_) => panic!("{} did not go on within {BACK_WITHIN:?}", self.name),
        }
        let (_, ended) = (&mut self.talking).await.expect("a client does not panic");
        panic!("{} should still talk: {ended}", self.name);
    }

    /// Lets it say its last, and leave once everything is answered.
    pub async fn finish(self) -> Transcript {
        self.stop.cancel();
        let (transcript, ended) = self.ended().await;
        let name = &transcript.client;
        assert_ne!(transcript.end, End::Lost, "{name} should leave: {ended}");
        transcript
    }

    /// What it did and heard until it was killed.
    pub async fn killed(self) -> Transcript {
        let (transcript, ended) = self.ended().await;
        let name = &transcript.client;
        assert_eq!(transcript.end, End::Lost, "{name} is dead: {ended}");
        transcript
    }

    async fn ended(self) -> (Transcript, String) {
        let ended = within(&format!("the end of {}", self.name), self.talking).await;
        ended.expect("a client does not panic")
    }
}

/// Lets all of them leave, and asks `url` what is stored then.
pub async fn finish(talkers: Vec<Talker>, url: &str) -> Run {
    for talker in &talkers {
        talker.stop.cancel();
    }
    let mut transcripts = Vec::new();
    for talker in talkers {
        transcripts.push(talker.finish().await);
    }
    run(transcripts, url).await
}

/// These transcripts, and what is stored now of their rooms.
pub async fn run(transcripts: Vec<Transcript>, url: &str) -> Run {
    let rooms: BTreeSet<String> = transcripts.iter().map(|one| one.room.clone()).collect();
    let mut run = Run {
        transcripts,
        rooms: Vec::new(),
    };
    for room in rooms {
        run.rooms.push(stored(url, &room).await);
    }
    run
}

/// What is stored of `room`, page by page.
async fn stored(url: &str, room: &str) -> Stored {
    let connecting = ChatServiceClient::connect(url.to_owned());
    let mut client = within("a connection", connecting).await.expect("it serves");
    let mut stored = Stored {
        room: room.into(),
        epochs: BTreeSet::new(),
        events: Vec::new(),
    };
    loop {
        let request = GetHistoryRequest {
            room: room.into(),
            after_sequence: stored.events.last().map_or(0, |last| last.sequence),
            limit: 1_000,
            ..GetHistoryRequest::default()
        };
        let page = within("a page of history", client.get_history(request)).await;
        let page = page.expect("history should be read").into_inner();
        stored.epochs.insert(page.epoch);
        stored.events.extend(page.events);
        if !page.more {
            return stored;
        }
    }
}

/// Waits until nobody is in `room` any more: those who were killed are missed at last.
pub async fn empty(url: &str, room: &str) {
    let before = stored(url, room).await;
    let mut present = 0;
    let mut count = |event: &ServerMessage| {
        match event.r#type() {
            EventType::Join => present += 1,
            EventType::Leave => present -= 1,
            EventType::Message => {}
        }
        present
    };
    let mut left = before.events.iter().map(&mut count).last();
    let connecting = ChatServiceClient::connect(url.to_owned());
    let mut client = within("a connection", connecting).await.expect("it serves");
    let request = WatchRequest {
        room: room.into(),
        resume: Some(Resume {
            epoch: before.epochs.last().cloned().unwrap_or_default(),
            after_sequence: before.events.last().map_or(0, |last| last.sequence),
        }),
        backlog: 0,
    };
    let watching = within("a stream", client.watch(request)).await;
    let mut events = watching.expect("the room can be watched").into_inner();
    while left.is_some_and(|left: i32| left > 0) {
        let event = within("the last departures", events.message()).await;
        let event = event
            .expect("the stream goes on")
            .expect("and does not end");
        if event.sequence > 0 {
            left = Some(count(&event));
        }
    }
}

/// Tries until the service can be reached, and holds the name for nobody else: an attempt whose answer was lost does.
async fn join(options: Options) -> Session {
    loop {
        match timeout(PATIENCE, Session::join(options.clone())).await {
            Ok(Ok(session)) => return session,
            Ok(Err(JoinError::Held(_) | JoinError::Unreachable { .. })) => sleep(CALL_PAUSE).await,
            other => panic!("{} cannot join: {other:?}", options.name),
        }
    }
}

/// A participant that talks.
struct Talk {
    session: Session,
    transcript: Transcript,
    number: usize,
    /// What was said and not answered yet, by `message_id`.
    unanswered: HashMap<String, String>,
    answered: watch::Sender<usize>,
    stage: Stage,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Talking,
    /// The last is said.
    Waiting,
    Leaving,
}

impl Talk {
    fn new(session: Session, answered: watch::Sender<usize>) -> Self {
        let joined = Step::Joined {
            epoch: Some(session.epoch()),
        };
        let transcript = Transcript {
            client: session.name().into(),
            room: session.room().into(),
            steps: vec![joined],
            end: End::Lost,
        };
        Self {
            session,
            transcript,
            number: 0,
            unanswered: HashMap::new(),
            answered,
            stage: Stage::Talking,
        }
    }

    async fn run(mut self, stop: CancellationToken) -> (Transcript, String) {
        loop {
            while self.stage == Stage::Talking && self.unanswered.len() < WINDOW {
                self.say().await;
            }
            if self.stage == Stage::Waiting && self.unanswered.is_empty() {
                self.stage = Stage::Leaving;
                self.session.leave();
            }
            tokio::select! {
                update = self.session.next() => {
                    let update = update.expect("the end is told before");
                    if let Some(ending) = self.hear(update) {
                        return (self.transcript, format!("{ending:?}"));
                    }
                }
                () = stop.cancelled(), if self.stage == Stage::Talking => {
                    self.say().await;
                    self.stage = self.stage.max(Stage::Waiting);
                }
            }
        }
    }

    async fn say(&mut self) {
        self.number += 1;
        let mut text = format!("{} {}", self.transcript.client, self.number);
        if self.number.is_multiple_of(REFUSED_EVERY) {
            text.push_str(&" and on".repeat(20));
        }
        match self.session.say(&*text).await {
            Ok(message_id) => {
                self.transcript
                    .steps
                    .push(Step::Said { text: text.clone() });
                self.unanswered.insert(message_id, text);
            }
            // Why it has ended is heard in its turn.
            Err(_) => self.stage = Stage::Leaving,
        }
    }

    /// Notes what is heard; `Some` at the end.
    fn hear(&mut self, update: Update) -> Option<Ending> {
        match update {
            Update::Event(received) => self.read(received),
            Update::Notice(received) => self.heed(&received),
            Update::Disconnected { .. } => {}
            Update::Reconnected(Return { recovered, .. }) => {
                self.transcript.steps.push(Step::Returned {
                    epoch: Some(self.session.epoch()),
                    recovered,
                })
            }
            Update::Ended(ending) => {
                if matches!(ending, Ending::Left) {
                    self.transcript.end = End::Left;
                }
                return Some(ending);
            }
        }
        None
    }

    fn read(&mut self, received: Received) {
        let clock = clock(&received);
        let message = received.message;
        let (message_id, sequence, timestamp) = (
            message.message_id.clone(),
            message.sequence,
            message.timestamp,
        );
        let heard = Heard::Message(Box::new(message));
        self.transcript.steps.push(Step::Read { heard, clock });
        self.acknowledged(message_id, sequence, timestamp);
    }

    fn heed(&mut self, received: &Received) {
        let message = &received.message;
        let notice = message.notice.as_ref().expect("a notice has one");
        let message_id = notice.message_id.clone();
        match notice.code() {
            NoticeCode::Draining => {}
            NoticeCode::Duplicate => {
                self.acknowledged(message_id, notice.sequence, message.timestamp);
            }
            NoticeCode::TooLong => {
                let text = self.unanswered.remove(&message_id);
                self.transcript.steps.push(Step::Refused {
                    text: text.expect("it was said"),
                    timestamp: message.timestamp,
                    clock: clock(received),
                });
                self.answered.send_modify(|answered| *answered += 1);
            }
            other => panic!("{} did nothing for {other:?}", self.transcript.client),
        }
    }

    fn acknowledged(&mut self, message_id: String, sequence: u64, timestamp: i64) {
        if self.unanswered.remove(&message_id).is_some() {
            self.transcript.steps.push(Step::Acknowledged {
                message_id,
                sequence,
                timestamp,
            });
            self.answered.send_modify(|answered| *answered += 1);
        }
    }
}

fn clock(received: &Received) -> Clock {
    Clock {
        before: Some(received.before),
        after: received.after,
    }
}

async fn post_until(
    mut client: ChatServiceClient<Channel>,
    mut transcript: Transcript,
    stop: CancellationToken,
    answered: watch::Sender<usize>,
) -> Transcript {
    let mut clock = LamportClock::default();
    while !stop.is_cancelled() {
        let number = *answered.borrow() + 1;
        let name = &transcript.client;
        let message = JoinMsgLeave {
            client_name: name.clone(),
            room: transcript.room.clone(),
            timestamp: clock.tick(),
            msg: format!("{name} {number}"),
            message_id: format!("{name}-{number}"),
            ..JoinMsgLeave::default()
        };
        transcript.steps.push(Step::Said {
            text: message.msg.clone(),
        });
        let stored = loop {
            match timeout(CALL_TIMEOUT, client.send_message(message.clone())).await {
                Ok(Ok(response)) => break response.into_inner(),
                Ok(Err(status)) if is_final(status.code()) => panic!("{name}: {status}"),
                // It arrived or not: the same again.
                Ok(Err(_)) => sleep(CALL_PAUSE).await,
                Err(_) => {}
            }
        };
        clock.merge(stored.timestamp);
        transcript.steps.push(Step::Acknowledged {
            message_id: message.message_id,
            sequence: stored.sequence,
            timestamp: stored.timestamp,
        });
        answered.send_modify(|answered| *answered += 1);
    }
    transcript
}

/// Whether the proto's table says that trying again is of no use.
fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
    )
}
