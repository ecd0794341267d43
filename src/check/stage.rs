//! Where the scenes take place: a server, rooms and names of the checker's own, and how long anything may take.

use std::{cell::Cell, time::Duration};

use http::Uri;
use tonic::{Code, Status};

use super::{
    connection::{NARROW_WINDOW_BYTES, Stream, WINDOW_BYTES, no_grpc, status_words},
    event::{self, Move, TEXT_PREFIX, Who},
    participant::{Missed, Participant},
    verdict::Stuck,
};
use crate::wire::ORIGINAL_CHAT_PATH;

/// How long is waited for something that must not come: a second announcement, a refusal that another one got.
///
/// Source: it would come with the first one, or when the server next sends something; both take milliseconds.
pub(super) const SETTLE: Duration = Duration::from_millis(400);

/// How long it takes to read what has come while another participant was read from.
pub(super) const AT_HAND: Duration = Duration::from_millis(20);

/// How long those of a scene that is over may take to leave.
const BOW_OUT: Duration = Duration::from_millis(500);

/// Under which name the server offers its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Path {
    /// chitchat.v1.ChatService/Chat, of the proto file of this repository
    #[value(name = "chitchat.v1")]
    Ours,
    /// itu.chitchat.ChatService/Chat, of the report: this one method, and fields 1 to 8
    #[value(name = "itu.chitchat")]
    Original,
}

impl Path {
    fn uri(self) -> &'static str {
        match self {
            Self::Ours => "/chitchat.v1.ChatService/Chat",
            Self::Original => ORIGINAL_CHAT_PATH,
        }
    }

    /// `chitchat.v1.ChatService/Chat`
    #[must_use]
    pub fn method(self) -> &'static str {
        &self.uri()[1..]
    }
}

/// Why there is nothing to be judged.
#[derive(Debug, thiserror::Error)]
pub enum NoServer {
    /// It does not speak gRPC, or not to us.
    #[error("{0}")]
    NoAnswer(String),
    /// It speaks gRPC, but offers neither of the streams that were asked for.
    #[error("it does not offer {0}")]
    NotOffered(String),
}

/// A server that answers, and what is needed to play before it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) server: Uri,
    pub(super) path: Path,
    /// How long an answer may take.
    pub(super) patience: Duration,
    /// How long it may take until a crash is announced.
    pub(super) crash_patience: Duration,
    /// Tells this run from others.
    run: String,
    scenes: Cell<u32>,
    names: Cell<u32>,
    texts: Cell<u32>,
    /// Newcomers have been shown their own JOIN so far.
    shows_own_join: Cell<bool>,
}

impl Stage {
    /// Finds out under which path the server answers; ours is asked for first.
    ///
    /// # Errors
    /// It does not answer, or under none of them.
    pub(super) async fn find(
        server: Uri,
        path: Option<Path>,
        patience: Duration,
        crash_patience: Duration,
    ) -> Result<Self, NoServer> {
        let mut stage = Self {
            server,
            path: path.unwrap_or(Path::Ours),
            patience,
            crash_patience,
            run: format!("{:04x}", rand::random::<u16>()),
            scenes: Cell::default(),
            names: Cell::default(),
            texts: Cell::default(),
            shows_own_join: Cell::new(true),
        };
        let found = stage.probe().await;
        let Err(NoServer::NotOffered(ours)) = found else {
            return found.map(|()| stage);
        };
        if path.is_some() {
            return Err(NoServer::NotOffered(ours));
        }
        stage.path = Path::Original;
        stage.probe().await.map_err(|fault| match fault {
            NoServer::NotOffered(original) => {
                NoServer::NotOffered(format!("{ours}, nor {original}"))
            }
            other => other,
        })?;
        Ok(stage)
    }

    /// Has somebody join and leave again.
    async fn probe(&self) -> Result<(), NoServer> {
        let mut first = self
            .connect("Probe", WINDOW_BYTES)
            .await
            .map_err(NoServer::NoAnswer)?;
        first.join();
        let answered = match first.read_until(|_| true).await {
            // Newcomers may be shown nothing of themselves; what they say, then.
            Err(Missed::Silence(_)) => {
                first.say(&self.text());
                first.read_until(|_| true).await
            }
            answered => answered,
        };
        match answered {
            Ok(_) => {
                self.bow_out([first]).await;
                Ok(())
            }
            Err(Missed::Ended(status)) if status.code() == Code::Unimplemented => {
                Err(NoServer::NotOffered(self.path.method().to_owned()))
            }
            Err(Missed::Ended(status)) if has_answered(&status) => {
                Err(NoServer::NoAnswer(format!(
                    "a JOIN on {} is answered with {}",
                    self.path.method(),
                    status_words(&status)
                )))
            }
            Err(Missed::Ended(status)) => Err(NoServer::NoAnswer(no_grpc(&status_words(&status)))),
            Err(Missed::Silence(_) | Missed::Flood) => Err(NoServer::NoAnswer(format!(
                "it accepts the connection, but answers neither a JOIN nor a MESSAGE within {:?}",
                self.patience
            ))),
        }
    }

    /// Another scene begins, in a room of its own.
    pub(super) fn turn(&self) {
        self.scenes.set(self.scenes.get() + 1);
    }

    /// The room of the scene.
    pub(super) fn room(&self) -> String {
        format!("check-{}-{}", self.run, self.scenes.get())
    }

    /// The rooms of all scenes, for a person.
    pub(super) fn rooms(&self) -> String {
        format!("check-{}-*", self.run)
    }

    /// A name that nobody has had; all are of one length, so that none is in another.
    pub(super) fn name(&self, stem: &str) -> String {
        let number = self.names.get();
        self.names.set(number + 1);
        format!("{stem}-{}-{number:03}", self.run)
    }

    /// A text that nobody has said.
    pub(super) fn text(&self) -> String {
        let number = self.texts.get();
        self.texts.set(number + 1);
        format!("{TEXT_PREFIX}{}-{number:04}", self.run)
    }

    /// Somebody who has a connection and has said nothing.
    ///
    /// # Errors
    /// There is no connection, with the reason for a person.
    pub(super) async fn connect(
        &self,
        stem: &str,
        window_bytes: u32,
    ) -> Result<Participant, String> {
        let who = Who {
            id: rand::random_range(1..i32::MAX),
            name: self.name(stem),
        };
        self.connect_as(who, window_bytes).await
    }

    /// The same, of whom one knows who it is.
    ///
    /// # Errors
    /// There is no connection, with the reason for a person.
    pub(super) async fn connect_as(
        &self,
        who: Who,
        window_bytes: u32,
    ) -> Result<Participant, String> {
        let path = self.path.uri();
        let stream = Stream::open(&self.server, path, window_bytes, self.patience).await?;
        Ok(Participant::new(who, self.room(), stream, self.patience))
    }

    /// Somebody whose JOIN is on its way.
    ///
    /// # Errors
    /// There is no connection.
    pub(super) async fn newcomer(&self, stem: &str) -> Result<Participant, Stuck> {
        let mut newcomer = self
            .connect(stem, WINDOW_BYTES)
            .await
            .map_err(|why| Stuck(format!("nobody could connect any more: {why}")))?;
        newcomer.join();
        Ok(newcomer)
    }

    /// Somebody who has joined.
    ///
    /// # Errors
    /// The server does not let it in.
    pub(super) async fn enter(&self, stem: &str) -> Result<Participant, Stuck> {
        let mut newcomer = self.newcomer(stem).await?;
        self.settle_in(&mut newcomer).await?;
        Ok(newcomer)
    }

    /// Somebody who has joined, and takes little that it does not read.
    ///
    /// # Errors
    /// The server does not let it in.
    pub(super) async fn enter_narrow(&self, stem: &str) -> Result<Participant, Stuck> {
        let narrow = self.connect(stem, NARROW_WINDOW_BYTES).await;
        let mut newcomer = narrow.map_err(Stuck)?;
        newcomer.join();
        self.settle_in(&mut newcomer).await?;
        Ok(newcomer)
    }

    /// Waits until `newcomer`, whose JOIN is on its way, is in: it reads its JOIN, or else what it says.
    ///
    /// # Errors
    /// The server does not let it in.
    pub(super) async fn settle_in(&self, newcomer: &mut Participant) -> Result<(), Stuck> {
        let who = newcomer.who.clone();
        let missed = if self.shows_own_join.get() {
            let own = |message: &_| event::announces(message, Move::Joined, &who);
            match newcomer.read_until(own).await {
                Ok(_) => return Ok(()),
                Err(missed) => Some(missed),
            }
        } else {
            None
        };
        if !matches!(missed, Some(Missed::Ended(_))) {
            self.shows_own_join.set(false);
            let text = self.text();
            newcomer.say(&text);
            if newcomer.read_text(&text).await.is_ok() {
                return Ok(());
            }
        }
        let missed = missed.unwrap_or(Missed::Silence(self.patience));
        Err(Stuck(format!(
            "{} could not join: {}",
            who.name,
            missed.words()
        )))
    }

    /// Whether newcomers are shown their own JOIN.
    pub(super) fn shows_own_join(&self) -> bool {
        self.shows_own_join.get()
    }

    /// They leave, as well as the server lets them.
    pub(super) async fn bow_out(&self, participants: impl IntoIterator<Item = Participant>) {
        let mut leaving: Vec<_> = participants.into_iter().collect();
        for participant in &mut leaving {
            participant.leave();
        }
        let until = tokio::time::Instant::now() + BOW_OUT;
        for participant in &mut leaving {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            participant.read_to_end(left).await;
        }
    }
}

/// Whether a status came from a service, rather than from what is under gRPC.
fn has_answered(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
        && !status.message().starts_with("the server answers HTTP")
}
