//! Leaving, by a LEAVE and by closing one's side.

use tonic::Code;

use super::{
    super::{
        connection::status_words,
        event::{self, Move, announced_time},
        participant::Participant,
        stage::{SETTLE, Stage},
        verdict::{Book, Failure, Stuck},
    },
    all_hear_the_first, judge_once, judge_text, judge_time_in_text,
};
use crate::wire::v1::ServerMessage;

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    let mut ada = stage.enter("Ada").await?;
    let mut alex = stage.enter("Alex").await?;
    let mut bob = stage.enter("Bob").await?;
    // So that the time of his JOIN is no longer that of now.
    all_hear_the_first(stage, &mut [&mut ada, &mut alex, &mut bob])
        .await
        .map_err(|failure| Stuck(failure.happened))?;

    one_leaves(stage, book, &mut ada, &mut alex, bob).await;
    the_last_but_one_leaves(book, &mut ada, alex).await;
    one_closes(stage, book, &mut ada).await?;
    stage.bow_out([ada]).await;
    Ok(())
}

async fn one_leaves(
    stage: &Stage,
    book: &mut Book,
    ada: &mut Participant,
    alex: &mut Participant,
    mut bob: Participant,
) {
    let who = bob.who.clone();
    let latest = ada.latest().max(alex.latest());
    bob.leave();
    let expected = format!("after LEAVE the stream of {} ends with OK", who.name);
    let outcome = match bob.read_to_end(stage.patience).await {
        Some(status) if status.code() == Code::Ok => Ok(()),
        Some(status) => {
            Err(bob.failure(expected, format!("it ended with {}", status_words(&status))))
        }
        None => Err(bob.failure(expected, format!("it was open {:?} later", stage.patience))),
    };
    book.judge("leaver-stream-ends", outcome);

    let mut copies = Vec::new();
    for reader in [&mut *ada, &mut *alex] {
        let outcome = match hears_of(reader, &bob).await {
            Ok(copy) => {
                copies.push(copy);
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        book.judge("leave-announced", outcome);
    }
    if copies.len() < 2 {
        for rule in ["leave-announced-once", "leave-text", "leave-time"] {
            book.undecided(rule, "not everybody read that somebody left");
        }
        return;
    }
    ada.read_for(SETTLE).await;
    // What followed would have come by now, to both.
    let _ = all_hear_the_first(stage, &mut [&mut *ada, &mut *alex]).await;
    for reader in [&*ada, &*alex] {
        book.judge("leave-announced-once", judge_once(reader, Move::Left, &who));
    }
    let copies: Vec<_> = [&*ada, &*alex].into_iter().zip(copies).collect();
    book.judge("leave-text", judge_text(&copies, Move::Left, &who));
    book.judge("leave-time", judge_time(&copies, latest));
}

/// The announcement's time is one of its own, and the text's.
pub(super) fn judge_time(
    copies: &[(&Participant, ServerMessage)],
    latest: i64,
) -> Result<(), Failure> {
    for (reader, copy) in copies {
        if copy.timestamp <= latest {
            let expected = format!(
                "leaving gets a logical time of its own, after {latest}, which was the latest before"
            );
            return Err(reader.failure(expected, format!("it got {}", copy.timestamp)));
        }
    }
    judge_time_in_text(copies).unwrap_or(Ok(()))
}

async fn hears_of(reader: &mut Participant, gone: &Participant) -> Result<ServerMessage, Failure> {
    let who = gone.who.clone();
    let left = |message: &_| event::announces(message, Move::Left, &who);
    let read = reader.read_until(left).await;
    read.map_err(|missed| {
        let expected = format!("{} leaves, and everybody who remains is told", who.name);
        let happened = format!("{} was not: {}", reader.who.name, missed.words());
        reader.failure(expected, happened)
    })
}

/// Only one remains who could be told.
async fn the_last_but_one_leaves(book: &mut Book, ada: &mut Participant, mut alex: Participant) {
    alex.leave();
    let outcome = hears_of(ada, &alex).await;
    book.judge("leave-announced", outcome.map(|_| ()));
}

async fn one_closes(stage: &Stage, book: &mut Book, ada: &mut Participant) -> Result<(), Stuck> {
    let mut carol = stage.enter("Carol").await?;
    carol.half_close();
    let outcome = match hears_of(ada, &carol).await {
        Err(failure) => Err(Failure {
            expected: "whoever closes its side of the stream has left, and the others are told"
                .into(),
            ..failure
        }),
        Ok(copy) if announced_time(&copy, Move::Left, &carol.who).is_none() => {
            let expected = format!(
                "the text \"Participant {} left Chit Chat at logical time L=...\", as after LEAVE",
                carol.who.name
            );
            Err(ada.failure(expected, format!("the text is {:?}", copy.msg_stream)))
        }
        Ok(_) => Ok(()),
    };
    book.judge("half-close-leaves", outcome);
    Ok(())
}
