//! What is played before the server. Each scene decides some of the rules; what follows from one scene alone is judged
//! in it, so that each can be played by itself.

mod arriving;
mod crashing;
mod hostile;
mod identity;
mod leaving;
mod limits;
mod ordering;
mod slow_reader;
mod talking;

use super::{
    event::{self, Move, Who, announced_time, time_in_text},
    participant::Participant,
    stage::Stage,
    verdict::{Book, Failure, Stuck},
};
use crate::wire::v1::ServerMessage;

/// A scene. Those that a weak server may not survive come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    Arriving,
    Talking,
    Ordering,
    Limits,
    Identity,
    Leaving,
    SlowReader,
    Crashing,
    Hostile,
}

impl Scene {
    /// All, in the order in which they are played.
    pub(super) const ALL: [Self; 9] = [
        Self::Arriving,
        Self::Talking,
        Self::Ordering,
        Self::Limits,
        Self::Identity,
        Self::Leaving,
        Self::SlowReader,
        Self::Crashing,
        Self::Hostile,
    ];

    /// What a person sees while it is played.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Arriving => "joining",
            Self::Talking => "talking",
            Self::Ordering => "order and time",
            Self::Limits => "texts that are too long",
            Self::Identity => "names and ids",
            Self::Leaving => "leaving",
            Self::SlowReader => "a slow reader",
            Self::Crashing => "a crash",
            Self::Hostile => "broken clients",
        }
    }

    /// Plays it.
    ///
    /// # Errors
    /// It cannot go on.
    pub(super) async fn play(self, stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
        stage.turn();
        match self {
            Self::Arriving => arriving::play(stage, book).await,
            Self::Talking => talking::play(stage, book).await,
            Self::Ordering => ordering::play(stage, book).await,
            Self::Limits => limits::play(stage, book).await,
            Self::Identity => identity::play(stage, book).await,
            Self::Leaving => leaving::play(stage, book).await,
            Self::SlowReader => slow_reader::play(stage, book).await,
            Self::Crashing => crashing::play(stage, book).await,
            Self::Hostile => hostile::play(stage, book).await,
        }
    }
}

/// The first one says something, and all of them read it.
async fn all_hear_the_first(
    stage: &Stage,
    people: &mut [&mut Participant],
) -> Result<Vec<ServerMessage>, Failure> {
    let text = stage.text();
    let speaker = people[0].who.name.clone();
    people[0].say(&text);
    let mut copies = Vec::new();
    for index in 0..people.len() {
        match people[index].read_text(&text).await {
            Ok(copy) => copies.push(copy),
            Err(missed) => {
                let reader = &people[index].who.name;
                let happened = format!("{reader} did not read it: {}", missed.words());
                let expected =
                    format!("{speaker} says {text:?}, and everybody in the room reads it");
                let failure = Failure::new(expected, happened);
                return Err(failure.seen_by(people.iter().map(|person| &**person)));
            }
        }
    }
    Ok(copies)
}

/// Each says something, and all of them read it: those in the room can still talk.
async fn all_hear_each(stage: &Stage, people: &mut [&mut Participant]) -> Result<(), Failure> {
    for _ in 0..people.len() {
        all_hear_the_first(stage, people).await?;
        people.rotate_left(1);
    }
    Ok(())
}

/// The words of an announcement: `Participant X joined Chit Chat at logical time L=..`.
fn judge_text(
    copies: &[(&Participant, ServerMessage)],
    what: Move,
    who: &Who,
) -> Result<(), Failure> {
    for (reader, copy) in copies {
        if announced_time(copy, what, who).is_none() {
            let word = if what == Move::Joined {
                "joined"
            } else {
                "left"
            };
            let expected = format!(
                "the text \"Participant {} {word} Chit Chat at logical time L=...\", with the number",
                who.name
            );
            return Err(reader.failure(expected, format!("the text is {:?}", copy.msg_stream)));
        }
    }
    Ok(())
}

/// The time in the text of an announcement is that in its field; none if no text has one.
fn judge_time_in_text(copies: &[(&Participant, ServerMessage)]) -> Option<Result<(), Failure>> {
    let mut judged = None;
    for (reader, copy) in copies {
        let Some(time) = time_in_text(copy) else {
            continue;
        };
        if time != copy.timestamp {
            let expected = "the logical time in the text is that of the field `timestamp`";
            let happened = format!("the text says {time}, the field {}", copy.timestamp);
            return Some(Err(reader.failure(expected, happened)));
        }
        judged = Some(Ok(()));
    }
    judged
}

/// How often `reader` has read that `who` has come, or gone.
fn count_of(reader: &Participant, what: Move, who: &Who) -> usize {
    reader
        .all(|message| event::announces(message, what, who))
        .count()
}

/// It was announced to `reader` once.
fn judge_once(reader: &Participant, what: Move, who: &Who) -> Result<(), Failure> {
    match count_of(reader, what, who) {
        1 => Ok(()),
        count => {
            let expected = format!("one announcement about {}", who.name);
            Err(reader.failure(expected, format!("{} read {count}", reader.who.name)))
        }
    }
}
