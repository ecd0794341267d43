//! A participant that does what a scene wants, holds its own clock, and keeps all that it reads.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Status;

use super::{
    connection::{Read, Stream, status_words},
    event::{self, Who},
    verdict::Failure,
};
use crate::{
    clock::LamportClock,
    wire::{
        Frame,
        v1::{EventType, JoinMsgLeave, ServerMessage},
    },
};

/// The most that one participant reads in a scene.
///
/// Unit: messages. When reached: nothing more is read, and what the scene waits for counts as not come. Source: ten times
/// what the longest scene has a participant read; a server that repeats itself for ever must not fill the memory.
const HEARD_MAX: usize = 20_000;

/// The same in bytes.
const HEARD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How much of what a participant read is shown with a failure.
///
/// Unit: messages, the last ones.
const SHOWN_MAX: usize = 6;

/// One of the checker's participants, on a connection of its own. Dropping it cuts the connection.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) who: Who,
    room: String,
    clock: LamportClock,
    stream: Stream,
    /// All that came, in the order in which it came.
    pub(super) heard: Vec<ServerMessage>,
    heard_bytes: usize,
    ended: Option<Status>,
    patience: Duration,
}

/// What was waited for did not come.
#[derive(Debug, Clone)]
pub(super) enum Missed {
    /// The stream has ended before.
    Ended(Status),
    /// The time is over.
    Silence(Duration),
    /// More came than anybody would send.
    Flood,
}

impl Missed {
    /// Why, for a person.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Ended(status) => format!("its stream ended with {}", status_words(status)),
            Self::Silence(waited) => format!("waited {waited:?} in vain"),
            Self::Flood => "the server sent without end".to_owned(),
        }
    }
}

impl Participant {
    /// Nothing has been said yet. Each answer is waited for as long as `patience`.
    pub(super) fn new(who: Who, room: String, stream: Stream, patience: Duration) -> Self {
        Self {
            who,
            room,
            clock: LamportClock::default(),
            stream,
            heard: Vec::new(),
            heard_bytes: 0,
            ended: None,
            patience,
        }
    }

    /// The logical time of its last step.
    pub(super) fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Sends JOIN.
    pub(super) fn join(&mut self) {
        let room = self.room.clone();
        let join = self.message(EventType::Join, "");
        self.send(&JoinMsgLeave { room, ..join });
    }

    /// Says `text`; the time it was sent with.
    pub(super) fn say(&mut self, text: &str) -> i64 {
        let message = self.message(EventType::Message, text);
        self.send(&message);
        message.timestamp
    }

    /// Says `text` as if its clock stood at `timestamp`, which it does not from then on.
    pub(super) fn say_at(&mut self, text: &str, timestamp: i64) {
        let message = self.message(EventType::Message, text);
        self.send(&JoinMsgLeave {
            timestamp,
            ..message
        });
    }

    /// Says `text` as if it were `other`.
    pub(super) fn say_as(&mut self, other: &Who, text: &str) {
        let message = self.message(EventType::Message, text);
        self.send(&JoinMsgLeave {
            id: other.id,
            client_name: other.name.clone(),
            ..message
        });
    }

    /// Sends LEAVE.
    pub(super) fn leave(&mut self) {
        let leave = self.message(EventType::Leave, "");
        self.send(&leave);
    }

    /// Says that it will send nothing more.
    pub(super) fn half_close(&mut self) {
        self.stream.half_close();
    }

    /// Sends bytes as they are.
    pub(super) fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.stream.send(bytes.into());
    }

    /// Resets the stream.
    pub(super) fn reset(&mut self) {
        self.stream.reset();
    }

    /// Cuts the connection, as the end of a process does.
    pub(super) async fn cut(self) {
        self.stream.cut().await;
    }

    fn send(&mut self, message: &JoinMsgLeave) {
        self.stream.send(Frame::of(message).bytes());
    }

    /// A message as a client sends it: one tick later, and with its id and name in it, as the original's have them.
    fn message(&mut self, kind: EventType, text: &str) -> JoinMsgLeave {
        JoinMsgLeave {
            id: self.who.id,
            client_name: self.who.name.clone(),
            timestamp: self.clock.tick(),
            msg: text.to_owned(),
            r#type: kind.into(),
            ..JoinMsgLeave::default()
        }
    }

    /// Reads until something comes that is `wanted`.
    ///
    /// # Errors
    /// It does not come in time.
    pub(super) async fn read_until(
        &mut self,
        wanted: impl FnMut(&ServerMessage) -> bool,
    ) -> Result<ServerMessage, Missed> {
        self.read_until_within(self.patience, wanted).await
    }

    /// The same, with another patience.
    ///
    /// # Errors
    /// It does not come in time.
    pub(super) async fn read_until_within(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&ServerMessage) -> bool,
    ) -> Result<ServerMessage, Missed> {
        let until = Instant::now() + patience;
        loop {
            match self.read(until).await {
                Ok(Some(message)) if wanted(message) => return Ok(message.clone()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(Missed::Silence(patience)),
                Err(missed) => return Err(missed),
            }
        }
    }

    /// Reads until `text` comes.
    ///
    /// # Errors
    /// It does not come in time.
    pub(super) async fn read_text(&mut self, text: &str) -> Result<ServerMessage, Missed> {
        self.read_until(|message| event::says(message, text)).await
    }

    /// Reads all that comes in that time.
    pub(super) async fn read_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(Some(_)) = self.read(until).await {}
    }

    /// Reads until the stream ends: how, or none if it does not.
    pub(super) async fn read_to_end(&mut self, patience: Duration) -> Option<Status> {
        match self.read_until_within(patience, |_| false).await {
            Err(Missed::Ended(status)) => Some(status),
            _ => None,
        }
    }

    /// Reads one message and merges its time; none if none comes before `until`.
    async fn read(&mut self, until: Instant) -> Result<Option<&ServerMessage>, Missed> {
        if self.heard.len() >= HEARD_MAX || self.heard_bytes >= HEARD_BYTES_MAX {
            return Err(Missed::Flood);
        }
        match self.stream.next(until).await {
            Read::Silence => Ok(None),
            Read::Ended(status) => {
                self.ended = Some(status.clone());
                Err(Missed::Ended(status))
            }
            Read::Message(message, bytes) => {
                self.clock.merge(message.timestamp);
                self.heard_bytes += bytes;
                self.heard.push(*message);
                Ok(self.heard.last())
            }
        }
    }

    /// Of what was heard, what is `wanted`.
    pub(super) fn all(
        &self,
        wanted: impl Fn(&ServerMessage) -> bool,
    ) -> impl Iterator<Item = &ServerMessage> {
        self.heard.iter().filter(move |message| wanted(message))
    }

    /// The latest logical time that it has read.
    pub(super) fn latest(&self) -> i64 {
        let times = self.heard.iter().map(|message| message.timestamp);
        times.max().unwrap_or(0)
    }

    /// The last that it read, line by line, for a person.
    pub(super) fn seen(&self) -> Vec<String> {
        let name = &self.who.name;
        let from = self.heard.len().saturating_sub(SHOWN_MAX);
        let mut lines: Vec<_> = self.heard[from..]
            .iter()
            .map(|message| format!("{name} read: {}", event::shown(message)))
            .collect();
        if let Some(status) = &self.ended {
            lines.push(format!("{name}'s stream ended: {}", status_words(status)));
        } else if lines.is_empty() {
            lines.push(format!("{name} read nothing"));
        }
        lines
    }

    /// A failure of which this participant is the witness.
    pub(super) fn failure(
        &self,
        expected: impl Into<String>,
        happened: impl Into<String>,
    ) -> Failure {
        Failure::new(expected, happened).seen_by([self])
    }
}
