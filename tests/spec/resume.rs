//! Who returns in time continues where it was; who cannot is told so. Where a reading starts stands in the welcome.

use std::time::Duration;

use chitchat::wire::v1::{EventType, JoinMsgLeave, NoticeCode, Resume, ServerMessage};
use tonic::Code;

use crate::support::{
    raw::{join, reason, resume, said, sequences, texts, welcome},
    server::{TestServer, start, start_with},
};

#[tokio::test]
async fn who_resumes_in_time_continues_as_the_same_participant_and_joins_nobody_anew() {
    let server = patient().await;
    let mut witness = server.joined("Witness").await;
    let (mut ada, own) = server.enter(join("Ada")).await;
    witness.next().await;
    witness.say("before", 0);
    let last = ada.next().await.sequence;
    drop(ada);
    witness.say("meanwhile", 0);
    witness.take(2).await;

    let (mut ada, first) = server.enter(resume(welcome(&own), last)).await;
    ada.say("back again", 0);

    assert_is_private_welcome(&first);
    let again = welcome(&first);
    assert_eq!(
        (again.id, &again.session, &again.epoch),
        (own.sender_id, &welcome(&own).session, &welcome(&own).epoch)
    );
    assert!(again.recovered);
    assert_eq!(again.head, last + 1);
    let read = ada.take(2).await;
    assert_eq!(texts(&read), ["meanwhile", "back again"]);
    assert_eq!(read[1].sender_name, "Ada");
    // Nobody heard of it all.
    assert_eq!(witness.next().await.msg_stream, "back again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_and_what_is_live_follow_each_other_without_a_seam() {
    let server = start_with(|config| {
        config.limits.rate = 0;
        config.server.grace = Duration::from_secs(3_600);
    })
    .await;
    let (mut ada, own) = server.enter(join("Ada")).await;
    let mut read = vec![own.clone()];
    let mut talkers = Vec::new();
    for name in ["Bob", "Eve"] {
        let mut talker = server.joined(name).await;
        talkers.push(tokio::spawn(async move {
            for number in 0..3_000 {
                talker.say(&number.to_string(), 0);
                if number % 50 == 49 {
                    talker.read_to(&number.to_string()).await;
                }
            }
        }));
    }

    // Cut at any moment, and back at once.
    for _ in 0..50 {
        read.extend(ada.take(20).await);
        drop(ada);
        let last = read.last().expect("it has read something").sequence;
        let (again, first) = server.enter(resume(welcome(&own), last)).await;
        assert!(welcome(&first).recovered && welcome(&first).head >= last);
        ada = again;
    }
    for talker in talkers {
        talker.await.expect("the talkers should have their say");
    }
    ada.leave(0);
    let (rest, ended) = ada.rest().await;
    assert!(ended.is_ok(), "{ended:?}");
    read.extend(rest);

    read[0].welcome = None;
    let history = server.history("lobby").await;
    let missed = (0..read.len()).find(|&at| read[at] != history[at]);
    assert_eq!(missed, None, "of {} events", read.len());
    // Up to its LEAVE, which a leaver does not read.
    assert_eq!(history[read.len()].r#type(), EventType::Leave);
    assert_eq!(history[read.len()].sender_name, "Ada");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_stream_ends_and_nothing_of_it_is_accepted_any_more() {
    let server = start_with(|config| config.limits.rate = 0).await;
    for _ in 0..20 {
        let (mut older, own) = server.enter(join("Ada")).await;
        for _ in 0..1_000 {
            older.say("from the older stream", 0);
        }

        let (newer, first) = server.enter(resume(welcome(&own), own.sequence)).await;
        older.say("from the older stream", 0);

        let status = older.failure().await;
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(reason(&status), "SUPERSEDED");
        let history = server.history("lobby").await;
        let late = history
            .iter()
            .filter(|event| event.sequence > welcome(&first).head);
        assert_eq!(late.count(), 0, "stored after the resume");
        newer.leave(0);
        let mut newer = newer;
        let (_, ended) = newer.rest().await;
        assert!(ended.is_ok(), "{ended:?}");
    }
}

#[tokio::test]
async fn a_grace_that_ends_for_an_older_stream_announces_nothing() {
    let server = start().await;
    let mut witness = server.joined("Witness").await;
    let (ada, own) = server.enter(join("Ada")).await;
    drop(ada);

    let (mut ada, _) = server.enter(resume(welcome(&own), own.sequence)).await;
    // Its grace begins after Ada's did, so that Ada's is over when this one is.
    drop(server.joined("Marker").await);

    let heard = witness.take(3).await;
    let told: Vec<_> = heard
        .iter()
        .map(|event| (event.r#type(), event.sender_name.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (EventType::Join, "Ada"),
            (EventType::Join, "Marker"),
            (EventType::Leave, "Marker")
        ]
    );
    // And the participant is there, with all its rights.
    ada.take(2).await;
    ada.say("still here", 0);
    assert_eq!(ada.next().await.msg_stream, "still here");
    let mut names = server.names("lobby").await;
    names.sort();
    assert_eq!(names, ["Ada", "Witness"]);
}

#[tokio::test]
async fn another_epoch_is_another_world_and_its_clock_is_ignored() {
    let server = patient().await;
    let mut witness = server.joined("Witness").await;
    let stranger = JoinMsgLeave {
        resume: Some(Resume {
            epoch: "of a history that was wiped".into(),
            after_sequence: 1,
        }),
        session: "of that history".into(),
        timestamp: i64::MAX,
        ..join("Ada")
    };

    let (mut ada, first) = server.enter(stranger).await;

    assert!(!welcome(&first).recovered);
    let joined = ada.next().await;
    assert_eq!((joined.r#type(), joined.sequence), (EventType::Join, 2));
    assert_eq!(joined.timestamp, 2, "the clock was not dragged along");
    assert_same(&[witness.next().await], &[joined]);
}

#[tokio::test]
async fn a_resume_beyond_the_last_event_starts_anew_with_leave_and_join() {
    let server = patient().await;
    let (ada, own) = server.enter(join("Ada")).await;
    drop(ada);

    let (mut ada, first) = server.enter(resume(welcome(&own), own.sequence + 1)).await;

    assert_is_private_welcome(&first);
    assert!(!welcome(&first).recovered);
    assert_starts_anew(&ada.take(2).await, own.sequence + 1);
    assert_eq!(welcome(&first).session, welcome(&own).session);
}

#[tokio::test]
async fn a_resume_into_dropped_history_starts_anew_with_leave_and_join() {
    let server = start_with(|config| {
        config.limits.memory_bytes = 10_000;
        config.server.grace = Duration::from_secs(3_600);
    })
    .await;
    let (ada, own) = server.enter(join("Ada")).await;
    drop(ada);
    let mut witness = server.joined("Witness").await;
    for number in 0..200 {
        witness.say(&number.to_string(), 0);
        witness.next().await;
    }

    let (mut ada, first) = server.enter(resume(welcome(&own), own.sequence)).await;

    assert!(!welcome(&first).recovered);
    assert_eq!(welcome(&first).head, 202);
    let read = ada.take(2).await;
    assert_starts_anew(&read, 203);
    // For the others too, and the participant is the same.
    assert_same(&witness.take(2).await, &read);
    assert_eq!(read[1].sender_id, own.sender_id);
    ada.say("here", 0);
    assert_eq!(ada.next().await.msg_stream, "here");
}

#[tokio::test]
async fn who_comes_too_late_joins_anew_and_misses_nothing() {
    let server = start().await;
    let mut witness = server.joined("Witness").await;
    let (ada, own) = server.enter(join("Ada")).await;
    drop(ada);
    // Its JOIN and its departure.
    let left = witness.take(2).await[1].clone();

    let late = JoinMsgLeave {
        client_name: "Ada".into(),
        ..resume(welcome(&own), own.sequence)
    };
    let (mut ada, first) = server.enter(late).await;

    assert_is_private_welcome(&first);
    let fresh = welcome(&first);
    assert!(fresh.recovered, "nothing of the history is missing");
    assert_eq!(fresh.head, left.sequence);
    assert_ne!(fresh.session, welcome(&own).session);
    let read = ada.take(2).await;
    assert_same(&read[..1], &[left]);
    assert_eq!(
        (read[1].r#type(), read[1].sequence),
        (EventType::Join, fresh.head + 1)
    );
    assert_same(&[witness.next().await], &read[1..]);
}

#[tokio::test]
async fn a_session_that_is_not_the_holder_s_takes_nothing_over() {
    let server = patient().await;
    let (mut ada, own) = server.enter(join("Ada")).await;
    let mut forged = welcome(&own).clone();
    forged.session = "0".repeat(32);

    let refused = server
        .refusal(JoinMsgLeave {
            client_name: "Ada".into(),
            ..resume(&forged, own.sequence)
        })
        .await;
    let refused_by_id = server
        .refusal(JoinMsgLeave {
            id: own.sender_id,
            client_name: "Eve".into(),
            ..resume(&forged, own.sequence)
        })
        .await;

    assert_eq!(reason(&refused), "NAME_HELD");
    assert_eq!(reason(&refused_by_id), "ID_HELD");
    ada.say("still mine", 0);
    assert_eq!(ada.next().await.msg_stream, "still mine");
}

#[tokio::test]
async fn a_session_is_good_in_its_own_room_alone() {
    let server = patient().await;
    let (mut ada, own) = server.enter(join("Ada")).await;

    let (mut elsewhere, first) = server
        .enter(JoinMsgLeave {
            room: "attic".into(),
            client_name: "Ada".into(),
            ..resume(welcome(&own), 0)
        })
        .await;

    assert_ne!(welcome(&first).session, welcome(&own).session);
    assert_eq!(elsewhere.next().await.r#type(), EventType::Join);
    ada.say("still here", 0);
    assert_eq!(ada.next().await.msg_stream, "still here");
}

#[tokio::test]
async fn a_message_that_was_stored_before_the_cut_is_not_stored_again_after_it() {
    let server = patient().await;
    let (mut ada, own) = server.enter(join("Ada")).await;
    let message = JoinMsgLeave {
        message_id: "5f6c".into(),
        ..said("once", 5)
    };
    ada.send(message.clone());
    let stored = ada.next().await;
    drop(ada);

    let (mut ada, _) = server.enter(resume(welcome(&own), stored.sequence)).await;
    ada.send(message);
    let answer = ada.next().await;

    let notice = answer.notice.as_ref().expect("a notice should come");
    assert_eq!(notice.code(), NoticeCode::Duplicate);
    assert_eq!(
        (
            answer.timestamp,
            notice.sequence,
            notice.message_id.as_str()
        ),
        (stored.timestamp, stored.sequence, "5f6c")
    );
    assert_eq!(server.history("lobby").await.len(), 2);
}

#[tokio::test]
async fn the_original_s_path_knows_no_resume_and_no_backlog() {
    let server = patient().await;
    let (ada, own) = server.enter(join("Ada")).await;
    drop(ada);
    let mut original = server.original_chat().await;

    original.send(JoinMsgLeave {
        backlog: 10,
        client_name: "Bob".into(),
        ..resume(welcome(&own), 0)
    });

    let first = original.next().await;
    assert_eq!(
        (first.r#type(), first.sender_name.as_str()),
        (EventType::Join, "Bob")
    );
    assert_eq!((first.sequence, first.welcome), (2, None));
}

#[tokio::test]
async fn on_a_plain_join_the_welcome_rides_on_the_own_join() {
    let server = start().await;
    let mut witness = server.joined("Witness").await;

    let (_ada, own) = server.enter(join("Ada")).await;

    let welcome = welcome(&own);
    assert_eq!((own.r#type(), own.sequence), (EventType::Join, 2));
    assert_eq!((welcome.id, welcome.head), (own.sender_id, own.sequence));
    assert!(!welcome.recovered && !welcome.session.is_empty() && !welcome.epoch.is_empty());
    // Nobody else is told the secret.
    let heard = witness.next().await;
    assert_eq!(heard.welcome, None);
    assert_same(
        &[heard],
        &[ServerMessage {
            welcome: None,
            ..own
        }],
    );
}

#[tokio::test]
async fn a_newcomer_may_have_the_last_events_first() {
    let server = start().await;
    let mut witness = server.joined("Witness").await;
    for text in ["one", "two", "three"] {
        witness.say(text, 0);
        witness.next().await;
    }

    let (mut ada, first) = server.enter(with_backlog("Ada", 2)).await;

    assert_is_private_welcome(&first);
    assert_eq!(
        first.timestamp,
        witness.next().await.timestamp,
        "the clock as it stands"
    );
    let told = welcome(&first);
    assert_eq!((told.head, told.recovered), (4, false));
    let read = ada.take(3).await;
    assert_eq!(sequences(&read), [3, 4, 5]);
    assert_eq!(texts(&read[..2]), ["two", "three"]);
    assert_eq!(read[2].r#type(), EventType::Join);
    assert_eq!(read[2].welcome, None, "it was welcomed already");
}

#[tokio::test]
async fn a_backlog_is_what_there_is_and_never_more_than_a_thousand() {
    let server = start().await;
    let (mut early, first) = server.enter(with_backlog("Early", 50)).await;
    assert_eq!(welcome(&first).head, 0);
    assert_eq!(sequences(&early.take(1).await), [1]);
    for number in 0..1_100 {
        early.say(&number.to_string(), 0);
    }
    early.take(1_100).await;

    let (mut late, first) = server.enter(with_backlog("Late", u32::MAX)).await;

    assert_eq!(welcome(&first).head, 1_101);
    let expected: Vec<u64> = (102..=1_102).collect();
    assert_eq!(sequences(&late.take(1_001).await), expected);
}

#[tokio::test]
async fn a_backlog_begins_with_the_oldest_event_that_is_kept() {
    let server = start_with(|config| config.limits.memory_bytes = 10_000).await;
    let mut early = server.joined("Early").await;
    for number in 0..200 {
        early.say(&number.to_string(), 0);
        early.next().await;
    }
    let kept = server.history("lobby").await;
    assert!(kept[0].sequence > 1 && kept.len() < 200);

    let (mut late, _) = server.enter(with_backlog("Late", 1_000)).await;

    assert_same(&late.take(kept.len()).await, &kept);
    assert_eq!(late.next().await.sender_name, "Late");
}

/// A server that waits for those whose stream broke for longer than any test.
async fn patient() -> TestServer {
    start_with(|config| config.server.grace = Duration::from_secs(3_600)).await
}

fn with_backlog(name: &str, backlog: u32) -> JoinMsgLeave {
    JoinMsgLeave {
        backlog,
        ..join(name)
    }
}

fn assert_is_private_welcome(message: &ServerMessage) {
    assert!(message.welcome.is_some(), "{message:?}");
    assert_eq!(message.sequence, 0);
    assert_eq!(message.r#type(), EventType::Message);
    assert_eq!(
        (message.sender_id, message.sender_name.as_str()),
        (0, "Server")
    );
    assert_eq!(message.notice, None);
}

/// The LEAVE and the new JOIN of one participant, one right after the other.
fn assert_starts_anew(events: &[ServerMessage], sequence: u64) {
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.r#type(), event.sender_name.as_str(), event.sequence))
        .collect();
    assert_eq!(
        told,
        [
            (EventType::Leave, "Ada", sequence),
            (EventType::Join, "Ada", sequence + 1)
        ]
    );
}

fn assert_same(read: &[ServerMessage], expected: &[ServerMessage]) {
    assert_eq!(read, expected);
}
