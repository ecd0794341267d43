//! Those who join and then do not read, until the measuring is over.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{Hall, member::Seat};
use crate::bench::{
    Outcome,
    connection::{Connection, STALLED_WINDOW_BYTES, Stream},
    turns::Turn,
};

/// What one reads in the end, to learn whether it was ended: that stands behind what was on its way.
///
/// Unit: bytes. When reached: it was not ended. Source: a server of ours holds 0.1 MB at most for one who does not read, and so may the sockets.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// How long that may take; who has heard nothing of an end by then was not ended.
const REREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// One that stands still.
struct Still {
    stream: Stream,
    /// What it has read in the end.
    read: usize,
    ended: bool,
}

/// The task of one connection whose streams nobody reads: their windows fill up and stay full, while the connection
/// answers pings. When all leave, or the server ends the connection, which is its right, it looks for the streams' ends.
///
/// # Errors
/// The service cannot be reached, or refuses.
pub(super) async fn stand_still(hall: Arc<Hall>, seats: Vec<Seat>) -> anyhow::Result<Outcome> {
    let door = hall.doors.acquire().await;
    let begin = Instant::now();
    let mut connection = hall.connect(STALLED_WINDOW_BYTES).await?;
    let mut all = Vec::with_capacity(seats.len());
    for seat in seats {
        let (stream, ..) = hall.enter(&mut connection, &seat).await?;
        all.push(Still {
            stream,
            read: 0,
            ended: false,
        });
        let joined = Turn {
            due: begin,
            measured: true,
        };
        hall.joins
            .acknowledged(seat.index, &[joined], Instant::now());
        hall.settled.pass();
    }
    drop(door);
    tokio::select! {
        () = hall.leave.cancelled() => {}
        () = poll_fn(|context| match connection.drive(context) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(()),
        }) => {}
    }
    let reading = poll_fn(|context| poll_ends(context, &mut connection, &mut all));
    // When it is over all that could be learned has been.
    let _ = timeout(REREAD_TIMEOUT, reading).await;
    let ended = all.iter().filter(|still| still.ended).count();
    hall.stalled_ended.fetch_add(ended, Ordering::AcqRel);
    Ok(Outcome::default())
}

/// Ready when of each it is known whether the server has ended it.
fn poll_ends(
    context: &mut Context<'_>,
    connection: &mut Connection,
    all: &mut [Still],
) -> Poll<()> {
    // Where the connection has ended, so have its streams, as reading them shows.
    let _ = connection.drive(context);
    let mut unknown = false;
    for still in all {
        unknown |= still.poll_end(context).is_pending();
    }
    if unknown {
        Poll::Pending
    } else {
        Poll::Ready(())
    }
}

impl Still {
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.ended && self.read <= HELD_BYTES_MAX {
            match self.stream.poll_next(context) {
                Poll::Ready(Ok(Some(messages))) => self.read += messages.bytes(),
                Poll::Ready(Ok(None) | Err(_)) => self.ended = true,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}
