//! The connection of one of them is cut, as when its process dies.

use super::{
    super::{
        event::{self, Move},
        stage::{SETTLE, Stage},
        verdict::{Book, Stuck},
    },
    all_hear_each, all_hear_the_first, judge_once, judge_text,
    leaving::judge_time,
};

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    let mut ada = stage.enter("Ada").await?;
    let mut alex = stage.enter("Alex").await?;
    let mut bob = stage.enter("Bob").await?;
    // So that the time of his JOIN is no longer that of now.
    all_hear_the_first(stage, &mut [&mut ada, &mut alex, &mut bob])
        .await
        .map_err(|failure| Stuck(failure.happened))?;

    let who = bob.who.clone();
    let latest = ada.latest().max(alex.latest());
    bob.cut().await;
    let spared = all_hear_each(stage, &mut [&mut ada, &mut alex]).await;
    let failed = spared.is_err();
    book.judge("crash-spares-others", spared);

    let mut copies = Vec::new();
    for reader in [&mut ada, &mut alex] {
        let left = |message: &_| event::announces(message, Move::Left, &who);
        // It may have come while something else was waited for.
        let heard = reader.all(left).next().cloned();
        let read = match heard {
            Some(copy) => Ok(copy),
            None => reader.read_until_within(stage.crash_patience, left).await,
        };
        match read {
            Ok(copy) => {
                copies.push(copy);
                book.judge("crash-announced", Ok(()));
            }
            Err(missed) => {
                let expected = format!(
                    "the connection of {} breaks; within {:?} everybody who remains is told that it left",
                    who.name, stage.crash_patience
                );
                let happened = format!("{} was not: {}", reader.who.name, missed.words());
                book.judge("crash-announced", Err(reader.failure(expected, happened)));
                break;
            }
        }
    }
    if copies.len() < 2 {
        for rule in ["crash-announced-once", "crash-text", "crash-time-fresh"] {
            book.undecided(rule, "the crash was not announced to everybody");
        }
        return Ok(());
    }
    ada.read_for(SETTLE).await;
    if !failed {
        // A server that finds out by sending finds out now, perhaps for a second time.
        let spared = all_hear_each(stage, &mut [&mut ada, &mut alex]).await;
        book.judge("crash-spares-others", spared);
        ada.read_for(SETTLE).await;
    }
    for reader in [&ada, &alex] {
        book.judge("crash-announced-once", judge_once(reader, Move::Left, &who));
    }
    let copies: Vec<_> = [&ada, &alex].into_iter().zip(copies).collect();
    book.judge("crash-text", judge_text(&copies, Move::Left, &who));
    book.judge("crash-time-fresh", judge_time(&copies, latest));
    stage.bow_out([ada, alex]).await;
    Ok(())
}
