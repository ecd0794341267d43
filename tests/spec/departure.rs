//! Every departure is announced once: at once where somebody left, and after the grace where a stream broke.

use std::time::{Duration, Instant};

use chitchat::wire::v1::{EventType, JoinMsgLeave, ServerMessage};
use rustix::process::Signal;
use tonic::Code;

use crate::support::{
    client_process::{be_a_participant, participant},
    raw::{Raw, join, reason, said, welcome},
    server::{GRACE, TestServer, start, start_with},
    signal,
};

/// A grace that no test lives to see the end of: what is announced all the same is announced at once.
const ENDLESS: Duration = Duration::from_secs(3_600);

/// What a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(4);

/// How long a connection may be silent before it is asked, and how long the answer may take, where a test says so.
const KEEPALIVE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn leave_is_announced_at_once_and_ends_the_stream_well() {
    let (server, mut witness) = with_grace(ENDLESS).await;
    let mut ada = server.joined("Ada").await;
    witness.next().await;

    ada.leave(7);

    assert_departure(&witness.next().await, "Ada");
    let (rest, ended) = ada.rest().await;
    assert!(rest.is_empty() && ended.is_ok(), "{rest:?} {ended:?}");
}

#[tokio::test]
async fn leave_is_obeyed_whatever_its_timestamp() {
    for impossible in [-1, i64::MAX] {
        let (server, mut witness) = with_grace(ENDLESS).await;
        let ada = server.joined("Ada").await;
        let joined = witness.next().await;

        ada.leave(impossible);

        let left = witness.next().await;
        assert_departure(&left, "Ada");
        assert_eq!(left.timestamp, joined.timestamp + 1, "it is not merged");
    }
}

#[tokio::test]
async fn half_close_is_a_leave() {
    let (server, mut witness) = with_grace(ENDLESS).await;
    let mut ada = server.joined("Ada").await;
    witness.next().await;

    ada.say("the last word", 0);
    ada.half_close();

    assert_eq!(witness.next().await.msg_stream, "the last word");
    assert_departure(&witness.next().await, "Ada");
    let (rest, ended) = ada.rest().await;
    assert!(rest.len() == 1 && ended.is_ok(), "{rest:?} {ended:?}");
}

#[tokio::test]
async fn a_participant_that_the_service_sends_away_leaves_at_once() {
    let (server, mut witness) = with_grace(ENDLESS).await;
    let mut ada = server.joined("Ada").await;
    witness.next().await;

    for text in ["one", "another"] {
        ada.send(JoinMsgLeave {
            message_id: "the same".into(),
            ..said(text, 0)
        });
    }

    assert_eq!(ada.failure().await.code(), Code::AlreadyExists);
    assert_eq!(witness.next().await.msg_stream, "one");
    assert_departure(&witness.next().await, "Ada");
}

#[tokio::test]
async fn a_stream_that_broke_is_announced_once_the_grace_is_over() {
    let (server, mut witness) = with_grace(GRACE).await;
    let ada = server.joined("Ada").await;
    witness.next().await;

    let broke = Instant::now();
    drop(ada);

    assert_departure(&witness.next().await, "Ada");
    assert_due(broke, GRACE, Duration::ZERO);
}

#[tokio::test]
async fn a_process_that_is_killed_is_announced_once_the_grace_is_over() {
    let (server, mut witness) = with_grace(GRACE).await;
    let process = client_process(&server, "Ada");
    assert_eq!(witness.next().await.sender_name, "Ada");

    let killed = Instant::now();
    signal(&process, Signal::KILL);

    assert_departure(&witness.next().await, "Ada");
    assert_due(killed, GRACE, Duration::ZERO);
}

#[tokio::test]
async fn a_process_that_is_frozen_is_announced_likewise_and_nobody_waits_for_it() {
    let grace = Duration::from_secs(1);
    let server = start_with(|config| {
        config.server.grace = grace;
        config.server.keepalive_interval = KEEPALIVE;
        config.server.keepalive_timeout = KEEPALIVE;
    })
    .await;
    let mut witness = server.joined("Witness").await;
    let process = client_process(&server, "Ada");
    assert_eq!(witness.next().await.sender_name, "Ada");

    let frozen = Instant::now();
    signal(&process, Signal::STOP);
    for number in 0..50 {
        let text = number.to_string();
        witness.say(&text, 0);
        let heard = witness.next().await;
        assert_eq!(heard.msg_stream, text, "nobody waits for Ada");
    }
    assert_departure(&witness.next().await, "Ada");
    assert_due(frozen, grace, 2 * KEEPALIVE);
    drop(process);
}

#[tokio::test]
async fn a_client_that_was_given_no_session_cannot_return_and_is_announced_at_once() {
    let (server, mut witness) = with_grace(ENDLESS).await;
    let mut original = server.original_chat().await;
    original.join("Ada").await;
    witness.next().await;

    drop(original);

    assert_departure(&witness.next().await, "Ada");
}

#[tokio::test]
async fn no_departure_is_announced_twice() {
    let (server, mut witness) = with_grace(GRACE).await;
    let left = server.joined("Left").await;
    left.leave(0);
    left.leave(0);
    let mut closed = server.joined("Closed").await;
    closed.half_close();
    let broken = server.joined("Broken").await;
    let mut original = server.original_chat().await;
    original.join("Original").await;

    drop((left, closed, broken, original));
    // Whatever could be announced by the end of a grace has been, when this one is, which begins after.
    let last = server.joined("Last").await;
    drop(last);
    let mut departed = Vec::new();
    while departed.last().is_none_or(|name| name != "Last") {
        let event = witness.next().await;
        if event.r#type() == EventType::Leave {
            departed.push(event.sender_name);
        }
    }

    departed.sort();
    assert_eq!(departed, ["Broken", "Closed", "Last", "Left", "Original"]);
}

#[tokio::test]
async fn a_name_and_an_id_are_held_while_their_holder_is_present_and_while_it_may_return() {
    let (server, _witness) = with_grace(ENDLESS).await;
    let mut ada = server.chat().await;
    ada.send(with_id(7, "Ada"));
    ada.next().await;

    assert_held(&server).await;
    drop(ada);
    assert_held(&server).await;

    let mut names = server.names("lobby").await;
    names.sort();
    assert_eq!(names, ["Ada", "Witness"]);
}

/// Neither the name `Ada` nor the id 7 can be had.
async fn assert_held(server: &TestServer) {
    for (asked, expected) in [
        (with_id(7, "Eve"), "ID_HELD"),
        (with_id(8, "Ada"), "NAME_HELD"),
        // Compared without case, and as it would be shown.
        (with_id(8, " aDA\n"), "NAME_HELD"),
    ] {
        let refused = server.refusal(asked).await;
        assert_eq!(refused.code(), Code::AlreadyExists);
        assert_eq!(reason(&refused), expected);
        assert!(refused.message().contains("may still return"), "{refused}");
    }
}

#[tokio::test]
async fn a_name_and_an_id_are_free_after_the_departure() {
    let (server, mut witness) = with_grace(GRACE).await;
    let mut ada = server.chat().await;
    ada.send(with_id(7, "Ada"));
    ada.next().await;
    witness.next().await;

    drop(ada);
    assert_departure(&witness.next().await, "Ada");

    let mut other = server.chat().await;
    other.send(with_id(7, "ADA"));
    let joined = other.next().await;
    assert_eq!((joined.sender_id, joined.sender_name.as_str()), (7, "ADA"));
}

#[tokio::test]
async fn a_name_is_held_in_its_own_room_alone() {
    let server = start().await;
    let _ada = server.joined("Ada").await;

    let mut elsewhere = server.chat().await;
    elsewhere.send(JoinMsgLeave {
        room: "attic".into(),
        ..join("Ada")
    });

    assert_eq!(elsewhere.next().await.room, "attic");
}

#[tokio::test]
async fn an_id_of_0_is_replaced_by_one_that_nobody_has() {
    let server = start().await;
    let mut ids = Vec::new();
    let mut streams = Vec::new();
    for name in ["Ada", "Bob", "Eve"] {
        let mut raw = server.chat().await;
        let joined = raw.join(name).await;
        assert_eq!(welcome(&joined).id, joined.sender_id);
        ids.push(joined.sender_id);
        streams.push(raw);
    }

    assert!(ids.iter().all(|id| *id > 0), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

/// Not a test: the program of the client processes above.
#[tokio::test]
#[ignore = "run by other tests, in a process that they kill"]
async fn client() {
    be_a_participant().await;
}

fn client_process(server: &TestServer, name: &str) -> tokio::process::Child {
    participant(server, name, "departure::client")
}

/// A server, and a participant that tells who leaves.
async fn with_grace(grace: Duration) -> (TestServer, Raw) {
    let server = start_with(|config| config.server.grace = grace).await;
    let witness = server.joined("Witness").await;
    (server, witness)
}

fn with_id(id: i32, name: &str) -> JoinMsgLeave {
    JoinMsgLeave { id, ..join(name) }
}

fn assert_departure(event: &ServerMessage, name: &str) {
    let told = format!(
        "Participant {name} left Chit Chat at logical time L={}",
        event.timestamp
    );
    assert_eq!(event.msg_stream, told);
    assert_eq!(
        (event.r#type(), event.sender_name.as_str()),
        (EventType::Leave, name)
    );
    assert!(event.sequence > 0);
}

/// It is time for an announcement: `grace` has passed, and no more than it takes to notice.
fn assert_due(since: Instant, grace: Duration, to_notice: Duration) {
    let elapsed = since.elapsed();
    assert!(elapsed >= grace, "too early, after {elapsed:?}");
    assert!(
        elapsed < grace + to_notice + SLACK,
        "too late, after {elapsed:?}"
    );
}
