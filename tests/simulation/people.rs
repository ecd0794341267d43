//! Who takes part: sessions that talk, leave and come again; one who posts from outside. What they do and hear is
//! written down as the checker wants it.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use chitchat::{
    client::session::{Ending, JoinError, Options, Received, Return, Session, Update},
    config,
    wire::v1::{EventType, JoinMsgLeave, NoticeCode},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    checker::{Clock, End, Heard, Step, Transcript},
    network::{self, URL},
};

/// The longest silence between two texts of one person.
const PAUSE: Duration = Duration::from_secs(2);

/// As [`Options::keepalive`]; shorter than by default, so that a storm sees more returns.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// How long the one who posts waits for an answer before it sends the same again.
const ANSWER: Duration = Duration::from_secs(10);

/// How long before what failed is tried again, as a client does that does not hammer at a server that is away.
const RETRY: Duration = Duration::from_millis(500);

/// What all of them did and heard.
#[derive(Clone, Default)]
pub struct Book(Rc<RefCell<Pages>>);

#[derive(Default)]
struct Pages {
    transcripts: Vec<Transcript>,
    /// What was said, by its id.
    texts: HashMap<String, String>,
}

/// One client's page.
struct Page {
    book: Book,
    number: usize,
}

impl Book {
    /// A page for the next client of this name: names are told apart by a number, as nobody waits for a name that is
    /// still held.
    fn open(&self, name: &str, room: &str) -> (Page, String) {
        let transcripts = &mut self.0.borrow_mut().transcripts;
        let number = transcripts.len();
        let client = format!("{name}-{number}");
        transcripts.push(Transcript {
            client: client.clone(),
            room: room.into(),
            steps: Vec::new(),
            end: End::Lost,
        });
        let page = Page {
            book: self.clone(),
            number,
        };
        (page, client)
    }

    /// What is written.
    pub fn transcripts(&self) -> Vec<Transcript> {
        self.0.borrow().transcripts.clone()
    }

    /// What was said, by its id.
    pub fn texts(&self) -> HashMap<String, String> {
        self.0.borrow().texts.clone()
    }
}

impl Page {
    fn write(&self, step: Step) {
        self.book.0.borrow_mut().transcripts[self.number]
            .steps
            .push(step);
    }

    fn end(&self, end: End) {
        self.book.0.borrow_mut().transcripts[self.number].end = end;
    }

    fn note(&self, message_id: String, text: String) {
        self.book.0.borrow_mut().texts.insert(message_id, text);
    }

    fn text(&self, message_id: &str) -> String {
        self.book.0.borrow().texts[message_id].clone()
    }
}

/// Is in `room` again and again, until `closing`; each time as somebody else.
pub async fn person(
    name: &'static str,
    room: &'static str,
    book: Book,
    closing: watch::Receiver<bool>,
) -> turmoil::Result {
    while !*closing.borrow() {
        let (page, client) = book.open(name, room);
        let session = join(&client, room).await?;
        let epoch = session.epoch();
        page.write(Step::Joined {
            epoch: Some(epoch.clone()),
        });
        let visit = Visit {
            client,
            epoch,
            page,
            session,
            said: 0,
            leaving: false,
            at_last: false,
        };
        visit.go_on(closing.clone()).await?;
        sleep(PAUSE.mul_f64(rand::random())).await;
    }
    Ok(())
}

async fn join(client: &str, room: &str) -> Result<Session, JoinError> {
    let config = config::Client {
        server: URL.into(),
        room: room.into(),
        backlog: 0,
        ..config::Client::default()
    };
    loop {
        let options = Options {
            keepalive: KEEPALIVE,
            dial: network::dial(),
            ..Options::new(&config, client)
        };
        match Session::join(options).await {
            // Held: an earlier attempt was heard, and its answer lost.
            Err(JoinError::Unreachable { .. } | JoinError::Held(_)) => {
                sleep(RETRY).await;
            }
            joined => return joined,
        }
    }
}

/// From a JOIN to what ends it.
struct Visit {
    client: String,
    /// The history that it reads.
    epoch: String,
    page: Page,
    session: Session,
    /// How many texts were said.
    said: usize,
    leaving: bool,
    /// It leaves when nothing strikes any more.
    at_last: bool,
}

impl Visit {
    async fn go_on(mut self, mut closing: watch::Receiver<bool>) -> turmoil::Result {
        loop {
            tokio::select! {
                update = self.session.next() => match update.expect("it has not ended") {
                    Update::Ended(ending) => return self.ended(ending),
                    update => self.hears(update),
                },
                () = sleep(PAUSE.mul_f64(rand::random())), if !self.leaving => self.speaks().await,
                _ = closing.wait_for(|closing| *closing), if !self.leaving => {
                    self.at_last = true;
                    self.leaves();
                }
            }
        }
    }

    /// Says something, at times too much, at times much at once; or leaves.
    async fn speaks(&mut self) {
        match rand::random_range(0..100) {
            0 => self.leaves(),
            1..4 => self.says("too long ".repeat(20)).await,
            4..7 => {
                for _ in 0..20 {
                    self.says(String::new()).await;
                }
            }
            _ => self.says(String::new()).await,
        }
    }

    async fn says(&mut self, more: String) {
        self.said += 1;
        let text = format!("{} says {} {more}", self.client, self.said);
        let text = text.trim().to_owned();
        self.page.write(Step::Said { text: text.clone() });
        // If it is closed, the next update says why.
        if let Ok(message_id) = self.session.say(text.clone()).await {
            self.page.note(message_id, text);
        }
    }

    fn leaves(&mut self) {
        self.leaving = true;
        self.session.leave();
    }

    fn hears(&mut self, update: Update) {
        match update {
            Update::Event(received) => self.reads(received),
            Update::Notice(received) => self.is_told(received),
            Update::Reconnected(back) => self.is_back(back),
            Update::Disconnected { .. } | Update::Ended(_) => {}
        }
    }

    fn is_back(&mut self, back: Return) {
        let epoch = self.session.epoch();
        let is_another = epoch != self.epoch;
        let is_told = back.new_history == is_another && !(back.recovered && is_another);
        assert!(is_told, "{} was told {back:?}", self.client);
        self.epoch.clone_from(&epoch);
        self.page.write(Step::Returned {
            epoch: Some(epoch),
            recovered: back.recovered,
        });
    }

    fn reads(&self, received: Received) {
        let message = received.message.clone();
        let acknowledges = received.own && message.r#type() == EventType::Message;
        self.page.write(Step::Read {
            clock: clock(&received),
            heard: Heard::Message(Box::new(received.message)),
        });
        if acknowledges {
            self.page.write(Step::Acknowledged {
                message_id: message.message_id,
                sequence: message.sequence,
                timestamp: message.timestamp,
            });
        }
    }

    fn is_told(&self, received: Received) {
        let Some(notice) = received.message.notice.clone() else {
            return;
        };
        match notice.code() {
            NoticeCode::Draining => {}
            NoticeCode::Duplicate => self.page.write(Step::Acknowledged {
                message_id: notice.message_id,
                sequence: notice.sequence,
                timestamp: received.message.timestamp,
            }),
            _ => self.page.write(Step::Refused {
                text: self.page.text(&notice.message_id),
                timestamp: received.message.timestamp,
                clock: clock(&received),
            }),
        }
    }

    fn ended(self, ending: Ending) -> turmoil::Result {
        match ending {
            Ending::Left => self.page.end(End::Left),
            Ending::Abandoned { .. } if !self.at_last => {}
            Ending::Abandoned { .. } | Ending::Crashed | Ending::Refused(_) => {
                return Err(format!("{} did not leave: {ending:?}", self.client).into());
            }
        }
        Ok(())
    }
}

fn clock(received: &Received) -> Clock {
    Clock {
        before: Some(received.before),
        after: received.after,
    }
}

/// Posts to `room` from outside, one after the other, each until it is answered.
pub async fn poster(
    name: &'static str,
    room: &'static str,
    book: Book,
    closing: watch::Receiver<bool>,
) -> turmoil::Result {
    let (page, client) = book.open(name, room);
    let mut clock = 0;
    for number in 0.. {
        if *closing.borrow() {
            break;
        }
        clock += 1;
        let text = format!("{client} posts {number}");
        page.write(Step::Said { text: text.clone() });
        let message = JoinMsgLeave {
            client_name: client.clone(),
            room: room.into(),
            timestamp: clock,
            message_id: format!("{:032x}", rand::random::<u128>()),
            msg: text,
            r#type: EventType::Message.into(),
            ..JoinMsgLeave::default()
        };
        let (sequence, timestamp) = post(&message).await?;
        page.write(Step::Acknowledged {
            message_id: message.message_id,
            sequence,
            timestamp,
        });
        clock = clock.max(timestamp) + 1;
        sleep(PAUSE.mul_f64(rand::random())).await;
    }
    page.end(End::Outside);
    Ok(())
}

async fn post(message: &JoinMsgLeave) -> turmoil::Result<(u64, i64)> {
    loop {
        let mut service = network::service();
        match timeout(ANSWER, service.send_message(message.clone())).await {
            Ok(Ok(stored)) => {
                let stored = stored.into_inner();
                return Ok((stored.sequence, stored.timestamp));
            }
            Ok(Err(status)) if !is_of_the_network(&status) => {
                return Err(format!("a post was refused: {status}").into());
            }
            Ok(Err(_)) | Err(_) => sleep(RETRY).await,
        }
    }
}

fn is_of_the_network(status: &tonic::Status) -> bool {
    use tonic::Code::{Cancelled, Internal, Unavailable, Unknown};
    matches!(status.code(), Unavailable | Unknown | Cancelled | Internal)
}
