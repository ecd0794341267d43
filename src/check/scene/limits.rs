//! Texts of 128 characters, of one more, and of none.

use super::{
    super::{
        event::{is_from, refuses, says},
        participant::{Missed, Participant},
        stage::{AT_HAND, SETTLE, Stage},
        verdict::{Book, Stuck},
    },
    all_hear_each, all_hear_the_first,
};

/// The longest text.
///
/// Unit: characters, as Unicode has them. Source: the assignment.
const TEXT_CHARS: usize = 128;

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    let mut ada = stage.enter("Ada").await?;
    let mut alex = stage.enter("Alex").await?;

    longest(stage, book, &mut ada, &mut alex).await;
    too_long(stage, book, &mut ada, &mut alex).await?;
    empty(stage, book, &mut ada, &mut alex).await;
    stage.bow_out([ada, alex]).await;
    Ok(())
}

/// A text of so many characters, the most of which are `letter`.
fn text_of(stage: &Stage, letter: char, chars: usize) -> String {
    let mut text = stage.text();
    text.push(' ');
    let left = chars - text.chars().count();
    text.extend(std::iter::repeat_n(letter, left));
    text
}

async fn longest(stage: &Stage, book: &mut Book, ada: &mut Participant, alex: &mut Participant) {
    let kinds = [
        ("limit-128-accepted", 'x', "one byte (x)"),
        ("limit-counts-characters", 'ü', "two bytes (ü)"),
        ("limit-counts-characters", '😀', "four bytes (😀)"),
    ];
    for (rule, letter, bytes) in kinds {
        if book.has_failed("limit-128-accepted") {
            book.undecided(rule, "not even 128 letters of one byte are taken");
            continue;
        }
        let text = text_of(stage, letter, TEXT_CHARS);
        ada.say(&text);
        let mut outcome = Ok(());
        for reader in [&mut *ada, &mut *alex] {
            // Who is told that it is refused need not wait for it.
            let read = reader.read_until(|message| says(message, &text) || refuses(message));
            match read.await {
                Ok(copy) if says(&copy, &text) => {}
                other => {
                    let expected = format!(
                        "a text of {TEXT_CHARS} characters of {bytes} ({} bytes in all) reaches everybody",
                        text.len()
                    );
                    let why = match other {
                        Ok(refusal) => format!("the answer was {:?}", refusal.msg_stream),
                        Err(missed) => missed.words(),
                    };
                    let happened = format!("{} did not read it: {why}", reader.who.name);
                    outcome = Err(reader.failure(expected, happened));
                    break;
                }
            }
        }
        book.judge(rule, outcome);
    }
}

/// One character too many. Whoever it costs the stream is replaced.
async fn too_long(
    stage: &Stage,
    book: &mut Book,
    ada: &mut Participant,
    alex: &mut Participant,
) -> Result<(), Stuck> {
    const ABOUT_THE_REFUSAL: [&str; 4] = [
        "refusal-told",
        "refusal-private",
        "refusal-spares-sender",
        "refusal-spares-others",
    ];
    alex.read_for(AT_HAND).await;
    let before = alex.heard.len();
    let text = text_of(stage, 'x', TEXT_CHARS + 1);
    let token = text.split_once(" x").expect("it ends with these").0;
    ada.say(&text);
    let who = ada.who.clone();
    let mut refused = false;
    let told = ada.read_until(|message| {
        refused = !message.msg_stream.starts_with(token) && refuses(message);
        refused || message.msg_stream.starts_with(token)
    });
    let told = told.await;
    alex.read_for(SETTLE).await;

    let shown = alex
        .all(|message| is_from(message, &who) && message.msg_stream.starts_with(token))
        .next();
    if let Some(shown) = shown {
        let expected = format!("a text of {} characters is refused", TEXT_CHARS + 1);
        let chars = shown.msg_stream.chars().count();
        let happened = format!("it was broadcast, with {chars} characters");
        book.judge("limit-129-refused", Err(alex.failure(expected, happened)));
        for rule in ABOUT_THE_REFUSAL {
            book.undecided(rule, "a text of 129 characters was not refused");
        }
        return Ok(());
    }
    book.judge("limit-129-refused", Ok(()));

    let expected = "the sender is told that its text is refused (a message, or a status)";
    let outcome = match &told {
        Ok(_) if refused => Ok(()),
        Err(Missed::Ended(_)) => Ok(()),
        Ok(_) => Err(ada.failure(expected, "it was shown its own text, which nobody else got")),
        Err(missed) => Err(ada.failure(expected, format!("nothing came: {}", missed.words()))),
    };
    book.judge("refusal-told", outcome);

    let overheard = alex.heard[before..].iter().find(|message| refuses(message));
    let outcome = match overheard {
        None => Ok(()),
        Some(notice) => {
            let expected = "only the sender is told that its text is refused";
            let name = &alex.who.name;
            let happened = format!("{name} read {:?}, too", notice.msg_stream);
            Err(alex.failure(expected, happened))
        }
    };
    book.judge("refusal-private", outcome);

    let spared = if let Err(Missed::Ended(_)) = told {
        let expected = "a refused text costs its sender nothing else: the stream goes on";
        Err(ada.failure(expected, "the stream of the sender ended"))
    } else {
        all_hear_the_first(stage, &mut [&mut *ada]).await
    };
    if spared.is_err() {
        *ada = stage.enter("Ada").await?;
    }
    book.judge("refusal-spares-sender", spared.map(|_| ()));
    let spared = all_hear_the_first(stage, &mut [&mut *alex]).await;
    if spared.is_err() {
        *alex = stage.enter("Alex").await?;
    }
    book.judge("refusal-spares-others", spared.map(|_| ()));
    Ok(())
}

async fn empty(stage: &Stage, book: &mut Book, ada: &mut Participant, alex: &mut Participant) {
    ada.say("");
    let outcome = all_hear_each(stage, &mut [ada, alex]).await;
    book.judge("empty-text-harmless", outcome);
}
