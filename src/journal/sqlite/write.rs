//! Writing the history: one batch is one transaction.

use rusqlite::{Connection, TransactionBehavior, params};

use super::{
    Place,
    read::{self, Readers},
    row::{self, Service},
    witness::{self, Witness},
};
use crate::{
    journal::{Batch, Fault, Range},
    room::{PAGE_EVENTS_MAX, Past},
    wire,
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
            tracing::warn!(
                "{} has no {} beside it, as a copy has not: its history {} goes on as {epoch}",
                super::DATABASE,
                witness::FILE,
                self.service.epoch
            );
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
                return Err(self.place.fault(STORING, error));
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

    fn commit(&mut self, batch: &Batch) -> rusqlite::Result<Service> {
        let mut service = Service {
            clock: batch.clock,
            incarnations: batch.incarnations,
            commits: self.service.commits + 1,
            ..self.service.clone()
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO event (room, sequence, message, checksum) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for entry in &batch.entries {
                let message = entry.frame.message();
                row::insert_event(&mut insert, &entry.room, entry.sequence, message)?;
            }
            let mut trim = transaction
                .prepare_cached("DELETE FROM event WHERE room = ?1 AND sequence < ?2")?;
            for extent in &batch.rooms {
                service.rooms += row::put_room(&transaction, extent)?;
                if extent.first > 1 {
                    trim.execute(params![extent.room, row::signed(extent.first)])?;
                }
            }
            for (room, id, member) in &batch.members {
                service.members -= row::remove_member(&transaction, room, *id)?;
                if let Some(member) = member {
                    row::insert_member(&transaction, room, member)?;
                    service.members += 1;
                }
            }
        }
        service.update(&transaction)?;
        transaction.commit()?;
        Ok(service)
    }

    pub(in super::super) fn past(&mut self, room: &str, after: u64) -> Result<Vec<Past>, Fault> {
        let mut past = Vec::new();
        let mut after = after;
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
                let event = frame.decode().map_err(|error| {
                    self.place.damaged(format!(
                        "event {sequence} of room {room:?} is no event: {error}"
                    ))
                })?;
                past.extend(wire::past(&event));
                after = *sequence;
            }
            if !page.more {
                return Ok(past);
            }
        }
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
