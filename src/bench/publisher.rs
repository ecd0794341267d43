//! One participant that publishes as fast as it is let, and reads its room.

use std::{
    fmt::Write as _,
    task::{Context, Poll},
    time::Instant,
};

use anyhow::{Context as _, anyhow, bail};
use bytes::BytesMut;

use super::{
    Load, Outcome,
    check::{InFlight, RoomOrder, Violations},
    connection::{Connection, Stream},
    ended,
    heard::Heard,
    meter::Meter,
    refused,
    turns::{Turn, Turns},
};
use crate::{
    client::{render, status::because},
    clock::LamportClock,
    wire::{
        Frame,
        v1::{EventType, JoinMsgLeave},
    },
};

/// A participant that has joined.
pub(super) struct Publisher {
    index: usize,
    stream: Stream,
    id: i32,
    name: String,
    clock: LamportClock,
    order: RoomOrder,
    in_flight: InFlight,
    in_flight_max: usize,
    violations: Violations,
    /// The message that is sent again and again; only its id and its timestamp change.
    message: JoinMsgLeave,
    /// What its ids begin with.
    prefix: String,
    stage: Stage,
    sent: u64,
    /// Kept for their memory: what is to be sent, and what has come back.
    frames: BytesMut,
    returned: Vec<Turn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Publishing,
    /// It has said LEAVE: what the server sends until the stream ends is all there is.
    Leaving,
    Left,
}

impl Publisher {
    /// Joins as the stream `index` of `load`.
    ///
    /// # Errors
    /// The service refuses, or does not answer.
    pub(super) async fn join(
        connection: &mut Connection,
        load: &Load,
        index: usize,
    ) -> anyhow::Result<Self> {
        let (name, room) = (load.name(index), load.room(index));
        let mut clock = LamportClock::default();
        let join = JoinMsgLeave {
            r#type: EventType::Join.into(),
            client_name: name.clone(),
            room: room.clone(),
            timestamp: clock.tick(),
            bot: true,
            ..JoinMsgLeave::default()
        };
        let (stream, first) = connection
            .join(&join)
            .await
            .map_err(|status| anyhow!("{}", render::clean(&because(&status))))
            .with_context(|| format!("{name} cannot join {room}"))?;
        let Some(welcome) = first.welcome else {
            bail!("{name} joined {room} and was not welcomed");
        };
        clock.merge(first.timestamp);
        Ok(Self {
            index,
            stream,
            id: welcome.id,
            order: RoomOrder::after(&room, welcome.head, first.timestamp),
            in_flight: InFlight::of(&name),
            in_flight_max: load.in_flight,
            violations: Violations::default(),
            message: JoinMsgLeave {
                r#type: EventType::Message.into(),
                msg: load.text.clone(),
                ..JoinMsgLeave::default()
            },
            prefix: load.message_prefix(index),
            stage: Stage::Publishing,
            sent: 0,
            frames: BytesMut::new(),
            returned: Vec::new(),
            clock,
            name,
        })
    }

    /// Reads what has come, sends what may be sent. Ready once it has left and its stream has ended.
    ///
    /// # Errors
    /// The service refuses a message, or ends the stream.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        turns: &mut Turns,
        meter: &Meter,
    ) -> Poll<anyhow::Result<()>> {
        if self.stage == Stage::Left {
            return Poll::Ready(Ok(()));
        }
        let heard = self.hear_all(context);
        if !self.returned.is_empty() {
            meter.acknowledged(self.index, &self.returned, Instant::now());
            self.returned.clear();
        }
        heard?;
        self.say_what_is_due(context, turns)?;
        match self.stage {
            Stage::Left => Poll::Ready(Ok(())),
            Stage::Publishing | Stage::Leaving => Poll::Pending,
        }
    }

    fn hear_all(&mut self, context: &mut Context<'_>) -> anyhow::Result<()> {
        while let Poll::Ready(next) = self.stream.poll_next(context) {
            match next.map_err(|status| ended(&self.name, &status))? {
                Some(messages) => {
                    for heard in messages.iter() {
                        self.hear(&heard.map_err(|status| ended(&self.name, &status))?)?;
                    }
                }
                None if self.stage == Stage::Publishing => {
                    bail!("the stream of {} ended though it had not left", self.name)
                }
                None => {
                    self.stage = Stage::Left;
                    break;
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, heard: &Heard<'_>) -> anyhow::Result<()> {
        if let Some(notice) = heard.notice() {
            return Err(refused(&self.name, notice?.code(), heard.text));
        }
        if heard.sequence == 0 {
            return Ok(());
        }
        self.clock.merge(heard.timestamp);
        self.order
            .event(heard.sequence, heard.timestamp, &mut self.violations);
        if heard.sender_id == self.id && heard.kind == i32::from(EventType::Message) {
            let number = self.number(heard.message_id);
            let turn = self.in_flight.take(number, &mut self.violations);
            self.returned.extend(turn);
        }
        Ok(())
    }

    /// The number in an id of ours; one that was never sent if it is not ours.
    fn number(&self, message_id: &[u8]) -> u64 {
        message_id
            .strip_prefix(self.prefix.as_bytes())
            .and_then(|number| std::str::from_utf8(number).ok()?.parse().ok())
            .unwrap_or(u64::MAX)
    }

    /// All that may be sent, in one piece.
    fn say_what_is_due(
        &mut self,
        context: &mut Context<'_>,
        turns: &mut Turns,
    ) -> anyhow::Result<()> {
        while self.stage == Stage::Publishing {
            // One whose messages are lost is to leave when the others do.
            let is_full = self.in_flight.len() >= self.in_flight_max;
            if is_full && !turns.are_over(Instant::now()) {
                break;
            }
            match turns.poll(context) {
                Poll::Ready(Some(turn)) => self.say(turn),
                Poll::Ready(None) => self.leave(),
                Poll::Pending => break,
            }
        }
        if !self.frames.is_empty() {
            self.stream
                .send(self.frames.split().freeze())
                .map_err(|status| anyhow!("{} cannot send: {}", self.name, status.message()))?;
        }
        Ok(())
    }

    fn say(&mut self, turn: Turn) {
        self.sent += u64::from(turn.measured);
        let number = self.in_flight.send(turn);
        self.message.message_id.clear();
        // A String takes whatever is written to it.
        let _ = write!(self.message.message_id, "{}{number}", self.prefix);
        self.append();
    }

    fn leave(&mut self) {
        self.message = JoinMsgLeave {
            r#type: EventType::Leave.into(),
            ..JoinMsgLeave::default()
        };
        self.append();
        self.stage = Stage::Leaving;
    }

    fn append(&mut self) {
        self.message.timestamp = self.clock.tick();
        Frame::append(&self.message, &mut self.frames);
    }

    /// What became of its messages; so many were `missed`.
    pub(super) fn finish(mut self, missed: u64) -> Outcome {
        self.in_flight.finish(&mut self.violations);
        Outcome {
            sent: self.sent,
            missed,
            violations: self.violations,
        }
    }
}
