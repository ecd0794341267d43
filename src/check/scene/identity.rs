//! Somebody comes with the id, or the name, of one who is there.

use super::{
    super::{
        connection::WINDOW_BYTES,
        event::{Who, is_from},
        participant::{Missed, Participant},
        stage::Stage,
        verdict::{Book, Failure, Stuck},
    },
    all_hear_the_first,
};

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    for (rule, same_id) in [("duplicate-id", true), ("duplicate-name", false)] {
        let mut ada = stage.enter("Ada").await?;
        let mut alex = stage.enter("Alex").await?;
        let who = Who {
            id: if same_id {
                ada.who.id
            } else {
                rand::random_range(1..i32::MAX)
            },
            name: if same_id {
                stage.name("Twin")
            } else {
                ada.who.name.clone()
            },
        };
        let twin = stage.connect_as(who, WINDOW_BYTES).await.map_err(Stuck)?;
        let outcome = comes_beside(stage, twin, &mut ada, &mut alex).await;
        book.judge(rule, outcome);
        stage.bow_out([ada, alex]).await;
    }
    Ok(())
}

/// The twin is let in or refused; whatever becomes of it, Ada is who she was.
async fn comes_beside(
    stage: &Stage,
    mut twin: Participant,
    ada: &mut Participant,
    alex: &mut Participant,
) -> Result<(), Failure> {
    twin.join();
    let answered = twin.read_until(|_| true).await;
    if let Err(missed @ (Missed::Silence(_) | Missed::Flood)) = &answered
        && stage.shows_own_join()
    {
        let expected =
            "a JOIN with an id or a name that somebody holds is answered: refused, or let in";
        return Err(twin.failure(expected, missed.words()));
    }
    holds_her_place(stage, ada, alex, "while it is there").await?;
    stage.bow_out([twin]).await;
    holds_her_place(stage, ada, alex, "after it has gone").await
}

/// Ada speaks as Ada, and hears what others say.
async fn holds_her_place(
    stage: &Stage,
    ada: &mut Participant,
    alex: &mut Participant,
    when: &str,
) -> Result<(), Failure> {
    let name = ada.who.name.clone();
    let in_words = |failure: Failure| Failure {
        expected: format!(
            "another one joins with what {name} has; {when}, {name} speaks and hears as before"
        ),
        ..failure
    };
    let copies = all_hear_the_first(stage, &mut [&mut *ada, &mut *alex])
        .await
        .map_err(in_words)?;
    if let Some(wrong) = copies.iter().find(|copy| !is_from(copy, &ada.who)) {
        let happened = format!("what {name} said is shown as from {:?}", wrong.sender_name);
        return Err(in_words(alex.failure("", happened)));
    }
    let heard = all_hear_the_first(stage, &mut [alex, ada]).await;
    heard.map(|_| ()).map_err(in_words)
}
