//! What makes a member a publisher.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use anyhow::anyhow;
use bytes::{Bytes, BytesMut};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep_until},
};

use super::{
    Hall,
    label::{LABEL_CHARS, Label, Mark},
    room::{Room, Wakes},
};
use crate::{
    bench::turns::{Turn, Turns},
    clock::LamportClock,
    wire::{
        Frame,
        v1::{EventType, JoinMsgLeave},
    },
};

/// Publishes in its room, once it is told to begin.
pub(super) struct Speaker {
    /// Its place among the publishers of the room.
    place: usize,
    cued: oneshot::Receiver<Turns>,
    stage: Stage,
    wakes: Wakes,
    /// Messages that it may send without asking again.
    allowed: u64,
    number: u32,
    /// Measured messages that were sent.
    pub(super) sent: u64,
    /// Measured messages that were due and were not sent.
    pub(super) missed: u64,
    /// The message that is sent again and again; its text and its timestamp change.
    message: JoinMsgLeave,
    /// Kept for their memory.
    frames: BytesMut,
}

enum Stage {
    /// It was not told to begin.
    Silent,
    Speaking {
        turns: Turns,
        /// Wakes it at the end, whatever it waits for.
        end: Option<Pin<Box<Sleep>>>,
    },
    Done,
}

impl Stage {
    fn speaking(turns: Turns) -> Self {
        let end = turns
            .until()
            .map(|until| Box::pin(sleep_until(until.into())));
        Self::Speaking { turns, end }
    }
}

impl Speaker {
    pub(super) fn new(place: usize, cued: oneshot::Receiver<Turns>, wakes: Wakes) -> Self {
        Self {
            place,
            cued,
            stage: Stage::Silent,
            wakes,
            allowed: 0,
            number: 0,
            sent: 0,
            missed: 0,
            message: JoinMsgLeave {
                r#type: EventType::Message.into(),
                ..JoinMsgLeave::default()
            },
            frames: BytesMut::new(),
        }
    }

    /// What is to be sent now, in one piece; empty if that is nothing.
    ///
    /// # Errors
    /// It has more to say than numbers to give.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        hall: &Hall,
        room: &Room,
        clock: &mut LamportClock,
    ) -> anyhow::Result<Bytes> {
        if let Stage::Silent = self.stage
            && let Poll::Ready(cue) = Pin::new(&mut self.cued).poll(context)
        {
            // Nobody is left who could tell it to begin: the run has failed.
            self.stage = cue.map_or(Stage::Done, Stage::speaking);
        }
        let before = (self.number, self.sent);
        while let Some(next) = self.next(context, room) {
            match next {
                Some(turn) => self.say(turn, hall, clock)?,
                None => self.say_last(hall, clock),
            }
        }
        let count = self.number - before.0;
        if count > 0 {
            room.sent(self.place, count.into(), self.sent - before.1);
        }
        Ok(self.frames.split().freeze())
    }

    /// What to say now; none to wait, and none within for the last word.
    fn next(&mut self, context: &mut Context<'_>, room: &Room) -> Option<Option<Turn>> {
        let Stage::Speaking { turns, end } = &mut self.stage else {
            return None;
        };
        if let Some(sleep) = end
            && sleep.as_mut().poll(context).is_ready()
        {
            *end = None;
        }
        if turns.are_over(Instant::now()) {
            return Some(None);
        }
        while self.allowed == 0 {
            if room.claim() {
                self.allowed = room.burst();
            } else if self.wakes.poll_recv(context).is_pending() {
                return None;
            }
        }
        match turns.poll(context) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    fn say(&mut self, turn: Turn, hall: &Hall, clock: &mut LamportClock) -> anyhow::Result<()> {
        let due = turn.due.saturating_duration_since(hall.epoch);
        let label = Label {
            number: self.number,
            due_ns: u64::try_from(due.as_nanos()).unwrap_or(u64::MAX),
            mark: if turn.measured {
                Mark::Measured
            } else {
                Mark::WarmUp
            },
        };
        self.number = (self.number.checked_add(1))
            .ok_or_else(|| anyhow!("a publisher has sent 2^32 messages, which is all it can"))?;
        self.allowed -= 1;
        self.sent += u64::from(turn.measured);
        self.append(label, hall, clock);
        Ok(())
    }

    fn say_last(&mut self, hall: &Hall, clock: &mut LamportClock) {
        let label = Label {
            number: self.number,
            due_ns: 0,
            mark: Mark::Last,
        };
        self.append(label, hall, clock);
        if let Stage::Speaking { turns, .. } = std::mem::replace(&mut self.stage, Stage::Done) {
            self.missed = turns.missed();
        }
    }

    fn append(&mut self, label: Label, hall: &Hall, clock: &mut LamportClock) {
        let text = &mut self.message.msg;
        text.clear();
        label.write(text);
        text.push_str(&hall.load.text[LABEL_CHARS..]);
        self.message.timestamp = clock.tick();
        Frame::append(&self.message, &mut self.frames);
    }
}
