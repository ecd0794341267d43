//! The scripted client: carries out a [`Script`], step by step, and answers by its rules.

use std::{collections::VecDeque, future::Future, mem, pin::pin, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    TOO_FAST_PAUSE,
    backoff::{Backoff, Held},
    connection::AddressError,
    reading::{END, PAGE, Reader},
    render,
    script::{Await, Rule, Script, Step},
    session::{Ending, JoinError, Options, Received, Session, Update},
    status::{asks_to_resume, because},
};
use crate::{
    config,
    telemetry::{Tracer, log::ClientLog},
    wire::v1::{EventType, NoticeCode, ServerMessage},
};

/// How long a script waits for a server to join at: it may be starting. A name that is held is waited for as [`Held`] says:
/// by an earlier run that crashed, or by this one's own attempt whose answer was lost.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);

/// How long the answer to something said may take, all the times included that it is said again because it came too fast.
///
/// Source: sixty times what a break of the connection takes to mend.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Messages that wait for an `await` to look at them, and answers of rules that wait to be sent.
///
/// When full: the oldest go, which an `await` can then not find any more, and nobody gets as an answer. Only a script
/// that pauses in a busy room, or a bot slower than what it answers, comes there.
const WAITING_MAX: usize = 10_000;

/// How many of the messages that an `await` saw instead are told when it runs out: the newest.
const TOLD_MAX: usize = 20;

/// Where and how a script is played.
#[derive(Debug)]
pub struct Stage {
    /// The server, and the room if the script names none.
    pub client: config::Client,
    /// As in [`Options::merge`].
    pub merge: bool,
    /// A pause before each step, for watching.
    pub pace: Duration,
    /// Makes the spans.
    pub tracer: Tracer,
    /// Writes the log.
    pub log: ClientLog,
    /// Ends the play early: the room is left properly.
    pub stop: CancellationToken,
    /// Hears what is to be shown; must be read, or dropped.
    pub shown: mpsc::Sender<Shown>,
}

/// What there is to show of a play.
#[derive(Debug)]
pub enum Shown {
    /// An event or a notice was read.
    Heard(Box<Received>),
    /// The room is being left.
    Leaving,
    /// A word about the connection, for a person.
    Aside(String),
}

/// Why a play ended before its script did.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// What was awaited did not come.
    #[error("waited {within:?} in vain for {wanted}; read instead: {read}")]
    AwaitRanOut {
        /// The `await`.
        wanted: String,
        /// Its limit.
        within: Duration,
        /// The newest of what came instead.
        read: String,
    },
    /// Something said came too fast, however often it was said again.
    #[error("not taken within {ANSWER_PATIENCE:?}, too fast for the server each time: {0:?}")]
    TooFast(String),
    /// Something said was not answered.
    #[error("no answer within {ANSWER_PATIENCE:?} to {0:?}")]
    Unanswered(String),
    /// The room could not be entered.
    #[error("cannot join")]
    Join(#[from] JoinError),
    /// The history could not be read.
    #[error("cannot read the room's history: {}", render::clean(.0.message()))]
    Read(Status),
    /// The server's address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The session ended by itself.
    #[error("the session ended: {0}")]
    Ended(Ending),
}

/// Plays `script` to its end; with rules, until `stage.stop`.
///
/// # Errors
/// [`PlayError`]; the participant has then left.
pub async fn play(script: &Script, stage: Stage) -> Result<(), PlayError> {
    let stop = stage.stop.clone();
    let mut player = Player {
        prelude: Prelude::new(script, &stage)?,
        script,
        stage,
        cast: None,
    };
    let played = tokio::select! {
        played = player.perform() => played,
        () = stop.cancelled() => Ok(()),
    };
    match played {
        // There is no session any more to leave by.
        Err(PlayError::Ended(_)) => played,
        _ => played.and(player.leave().await),
    }
}

struct Player<'a> {
    script: &'a Script,
    stage: Stage,
    prelude: Prelude,
    /// From `join` to the end of the session.
    cast: Option<Cast<'a>>,
}

impl<'a> Player<'a> {
    async fn perform(&mut self) -> Result<(), PlayError> {
        let script = self.script;
        for step in script.steps() {
            self.during(sleep(self.stage.pace)).await?;
            self.step(step).await?;
        }
        match &mut self.cast {
            Some(cast) if script.is_bot() => cast.stay().await,
            _ => Ok(()),
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), PlayError> {
        match (step, &mut self.cast) {
            (Step::Await(wanted), None) => self.prelude.wait_for(wanted).await,
            (Step::Await(wanted), Some(cast)) => cast.wait_for(wanted).await,
            (Step::Join, _) => self.join().await,
            (Step::Pause(pause), _) => self.during(sleep(*pause)).await,
            (Step::Say(text), Some(cast)) => cast.say(text).await,
            (Step::Leave, _) => self.leave().await,
            (Step::Crash, Some(_)) => self.crash().await,
            (Step::Say(_) | Step::Crash, None) => Ok(()),
        }
    }

    async fn join(&mut self) -> Result<(), PlayError> {
        let options = Options {
            room: self.prelude.room.clone(),
            id: self.script.id,
            bot: self.script.is_bot(),
            backlog: 0,
            merge: self.stage.merge,
            tracer: self.stage.tracer.clone(),
            log: self.stage.log,
            ..Options::new(&self.stage.client, self.script.name())
        };
        let session = self.enter(options).await?;
        self.cast = Some(Cast {
            session,
            rules: &self.script.whenever,
            shown: self.stage.shown.clone(),
            joined: false,
            heard: VecDeque::new(),
            answers: VecDeque::new(),
            unanswered: None,
            too_fast: false,
        });
        Ok(())
    }

    /// Joins, waiting for the server and for the name if need be, and says once for each that it does.
    async fn enter(&mut self, options: Options) -> Result<Session, JoinError> {
        let deadline = Instant::now() + JOIN_PATIENCE;
        let (mut backoff, mut held) = (Backoff::default(), Held::default());
        let (mut told_away, mut told_held) = (false, false);
        loop {
            let error = match Session::join(options.clone()).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            let (waits, told) = match &error {
                JoinError::Unreachable { .. } => {
                    held.unanswered();
                    (Instant::now() < deadline, &mut told_away)
                }
                JoinError::Held(_) => (held.is_waited_for(), &mut told_held),
                JoinError::Refused(_) | JoinError::Address(_) => return Err(error),
            };
            if !waits {
                return Err(error);
            }
            if !mem::replace(told, true) {
                self.aside(format!("Not joined yet, waiting: {error}."))
                    .await;
            }
            sleep(backoff.pause()).await;
        }
    }

    async fn aside(&self, words: String) {
        // Nobody may be listening; the play goes on.
        let _ = self.stage.shown.send(Shown::Aside(words)).await;
    }

    /// Waits for `future`; the participant goes on hearing and answering meanwhile.
    async fn during<F: Future<Output = ()>>(&mut self, future: F) -> Result<(), PlayError> {
        match &mut self.cast {
            Some(cast) => cast.during(future).await,
            None => {
                future.await;
                Ok(())
            }
        }
    }

    async fn leave(&mut self) -> Result<(), PlayError> {
        if let Some(cast) = &mut self.cast {
            // Nobody may be listening any more, which is no reason to stay.
            let _ = self.stage.shown.send(Shown::Leaving).await;
            cast.session.leave();
            cast.end().await?;
        }
        self.cast = None;
        Ok(())
    }

    async fn crash(&mut self) -> Result<(), PlayError> {
        if let Some(cast) = &mut self.cast {
            cast.session.crash();
            cast.end().await?;
        }
        self.cast = None;
        Ok(())
    }
}

/// Before the join: reading without being there.
struct Prelude {
    reader: Reader,
    name: String,
    room: String,
    /// The history that is read, and its last event that an `await` has matched.
    epoch: String,
    position: u64,
    shown: mpsc::Sender<Shown>,
    /// Why the server does not answer, since it does not.
    away: Option<String>,
}

/// How a look at the room ended without what was looked for.
enum Interrupted {
    /// The server is away: why.
    Away(String),
    /// The room is to be looked at anew.
    Anew,
    Final(Status),
}

impl From<Status> for Interrupted {
    fn from(status: Status) -> Self {
        if asks_to_resume(&status) {
            Self::Away(because(&status))
        } else {
            Self::Final(status)
        }
    }
}

impl Prelude {
    fn new(script: &Script, stage: &Stage) -> Result<Self, PlayError> {
        let room = script.room.as_ref().unwrap_or(&stage.client.room);
        Ok(Self {
            reader: Reader::new(&stage.client.server, room)?,
            name: script.name().to_owned(),
            room: room.clone(),
            epoch: String::new(),
            position: 0,
            shown: stage.shown.clone(),
            away: None,
        })
    }

    async fn wait_for(&mut self, wanted: &Await) -> Result<(), PlayError> {
        let mut seen = Seen::default();
        let look = async {
            let mut backoff = Backoff::default();
            loop {
                match self.look_for(wanted, &mut seen).await {
                    Ok(()) => return Ok(()),
                    Err(Interrupted::Anew) => {}
                    Err(Interrupted::Away(reason)) => self.is_away(reason).await,
                    Err(Interrupted::Final(status)) => return Err(PlayError::Read(status)),
                }
                sleep(backoff.pause()).await;
            }
        };
        match timeout(wanted.within, look).await {
            Ok(looked) => looked,
            Err(_) => Err(seen.instead_of(wanted, self.away.as_deref())),
        }
    }

    /// Says once that the server is away.
    async fn is_away(&mut self, reason: String) {
        if self.away.is_none() {
            let words = format!("Waiting for the server ({}).", render::clean(&reason));
            let _ = self.shown.send(Shown::Aside(words)).await;
        }
        self.away = Some(reason);
    }

    /// Says so if the server was away.
    async fn is_there(&mut self) {
        if self.away.take().is_some() {
            let words = "The server is there.".to_owned();
            let _ = self.shown.send(Shown::Aside(words)).await;
        }
    }

    /// Reads from the participant's newest JOIN on, or from now if it is not there, until it does what is awaited.
    ///
    /// What was before this script's own participant last came or went, an earlier run of it has read. If all were killed
    /// and begin anew, the others may still seem to be there, and what they said then is not to be taken for today's.
    async fn look_for(&mut self, wanted: &Await, seen: &mut Seen) -> Result<(), Interrupted> {
        let from = wanted.from.as_deref().unwrap_or_default();
        let newest = self.newest_of(from).await?;
        let mut present = newest.present;
        let after = newest.after.max(self.position);
        let mut events = self.reader.watch(self.epoch.clone(), after).await?;
        loop {
            let Some(event) = events.message().await? else {
                return Err(Interrupted::Away("the stream ended".into()));
            };
            if event
                .welcome
                .as_ref()
                .is_some_and(|welcome| !welcome.recovered)
            {
                return Err(Interrupted::Anew);
            }
            if event.sequence == 0 {
                continue;
            }
            let its = event.sender_name == from;
            present |= its && event.r#type() == EventType::Join;
            if present && wanted.is_met_by(&event) {
                self.position = event.sequence;
                return Ok(());
            }
            present &= !(its && event.r#type() == EventType::Leave);
            seen.note(&event);
        }
    }

    /// Whether `name` is in the room, and the sequence before its JOIN, or of the last coming or going of this participant
    /// itself; or else the room's last sequence.
    async fn newest_of(&mut self, name: &str) -> Result<Newest, Interrupted> {
        let mut before = END;
        let mut head = None;
        let mut own = 0;
        loop {
            let page = self.reader.before(before, PAGE).await?;
            self.is_there().await;
            if page.epoch != self.epoch {
                self.epoch.clone_from(&page.epoch);
                self.position = 0;
            }
            let last = page.events.last().map_or(0, |event| event.sequence);
            let head = *head.get_or_insert(last);
            let coming_or_going = |name: &str| {
                let its = |event: &&ServerMessage| {
                    event.sender_name == name && event.r#type() != EventType::Message
                };
                page.events.iter().rfind(its)
            };
            own = own.max(coming_or_going(&self.name).map_or(0, |event| event.sequence));
            match coming_or_going(name) {
                Some(event) if event.r#type() == EventType::Join => {
                    return Ok(Newest {
                        present: true,
                        after: own.max(event.sequence - 1),
                    });
                }
                None if page.more => {
                    before = page.events.first().map_or(0, |event| event.sequence);
                }
                Some(_) | None => {
                    return Ok(Newest {
                        present: false,
                        after: head,
                    });
                }
            }
        }
    }
}

struct Newest {
    present: bool,
    after: u64,
}

/// In the room.
struct Cast<'a> {
    session: Session,
    rules: &'a [Rule],
    shown: mpsc::Sender<Shown>,
    /// The own JOIN has been read: what follows counts.
    joined: bool,
    /// What was read since, and no `await` has looked at.
    heard: VecDeque<ServerMessage>,
    /// What the rules answer, to be sent.
    answers: VecDeque<String>,
    /// The id of what was said and has not been answered.
    unanswered: Option<String>,
    /// The answer to what was said was that it came too fast.
    too_fast: bool,
}

impl Cast<'_> {
    /// Waits for the next thing to happen: something is heard, or an answer is on its way.
    async fn next(&mut self) -> Result<(), PlayError> {
        let speaker = self.session.speaker();
        let answer = self.answers.front().cloned();
        let answering = async {
            match answer {
                Some(answer) => speaker.say(answer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            update = self.session.next() => self.hear(update).await,
            // That it was not taken because the session ended is heard in its turn.
            _ = answering => {
                self.answers.pop_front();
                Ok(())
            }
        }
    }

    async fn hear(&mut self, update: Option<Update>) -> Result<(), PlayError> {
        let show = match update {
            Some(Update::Event(received)) => {
                self.answer(&received);
                self.note(&received);
                Shown::Heard(Box::new(received))
            }
            Some(Update::Notice(received)) => {
                if self.is_too_fast(&received.message) {
                    return Ok(());
                }
                self.note(&received);
                Shown::Heard(Box::new(received))
            }
            Some(Update::Disconnected { reason }) => Shown::Aside(render::disconnected(&reason)),
            Some(Update::Reconnected(back)) => Shown::Aside(render::reconnected(back)),
            Some(Update::Ended(ending)) => return Err(PlayError::Ended(ending)),
            None => return Err(PlayError::Ended(Ending::Crashed)),
        };
        // Nobody may be listening; the play goes on.
        let _ = self.shown.send(show).await;
        Ok(())
    }

    /// The first rule that has an answer gives it; never to itself, never to another program, never to the past.
    fn answer(&mut self, received: &Received) {
        if received.own || received.past || received.message.bot {
            return;
        }
        let answer = self
            .rules
            .iter()
            .find_map(|rule| rule.answer(&received.message));
        if let Some(answer) = answer {
            push(&mut self.answers, answer);
        }
    }

    /// Whether `message` says that what a step has said came too fast: it is said again, and nobody need read of it.
    fn is_too_fast(&mut self, message: &ServerMessage) -> bool {
        let Some(notice) = &message.notice else {
            return false;
        };
        self.too_fast = notice.code() == NoticeCode::TooFast
            && self.unanswered.as_ref() == Some(&notice.message_id);
        if self.too_fast {
            self.unanswered = None;
        }
        self.too_fast
    }

    fn note(&mut self, received: &Received) {
        let message = &received.message;
        let answered = match &message.notice {
            Some(notice) => &notice.message_id,
            None => &message.message_id,
        };
        if self.unanswered.as_ref() == Some(answered) {
            self.unanswered = None;
        }
        if self.joined {
            push(&mut self.heard, message.clone());
        }
        self.joined |= received.own && message.r#type() == EventType::Join;
    }

    async fn wait_for(&mut self, wanted: &Await) -> Result<(), PlayError> {
        let mut seen = Seen::default();
        let deadline = Instant::now() + wanted.within;
        loop {
            while let Some(message) = self.heard.pop_front() {
                if wanted.is_met_by(&message) {
                    return Ok(());
                }
                seen.note(&message);
            }
            match timeout_at(deadline, self.next()).await {
                Ok(happened) => happened?,
                Err(_) => return Err(seen.instead_of(wanted, None)),
            }
        }
    }

    /// Says `text`, and waits until it is answered: so what comes next in the script comes after it for everybody. What
    /// came too fast is said again.
    async fn say(&mut self, text: &str) -> Result<(), PlayError> {
        let deadline = Instant::now() + ANSWER_PATIENCE;
        loop {
            match timeout_at(deadline, self.say_once(text)).await {
                Ok(said) => said?,
                Err(_) => return Err(PlayError::Unanswered(text.to_owned())),
            }
            if !self.too_fast {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(PlayError::TooFast(text.to_owned()));
            }
            self.during(sleep(TOO_FAST_PAUSE)).await?;
        }
    }

    async fn say_once(&mut self, text: &str) -> Result<(), PlayError> {
        self.too_fast = false;
        let speaker = self.session.speaker();
        let mut saying = pin!(speaker.say(text));
        let said = loop {
            tokio::select! {
                said = &mut saying => break said,
                happened = self.next() => happened?,
            }
        };
        let Ok(id) = said else {
            // It was not taken: how the session ended comes next.
            loop {
                self.next().await?;
            }
        };
        self.unanswered = Some(id);
        while self.unanswered.is_some() {
            self.next().await?;
        }
        Ok(())
    }

    async fn during<F: Future<Output = ()>>(&mut self, future: F) -> Result<(), PlayError> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                () = &mut future => return Ok(()),
                happened = self.next() => happened?,
            }
        }
    }

    /// Answers by the rules for as long as the session lasts.
    async fn stay(&mut self) -> Result<(), PlayError> {
        loop {
            self.heard.clear();
            self.next().await?;
        }
    }

    /// Hears out a session that is being left or cut.
    async fn end(&mut self) -> Result<(), PlayError> {
        while let Some(update) = self.session.next().await {
            match update {
                // That the server was away for the farewell is no fault of the script.
                Update::Ended(ending) if ending.is_good() => return Ok(()),
                other => self.hear(Some(other)).await?,
            }
        }
        Ok(())
    }
}

/// What an `await` has seen that was not what it waits for.
#[derive(Default)]
struct Seen {
    newest: VecDeque<String>,
    count: usize,
}

impl Seen {
    fn note(&mut self, message: &ServerMessage) {
        self.count += 1;
        self.newest.push_back(render::line(message));
        if self.newest.len() > TOLD_MAX {
            self.newest.pop_front();
        }
    }

    /// `away`: why the server does not answer, if it does not.
    fn instead_of(self, wanted: &Await, away: Option<&str>) -> PlayError {
        let told = Vec::from(self.newest).join("\n  ");
        let left_out = self.count.saturating_sub(TOLD_MAX);
        let mut read = match (self.count, left_out) {
            (0, _) => "nothing".into(),
            (_, 0) => format!("\n  {told}"),
            _ => format!("{left_out} others, then\n  {told}"),
        };
        if let Some(reason) = away {
            read += &format!("; the server is away ({})", render::clean(reason));
        }
        PlayError::AwaitRanOut {
            wanted: wanted.to_string(),
            within: wanted.within,
            read,
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= WAITING_MAX {
        queue.pop_front();
    }
    queue.push_back(item);
}
