//! Rows: what stands in each table, with a checksum that tells a row that was written from one that came about.

use rusqlite::{CachedStatement, Connection, Row, Statement, params};

use super::Place;
use crate::{
    journal::{Extent, Fault},
    room::{Digest, Incarnation, Member, RoomSnapshot, Snapshot},
};

/// The row of `service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) epoch: String,
    pub(super) clock: i64,
    pub(super) incarnations: u64,
    /// Transactions so far.
    pub(super) commits: u64,
    /// Rows of `room`.
    pub(super) rooms: u64,
    /// Rows of `member`.
    pub(super) members: u64,
}

/// The state as it was stored last.
pub(super) fn load(place: &Place, connection: &Connection) -> Result<(Service, Snapshot), Fault> {
    let doing = "read the state";
    let service = Service::load(connection)
        .map_err(|error| place.fault(doing, error))?
        .ok_or_else(|| place.damaged("the row of the service is not what was written"))?;
    let mut rooms = load_rooms(connection)
        .map_err(|error| place.fault(doing, error))?
        .map_err(|name| {
            place.damaged(format!("the row of room {name:?} is not what was written"))
        })?;
    let members = load_members(connection)
        .map_err(|error| place.fault(doing, error))?
        .map_err(|id| {
            place.damaged(format!(
                "the row of participant {id} is not what was written"
            ))
        })?;
    // In a tree that is not in order some rows are never found, though a walk through all of it meets them.
    let rooms_in_order = rooms.is_sorted_by(|one, next| one.name < next.name);
    let members_in_order = members
        .is_sorted_by(|(room, one), (next_room, next)| (room, one.id) < (next_room, next.id));
    if !rooms_in_order || !members_in_order {
        return Err(
            place.damaged("rooms or participants are not in the order in which they were written")
        );
    }
    let counts = (rooms.len() as u64, members.len() as u64);
    if counts != (service.rooms, service.members) {
        return Err(place.damaged(format!(
            "there are {} rooms and {} participants where {} and {} were written",
            counts.0, counts.1, service.rooms, service.members
        )));
    }
    for (name, member) in members {
        let at = rooms
            .binary_search_by(|room| room.name.as_str().cmp(&name))
            .map_err(|_| place.damaged(format!("participant {} is in no room", member.id)))?;
        rooms[at].members.push(member);
    }
    let snapshot = Snapshot {
        epoch: service.epoch.clone(),
        clock: service.clock,
        incarnations: service.incarnations,
        rooms,
    };
    Ok((service, snapshot))
}

impl Service {
    pub(super) fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.write(&mut connection.prepare_cached(
            "INSERT INTO service (only_row, epoch, clock, incarnations, commits, rooms, members, checksum)
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?)
    }

    pub(super) fn update(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.write(&mut connection.prepare_cached(
            "UPDATE service SET epoch = ?1, clock = ?2, incarnations = ?3, commits = ?4, rooms = ?5, members = ?6,
                    checksum = ?7",
        )?)
    }

    fn write(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
        let written = statement.execute(params![
            self.epoch,
            self.clock,
            signed(self.incarnations),
            signed(self.commits),
            signed(self.rooms),
            signed(self.members),
            self.checksum(),
        ])?;
        one_row(written)
    }

    /// None if it is not what was written.
    fn load(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        connection.query_row(
            "SELECT epoch, clock, incarnations, commits, rooms, members, checksum FROM service",
            [],
            |row| {
                let service = Self {
                    epoch: row.get(0)?,
                    clock: row.get(1)?,
                    incarnations: unsigned(row, 2)?,
                    commits: unsigned(row, 3)?,
                    rooms: unsigned(row, 4)?,
                    members: unsigned(row, 5)?,
                };
                let is_whole = row.get::<_, u32>(6)? == service.checksum();
                Ok(is_whole.then_some(service))
            },
        )
    }

    fn checksum(&self) -> u32 {
        checksum(&[
            self.epoch.as_bytes(),
            &self.clock.to_le_bytes(),
            &self.incarnations.to_le_bytes(),
            &self.commits.to_le_bytes(),
            &self.rooms.to_le_bytes(),
            &self.members.to_le_bytes(),
        ])
    }
}

/// In alphabetical order; or the name of one that is not what was written.
fn load_rooms(connection: &Connection) -> rusqlite::Result<Result<Vec<RoomSnapshot>, String>> {
    let mut statement =
        connection.prepare("SELECT name, head, first, oldest, checksum FROM room ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut rooms = Vec::new();
    while let Some(row) = rows.next()? {
        let room = RoomSnapshot {
            name: row.get(0)?,
            head: unsigned(row, 1)?,
            first: unsigned(row, 2)?,
            oldest: unsigned(row, 3)?,
            members: Vec::new(),
        };
        if row.get::<_, u32>(4)? != room_checksum(&room.name, room.head, room.first, room.oldest) {
            return Ok(Err(room.name));
        }
        rooms.push(room);
    }
    Ok(Ok(rooms))
}

/// Each with its room; or the id of one that is not what was written.
fn load_members(connection: &Connection) -> rusqlite::Result<Result<Vec<(String, Member)>, i32>> {
    let mut statement = connection.prepare(
        "SELECT room, id, name, bot, session, incarnation, joined_sequence, joined_timestamp, checksum FROM member
         ORDER BY room, id",
    )?;
    let mut rows = statement.query([])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        let room: String = row.get(0)?;
        let member = Member {
            id: row.get(1)?,
            name: row.get(2)?,
            bot: row.get(3)?,
            session: row.get::<_, Option<[u8; 16]>>(4)?.map(Digest),
            incarnation: Incarnation(unsigned(row, 5)?),
            joined_sequence: unsigned(row, 6)?,
            joined_timestamp: row.get(7)?,
        };
        if row.get::<_, u32>(8)? != member_checksum(&room, &member) {
            return Ok(Err(member.id));
        }
        members.push((room, member));
    }
    Ok(Ok(members))
}

/// Writes the row of a room. Returns how many rows there are more now.
pub(super) fn put_room(connection: &Connection, extent: &Extent) -> rusqlite::Result<u64> {
    let Extent {
        room,
        head,
        first,
        oldest,
    } = extent;
    let row = params![
        room,
        signed(*head),
        signed(*first),
        signed(*oldest),
        room_checksum(room, *head, *first, *oldest)
    ];
    let updated = connection
        .prepare_cached(
            "UPDATE room SET head = ?2, first = ?3, oldest = ?4, checksum = ?5 WHERE name = ?1",
        )?
        .execute(row)?;
    if updated == 0 {
        let inserted = connection
            .prepare_cached(
                "INSERT INTO room (name, head, first, oldest, checksum) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(row)?;
        one_row(inserted)?;
        return Ok(1);
    }
    Ok(0)
}

/// What `room` keeps; nothing of a room without history. A room that has one is found: [`load`] has seen that all rows
/// are in order.
pub(super) fn extent(connection: &Connection, room: &str) -> rusqlite::Result<Option<Extent>> {
    let mut statement = connection
        .prepare_cached("SELECT head, first, oldest, checksum FROM room WHERE name = ?1")?;
    let mut rows = statement.query([room])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let extent = Extent {
        room: room.into(),
        head: unsigned(row, 0)?,
        first: unsigned(row, 1)?,
        oldest: unsigned(row, 2)?,
    };
    if row.get::<_, u32>(3)? != room_checksum(room, extent.head, extent.first, extent.oldest) {
        return Err(rusqlite::Error::IntegralValueOutOfRange(
            3,
            signed(extent.head),
        ));
    }
    Ok(Some(extent))
}

/// Removes the row of a participant, if there is one. Returns how many were removed.
pub(super) fn remove_member(connection: &Connection, room: &str, id: i32) -> rusqlite::Result<u64> {
    let removed = connection
        .prepare_cached("DELETE FROM member WHERE room = ?1 AND id = ?2")?
        .execute(params![room, id])?;
    Ok(removed as u64)
}

pub(super) fn insert_member(
    connection: &Connection,
    room: &str,
    member: &Member,
) -> rusqlite::Result<()> {
    let inserted = connection
        .prepare_cached(
            "INSERT INTO member (room, id, name, bot, session, incarnation, joined_sequence, joined_timestamp, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            room,
            member.id,
            member.name,
            member.bot,
            member.session.map(|session| session.0),
            signed(member.incarnation.0),
            signed(member.joined_sequence),
            member.joined_timestamp,
            member_checksum(room, member),
        ])?;
    one_row(inserted)
}

pub(super) fn write_event(
    statement: &mut Statement<'_>,
    room: &str,
    sequence: u64,
    message: &[u8],
) -> rusqlite::Result<()> {
    one_row(statement.execute(params![
        room,
        signed(sequence),
        message,
        event_checksum(room, sequence, message)
    ])?)
}

/// Puts something else in an event's place.
pub(super) fn update_event(
    connection: &Connection,
    room: &str,
    sequence: u64,
    kept: &[u8],
) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE event SET message = ?3, checksum = ?4 WHERE room = ?1 AND sequence = ?2",
    )?;
    write_event(&mut update, room, sequence, kept)
}

/// The checksum of a row of `event`.
pub(super) fn event_checksum(room: &str, sequence: u64, message: &[u8]) -> u32 {
    checksum(&[room.as_bytes(), &sequence.to_le_bytes(), message])
}

fn room_checksum(name: &str, head: u64, first: u64, oldest: u64) -> u32 {
    checksum(&[
        name.as_bytes(),
        &head.to_le_bytes(),
        &first.to_le_bytes(),
        &oldest.to_le_bytes(),
    ])
}

fn member_checksum(room: &str, member: &Member) -> u32 {
    checksum(&[
        room.as_bytes(),
        &member.id.to_le_bytes(),
        member.name.as_bytes(),
        &[u8::from(member.bot)],
        member.session.as_ref().map_or(&[], |session| &session.0),
        &member.incarnation.0.to_le_bytes(),
        &member.joined_sequence.to_le_bytes(),
        &member.joined_timestamp.to_le_bytes(),
    ])
}

/// CRC-32 of the parts, each with its length before it.
fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

/// SQLite's integers are signed. Sequences and counts start at 0 and rise by one, so they do not come near its end.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn one_row(written: usize) -> rusqlite::Result<()> {
    match written {
        1 => Ok(()),
        other => Err(rusqlite::Error::StatementChangedRows(other)),
    }
}
