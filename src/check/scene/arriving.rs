//! Joining: what those who are there read, what the newcomer reads, what somebody reads who comes late.

use super::{
    super::{
        connection::WINDOW_BYTES,
        event::{self, Move, says},
        participant::Participant,
        stage::{SETTLE, Stage},
        verdict::{Book, Failure, Stuck},
    },
    count_of, judge_text, judge_time_in_text,
};

/// Participants that join at the same moment.
const CROWD: usize = 6;

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    let mut ada = stage.enter("Ada").await?;
    let mut alex = stage.enter("Alex").await?;

    one_joins(stage, book, &mut ada, &mut alex).await?;
    one_comes_late(stage, book, &mut ada).await?;
    many_join_at_once(stage, book, &mut ada).await?;

    stage.bow_out([ada, alex]).await;
    Ok(())
}

async fn one_joins(
    stage: &Stage,
    book: &mut Book,
    ada: &mut Participant,
    alex: &mut Participant,
) -> Result<(), Stuck> {
    let mut bob = stage.newcomer("Bob").await?;
    let who = bob.who.clone();
    let joined = |message: &_| event::announces(message, Move::Joined, &who);

    let at_bob = bob.read_until(joined).await;
    let at_ada = ada.read_until(joined).await;
    let at_alex = alex.read_until(joined).await;

    let mut copies = Vec::new();
    for (reader, copy) in [(&*ada, at_ada), (&*alex, at_alex)] {
        match copy {
            Ok(copy) => {
                book.judge("join-announced", Ok(()));
                copies.push((reader, copy));
            }
            Err(missed) => {
                let expected = format!("{} joins, and everybody in the room is told", who.name);
                let happened = format!("{} was not: {}", reader.who.name, missed.words());
                book.judge("join-announced", Err(reader.failure(expected, happened)));
            }
        }
    }
    match at_bob {
        Ok(copy) => {
            book.judge("join-shown-to-newcomer", Ok(()));
            copies.push((&bob, copy));
        }
        Err(missed) => {
            let expected = "the newcomer reads its own JOIN, as the others do";
            let happened = format!("{} did not: {}", who.name, missed.words());
            book.judge(
                "join-shown-to-newcomer",
                Err(bob.failure(expected, happened)),
            );
        }
    }
    if copies.is_empty() {
        for rule in ["join-text", "join-time"] {
            book.undecided(rule, "nobody read a JOIN");
        }
    } else {
        book.judge("join-text", judge_text(&copies, Move::Joined, &who));
        match judge_time_in_text(&copies) {
            Some(outcome) => book.judge("join-time", outcome),
            None => book.undecided("join-time", "there is no logical time in the text"),
        }
    }
    drop(copies);
    stage.bow_out([bob]).await;
    Ok(())
}

/// What was said before somebody came is not for it; its JOIN is.
async fn one_comes_late(
    stage: &Stage,
    book: &mut Book,
    ada: &mut Participant,
) -> Result<(), Stuck> {
    let before = stage.text();
    ada.say(&before);
    if ada.read_text(&before).await.is_err() {
        book.undecided("late-joiner", "Ada's text did not come back to her");
        return Ok(());
    }
    let mut late = stage.enter("Carol").await?;
    let after = stage.text();
    ada.say(&after);
    let read = late.read_text(&after).await;

    let outcome = if let Err(missed) = read {
        let happened = format!("she did not read {after:?}: {}", missed.words());
        Err(late.failure(
            "whoever joins late reads what is said from then on",
            happened,
        ))
    } else if late.all(|message| says(message, &before)).next().is_some() {
        let happened = format!("she read {before:?}, which was said before she joined");
        Err(late.failure(
            "a broadcast reaches those who are there, not who comes later",
            happened,
        ))
    } else if stage.shows_own_join() && count_of(&late, Move::Joined, &late.who) == 0 {
        Err(late.failure("whoever joins late reads its own JOIN", "she did not"))
    } else {
        Ok(())
    };
    book.judge("late-joiner", outcome);
    stage.bow_out([late]).await;
    Ok(())
}

async fn many_join_at_once(
    stage: &Stage,
    book: &mut Book,
    ada: &mut Participant,
) -> Result<(), Stuck> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let one = stage.connect("Eve", WINDOW_BYTES).await.map_err(Stuck)?;
        crowd.push(one);
    }
    for one in &mut crowd {
        one.join();
    }
    for one in &mut crowd {
        stage.settle_in(one).await?;
    }
    let everybody = |ada: &Participant| {
        crowd
            .iter()
            .all(|one| count_of(ada, Move::Joined, &one.who) > 0)
    };
    if !everybody(ada) {
        let mut heard = 0;
        let joined = |message: &_| {
            heard += usize::from(
                crowd
                    .iter()
                    .any(|one| event::announces(message, Move::Joined, &one.who)),
            );
            heard >= CROWD
        };
        let _ = ada.read_until(joined).await;
    }
    ada.read_for(SETTLE).await;

    let expected = format!("{CROWD} join at the same moment; each is announced once");
    let counts = crowd
        .iter()
        .map(|one| (one, count_of(ada, Move::Joined, &one.who)));
    let wrong = counts.filter(|(_, count)| *count != 1).map(|(one, count)| {
        format!(
            "{} was announced to {} {count} times",
            one.who.name, ada.who.name
        )
    });
    let wrong: Vec<_> = wrong.collect();
    let outcome = if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(expected, wrong.join("; ")).seen_by([&*ada]))
    };
    book.judge("concurrent-joins", outcome);
    stage.bow_out(crowd).await;
    Ok(())
}
