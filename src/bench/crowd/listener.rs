//! What one reader makes of what it reads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    FIRST_ID, Hall,
    label::{LABEL_CHARS, Label, Mark},
    room::{Publisher, Room},
};
use crate::{
    bench::{
        check::{RoomOrder, Series, Violations},
        connection::Messages,
        ended, refused,
        turns::Turn,
    },
    clock::LamportClock,
    wire::v1::EventType,
};

/// A reader of a room.
pub(super) struct Listener {
    index: usize,
    pub(super) name: Arc<str>,
    room: usize,
    order: RoomOrder,
    pub(super) clock: LamportClock,
    /// The messages of each publisher in the room, by place.
    series: Vec<Series>,
    /// Publishers that have not said their last word.
    speaking: usize,
    violations: Violations,
    /// Something has come since the last report.
    heard: bool,
    /// The messages among that; kept for its memory.
    taken: Vec<Turn>,
    settled: bool,
    finished: bool,
}

impl Listener {
    /// Reads the room `room` from behind the event `head` on, which had this `timestamp`.
    pub(super) fn new(
        hall: &Hall,
        index: usize,
        room: usize,
        (head, timestamp): (u64, i64),
    ) -> Self {
        let name: Arc<str> = hall.load.name(index).into();
        let publishers = &hall.rooms[room].publishers;
        let series =
            |publisher: &Publisher| Series::of(Arc::clone(&publisher.name), Arc::clone(&name));
        let mut clock = LamportClock::default();
        clock.merge(timestamp);
        Self {
            index,
            room,
            order: RoomOrder::after(&hall.rooms[room].name, head, timestamp),
            clock,
            series: publishers.iter().map(series).collect(),
            speaking: publishers.len(),
            violations: Violations::default(),
            heard: true,
            taken: Vec::new(),
            settled: false,
            finished: false,
            name,
        }
    }

    /// Reads `messages`.
    ///
    /// # Errors
    /// One is a notice, or none of the service's.
    pub(super) fn hear(&mut self, hall: &Hall, messages: &Messages) -> anyhow::Result<()> {
        self.heard = true;
        for heard in messages.iter() {
            let heard = heard.map_err(|status| ended(&self.name, &status))?;
            if let Some(notice) = heard.notice() {
                return Err(refused(&self.name, notice?.code(), heard.text));
            }
            if heard.sequence == 0 {
                continue;
            }
            self.clock.merge(heard.timestamp);
            self.order
                .event(heard.sequence, heard.timestamp, &mut self.violations);
            if heard.kind == i32::from(EventType::Message) {
                self.message(hall, heard.sender_id, heard.text);
            }
        }
        Ok(())
    }

    fn message(&mut self, hall: &Hall, sender_id: i32, text: &[u8]) {
        let place = self.place(hall, sender_id);
        let read = Label::read(text).filter(|(_, rest)| *rest == filler(hall));
        let (Some(place), Some((label, _))) = (place, read) else {
            self.violations.stranger(&self.name);
            return;
        };
        let series = &mut self.series[place];
        if label.mark == Mark::Last {
            self.speaking -= usize::from(series.end());
            return;
        }
        if series.take(label.number.into(), &mut self.violations) {
            self.taken.push(Turn {
                due: hall.epoch + Duration::from_nanos(label.due_ns),
                measured: label.mark == Mark::Measured,
            });
        }
    }

    /// Which publisher of the room it is.
    fn place(&self, hall: &Hall, sender_id: i32) -> Option<usize> {
        let index = usize::try_from(sender_id.checked_sub(FIRST_ID)?).ok()?;
        let place = index / hall.cast.rooms;
        (index % hall.cast.rooms == self.room && place < self.series.len()).then_some(place)
    }

    /// Tells what has come since the last report: once for all that was found by one wake-up.
    pub(super) fn report(&mut self, hall: &Hall) {
        if !std::mem::take(&mut self.heard) {
            return;
        }
        let room = &hall.rooms[self.room];
        hall.meter
            .acknowledged(self.index, &self.taken, Instant::now());
        if !self.taken.is_empty() {
            room.delivered(self.taken.len() as u64);
            self.taken.clear();
        }
        if !self.settled && self.order.sequence() >= room.members {
            self.settled = true;
            hall.settled.pass();
        }
        if !self.finished && self.speaking == 0 {
            self.finished = true;
            hall.finished.pass();
        }
    }

    /// Nothing more will come: what was not as promised.
    pub(super) fn finish(mut self, room: &Room) -> Violations {
        for (place, series) in self.series.into_iter().enumerate() {
            series.finish(room.sent_by(place), &mut self.violations);
        }
        self.violations
    }
}

/// What stands behind the label of each text.
pub(super) fn filler(hall: &Hall) -> &[u8] {
    &hall.load.text.as_bytes()[LABEL_CHARS..]
}
