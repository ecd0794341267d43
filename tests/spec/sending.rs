//! What is sent twice is stored once, on a stream and outside of one.

use chitchat::wire::v1::{EventType, JoinMsgLeave, NoticeCode, SendMessageResponse, ServerMessage};
use tonic::{Code, Status};

use crate::support::{
    raw::{join, reason, resume, said, texts, welcome},
    server::{TestServer, start},
};

async fn post(server: &TestServer, message: JoinMsgLeave) -> Result<SendMessageResponse, Status> {
    let answer = server.client().await.send_message(message).await;
    answer.map(tonic::Response::into_inner)
}

/// A MESSAGE of the participant that `own` welcomed.
fn posted_by(own: &ServerMessage, text: &str) -> JoinMsgLeave {
    JoinMsgLeave {
        id: welcome(own).id,
        session: welcome(own).session.clone(),
        ..said(text, 0)
    }
}

fn outsider(name: &str, text: &str) -> JoinMsgLeave {
    JoinMsgLeave {
        client_name: name.into(),
        ..said(text, 0)
    }
}

fn with_id(message: JoinMsgLeave, id: &str) -> JoinMsgLeave {
    JoinMsgLeave {
        message_id: id.into(),
        ..message
    }
}

#[tokio::test]
async fn a_participant_posts_with_its_session_and_everybody_reads_it() {
    let server = start().await;
    let (mut ada, own) = server.enter(join("Ada")).await;

    let stored = post(&server, posted_by(&own, "by the way"))
        .await
        .expect("it is stored");

    let heard = ada.next().await;
    assert_eq!(
        (heard.timestamp, heard.sequence),
        (stored.timestamp, stored.sequence)
    );
    assert_eq!(
        (heard.sender_id, heard.msg_stream.as_str()),
        (welcome(&own).id, "by the way")
    );
    assert!(!stored.duplicate && stored.timestamp > own.timestamp);
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let server = start().await;
    let (_ada, own) = server.enter(join("Ada")).await;
    let mine = posted_by(&own, "x");

    for (forged, code, why) in [
        (
            JoinMsgLeave {
                session: String::new(),
                ..mine.clone()
            },
            Code::Unauthenticated,
            "NO_SESSION",
        ),
        (
            JoinMsgLeave {
                session: "0".repeat(32),
                ..mine.clone()
            },
            Code::PermissionDenied,
            "NOT_YOUR_SESSION",
        ),
        (
            JoinMsgLeave {
                id: 4_711,
                ..mine.clone()
            },
            Code::NotFound,
            "NOT_IN_ROOM",
        ),
        (
            JoinMsgLeave {
                room: "other".into(),
                ..mine
            },
            Code::NotFound,
            "NOT_IN_ROOM",
        ),
        (outsider("aDa", "x"), Code::AlreadyExists, "NAME_HELD"),
    ] {
        let status = post(&server, forged).await.expect_err(why);
        assert_eq!((status.code(), reason(&status).as_str()), (code, why));
    }
    assert_eq!(server.history("lobby").await.len(), 1, "her JOIN alone");
}

#[tokio::test]
async fn who_is_not_in_the_room_may_post_under_a_free_name_and_is_not_listed() {
    let server = start().await;
    let mut ada = server.joined("Ada").await;

    let message = JoinMsgLeave {
        bot: true,
        ..outsider("cron", "the backup is done")
    };
    let stored = post(&server, message).await.expect("it is stored");

    let heard = ada.next().await;
    assert_eq!(heard.sequence, stored.sequence);
    assert_eq!((heard.sender_name.as_str(), heard.bot), ("cron", true));
    assert!(heard.sender_id > 0, "0 is the service's own");
    assert_eq!(server.names("lobby").await, ["Ada"]);
}

#[tokio::test]
async fn a_retry_is_answered_with_the_first_result() {
    let server = start().await;
    let message = with_id(outsider("cron", "once"), "m-1");
    let first = post(&server, message.clone()).await.expect("it is stored");
    post(&server, outsider("cron", "something between"))
        .await
        .expect("it is stored");

    let again = post(&server, message).await.expect("it is known");

    assert!(!first.duplicate && again.duplicate);
    assert_eq!(
        (again.timestamp, again.sequence),
        (first.timestamp, first.sequence)
    );
    assert_eq!(
        texts(&server.history("lobby").await),
        ["once", "something between"]
    );
}

#[tokio::test]
async fn a_message_id_stands_for_one_content() {
    let server = start().await;
    post(&server, with_id(outsider("cron", "once"), "m-1"))
        .await
        .expect("it is stored");

    for other in [outsider("cron", "twice"), outsider("Cron2", "once")] {
        let status = post(&server, with_id(other, "m-1"))
            .await
            .expect_err("it is used");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::AlreadyExists, "MESSAGE_ID_REUSED")
        );
    }
    let elsewhere = JoinMsgLeave {
        room: "other".into(),
        ..outsider("cron", "twice")
    };
    assert!(
        post(&server, with_id(elsewhere, "m-1")).await.is_ok(),
        "each room has its own"
    );
}

#[tokio::test]
async fn a_retry_on_a_stream_gets_a_notice_with_the_first_result_and_no_event() {
    let server = start().await;
    let mut ada = server.joined("Ada").await;
    ada.send(with_id(said("once", 5), "m-1"));
    let first = ada.next().await;
    assert_eq!(first.message_id, "m-1");

    ada.send(with_id(said("once", 5), "m-1"));

    let told = ada.next().await;
    let notice = told.notice.as_ref().expect("it is a notice");
    assert_eq!(notice.code(), NoticeCode::Duplicate);
    assert_eq!(
        (told.timestamp, notice.sequence),
        (first.timestamp, first.sequence)
    );
    assert_eq!(notice.message_id, "m-1");
    assert_eq!((told.sequence, told.r#type()), (0, EventType::Message));
    // It did not tick.
    ada.say("next", 0);
    assert_eq!(ada.next().await.timestamp, first.timestamp + 1);
}

#[tokio::test]
async fn message_ids_are_known_to_the_unary_call_and_to_a_later_stream_too() {
    let server = start().await;
    let (mut ada, own) = server.enter(join("Ada")).await;
    ada.send(with_id(said("once", 5), "m-1"));
    let first = ada.next().await;

    let unary = post(&server, with_id(posted_by(&own, "once"), "m-1"))
        .await
        .expect("it is known");
    drop(ada);
    let (mut again, _) = server.enter(resume(welcome(&own), first.sequence)).await;
    again.send(with_id(said("once", 5), "m-1"));
    let told = again.next().await;

    assert!(unary.duplicate && unary.sequence == first.sequence);
    assert_eq!(told.notice.expect("a notice").sequence, first.sequence);
}
