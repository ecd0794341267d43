//! Those who read, on one connection; one of them may publish.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use anyhow::{anyhow, bail};
use tokio::sync::oneshot;

use super::{Hall, listener::Listener, room::Wakes, speaker::Speaker, words};
use crate::{
    bench::{
        Outcome,
        connection::{Connection, Stream, WINDOW_BYTES},
        ended,
        turns::{Turn, Turns},
    },
    wire::{
        Frame,
        v1::{EventType, JoinMsgLeave},
    },
};

/// A place that is to be taken.
pub(super) struct Seat {
    /// Among all who are there.
    pub(super) index: usize,
    pub(super) room: usize,
    pub(super) role: Role,
}

/// What one is there for.
pub(super) enum Role {
    Publisher {
        cued: oneshot::Receiver<Turns>,
        wakes: Wakes,
    },
    Subscriber,
}

/// One who has joined, or watches.
struct Member {
    room: usize,
    watches: bool,
    stream: Stream,
    listener: Listener,
    speaker: Option<Speaker>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    /// It has said LEAVE: what the server sends until the stream ends is all there is.
    Leaving,
    Left,
}

/// The task of one connection: joins for all of `seats`, then reads until all have left.
///
/// # Errors
/// The service cannot be reached, refuses, or ends a stream.
pub(super) async fn take_part(hall: Arc<Hall>, seats: Vec<Seat>) -> anyhow::Result<Outcome> {
    let door = hall.doors.acquire().await;
    let begin = Instant::now();
    let mut connection = hall.connect(WINDOW_BYTES).await?;
    let mut members = Vec::with_capacity(seats.len());
    for seat in seats {
        let index = seat.index;
        members.push(Member::enter(&hall, &mut connection, seat).await?);
        let joined = Turn {
            due: begin,
            measured: true,
        };
        hall.joins.acknowledged(index, &[joined], Instant::now());
    }
    drop(door);
    let mut leave = pin!(hall.leave.cancelled());
    let mut leaving = false;
    poll_fn(|context| {
        leaving = leaving || leave.as_mut().poll(context).is_ready();
        let driven = connection.drive(context);
        let mut busy = false;
        for member in &mut members {
            match member.poll(context, &hall, leaving) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => busy = true,
            }
        }
        match driven {
            _ if !busy => Poll::Ready(Ok(())),
            Ok(()) => Poll::Pending,
            Err(status) => Poll::Ready(Err(anyhow!("{}", words(&status)))),
        }
    })
    .await?;
    let mut outcome = Outcome::default();
    for member in members {
        outcome.add(member.finish(&hall));
    }
    Ok(outcome)
}

impl Member {
    async fn enter(hall: &Hall, connection: &mut Connection, seat: Seat) -> anyhow::Result<Self> {
        let watches = hall.watches(&seat.role);
        let (stream, first, welcome) = hall.enter(connection, &seat).await?;
        // Who watches is told what time it is, and not that of the last event.
        let timestamp = if watches { 0 } else { first.timestamp };
        let last = (welcome.head, timestamp);
        Ok(Self {
            room: seat.room,
            watches,
            stream,
            listener: Listener::new(hall, seat.index, seat.room, last),
            speaker: match seat.role {
                Role::Publisher { cued, wakes } => {
                    Some(Speaker::new(seat.index / hall.cast.rooms, cued, wakes))
                }
                Role::Subscriber => None,
            },
            stage: Stage::Reading,
        })
    }

    /// Reads what has come, sends what may be sent. Ready once it has left.
    ///
    /// # Errors
    /// The service refuses a message, or ends the stream.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        hall: &Hall,
        leaving: bool,
    ) -> Poll<anyhow::Result<()>> {
        if self.stage != Stage::Left {
            let heard = self.hear_all(context, hall);
            self.listener.report(hall);
            heard?;
        }
        if self.stage == Stage::Reading {
            if leaving {
                self.leave()?;
            } else {
                self.speak(context, hall)?;
            }
        }
        match self.stage {
            Stage::Left => Poll::Ready(Ok(())),
            Stage::Reading | Stage::Leaving => Poll::Pending,
        }
    }

    fn hear_all(&mut self, context: &mut Context<'_>, hall: &Hall) -> anyhow::Result<()> {
        while let Poll::Ready(next) = self.stream.poll_next(context) {
            match next.map_err(|status| ended(&self.listener.name, &status))? {
                Some(messages) => self.listener.hear(hall, &messages)?,
                None if self.stage == Stage::Reading => {
                    let name = &self.listener.name;
                    bail!("the stream of {name} ended though it had not left")
                }
                None => {
                    self.stage = Stage::Left;
                    break;
                }
            }
        }
        Ok(())
    }

    fn speak(&mut self, context: &mut Context<'_>, hall: &Hall) -> anyhow::Result<()> {
        let Some(speaker) = &mut self.speaker else {
            return Ok(());
        };
        let (room, clock) = (&hall.rooms[self.room], &mut self.listener.clock);
        let frames = speaker.poll(context, hall, room, clock)?;
        if frames.is_empty() {
            return Ok(());
        }
        let name = &self.listener.name;
        (self.stream.send(frames))
            .map_err(|status| anyhow!("{name} cannot send: {}", status.message()))
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        if self.watches {
            // Nobody is told: the stream is dropped with the connection.
            self.stage = Stage::Left;
            return Ok(());
        }
        let leave = JoinMsgLeave {
            r#type: EventType::Leave.into(),
            timestamp: self.listener.clock.tick(),
            ..JoinMsgLeave::default()
        };
        self.stage = Stage::Leaving;
        let name = &self.listener.name;
        (self.stream.send(Frame::of(&leave).bytes()))
            .map_err(|status| anyhow!("{name} cannot leave: {}", status.message()))
    }

    /// What became of its messages, and of those that it was to read.
    fn finish(self, hall: &Hall) -> Outcome {
        let (sent, missed) =
            (self.speaker).map_or((0, 0), |speaker| (speaker.sent, speaker.missed));
        Outcome {
            sent,
            missed,
            violations: self.listener.finish(&hall.rooms[self.room]),
        }
    }
}
