//! A room keeps as many events as the settings say, for as long as they say; in memory and on disk alike. What falls
//! out moves the first sequence that can be read, visibly, and whoever needed it is told.

use std::path::{Path, PathBuf};

use chitchat::wire::v1::{
    EventType, JoinMsgLeave, Resume, SendMessageResponse, ServerMessage, WatchRequest,
};
use rusqlite::Connection;
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::{Code, Streaming};

use crate::support::{
    directory::{DATABASE, PATIENT},
    raw::{CHAT, Raw, join, reason, resume, said, sequences, welcome},
    server_process::ServerProcess,
    within,
};

/// Twenty events are kept, and the ids of the last ten.
const TWENTY: [(&str, &str); 4] = [
    PATIENT,
    ("CHITCHAT_LIMITS__HISTORY_EVENTS", "20"),
    ("CHITCHAT_LIMITS__DEDUP_EVENTS", "10"),
    ("CHITCHAT_LIMITS__RATE", "0"),
];

/// Each event is kept for a second. What falls out is looked for twice a second, and logged.
const A_SECOND: [(&str, &str); 3] = [
    PATIENT,
    ("CHITCHAT_LIMITS__HISTORY_AGE", "1s"),
    (
        "CHITCHAT_LOG__LEVEL",
        "info,chitchat::server::history=debug",
    ),
];

/// Where a history lives: both forms, one after the other.
fn forms() -> [(Option<TempDir>, PathBuf); 2] {
    let directory = tempfile::tempdir().expect("a directory should be made");
    let path = directory.path().to_owned();
    [(None, "memory".into()), (Some(directory), path)]
}

async fn post(server: &ServerProcess, text: &str, message_id: &str) -> SendMessageResponse {
    let message = JoinMsgLeave {
        client_name: "Poster".into(),
        message_id: message_id.into(),
        ..said(text, 0)
    };
    let stored = server.client().await.send_message(message).await;
    stored.expect("it should be stored").into_inner()
}

/// Posts `count` messages, one by one.
async fn fill(server: &ServerProcess, count: u64) {
    let mut client = server.client().await;
    for number in 0..count {
        let message = JoinMsgLeave {
            client_name: "Poster".into(),
            ..said(&format!("number {number}"), 0)
        };
        let stored = client.send_message(message).await;
        stored.expect("it should be stored");
    }
}

/// The oldest event of the lobby that is kept, and the last one, as they are listed; and history says the same.
async fn extent(server: &ServerProcess) -> (u64, u64) {
    let room = server.room("lobby").await;
    let kept = sequences(&server.history("lobby").await);
    assert_eq!(kept, (room.first..=room.head).collect::<Vec<_>>());
    (room.first, room.head)
}

/// A watch of the lobby from the event after `after_sequence` on, and its welcome.
async fn watch(
    server: &ServerProcess,
    epoch: &str,
    after_sequence: u64,
) -> (ServerMessage, Streaming<ServerMessage>) {
    let request = WatchRequest {
        resume: Some(Resume {
            epoch: epoch.into(),
            after_sequence,
        }),
        ..WatchRequest::default()
    };
    let watch = server.client().await.watch(request).await;
    let mut watch = watch.expect("a room can be watched").into_inner();
    let first = within("a welcome", watch.message()).await;
    (first.expect("it begins").expect("it does not end"), watch)
}

#[tokio::test]
async fn a_room_keeps_its_last_events_and_lists_the_first_of_them() {
    for (_kept, data) in forms() {
        let server = ServerProcess::with(&data, &TWENTY).await;
        fill(&server, 20).await;
        assert_eq!(extent(&server).await, (1, 20), "so many are kept");
        fill(&server, 1).await;
        assert_eq!(extent(&server).await, (2, 21), "and not one more");
        fill(&server, 30).await;
        assert_eq!(extent(&server).await, (32, 51));
    }
}

#[tokio::test]
async fn who_comes_back_for_what_fell_out_is_told_and_starts_anew() {
    for (_kept, data) in forms() {
        let server = ServerProcess::with(&data, &TWENTY).await;
        let (ada, own) = server.enter(join("Ada")).await;
        drop(ada);
        fill(&server, 50).await;
        assert_eq!(extent(&server).await, (32, 51));
        let known = welcome(&own);

        for (after, recovered) in [(31, true), (30, false)] {
            let (first, _watch) = watch(&server, &known.epoch, after).await;
            let told = welcome(&first);
            assert_eq!(
                (told.recovered, told.head),
                (recovered, 51),
                "after {after}"
            );
        }
        let (mut ada, back) = server.enter(resume(known, own.sequence)).await;

        assert_eq!((welcome(&back).recovered, welcome(&back).head), (false, 51));
        let anew = ada.take(2).await;
        assert_eq!(sequences(&anew), [52, 53], "reading goes on from there");
        assert_eq!(anew[0].r#type(), EventType::Leave);
        assert_eq!(anew[1].r#type(), EventType::Join);
    }
}

#[tokio::test]
async fn a_reader_whose_next_event_falls_out_ends_stalled_and_never_reads_past_a_gap() {
    let settings = [
        TWENTY.as_slice(),
        &[("CHITCHAT_LIMITS__FEED_BYTES", "262144")],
    ]
    .concat();
    for (_kept, data) in forms() {
        let server = ServerProcess::with(&data, &settings).await;
        let mut slow = Raw::open(server.connect_narrow().await, CHAT).await;
        slow.join("Slow").await;
        let mut talker = Raw::open(server.connect().await, CHAT).await;
        talker.join("Talker").await;
        // More than a connection and the feed hold together, while nobody reads at the other end.
        let text = "\u{1F980}".repeat(128);
        for _ in 0..30 {
            (0..100).for_each(|_| talker.say(&text, 0));
            talker.take(100).await;
        }

        let (read, ended) = slow.rest().await;

        let ended = ended.expect_err("what came next is gone");
        assert_eq!(
            (ended.code(), reason(&ended).as_str()),
            (Code::ResourceExhausted, "STALLED")
        );
        let read = sequences(&read);
        assert!(!read.is_empty() && read.len() < 3_000, "{}", read.len());
        assert_eq!(read, (2..2 + read.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_message_id_is_known_as_long_as_its_setting_says_however_little_is_kept() {
    for (_kept, data) in forms() {
        let server = ServerProcess::with(&data, &TWENTY).await;
        fill(&server, 30).await;
        let first = post(&server, "kept", "id").await;
        fill(&server, 9).await;

        let again = post(&server, "kept", "id").await;
        assert!(again.duplicate && again.sequence == first.sequence);
        fill(&server, 1).await;
        let anew = post(&server, "kept", "id").await;
        assert!(!anew.duplicate && anew.sequence == first.sequence + 11);
    }
}

#[tokio::test]
async fn a_setting_that_was_lowered_takes_effect_little_by_little() {
    let directory = tempfile::tempdir().unwrap();
    let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
    fill(&server, 100).await;
    server.end(Signal::TERM).await;

    let server = ServerProcess::with(directory.path(), &TWENTY).await;
    assert_eq!(extent(&server).await, (1, 100));
    fill(&server, 1).await;
    assert_eq!(extent(&server).await, (17, 101), "some with each event");
    fill(&server, 2).await;
    assert_eq!(extent(&server).await, (49, 103));
    server.end(Signal::KILL).await;
    let server = ServerProcess::with(directory.path(), &TWENTY).await;
    assert_eq!(extent(&server).await, (49, 103));
    fill(&server, 7).await;
    assert_eq!(
        extent(&server).await,
        (91, 110),
        "and then as many as it says"
    );
}

#[tokio::test]
async fn what_is_too_old_falls_out_of_rooms_where_nothing_happens() {
    for (_kept, data) in forms() {
        let mut server = ServerProcess::with(&data, &A_SECOND).await;
        let (_ada, own) = server.enter(join("Ada")).await;
        let (_bob, _) = server
            .enter(JoinMsgLeave {
                room: "attic".into(),
                ..join("Bob")
            })
            .await;
        fill(&server, 4).await;
        let last = post(&server, "the last word", "").await;

        server.logs("the history of attic begins with 2").await;
        server.logs("the history of lobby begins with 7").await;

        assert_eq!(extent(&server).await, (7, 6), "nothing is left");
        let attic = server.room("attic").await;
        assert_eq!((attic.first, attic.head), (2, 1));
        assert_eq!(server.names("lobby").await, ["Ada"], "who is there stays");
        for (after, recovered) in [(6, true), (5, false)] {
            let (first, _watch) = watch(&server, &welcome(&own).epoch, after).await;
            assert_eq!(welcome(&first).recovered, recovered, "after {after}");
        }
        let next = post(&server, "the first word", "").await;
        assert_eq!(next.sequence, 7);
        assert!(next.timestamp > last.timestamp);
    }
}

#[tokio::test]
async fn sequences_and_time_go_on_after_a_restart_though_every_event_is_gone() {
    for ending in [Signal::TERM, Signal::KILL] {
        let directory = tempfile::tempdir().unwrap();
        let mut server = ServerProcess::with(directory.path(), &A_SECOND).await;
        fill(&server, 4).await;
        let last = post(&server, "the last word", "").await;
        server.logs("the history of lobby begins with 6").await;
        server.end(ending).await;

        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;

        assert_eq!(extent(&server).await, (6, 5));
        let next = post(&server, "the first word", "").await;
        assert_eq!((next.sequence, next.timestamp), (6, last.timestamp + 1));
        assert_eq!(extent(&server).await, (6, 6));
    }
}

#[tokio::test]
async fn a_message_id_is_known_though_its_event_is_too_old_to_be_kept_after_a_restart_too() {
    let settings = [
        A_SECOND.as_slice(),
        &[("CHITCHAT_LIMITS__DEDUP_EVENTS", "5")],
    ]
    .concat();
    for ending in [Signal::TERM, Signal::KILL] {
        let directory = tempfile::tempdir().unwrap();
        let mut server = ServerProcess::with(directory.path(), &settings).await;
        let first = post(&server, "kept", "id").await;
        fill(&server, 2).await;
        server.logs("the history of lobby begins with 4").await;
        let again = post(&server, "kept", "id").await;
        assert!(again.duplicate && again.sequence == first.sequence);
        server.end(ending).await;
        assert_eq!(stored_bytes(directory.path()), [40, 0, 0], "digests alone");

        let server = ServerProcess::with(directory.path(), &settings).await;
        let again = post(&server, "kept", "id").await;
        assert!(again.duplicate && again.timestamp == first.timestamp);
        fill(&server, 2).await;
        server.end(ending).await;

        // The last five events are 2 to 6 once there is one more.
        let server = ServerProcess::with(directory.path(), &settings).await;
        assert!(post(&server, "kept", "id").await.duplicate);
        fill(&server, 1).await;
        assert!(!post(&server, "kept", "id").await.duplicate);
    }
}

/// How much is stored in the place of each event.
fn stored_bytes(directory: &Path) -> Vec<u32> {
    let database = Connection::open(directory.join(DATABASE)).unwrap();
    let mut rows = database
        .prepare("SELECT length(message) FROM event ORDER BY sequence")
        .unwrap();
    let lengths = rows.query_map((), |row| row.get(0)).unwrap();
    lengths.collect::<Result<_, _>>().unwrap()
}
