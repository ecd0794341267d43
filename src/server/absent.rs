//! Those who were in a room when the server stopped: expected back, then announced as departed.

use std::sync::Arc;

use tokio::time::sleep;

use super::{Shared, chat::command};
use crate::{
    order::Stopped,
    room::{Action, Incarnation, Snapshot},
};

/// Participants whose streams ended with the server that served them.
#[derive(Debug)]
pub(super) struct Absent(Vec<Participant>);

#[derive(Debug)]
struct Participant {
    room: String,
    id: i32,
    incarnation: Incarnation,
    /// It was given a session, and may return with it.
    can_return: bool,
}

impl Absent {
    /// Everybody whom the history ended with.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let of_room = |room: &crate::room::RoomSnapshot| {
            let name = room.name.clone();
            let absent = room.members.iter().map(move |member| Participant {
                room: name.clone(),
                id: member.id,
                incarnation: member.incarnation,
                can_return: member.session.is_some(),
            });
            absent.collect::<Vec<_>>()
        };
        Self(snapshot.rooms.iter().flat_map(of_room).collect())
    }

    /// Waits for them as for anybody whose stream broke, from now on. A server that drains announces nobody.
    pub(super) async fn expect_back(self, shared: Arc<Shared>) {
        if self.0.is_empty() {
            return;
        }
        let (may_return, cannot): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|absent| absent.can_return);
        tracing::info!(
            "{} participants were here before; they may return within {:?}",
            may_return.len(),
            shared.grace
        );
        let announce = async {
            depart(&shared, cannot).await?;
            sleep(shared.grace).await;
            depart(&shared, may_return).await
        };
        tokio::select! {
            // The order has stopped, and so does the server: the next one expects them again.
            _ = announce => {}
            () = shared.draining.begun() => {}
        }
    }
}

/// Announces those who are still absent; who is back has a newer incarnation, of which this is not true.
async fn depart(shared: &Shared, absent: Vec<Participant>) -> Result<(), Stopped> {
    for Participant {
        room,
        id,
        incarnation,
        ..
    } in absent
    {
        let room = Arc::from(room);
        let span = shared.tracer.order("", &room);
        let leave = command(&room, None, &span, Action::Leave { id, incarnation });
        shared.order.submit(leave, span, Box::new(drop)).await?;
    }
    Ok(())
}
