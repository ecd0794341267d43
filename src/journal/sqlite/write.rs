//! Writing the history: one batch is one transaction.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{
    Place,
    read::{self, Readers},
    row::{self, Service},
    witness::{self, Witness},
};
use crate::{
    journal::{Batch, Extent, Fault, Range},
    room::{PAGE_EVENTS_MAX, Past},
    wire::{self, Frame},
};

const STORING: &str = "store events";

/// The writing end.
#[derive(Debug)]
pub(in super::super) struct Writer {
    place: Place,
    connection: Connection,
    readers: Readers,
    witness: Witness,
    /// The row of the service as it is stored.
    service: Service,
}

impl Writer {
    pub(super) fn new(
        place: Place,
        connection: Connection,
        readers: Readers,
        witness: Witness,
        service: Service,
    ) -> Self {
        Self {
            place,
            connection,
            readers,
            witness,
            service,
        }
    }

    /// Whether there was a witness when the history was opened.
    pub(super) fn has_witness(&self) -> bool {
        self.witness.seen.is_some()
    }

    /// A history without a witness begins, or is a copy that goes on: what came after the copy is not known here, so it
    /// must not pass for the history that its readers knew. Returns the epoch.
    pub(super) fn begin_epoch(&mut self, epoch: String) -> Result<String, Fault> {
        if self.service.epoch != epoch {
            if self.service.commits > 0 {
                tracing::warn!(
                    "{} has no {} beside it, as a copy has not: its history {} goes on as {epoch}",
                    super::DATABASE,
                    witness::FILE,
                    self.service.epoch
                );
            }
            self.service.epoch.clone_from(&epoch);
            self.service
                .update(&self.connection)
                .map_err(|error| self.place.fault("begin a new epoch", error))?;
        }
        self.witness
            .begin(&epoch, self.service.commits)
            .and_then(|()| self.place.sync_directory())
            .map_err(|error| self.place.failed("write chitchat.lock", error))?;
        Ok(epoch)
    }

    pub(in super::super) fn store(&mut self, batch: &Batch) -> Result<(), Fault> {
        if !self.changes(batch) {
            return Ok(());
        }
        self.service = match self.commit(batch) {
            Ok(service) => service,
            Err(error) => {
                // What has failed is not touched again, by closing it neither.
                super::keep_log(&self.place, &self.connection, true)?;
                return Err(error);
            }
        };
        self.witness
            .note(&self.service.epoch, self.service.commits)
            .map_err(|error| self.place.failed("write chitchat.lock", error))
    }

    /// Whether anything is to be stored: a duplicate, or a request that was refused whole, changes nothing.
    fn changes(&self, batch: &Batch) -> bool {
        batch.clock != self.service.clock
            || batch.incarnations != self.service.incarnations
            || !batch.rooms.is_empty()
    }

    fn commit(&mut self, batch: &Batch) -> Result<Service, Fault> {
        let fault = |error| self.place.fault(STORING, error);
        let mut service = Service {
            clock: batch.clock,
            incarnations: batch.incarnations,
            commits: self.service.commits + 1,
            ..self.service.clone()
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fault)?;
        insert_events(&transaction, batch).map_err(fault)?;
        for extent in batch.rooms.iter().filter(|extent| extent.first > 1) {
            let_go(&self.place, &transaction, extent)?;
        }
        write_state(&transaction, batch, &mut service)
            .and_then(|()| transaction.commit())
            .map_err(fault)?;
        Ok(service)
    }

    pub(in super::super) fn past(&mut self, room: &str, after: u64) -> Result<Vec<Past>, Fault> {
        let extent = row::extent(&self.connection, room);
        let Some(extent) = extent.map_err(|error| self.place.fault(STORING, error))? else {
            return Ok(Vec::new());
        };
        let mut past = Vec::new();
        let known = extent.oldest.max(after.saturating_add(1))..extent.first;
        for (sequence, kept) in read::stored(&self.place, &self.connection, room, known)? {
            match kept.as_slice().try_into() {
                Ok(bytes) => past.push(Past::from_bytes(bytes, sequence)),
                Err(_) if kept.is_empty() => {}
                Err(_) => return Err(self.no_event(room, sequence, "it is too old to be one")),
            }
        }
        let mut after = after.max(extent.first - 1);
        loop {
            let range = Range::After { after, before: 0 };
            let page = read::page(
                &self.place,
                &mut self.connection,
                room,
                range,
                PAGE_EVENTS_MAX.into(),
            )?;
            for (sequence, frame) in &page.events {
                let event = frame
                    .decode()
                    .map_err(|error| self.no_event(room, *sequence, &error.to_string()))?;
                past.extend(wire::past(&event));
                after = *sequence;
            }
            if !page.more {
                return Ok(past);
            }
        }
    }

    fn no_event(&self, room: &str, sequence: u64, why: &str) -> Fault {
        let what = format!("event {sequence} of room {room:?} is no event: {why}");
        self.place.damaged(what)
    }

    /// Brings everything into the one file, which is then a backup when it is copied.
    pub(in super::super) fn close(self) -> Result<(), Fault> {
        let doing = "close the database";
        self.readers.close();
        if !self.place.empty_log(&self.connection)? {
            tracing::warn!(
                "another program reads {}: a copy of it needs its -wal as well",
                super::DATABASE
            );
        }
        self.connection
            .close()
            .map_err(|(_, error)| self.place.fault(doing, error))
    }
}

fn insert_events(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO event (room, sequence, message, checksum) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for entry in &batch.entries {
        let message = entry.frame.message();
        row::write_event(&mut insert, &entry.room, entry.sequence, message)?;
    }
    Ok(())
}

/// Removes what is before the oldest, and between that and the first event all but what recognizes a retry.
fn let_go(place: &Place, transaction: &Transaction<'_>, extent: &Extent) -> Result<(), Fault> {
    let fault = |error| place.fault(STORING, error);
    let room = &extent.room;
    let before = row::extent(transaction, room).map_err(fault)?;
    let from = before.map_or(1, |before| before.first).max(extent.oldest);
    for (sequence, message) in read::stored(place, transaction, room, from..extent.first)? {
        let event = Frame::of_encoded(&message).decode().ok();
        let past = event.as_ref().and_then(wire::past);
        let kept = past.map_or(Vec::new(), |past| past.to_bytes().to_vec());
        row::update_event(transaction, room, sequence, &kept).map_err(fault)?;
    }
    transaction
        .prepare_cached("DELETE FROM event WHERE room = ?1 AND sequence < ?2")
        .and_then(|mut trim| trim.execute(params![room, row::signed(extent.oldest)]))
        .map(drop)
        .map_err(fault)
}

/// Everything but the events.
fn write_state(
    transaction: &Transaction<'_>,
    batch: &Batch,
    service: &mut Service,
) -> rusqlite::Result<()> {
    for extent in &batch.rooms {
        service.rooms += row::put_room(transaction, extent)?;
    }
    for (room, id, member) in &batch.members {
        service.members -= row::remove_member(transaction, room, *id)?;
        if let Some(member) = member {
            row::insert_member(transaction, room, member)?;
            service.members += 1;
        }
    }
    service.update(transaction)
}
