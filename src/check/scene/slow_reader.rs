//! One does not read; the others talk as if it were not there.

use super::super::{
    participant::Participant,
    stage::Stage,
    verdict::{Book, Failure, Stuck},
};
use crate::wire::v1::ServerMessage;

/// How much is said while one does not read.
///
/// Unit: messages. Source: of some 170 bytes each they are more than the window of the reader (16 KiB), what a server in
/// Go keeps beside it (64 KiB) and a queue of a hundred events, twice over.
const MESSAGES: usize = 1_200;

/// Messages that are on their way at one time.
const AT_ONCE: usize = 50;

/// The length of each text: long enough to fill a window soon, short enough for servers that count in bytes.
///
/// Unit: characters.
const TEXT_CHARS: usize = 100;

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    let mut ada = stage.enter("Ada").await?;
    let mut alex = stage.enter("Alex").await?;
    let slow = stage.enter_narrow("Slow").await?;

    let mut outcome = Ok(());
    for turn in 0..MESSAGES / AT_ONCE {
        outcome = match turn % 2 {
            0 => talk(stage, &mut ada, &mut alex).await,
            _ => talk(stage, &mut alex, &mut ada).await,
        };
        if outcome.is_err() {
            break;
        }
    }
    let expected = format!(
        "{} reads nothing any more; the others go on as if it did",
        slow.who.name
    );
    let stalled = outcome.is_err();
    book.judge(
        "slow-reader-spares-others",
        outcome.map_err(|failure| Failure {
            expected,
            ..failure
        }),
    );
    if stalled {
        // Whoever waits for it may go on.
        slow.cut().await;
        stage.bow_out([ada, alex]).await;
    } else {
        stage.bow_out([ada, alex, slow]).await;
    }
    Ok(())
}

/// One says so much at once, and both read it, in whatever order: that is another rule's.
async fn talk(
    stage: &Stage,
    speaker: &mut Participant,
    other: &mut Participant,
) -> Result<(), Failure> {
    for _ in 0..AT_ONCE {
        let mut text = stage.text();
        text.extend(std::iter::repeat_n('.', TEXT_CHARS - text.len()));
        speaker.say(&text);
    }
    for reader in [speaker, other] {
        let mut missing = AT_ONCE;
        let all = |message: &ServerMessage| {
            missing -= usize::from(message.msg_stream.ends_with("..."));
            missing == 0
        };
        if let Err(missed) = reader.read_until(all).await {
            let happened = format!(
                "of {AT_ONCE} messages {} did not read {missing}, after {}: {}",
                reader.who.name,
                reader.heard.len(),
                missed.words()
            );
            return Err(reader.failure("", happened));
        }
    }
    Ok(())
}
