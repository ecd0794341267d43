//! What is done for the history while the server runs: it is verified once, and what is too old falls out.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::sleep;

use super::{Shared, chat::command};
use crate::{
    journal::{Fault, Page, Range},
    order::Stopped,
    room::{Action, PAGE_EVENTS_MAX},
    wire::{Frame, v1::ServerMessage},
};

/// How much longer than the reading of a page the pause after it is, while the history is verified.
///
/// So verifying takes a fifth of one core at most, and two million events some ten seconds.
const PAUSE: u32 = 4;

/// The longest time between two looks for events that are too old.
const LOOK: Duration = Duration::from_secs(60);

/// The shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(500);

/// Looks after the history until it turns out to be damaged, and returns that. `rooms`: those that it had when it was
/// opened.
pub(super) async fn keep(shared: &Shared, rooms: Vec<Arc<str>>) -> Fault {
    let verified = async {
        match verify(shared, rooms).await {
            Ok(()) => std::future::pending().await,
            Err(fault) => fault,
        }
    };
    let aged = async {
        // Ends when the order does, which the server hears of by itself.
        match let_go_of_the_old(shared).await {
            Err(Ended::Fault(fault)) => fault,
            Err(Ended::Stopped) | Ok(()) => std::future::pending().await,
        }
    };
    tokio::select! {
        fault = verified => fault,
        fault = aged => fault,
    }
}

/// Reads everything once, slowly. To open a history must not take longer the longer it is, so that damage in its middle
/// is found now: before somebody reads it or relies on it, though not before the server serves.
async fn verify(shared: &Shared, rooms: Vec<Arc<str>>) -> Result<(), Fault> {
    for room in rooms {
        let mut after = 0;
        loop {
            let began = Instant::now();
            let range = Range::After { after, before: 0 };
            let page = read(shared, &room, range, PAGE_EVENTS_MAX).await?;
            let Some((last, _)) = page.events.last().filter(|_| page.more) else {
                break;
            };
            after = *last;
            sleep(began.elapsed() * PAUSE).await;
        }
    }
    tracing::debug!("the history is whole");
    Ok(())
}

/// Why the looking ends.
enum Ended {
    Stopped,
    Fault(Fault),
}

impl From<Stopped> for Ended {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Lets go of what is older than `limits.history_age`, again and again.
async fn let_go_of_the_old(shared: &Shared) -> Result<(), Ended> {
    let age = shared.limits.history_age;
    if age.is_zero() {
        return Ok(());
    }
    loop {
        let rooms = shared.order.look(|service| {
            let names = service.rooms().map(|room| room.name);
            names.collect::<Vec<_>>()
        });
        for room in rooms.await? {
            // The oldest alone, and a page only if that is too old: there may be thousands of rooms.
            let mut limit = 1;
            while let Some(first) = first_young_enough(shared, &room, age, limit).await? {
                let span = shared.tracer.order("", &room);
                let trim = command(&room, None, &span, Action::Trim { first });
                shared.order.ask(trim, span).await?;
                tracing::debug!(
                    "the history of {room} begins with {first}: the rest is older than {age:?}"
                );
                limit = PAGE_EVENTS_MAX;
            }
        }
        sleep((age / 10).clamp(LOOK_MIN, LOOK)).await;
    }
}

/// The oldest sequence of `room` to keep; none if nothing there is too old. Looks at no more than `limit` events, so
/// that no more than that are let go of at once.
async fn first_young_enough(
    shared: &Shared,
    room: &str,
    age: Duration,
    limit: usize,
) -> Result<Option<u64>, Fault> {
    let Some(too_old) = SystemTime::now().checked_sub(age) else {
        return Ok(None);
    };
    let range = Range::After {
        after: 0,
        before: 0,
    };
    let Page { events, .. } = read(shared, room, range, limit).await?;
    let young = |frame: &Frame| accepted_at(frame).is_none_or(|at| at >= too_old);
    let old = events.iter().take_while(|(_, frame)| !young(frame));
    Ok(old.last().map(|(sequence, _)| sequence + 1))
}

/// Reads a page, again and again if the system does not let us at present: nobody waits for it, and what cannot be read
/// for want of memory, say, is not damaged.
///
/// # Errors
///
/// [`Fault::Damaged`]
async fn read(shared: &Shared, room: &str, range: Range, limit: usize) -> Result<Page, Fault> {
    loop {
        match shared.journal.read(room, range, limit).await {
            Err(fault @ Fault::Failed { .. }) => {
                tracing::warn!("{:#}", anyhow::Error::new(fault));
                sleep(LOOK).await;
            }
            read => return read,
        }
    }
}

fn accepted_at(frame: &Frame) -> Option<SystemTime> {
    let event: ServerMessage = frame.decode().ok()?;
    event.accepted_at?.try_into().ok()
}
