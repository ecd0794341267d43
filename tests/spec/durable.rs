//! What was acknowledged is there, whatever ended the server: told to stop, or killed. Time and sequences go on, and so
//! does everybody who was there.
//!
//! What the moment of a kill may do under load is for [`crash`](crate::crash); damage to the files, for
//! [`damage`](crate::damage).

use std::time::{Duration, SystemTime};

use chitchat::wire::v1::{
    EventType, GetHistoryRequest, JoinMsgLeave, ListRoomsRequest, NoticeCode, Resume,
    SendMessageResponse, ServerMessage, WatchRequest,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::support::{
    directory::{Answers, LOG, PATIENT, left_by_a_kill, left_by_a_stop},
    raw::{CHAT, Raw, join, reason, resume, said, sequences, texts, welcome},
    server_process::ServerProcess,
    within,
};

/// What may end a server: both leave the same history.
const ENDINGS: [Signal; 2] = [Signal::TERM, Signal::KILL];

/// How long those who were there are waited for, where a test says so.
const GRACE: Duration = Duration::from_secs(1);
const BRIEF: (&str, &str) = ("CHITCHAT_SERVER__GRACE", "1s");

/// A new data directory, and a server on it.
async fn begin(settings: &[(&str, &str)]) -> (TempDir, ServerProcess) {
    let directory = tempfile::tempdir().expect("a directory should be made");
    let server = ServerProcess::with(directory.path(), settings).await;
    (directory, server)
}

/// What somebody outside of the lobby posts there, with an id.
fn post(text: &str, message_id: &str) -> JoinMsgLeave {
    JoinMsgLeave {
        client_name: "Poster".into(),
        message_id: message_id.into(),
        ..said(text, 0)
    }
}

async fn send(
    server: &ServerProcess,
    message: JoinMsgLeave,
) -> Result<SendMessageResponse, Status> {
    let answer = server.client().await.send_message(message).await;
    answer.map(tonic::Response::into_inner)
}

/// Posts `count` messages, one by one.
async fn fill(server: &ServerProcess, count: usize) {
    let mut client = server.client().await;
    for number in 0..count {
        let stored = client
            .send_message(post(&format!("number {number}"), ""))
            .await;
        stored.expect("it should be stored");
    }
}

/// What the service's clock shows.
async fn clock(server: &ServerProcess) -> i64 {
    let rooms = server.client().await.list_rooms(ListRoomsRequest {}).await;
    rooms.expect("rooms are listed").into_inner().timestamp
}

fn departures(history: &[ServerMessage], name: &str) -> usize {
    let left = history
        .iter()
        .filter(|event| event.r#type() == EventType::Leave);
    left.filter(|event| event.sender_name == name).count()
}

#[tokio::test]
async fn a_history_is_the_same_after_a_stop_and_after_a_kill() {
    for left in [left_by_a_stop().await, left_by_a_kill().await] {
        assert!(left.answers.events() > 500);
        let copy = left.copy();
        for ending in [Signal::KILL, Signal::TERM] {
            let server = ServerProcess::with(copy.path(), &[PATIENT]).await;
            let answers = Answers::of(server.connect().await).await;
            assert!(answers.expect("it answers") == left.answers);
            server.end(ending).await;
        }
    }
}

#[tokio::test]
async fn a_clean_stop_leaves_one_file_and_a_kill_a_log_beside_it() {
    let (directory, server) = begin(&[PATIENT]).await;
    let log = directory.path().join(LOG);
    server.history("lobby").await;
    fill(&server, 5).await;
    server.end(Signal::KILL).await;
    assert!(log.exists(), "nothing was cleared away");

    for _ in 0..3 {
        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
        assert_eq!(server.history("lobby").await.len(), 5);
        server.end(Signal::TERM).await;
        assert!(!log.exists(), "all is in the one file");
    }
}

#[tokio::test]
async fn no_logical_time_is_told_twice_that_of_a_refusal_neither() {
    for ending in ENDINGS {
        let (directory, server) = begin(&[PATIENT]).await;
        let (mut ada, own) = server.enter(join("Ada")).await;
        // A clock far ahead is merged; a refusal ticks, and has no event.
        ada.say("from the future", 70_000);
        assert_eq!(ada.next().await.timestamp, 70_001);
        ada.say("", 0);
        let refused = ada.next().await;
        assert_eq!((refused.sequence, refused.timestamp), (0, 70_002));
        server.end(ending).await;

        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;

        assert_eq!(clock(&server).await, refused.timestamp);
        let (mut ada, back) = server.enter(resume(welcome(&own), 2)).await;
        assert_eq!(back.timestamp, refused.timestamp, "the clock as it stands");
        ada.say("", 0);
        assert_eq!(ada.next().await.timestamp, 70_003);
        // By a unary call a refusal's time is not told, but it has one.
        let by_unary = send(&server, post("", "")).await.expect_err("it is empty");
        assert_eq!(by_unary.code(), Code::InvalidArgument);
        server.end(ending).await;
        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
        let stored = send(&server, post("now", "")).await.expect("it is stored");
        assert_eq!((stored.timestamp, stored.sequence), (70_005, 3));
    }
}

#[tokio::test]
async fn who_was_there_continues_as_if_nothing_had_been() {
    for ending in ENDINGS {
        let (directory, server) = begin(&[PATIENT]).await;
        let (mut ada, own) = server.enter(join("Ada")).await;
        let (_bob, _) = server.enter(join("Bob")).await;
        ada.say("before", 0);
        let read = ada.take(2).await;
        let mut known = welcome(&own).clone();
        server.end(ending).await;

        // Again and again, with the same session.
        for round in 0..2 {
            let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
            assert_eq!(server.names("lobby").await.len(), 2);
            let held = Raw::open(server.connect().await, CHAT).await;
            held.send(join("Ada"));
            let mut held = held;
            assert_eq!(reason(&held.failure().await), "NAME_HELD");

            let (mut ada, back) = server.enter(resume(&known, read[1].sequence + round)).await;

            let told = welcome(&back);
            assert!(back.sequence == 0 && told.recovered, "{back:?}");
            assert_eq!(
                (told.id, &told.epoch, &told.session),
                (known.id, &known.epoch, &known.session)
            );
            known = told.clone();
            ada.say("after", 0);
            let next = ada.next().await;
            assert_eq!(
                (next.sequence, next.msg_stream.as_str()),
                (4 + round, "after")
            );
            let joins = server.history("lobby").await;
            let joins = joins
                .iter()
                .filter(|event| event.r#type() == EventType::Join);
            assert_eq!(joins.count(), 2, "nobody joined anew, and nobody left");
            server.end(ending).await;
        }
    }
}

#[tokio::test]
async fn who_does_not_come_back_is_announced_once_and_not_before_the_grace_is_over() {
    for ending in ENDINGS {
        let (directory, server) = begin(&[PATIENT]).await;
        let (_ada, own) = server.enter(join("Ada")).await;
        let (_bob, _) = server.enter(join("Bob")).await;
        server.end(ending).await;

        let started = SystemTime::now();
        let server = ServerProcess::with(directory.path(), &[BRIEF]).await;
        let (mut ada, back) = server.enter(resume(welcome(&own), 2)).await;
        assert!(welcome(&back).recovered);

        let left = ada.next().await;
        assert_eq!(
            (left.r#type(), left.sender_name.as_str(), left.sequence),
            (EventType::Leave, "Bob", 3)
        );
        let at = SystemTime::try_from(left.accepted_at.expect("a time")).expect("it is one");
        assert!(at >= started + GRACE, "not before");
        assert_eq!(server.names("lobby").await, ["Ada"], "who is back stays");
        server.end(ending).await;
        // Bob was announced; Ada is expected again.
        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
        assert_eq!(server.names("lobby").await, ["Ada"]);
        assert_eq!(departures(&server.history("lobby").await, "Bob"), 1);
    }
}

#[tokio::test]
async fn who_was_given_no_session_is_announced_at_once() {
    for ending in ENDINGS {
        let (directory, server) = begin(&[PATIENT]).await;
        let mut original =
            Raw::open(server.connect().await, "/itu.chitchat.ChatService/Chat").await;
        original.join("Ada").await;
        let (_bob, own) = server.enter(join("Bob")).await;
        server.end(ending).await;

        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
        let (mut bob, _) = server.enter(resume(welcome(&own), 2)).await;

        let left = bob.next().await;
        assert_eq!(
            (left.r#type(), left.sender_name.as_str()),
            (EventType::Leave, "Ada")
        );
        assert_eq!(server.names("lobby").await, ["Bob"]);
    }
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_announces_nobody() {
    let (directory, server) = begin(&[BRIEF]).await;
    let (mut ada, _) = server.enter(join("Ada")).await;
    server.signal(Signal::TERM);
    let (told, ended) = ada.rest().await;
    assert_eq!(ended.expect_err("it stops").code(), Code::Unavailable);
    assert!(told.iter().all(|message| message.sequence == 0), "{told:?}");
    assert_eq!(server.exit_code().await, Some(0));

    let server = ServerProcess::with(directory.path(), &[PATIENT]).await;

    assert_eq!(server.history("lobby").await.len(), 1, "her JOIN");
    assert_eq!(server.names("lobby").await, ["Ada"]);
}

#[tokio::test]
async fn a_message_that_is_sent_again_after_a_restart_gets_its_first_result() {
    for ending in ENDINGS {
        let (directory, server) = begin(&[PATIENT]).await;
        let (mut ada, own) = server.enter(join("Ada")).await;
        let hers = JoinMsgLeave {
            message_id: "on the stream".into(),
            ..said("once", 0)
        };
        ada.send(hers.clone());
        let heard = ada.next().await;
        let first = send(&server, post("once too", "unary"))
            .await
            .expect("stored");
        server.end(ending).await;

        let server = ServerProcess::with(directory.path(), &[PATIENT]).await;

        let again = send(&server, post("once too", "unary"))
            .await
            .expect("known");
        assert_eq!(
            again,
            SendMessageResponse {
                duplicate: true,
                ..first
            }
        );
        let other = send(&server, post("something else", "unary")).await;
        assert_eq!(
            reason(&other.expect_err("it is reused")),
            "MESSAGE_ID_REUSED"
        );
        let (mut ada, _) = server.enter(resume(welcome(&own), 3)).await;
        ada.send(hers);
        let notice = ada.next().await;
        let duplicate = notice.notice.as_ref().expect("a notice");
        assert_eq!(duplicate.code(), NoticeCode::Duplicate);
        assert_eq!(
            (
                notice.timestamp,
                duplicate.sequence,
                duplicate.message_id.as_str()
            ),
            (heard.timestamp, heard.sequence, "on the stream")
        );
        assert_eq!(
            server.history("lobby").await.len(),
            3,
            "nothing is stored twice"
        );
    }
}

#[tokio::test]
async fn a_message_id_is_known_for_as_many_events_as_the_setting_says_across_restarts_too() {
    let settings = [PATIENT, ("CHITCHAT_LIMITS__DEDUP_EVENTS", "5")];
    for ending in ENDINGS {
        let (directory, server) = begin(&settings).await;
        let first = send(&server, post("kept", "id")).await.expect("stored");
        assert_eq!(first.sequence, 1);
        // With these it is the oldest of the last five.
        fill(&server, 4).await;
        server.end(ending).await;

        let server = ServerProcess::with(directory.path(), &settings).await;
        let again = send(&server, post("kept", "id")).await.expect("known");
        assert!(again.duplicate && again.sequence == 1, "{again:?}");
        fill(&server, 1).await;
        server.end(ending).await;

        let server = ServerProcess::with(directory.path(), &settings).await;
        let forgotten = send(&server, post("kept", "id")).await.expect("stored");
        assert!(
            !forgotten.duplicate && forgotten.sequence == 7,
            "{forgotten:?}"
        );
    }
}

#[tokio::test]
async fn a_resume_in_the_middle_of_a_history_is_without_a_seam() {
    for ending in ENDINGS {
        let settings = [PATIENT, ("CHITCHAT_LIMITS__RATE", "0")];
        let (directory, server) = begin(&settings).await;
        let (ada, own) = server.enter(join("Ada")).await;
        drop(ada);
        fill(&server, 400).await;
        let before = server.history("lobby").await;
        server.end(ending).await;

        let server = ServerProcess::with(directory.path(), &settings).await;
        // No feed holds what was; and while it is read, there is more.
        let filling = fill(&server, 100);
        let reading = async {
            let (mut ada, back) = server.enter(resume(welcome(&own), 150)).await;
            assert!(welcome(&back).recovered);
            ada.take(351).await
        };
        let (read, ()) = tokio::join!(reading, filling);

        assert_eq!(sequences(&read), (151..=501).collect::<Vec<_>>());
        assert_eq!(read[..251], before[150..]);
        assert_eq!(read[251..], server.history("lobby").await[401..]);
    }
}

#[tokio::test]
async fn a_newcomer_after_a_restart_may_have_the_last_events_first() {
    let (directory, server) = begin(&[PATIENT]).await;
    fill(&server, 60).await;
    server.end(Signal::KILL).await;

    let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
    let (mut bob, first) = server
        .enter(JoinMsgLeave {
            backlog: 50,
            ..join("Bob")
        })
        .await;

    assert_eq!((first.sequence, welcome(&first).head), (0, 60));
    let read = bob.take(51).await;
    assert_eq!(sequences(&read), (11..=61).collect::<Vec<_>>());
    assert_eq!(texts(&read)[49], "number 59");
    assert_eq!(read[50].r#type(), EventType::Join);
}

#[tokio::test]
async fn any_range_can_be_read_after_a_restart_in_either_direction() {
    let (directory, server) = begin(&[PATIENT]).await;
    fill(&server, 120).await;
    let all = server.history("lobby").await;
    server.end(Signal::KILL).await;

    let server = ServerProcess::with(directory.path(), &[PATIENT]).await;

    let mut client = server.client().await;
    // After, before, limit; and which events that is, counted from 0, and whether there are more.
    for (after, before, limit, range, more) in [
        (0, 0, 0, 0..100, true),
        (0, 0, 1_000, 0..120, false),
        (30, 0, 10, 30..40, true),
        (30, 41, 10, 30..40, false),
        (30, 35, 10, 30..34, false),
        (110, 0, 10, 110..120, false),
        (120, 0, 10, 120..120, false),
        (u64::MAX, 0, 10, 120..120, false),
        (0, 50, 10, 39..49, true),
        (0, 11, 10, 0..10, false),
        (0, 1, 10, 0..0, false),
        (0, u64::MAX, 10, 110..120, true),
        (40, 30, 10, 0..0, false),
    ] {
        let request = GetHistoryRequest {
            room: String::new(),
            after_sequence: after,
            before_sequence: before,
            limit,
        };
        let page = client
            .get_history(request)
            .await
            .expect("a page")
            .into_inner();
        assert_eq!(page.events, all[range], "{after} {before} {limit}");
        assert_eq!(page.more, more, "{after} {before} {limit}");
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart_where_it_ended() {
    let (directory, server) = begin(&[PATIENT]).await;
    fill(&server, 60).await;
    let epoch = epoch(&server).await;
    server.end(Signal::KILL).await;

    let server = ServerProcess::with(directory.path(), &[PATIENT]).await;
    let request = WatchRequest {
        resume: Some(Resume {
            epoch,
            after_sequence: 20,
        }),
        ..WatchRequest::default()
    };
    let watch = server.client().await.watch(request).await;
    let mut watch = watch.expect("a room can be watched").into_inner();
    fill(&server, 1).await;

    let mut read = Vec::new();
    while read.len() < 42 {
        let message = within("an event", watch.message()).await;
        read.push(message.expect("it goes on").expect("it does not end"));
    }
    assert!(welcome(&read[0]).recovered);
    assert_eq!(sequences(&read[1..]), (21..=61).collect::<Vec<_>>());
}

async fn epoch(server: &ServerProcess) -> String {
    let mut client = server.client().await;
    let page = client.get_history(GetHistoryRequest::default()).await;
    page.expect("a page").into_inner().epoch
}

#[tokio::test]
async fn a_server_whose_clients_hold_out_closes_its_history_all_the_same() {
    let (directory, server) = begin(&[("CHITCHAT_SERVER__DRAIN_TIMEOUT", "300ms")]).await;
    let unread = Raw::open(server.connect_narrow().await, CHAT).await;
    unread.send(join("Deaf"));
    let long = "\u{1f980}".repeat(120);
    let mut ada = Raw::open(server.connect().await, CHAT).await;
    ada.join("Ada").await;
    for number in 0..600 {
        ada.say(&format!("{number} {long}"), 0);
    }
    ada.read_to(&format!("599 {long}")).await;

    server.end(Signal::TERM).await;

    let log = directory.path().join(LOG);
    assert!(!log.exists(), "everything is in the one file");
    drop(unread);
}
