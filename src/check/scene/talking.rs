//! Three who talk: everybody reads everything, as it was said, from whom it came.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;

use super::{
    super::{
        event::{Who, is_from, says},
        participant::Participant,
        stage::{Path, Stage},
        verdict::{Book, Failure, Stuck},
    },
    all_hear_the_first,
};
use crate::{
    client::{service, status::because},
    wire::v1::{EventType, JoinMsgLeave, ServerMessage},
};

/// Letters of two, three and four bytes.
const LETTERS: &str = "Grüße aus Århus, 你好 🎉";

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    let mut ada = stage.enter("Ada").await?;
    let mut alex = stage.enter("Alex").await?;
    let mut bob = stage.enter("Bob").await?;

    let mut people = [&mut ada, &mut alex, &mut bob];
    for _ in 0..people.len() {
        let speaker = people[0].who.clone();
        match all_hear_the_first(stage, &mut people).await {
            Ok(copies) => {
                book.judge("broadcast-to-all", Ok(()));
                for (copy, reader) in copies.iter().zip(&people) {
                    book.judge("broadcast-complete", complete(copy, &speaker, reader));
                }
            }
            Err(failure) => book.judge("broadcast-to-all", Err(failure)),
        }
        people.rotate_left(1);
    }
    if book.has_failed("broadcast-to-all") {
        return Err(Stuck("not everybody reads what is said".into()));
    }
    content(stage, book, &mut people).await;
    impersonation(stage, book, &mut ada, &mut alex, &mut bob).await;
    unary(stage, book, &mut [&mut ada, &mut alex, &mut bob]).await;
    stage.bow_out([ada, alex, bob]).await;
    Ok(())
}

/// A broadcast has what a client is to show and to log.
fn complete(copy: &ServerMessage, speaker: &Who, reader: &Participant) -> Result<(), Failure> {
    let wrong = if copy.timestamp <= 0 {
        format!("its `timestamp` is {}", copy.timestamp)
    } else if copy.r#type != i32::from(EventType::Message) {
        format!("its `type` is {}, MESSAGE is 1", copy.r#type)
    } else if copy.sender_name.trim() != speaker.name {
        format!("its `sender_name` is {:?}", copy.sender_name)
    } else {
        return Ok(());
    };
    let name = &speaker.name;
    let expected = format!(
        "a broadcast has the text, a logical time above 0, the type MESSAGE and the name {name}"
    );
    Err(reader.failure(expected, wrong))
}

async fn content(stage: &Stage, book: &mut Book, people: &mut [&mut Participant]) {
    let text = format!("{} {LETTERS}", stage.text());
    people[0].say(&text);
    for reader in people {
        if let Err(missed) = reader.read_text(&text).await {
            let expected = format!("{text:?} reaches everybody as it is");
            let happened = format!("it did not reach {}: {}", reader.who.name, missed.words());
            book.judge("content-unchanged", Err(reader.failure(expected, happened)));
            return;
        }
        book.judge("content-unchanged", Ok(()));
    }
}

/// Alex says something under Ada's name; it may be shown under his, or refused.
async fn impersonation(
    stage: &Stage,
    book: &mut Book,
    ada: &mut Participant,
    alex: &mut Participant,
    bob: &mut Participant,
) {
    let text = stage.text();
    alex.say_as(&ada.who, &text);
    // If the stream of the impostor ends, that is a refusal too, and nothing is to be waited for.
    let outcome = match alex.read_text(&text).await {
        Err(_) => Ok(()),
        Ok(_) => match bob.read_until(|message| says(message, &text)).await {
            Ok(copy) if is_from(&copy, &ada.who) => {
                let expected = format!(
                    "{} sends a MESSAGE with the id and name of {}; it is shown under {}'s own name, or refused",
                    alex.who.name, ada.who.name, alex.who.name
                );
                let happened = format!(
                    "it is shown as from {:?} (sender_id {})",
                    copy.sender_name, copy.sender_id
                );
                Err(bob.failure(expected, happened))
            }
            _ => Ok(()),
        },
    };
    book.judge("no-impersonation", outcome);
}

/// What a single call publishes reaches those on streams.
async fn unary(stage: &Stage, book: &mut Book, people: &mut [&mut Participant]) {
    const RULE: &str = "unary-publish";
    if stage.path == Path::Original {
        book.undecided(
            RULE,
            "needs the unary SendMessage, which the original does not have",
        );
        return;
    }
    let text = stage.text();
    let message = JoinMsgLeave {
        client_name: stage.name("Post"),
        timestamp: 1,
        msg: text.clone(),
        r#type: EventType::Message.into(),
        room: stage.room(),
        ..JoinMsgLeave::default()
    };
    // Longer than the call may take: nothing is to be asked in between.
    let keepalive = stage.patience + Duration::from_secs(60);
    let mut client = match service(&stage.server.to_string(), keepalive) {
        Ok(client) => client,
        Err(error) => return book.undecided(RULE, error.to_string()),
    };
    let expected = "SendMessage is answered, and everybody in the room reads its text with the time of the answer";
    let answer = match timeout(stage.patience, client.send_message(message)).await {
        Err(_) => {
            let happened = format!("there was no answer within {:?}", stage.patience);
            return book.judge(RULE, Err(Failure::new(expected, happened)));
        }
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            let reason = "needs the unary SendMessage, which this server does not offer";
            return book.undecided(RULE, reason);
        }
        Ok(Err(status)) => {
            let happened = format!(
                "it was refused with {:?}: {}",
                status.code(),
                because(&status)
            );
            return book.judge(RULE, Err(Failure::new(expected, happened)));
        }
        Ok(Ok(answer)) => answer.into_inner(),
    };
    for reader in people {
        let outcome = match reader.read_text(&text).await {
            Err(missed) => Err(format!("{} did not: {}", reader.who.name, missed.words())),
            Ok(copy) if copy.timestamp != answer.timestamp => Err(format!(
                "the answer says {}, the broadcast {}",
                answer.timestamp, copy.timestamp
            )),
            Ok(_) => Ok(()),
        };
        book.judge(
            RULE,
            outcome.map_err(|happened| reader.failure(expected, happened)),
        );
    }
}
