//! Damage to the history is told: with an exit code and a message that says where and what to do, at the start or
//! within seconds of it. It is never served, and a history that is gone never begins again by itself.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use chitchat::{
    journal::{self, Batch, Entry, Extent, Fault, Opened, Range},
    room::Snapshot,
    wire::{
        Frame,
        v1::{
            JoinMsgLeave, SendMessageResponse, ServerMessage,
            chat_service_client::ChatServiceClient,
        },
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rusqlite::Connection;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{process::Command, sync::Semaphore, task::JoinSet};
use tonic::transport::Channel;

use crate::support::{
    chance,
    directory::{Answers, DATABASE, LOCK, LOG, Left, left_by_a_kill, left_by_a_stop},
    disk::Disk,
    program::Finished,
    raw::{CHAT, Raw, resume, said, welcome},
    server_process::{ServerProcess, serve},
    within,
};

// The exit codes that are meant here.
const IN_USE: i32 = 3;
const DAMAGED: i32 = 4;
const NEWER: i32 = 5;
const FAILED: i32 = 6;

/// Bits that each of the tests flips, unless `CHITCHAT_TEST_FLIPS` says otherwise. With 10,000 each bit of the
/// database's description has its turn, and the tests take some minutes.
const FLIPS: u64 = 400;

/// Servers that run at one time.
const PARALLEL: usize = 4;

/// SQLite's page, in bytes.
const PAGE: u64 = 4_096;

/// What became of a server on a copy that was damaged.
#[derive(Debug)]
enum Outcome {
    /// It has read everything, and answers.
    Serves(Box<Answers>),
    Ends(Finished),
}

/// Starts a server on `directory` and waits until it has read all of its history, or ended.
async fn outcome(directory: &Path) -> Outcome {
    let mut command = serve(directory);
    command
        .env("CHITCHAT_SERVER__GRACE", "1h")
        .env("CHITCHAT_LOG__LEVEL", "info,chitchat::server=debug");
    let server = match ServerProcess::try_start(&mut command).await {
        Ok(server) => server.logs_or_ends("the history is whole").await,
        Err(finished) => Err(finished),
    };
    match server {
        Ok(server) => {
            let answers = Answers::of(server.connect().await).await;
            Outcome::Serves(Box::new(answers.expect("it answers all or nothing")))
        }
        Err(finished) => Outcome::Ends(finished),
    }
}

/// How the server that `command` is ends before it serves.
async fn ends(command: &mut Command) -> Finished {
    match ServerProcess::try_start(command).await {
        Ok(_) => panic!("the server should not start"),
        Err(finished) => finished,
    }
}

/// Something that happens to a data directory.
struct Case {
    name: String,
    directory: TempDir,
    left: &'static Left,
    /// It may also be harmless, and then changes no answer.
    may_be_harmless: bool,
}

impl Case {
    fn new(name: impl Into<String>, left: &'static Left, damage: impl FnOnce(&Path)) -> Self {
        let directory = left.copy();
        damage(directory.path());
        Self {
            name: name.into(),
            directory,
            left,
            may_be_harmless: false,
        }
    }

    fn or_harmless(self) -> Self {
        Self {
            may_be_harmless: true,
            ..self
        }
    }

    /// Whether it was told.
    async fn check(self) -> bool {
        let (name, left) = (&self.name, self.left);
        match outcome(self.directory.path()).await {
            Outcome::Ends(finished) => {
                assert_told(name, &finished, self.directory.path(), DAMAGED);
                true
            }
            Outcome::Serves(answers) if self.may_be_harmless && *answers == left.answers => false,
            Outcome::Serves(_) => {
                let kept = self.directory.keep();
                panic!("{name}: nothing was told of {}", kept.display());
            }
        }
    }
}

/// Checks all of them, some at a time. How many were told.
async fn check(cases: impl IntoIterator<Item = Case>) -> usize {
    let turns = Arc::new(Semaphore::new(PARALLEL));
    let mut checks = JoinSet::new();
    for case in cases {
        let turns = Arc::clone(&turns);
        checks.spawn(async move {
            let _turn = turns.acquire().await;
            case.check().await
        });
    }
    let told = checks.join_all().await;
    told.into_iter().filter(|told| *told).count()
}

#[track_caller]
fn assert_told(name: &str, finished: &Finished, directory: &Path, code: i32) {
    assert_eq!(finished.code, code, "{name}: {finished:?}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("chitchat: ")
            && last.contains(&*directory.to_string_lossy())
            && !last.contains(char::is_control),
        "{name}: {finished:?}"
    );
}

fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(bytes))
        .expect("the file should be cut");
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).expect("the file should be there").len()
}

fn flip(path: &Path, byte: u64, bit: u32) {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("the file should open");
    let mut one = [0];
    file.read_exact_at(&mut one, byte).expect("it is that long");
    one[0] ^= 1 << bit;
    file.write_all_at(&one, byte).expect("it can be written");
}

#[tokio::test]
async fn a_database_that_is_cut_off_is_told() {
    let stopped = left_by_a_stop().await;
    let whole = size(&stopped.copy().path().join(DATABASE));
    let lengths = [
        0,
        1,
        PAGE,
        whole / 2 / PAGE * PAGE,
        whole / 2 / PAGE * PAGE + 100,
        whole - PAGE,
        whole - 1,
    ];

    let cases = lengths.map(|bytes| {
        Case::new(format!("cut to {bytes} of {whole}"), stopped, |directory| {
            cut(&directory.join(DATABASE), bytes);
        })
    });

    assert_eq!(check(cases).await, lengths.len());
}

#[tokio::test]
async fn a_database_that_is_gone_is_told_beside_its_lock() {
    let gone = |directory: &Path| fs::remove_file(directory.join(DATABASE)).unwrap();
    let cases = [
        Case::new("stopped", left_by_a_stop().await, gone),
        Case::new("killed", left_by_a_kill().await, gone),
        Case::new("killed, and its log too", left_by_a_kill().await, |at| {
            gone(at);
            fs::remove_file(at.join(LOG)).unwrap();
        }),
        Case::new("emptied", left_by_a_kill().await, |at| {
            cut(&at.join(DATABASE), 0);
        }),
    ];

    assert_eq!(check(cases).await, 4);
}

#[tokio::test]
async fn a_write_ahead_log_that_lost_what_was_acknowledged_is_told_and_left_as_it_is() {
    let killed = left_by_a_kill().await;
    let log = fs::read(killed.copy().path().join(LOG)).unwrap();
    let live = live_bytes(&log);
    assert!(live > 20 * PAGE, "the last transactions are in it");
    let case = |name: &str, damage: &dyn Fn(&Path)| {
        Case::new(name, killed, |directory| damage(&directory.join(LOG)))
    };
    let cases = [
        case("gone", &|log| fs::remove_file(log).unwrap()),
        case("emptied", &|log| cut(log, 0)),
        case("its first half", &|log| cut(log, live / 2)),
        case("without its last byte", &|log| cut(log, live - 1)),
        case("a bit of its header", &|log| flip(log, 9, 3)),
        case("a bit in its middle", &|log| flip(log, live / 2, 7)),
        case("its last bit", &|log| flip(log, live - 1, 0)),
    ];

    for case in cases {
        let (name, path) = (case.name.clone(), case.directory.path().to_owned());
        let before = contents(&path);
        let finished = match outcome(&path).await {
            Outcome::Ends(finished) => finished,
            Outcome::Serves(_) => panic!("{name}: nothing was told"),
        };
        assert_told(&name, &finished, &path, DAMAGED);
        assert!(
            finished.stderr.contains("were acknowledged"),
            "{finished:?}"
        );
        // Whoever wants to save what can be saved needs all that there is.
        assert!(contents(&path) == before, "{name}: it was changed");
    }
}

/// How much of a write-ahead log counts: what follows is left over from before it began anew.
///
/// Source: <https://sqlite.org/fileformat2.html#walformat>; a frame counts as long as its salts are the header's.
fn live_bytes(log: &[u8]) -> u64 {
    const HEADER: usize = 32;
    const FRAME_HEADER: usize = 24;
    let salts = &log[16..24];
    let frames = log[HEADER..].chunks_exact(FRAME_HEADER + PAGE as usize);
    let live = frames.take_while(|frame| &frame[8..16] == salts).count();
    (HEADER + live * (FRAME_HEADER + PAGE as usize)) as u64
}

/// The files of a history, as they are; one that is not there is empty.
fn contents(directory: &Path) -> [Vec<u8>; 3] {
    [DATABASE, LOG, LOCK].map(|file| fs::read(directory.join(file)).unwrap_or_default())
}

#[tokio::test]
async fn a_bit_that_flips_is_told_or_changes_no_answer() {
    let mut random = random();
    let mut cases = Vec::new();
    for (left, file, weight) in [
        (left_by_a_stop().await, DATABASE, 6),
        (left_by_a_kill().await, DATABASE, 2),
        (left_by_a_kill().await, LOG, 2),
        (left_by_a_stop().await, LOCK, 1),
    ] {
        let bytes = size(&left.copy().path().join(file));
        for _ in 0..flips().div_ceil(40) * weight {
            let (byte, bit) = (random.random_range(0..bytes), random.random_range(0..8));
            let name = format!("bit {bit} of byte {byte} of {file}");
            let case = Case::new(name, left, |directory| {
                flip(&directory.join(file), byte, bit);
            });
            cases.push(case.or_harmless());
        }
    }
    let tried = cases.len();

    let told = check(cases).await;

    println!("{told} of {tried} were told");
    assert!(told > tried / 4 && told < tried);
}

/// All that a server would answer from, read without one.
#[derive(Debug, PartialEq)]
struct Stored {
    snapshot: Snapshot,
    events: Vec<Vec<(u64, Frame)>>,
}

/// Opens the history in `directory`, reads all of it forwards and backwards, goes on with it, and closes it.
async fn go_on(directory: &Path) -> Result<Stored, Fault> {
    let Opened {
        mut writer,
        journal,
        snapshot,
    } = journal::in_directory(directory, "0".repeat(32))?;
    let mut events = Vec::new();
    for room in &snapshot.rooms {
        let mut read = Vec::new();
        loop {
            let after = read.last().map_or(0, |(sequence, _)| *sequence);
            let range = Range::After { after, before: 0 };
            let page = journal.read(&room.name, range, 1_000).await?;
            read.extend(page.events);
            if !page.more {
                break;
            }
        }
        let backwards = journal.read(&room.name, Range::Before(u64::MAX), 1_000);
        assert_eq!(backwards.await?.events, read);
        events.push(read);
    }
    // Enough that new pages are needed, and some of the old become free.
    for room in &snapshot.rooms {
        let name: Arc<str> = room.name.as_str().into();
        let entries = (room.head + 1..=room.head + 30).map(|sequence| Entry {
            room: Arc::clone(&name),
            sequence,
            frame: Frame::of(&ServerMessage {
                sequence,
                msg_stream: "more ".repeat(50),
                ..ServerMessage::default()
            }),
        });
        let gone = room
            .members
            .first()
            .map(|one| (Arc::clone(&name), one.id, None));
        writer.store(Batch {
            entries: entries.collect(),
            rooms: vec![Extent {
                room: name,
                head: room.head + 30,
                first: room.first + 10,
                oldest: room.first + 5,
            }],
            members: gone.into_iter().collect(),
            clock: snapshot.clock + 30,
            incarnations: snapshot.incarnations + 1,
        })?;
    }
    writer.close()?;
    Ok(Stored { snapshot, events })
}

/// Goes on with the history in `directory`, and again with what that has made of it.
async fn go_on_twice(directory: &Path) -> Result<[Stored; 2], Fault> {
    Ok([go_on(directory).await?, go_on(directory).await?])
}

#[tokio::test]
async fn a_bit_that_flips_where_the_database_is_described_is_told_or_changes_nothing_that_follows()
{
    let stopped = left_by_a_stop().await;
    let copy = in_memory();
    stopped.copy_to(copy.path());
    let pages = size(&copy.path().join(DATABASE)) / PAGE;
    let expected = go_on_twice(copy.path()).await.expect("it is whole");
    // The header of the file, and of each page its header and the places of its first rows.
    let places: Vec<u64> = (0..100)
        .chain((0..pages).flat_map(|page| page * PAGE..page * PAGE + 16))
        .collect();
    let mut random = random();
    let (mut told, mut tried) = (0, 0);

    for (place, bit) in places
        .iter()
        .flat_map(|place| (0..8).map(move |bit| (*place, bit)))
    {
        if random.random_range(0..places.len() as u64 * 8) >= flips() {
            continue;
        }
        let copy = in_memory();
        stopped.copy_to(copy.path());
        flip(&copy.path().join(DATABASE), place, bit);
        let outcome = go_on_twice(copy.path()).await;
        tried += 1;
        match outcome {
            Ok(stored) if stored == expected => {}
            Err(Fault::Damaged { .. }) => told += 1,
            // The version itself.
            Err(Fault::Newer { .. }) if (60..64).contains(&place) => told += 1,
            Ok(_) => panic!(
                "bit {bit} of byte {place}: a wrong answer in {:?}",
                copy.keep()
            ),
            Err(other) => panic!("bit {bit} of byte {place}: {other:?} in {:?}", copy.keep()),
        }
    }

    println!("{told} of {tried} were told");
    assert!(told > tried / 4 && told < tried);
}

/// A directory that is in memory, where there is such a thing: so many histories would keep a disk busy with syncing.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory should be made")
}

/// How many bits to flip.
fn flips() -> u64 {
    chance::variable("CHITCHAT_TEST_FLIPS").unwrap_or(FLIPS)
}

/// Random choices; what they meet also depends on what the server has left behind, which is never quite the same.
fn random() -> StdRng {
    let seed = chance::seed();
    println!("CHITCHAT_TEST_SEED={seed} CHITCHAT_TEST_FLIPS={}", flips());
    StdRng::seed_from_u64(seed)
}

#[tokio::test]
async fn rows_that_somebody_has_changed_are_told() {
    let left = left_by_a_stop().await;
    let event = "event WHERE room = 'lobby' AND sequence";
    let case = |name: &str, statements: &str| {
        Case::new(name, left, |directory| change(directory, statements))
    };
    let cases = [
        case("an event removed", &format!("DELETE FROM {event} = 7")),
        case(
            "the last event removed",
            &format!("DELETE FROM {event} = (SELECT max(sequence) FROM {event} > 0)"),
        ),
        case(
            "two events swapped",
            "UPDATE event SET sequence = -1 WHERE room = 'lobby' AND sequence = 20;
             UPDATE event SET sequence = 20 WHERE room = 'lobby' AND sequence = 21;
             UPDATE event SET sequence = 21 WHERE room = 'lobby' AND sequence = -1",
        ),
        case(
            "an event of another room in its place",
            "UPDATE event SET (message, checksum) =
                 (SELECT message, checksum FROM event WHERE room = 'attic' AND sequence = 9)
             WHERE room = 'lobby' AND sequence = 9",
        ),
        case("a room removed", "DELETE FROM room WHERE name = 'attic'"),
        case(
            "a room's history shortened",
            "UPDATE room SET head = head - 1 WHERE name = 'attic'",
        ),
        case(
            "a room's history cut at its beginning",
            "UPDATE room SET first = 10 WHERE name = 'attic'",
        ),
        case(
            "a participant removed",
            "DELETE FROM member WHERE name = 'Cleo' AND room = 'attic'",
        ),
        case(
            "a participant renamed",
            "UPDATE member SET name = 'Zoe' WHERE name = 'Cleo'",
        ),
        case("the clock set back", "UPDATE service SET clock = 1"),
        case("the service's row removed", "DELETE FROM service"),
        case("a table removed", "DROP TABLE member"),
        case("a table added", "CREATE TABLE more (x)"),
        case(
            "a table described with what a terminal obeys",
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, 'session', char(10, 27)) WHERE name = 'member'",
        ),
    ];
    let all = cases.len();

    assert_eq!(check(cases).await, all);
}

/// By another program.
fn change(directory: &Path, statements: &str) {
    let database = Connection::open(directory.join(DATABASE)).unwrap();
    database.execute_batch(statements).unwrap();
    // It leaves no log of its own behind.
    database
        .pragma_update(None, "wal_checkpoint", "TRUNCATE")
        .unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_history_is_told_with_and_without_the_lock() {
    let left = left_by_a_stop().await;
    let foreign = |directory: &Path| {
        fs::remove_file(directory.join(DATABASE)).unwrap();
        change(
            directory,
            "CREATE TABLE notes (text); INSERT INTO notes VALUES ('x')",
        );
    };
    let text = |directory: &Path| fs::write(directory.join(DATABASE), "Dear diary,\n").unwrap();
    let unlocked = |directory: &Path| fs::remove_file(directory.join(LOCK)).unwrap();
    let cases = [
        Case::new("a foreign database", left, foreign),
        Case::new("a foreign database without the lock", left, |directory| {
            foreign(directory);
            unlocked(directory);
        }),
        Case::new("a text", left, text),
        Case::new("a text without the lock", left, |directory| {
            text(directory);
            unlocked(directory);
        }),
        Case::new("a lock that is not one", left, |directory| {
            fs::write(directory.join(LOCK), "locked\n").unwrap();
        }),
        Case::new("the lock of another history", left, |directory| {
            let lock = format!("{} {:020}\n", "0".repeat(32), 7);
            fs::write(directory.join(LOCK), lock).unwrap();
        }),
    ];

    assert_eq!(check(cases).await, 6);
}

#[tokio::test]
async fn a_newer_history_is_told_and_left_as_it_is() {
    let copy = left_by_a_stop().await.copy();
    change(copy.path(), "PRAGMA user_version = 2");
    let before = contents(copy.path());

    let finished = ends(&mut serve(copy.path())).await;

    assert_told("newer", &finished, copy.path(), NEWER);
    assert!(finished.stderr.contains("schema version 2"), "{finished:?}");
    assert!(contents(copy.path()) == before);
}

#[tokio::test]
async fn a_history_in_use_is_told_and_its_server_goes_on_undisturbed() {
    let directory = tempfile::tempdir().unwrap();
    let first = ServerProcess::on(directory.path()).await;
    let mut ada = Raw::open(first.connect().await, CHAT).await;
    ada.join("Ada").await;

    let finished = ends(&mut serve(directory.path())).await;

    assert_told("in use", &finished, directory.path(), IN_USE);
    ada.say("still here", 0);
    assert_eq!(ada.next().await.msg_stream, "still here");
    ada.leave(0);
    assert!(ada.rest().await.1.is_ok());
    first.end(Signal::TERM).await;
}

#[tokio::test]
async fn a_backup_goes_on_under_a_new_epoch_and_who_knew_more_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let server = ServerProcess::on(directory.path()).await;
    let mut ada = Raw::open(server.connect().await, CHAT).await;
    let own = ada.join("Ada").await;
    let known = welcome(&own).clone();
    server.end(Signal::TERM).await;
    let backup = tempfile::tempdir().unwrap();
    let database = backup.path().join(DATABASE);
    fs::copy(directory.path().join(DATABASE), database).unwrap();

    let server = ServerProcess::on(backup.path()).await;

    let warned = server.said(" WARN ");
    assert!(warned.contains(&known.epoch), "{warned}");
    let mut ada = Raw::open(server.connect().await, CHAT).await;
    ada.send(resume(&known, own.sequence));
    let told = ada.next().await;
    let told = welcome(&told);
    assert!(!told.recovered && told.epoch != known.epoch, "{told:?}");
    assert!(warned.contains(&told.epoch), "{warned}");
    assert_eq!(told.head, own.sequence, "and what was kept is there");
    let anew = ada.take(2).await;
    assert!(anew[0].timestamp > own.timestamp);
    server.end(Signal::TERM).await;
    // From now on it is a history like any other.
    let server = ServerProcess::on(backup.path()).await;
    assert_eq!(server.said(" WARN "), "");
}

#[tokio::test]
async fn a_path_that_is_no_directory_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();

    for path in [file.clone(), file.join("below")] {
        let finished = ends(&mut serve(&path)).await;
        assert_told("a file", &finished, &path, FAILED);
        assert!(finished.stderr.contains("server.data"), "{finished:?}");
    }
}

#[tokio::test]
async fn a_history_that_cannot_be_written_is_told_at_the_start() {
    let left = left_by_a_stop().await;
    let Some(disk) = Disk::new("size=8m").await else {
        return;
    };
    left.copy_to(&disk.seen_from_here());
    disk.remount("ro").await;

    let finished = ends(&mut disk.serve()).await;

    assert_told("read-only", &finished, disk.path(), FAILED);
    assert!(finished.stderr.contains("may write"), "{finished:?}");
    disk.remount("rw").await;
    let server = ServerProcess::try_start(&mut disk.serve()).await;
    let answers = Answers::of(server.unwrap().connect().await).await;
    assert!(answers.unwrap() == left.answers);
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_told() {
    let Some(disk) = Disk::new("size=64k").await else {
        return;
    };

    let finished = ends(&mut disk.serve()).await;

    assert_told("full", &finished, disk.path(), FAILED);
    assert!(finished.stderr.contains("start again"), "{finished:?}");
    disk.remount("size=8m").await;
    let server = ServerProcess::try_start(&mut disk.serve()).await;
    assert!(server.is_ok(), "with room it begins");
}

#[tokio::test]
async fn a_disk_that_is_full_under_load_ends_the_server_and_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::new("size=1m").await else {
        return;
    };
    let server = ServerProcess::try_start(&mut disk.serve()).await.unwrap();

    let mut reader = Raw::open(server.connect().await, CHAT).await;
    reader.join("Reader").await;
    let mut posters = JoinSet::new();
    for poster in 0..4 {
        posters.spawn(post_until_refused(server.connect().await, poster));
    }

    let acknowledged = posters.join_all().await.concat();
    let (read, _) = reader.rest().await;
    let finished = server.ends().await;

    assert_told("full", &finished, disk.path(), FAILED);
    assert!(finished.stderr.contains("make room"), "{finished:?}");
    let again = ends(&mut disk.serve()).await;
    assert_told("still full", &again, disk.path(), FAILED);
    disk.remount("size=8m").await;
    let server = ServerProcess::try_start(&mut disk.serve()).await.unwrap();
    let history = server.history("lobby").await;
    assert!(!acknowledged.is_empty());
    for (message_id, answer) in &acknowledged {
        let stored = history.iter().filter(|one| one.message_id == *message_id);
        let stored: Vec<_> = stored.map(|one| (one.sequence, one.timestamp)).collect();
        assert_eq!(stored, [(answer.sequence, answer.timestamp)]);
    }
    let seen = read.iter().filter(|message| message.sequence > 0);
    assert!(seen.clone().count() > 0);
    for event in seen {
        let at = usize::try_from(event.sequence).unwrap() - 1;
        assert_eq!(history.get(at), Some(event));
    }
}

/// Posts one message after the other until one is not stored: the ids, and what was answered to each.
async fn post_until_refused(channel: Channel, poster: i32) -> Vec<(String, SendMessageResponse)> {
    let mut client = ChatServiceClient::new(channel);
    let mut acknowledged = Vec::new();
    loop {
        let message_id = format!("{poster}-{}", acknowledged.len());
        let message = JoinMsgLeave {
            client_name: format!("Poster {poster}"),
            message_id: message_id.clone(),
            ..said("to be kept", 0)
        };
        match within("an answer", client.send_message(message)).await {
            Ok(answer) => acknowledged.push((message_id, answer.into_inner())),
            Err(_) => return acknowledged,
        }
    }
}
