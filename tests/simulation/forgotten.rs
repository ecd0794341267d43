//! A server that comes back without its history.

use std::collections::HashMap;

use crate::checker::{Run, Step, Transcript};

/// The latest that a history begins: its first event is a JOIN at 1 that resumes another history, or one at 2 that was
/// sent at 1.
const BEGINNING: i64 = 2;

/// The part of `run` that is of the last history, the only one that is left to be held against. `texts`: what was said,
/// by its id.
///
/// A client's part in it begins with a return; that it was told so is seen to where it hears it. What was answered before
/// is of a world that is gone, and counts as never said: should it be stored again, the checker finds what nobody said.
/// What had no answer is said in this one.
pub fn last_history(run: Run, texts: &HashMap<String, String>) -> Run {
    let epochs = run.rooms.iter().flat_map(|stored| &stored.epochs);
    let epoch = epochs.last().cloned().expect("a history has an epoch");
    let events = run.rooms.iter().flat_map(|stored| &stored.events);
    let first = events.map(|event| event.timestamp).min();
    assert!(first <= Some(BEGINNING), "{epoch} begins at {first:?}");
    let transcripts = run.transcripts.into_iter();
    let transcripts = transcripts.map(|transcript| last_part(&epoch, transcript, texts));
    Run {
        transcripts: transcripts.collect(),
        rooms: run.rooms,
    }
}

fn last_part(epoch: &str, transcript: Transcript, texts: &HashMap<String, String>) -> Transcript {
    let mut present = None;
    let mut unanswered: Vec<String> = Vec::new();
    let mut steps = Vec::new();
    for step in transcript.steps {
        match step {
            Step::Joined { epoch: another } | Step::Returned { epoch: another, .. }
                if another != present =>
            {
                present = another;
                if present.as_deref() == Some(epoch) {
                    steps.push(Step::Joined {
                        epoch: present.clone(),
                    });
                    let carried = unanswered.drain(..);
                    steps.extend(carried.map(|text| Step::Said { text }));
                }
            }
            _ if present.as_deref() == Some(epoch) => steps.push(step),
            Step::Said { text } => unanswered.push(text),
            Step::Acknowledged { message_id, .. } => {
                let answered = &texts[&message_id];
                unanswered.retain(|text| text != answered);
            }
            Step::Refused { text: answered, .. } => unanswered.retain(|text| *text != answered),
            Step::Read { .. } | Step::Joined { .. } | Step::Returned { .. } => {}
        }
    }
    Transcript {
        steps,
        ..transcript
    }
}
