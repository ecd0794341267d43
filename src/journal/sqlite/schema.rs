//! The tables, and how an older database becomes one of this version.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{Place, beginning};
use crate::journal::Fault;

/// What makes the file one of ours: "Chat", in the database's header.
const APPLICATION_ID: i64 = 0x4368_6174;

/// Each brings a database from the version that is its place here to the next one; the first makes the tables.
///
/// The version stands in `PRAGMA user_version`. To change the schema, append a step; never change one that was released.
const STEPS: &[fn(&Transaction<'_>) -> rusqlite::Result<()>] = &[make_tables];

/// Checks whose database it is, and brings it to this version. An empty one becomes the history `epoch`.
pub(super) fn bring_up_to_date(
    place: &Place,
    connection: &mut Connection,
    epoch: &str,
) -> Result<(), Fault> {
    let known = newest();
    let found = version(place, connection)?;
    if found > known {
        return Err(Fault::Newer {
            directory: place.directory().into(),
            found,
            known,
        });
    }
    make_durable(place, connection)?;
    if found < known {
        let doing = "bring the database to this version";
        let missing = &STEPS[usize::try_from(found).unwrap_or(0)..];
        migrate(connection, missing, epoch).map_err(|error| place.fault(doing, error))?;
    }
    check_tables(place, connection)
}

/// The tables must be those that the steps make: SQLite believes what the file says of them, such as which column is
/// the key, and would read and write accordingly.
fn check_tables(place: &Place, connection: &Connection) -> Result<(), Fault> {
    let tables = |connection: &Connection| {
        let mut statement = connection.prepare(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema
                      -- What ANALYZE adds, if somebody runs it, is of no harm.
                      WHERE name NOT LIKE 'sqlite_stat%' ORDER BY rowid",
        )?;
        let tables = statement.query_map([], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?;
        tables.collect::<rusqlite::Result<Vec<[Option<String>; 4]>>>()
    };
    let expected = || {
        let mut model = Connection::open_in_memory()?;
        migrate(&mut model, STEPS, "")?;
        tables(&model)
    };
    let doing = "read the database's tables";
    let found = tables(connection).map_err(|error| place.fault(doing, error))?;
    let expected = expected().map_err(|error| place.fault(doing, error))?;
    if found != expected {
        return Err(place.damaged(format!(
            "the tables of {} are not those that were made",
            super::DATABASE
        )));
    }
    Ok(())
}

/// The version that this program makes.
fn newest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// The version of the database; 0 of one that has nothing in it.
fn version(place: &Place, connection: &Connection) -> Result<i64, Fault> {
    let doing = "read the database";
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|error| place.fault(doing, error))
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| place.fault(doing, error))?;
    match (application, version, tables) {
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, 1.., 1..) => Ok(version),
        _ => Err(place.damaged(format!("{} is not a history of Chit Chat", super::DATABASE))),
    }
}

/// WAL, and a sync with every commit; asked for, and read back.
fn make_durable(place: &Place, connection: &Connection) -> Result<(), Fault> {
    let doing = "make the database durable";
    let set = |name: &str, value: &str| {
        connection
            .pragma_update_and_check(None, name, value, |row| {
                row.get::<_, rusqlite::types::Value>(0)
            })
            .map_err(|error| place.fault(doing, error))
    };
    let journal_mode = set("journal_mode", "WAL")?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(|error| place.fault(doing, error))?;
    let synchronous: i64 = connection
        .pragma_query_value(None, "synchronous", |row| row.get(0))
        .map_err(|error| place.fault(doing, error))?;
    if journal_mode != rusqlite::types::Value::Text("wal".into()) || synchronous != 2 {
        return Err(place.failed(
            doing,
            std::io::Error::other(format!(
                "it says journal_mode={journal_mode:?} and synchronous={synchronous}"
            )),
        ));
    }
    // What a checkpoint has emptied stays that long and is written over; more of it is given back.
    set("journal_size_limit", "67108864")?;
    Ok(())
}

fn migrate(
    connection: &mut Connection,
    steps: &[fn(&Transaction<'_>) -> rusqlite::Result<()>],
    epoch: &str,
) -> rusqlite::Result<()> {
    let begins = steps.len() == STEPS.len();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in steps {
        step(&transaction)?;
    }
    if begins {
        beginning(epoch).insert(&transaction)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", newest())?;
    transaction.commit()
}

fn make_tables(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "
        -- One row: what belongs to no room, and how many rows the others must have.
        CREATE TABLE service (
            only_row     INTEGER PRIMARY KEY CHECK (only_row = 1),
            epoch        TEXT    NOT NULL,
            clock        INTEGER NOT NULL,
            incarnations INTEGER NOT NULL,
            commits      INTEGER NOT NULL,
            rooms        INTEGER NOT NULL,
            members      INTEGER NOT NULL,
            checksum     INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE room (
            name     TEXT    NOT NULL PRIMARY KEY,
            head     INTEGER NOT NULL,
            first    INTEGER NOT NULL,
            oldest   INTEGER NOT NULL,
            checksum INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE member (
            room             TEXT    NOT NULL,
            id               INTEGER NOT NULL,
            name             TEXT    NOT NULL,
            bot              INTEGER NOT NULL,
            session          BLOB,
            incarnation      INTEGER NOT NULL,
            joined_sequence  INTEGER NOT NULL,
            joined_timestamp INTEGER NOT NULL,
            checksum         INTEGER NOT NULL,
            PRIMARY KEY (room, id)
        ) STRICT, WITHOUT ROWID;
        -- message: a chitchat.v1.ServerMessage, as everybody receives it. Before the room's first event, down to the
        -- oldest: nothing, or of a message with an id the 40 bytes that recognize a retry.
        CREATE TABLE event (
            room     TEXT    NOT NULL,
            sequence INTEGER NOT NULL,
            message  BLOB    NOT NULL,
            checksum INTEGER NOT NULL,
            PRIMARY KEY (room, sequence)
        ) STRICT, WITHOUT ROWID;
        ",
    )
}
