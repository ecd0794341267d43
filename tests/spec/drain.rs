//! A server that is told to stop tells everybody, announces no departures, and is gone within ten seconds.

use std::time::Duration;

use chitchat::wire::v1::{
    JoinMsgLeave, ListRoomsRequest, NoticeCode, SendMessageResponse,
    chat_service_client::ChatServiceClient,
};
use http::uri::PathAndQuery;
use rustix::process::Signal;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status, client::Grpc, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
};

use crate::support::{
    raw::{CHAT, Raw, join, reason, sequences},
    server::{start, start_with},
    server_process::ServerProcess,
    within,
};

/// Longer than any test waits: a server that waits for this fails the test.
const FOR_EVER: Duration = Duration::from_secs(3_600);

async fn watched_health(
    channel: Channel,
) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let answer = HealthClient::new(channel).watch(request).await;
    answer.expect("health should be watched").into_inner()
}

async fn assert_is_told(participant: &mut Raw) {
    let (heard, ended) = participant.rest().await;
    let last = heard.last().expect("a last word comes first");
    let notice = last.notice.as_ref().expect("it is a notice");
    assert_eq!(notice.code(), NoticeCode::Draining);
    let status = ended.expect_err("the stream ends with an error");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "DRAINING")
    );
}

#[tokio::test]
async fn everybody_is_told_and_asked_to_come_back_and_nobody_has_left() {
    let server = start_with(|config| config.server.grace = Duration::ZERO).await;
    let mut ada = server.joined("Ada").await;
    let mut original = server.original_chat().await;
    original.send(join("Bob"));
    original.next().await;
    ada.next().await;
    let mut watcher = server.client().await;
    let request = chitchat::wire::v1::WatchRequest::default();
    let mut watched = watcher.watch(request).await.expect("a watch").into_inner();
    watched
        .message()
        .await
        .expect("it goes on")
        .expect("a welcome");

    server.stop().await;

    for participant in [&mut ada, &mut original] {
        assert_is_told(participant).await;
    }
    // In particular no LEAVE, of anybody, before the farewell.
    let farewell = watched
        .message()
        .await
        .expect("it goes on")
        .expect("a farewell");
    assert_eq!(
        farewell.notice.expect("a notice").code(),
        NoticeCode::Draining
    );
    let status = watched.message().await.expect_err("the end");
    assert_eq!(status.code(), Code::Unavailable);
}

/// A session that came back at this moment once took the farewell for an answer to its JOIN, and gave up.
#[tokio::test]
async fn who_has_not_been_welcomed_is_asked_to_come_back_by_the_status_alone() {
    let server = start().await;
    let mut newcomer = server.chat().await;

    server.stop().await;

    let (heard, ended) = newcomer.rest().await;
    assert!(heard.is_empty(), "{heard:?}");
    let status = ended.expect_err("the stream ends with an error");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "DRAINING")
    );
}

#[tokio::test]
async fn health_is_not_serving_and_then_its_watches_end() {
    let server = start().await;
    let mut health = watched_health(server.connect().await).await;
    let first = within("health", health.next())
        .await
        .expect("one")
        .expect("well");
    assert_eq!(first.status(), ServingStatus::Serving);

    server.stop().await;

    let then = within("health", health.next())
        .await
        .expect("one")
        .expect("well");
    assert_eq!(then.status(), ServingStatus::NotServing);
    assert!(within("the end of health", health.next()).await.is_none());
}

#[tokio::test]
async fn streams_that_their_clients_would_keep_open_do_not_hold_it_up() {
    let server = start_with(|config| {
        config.server.keepalive_interval = FOR_EVER;
        config.server.drain_timeout = FOR_EVER;
        config.server.grace = FOR_EVER;
    })
    .await;
    let mut talker = server.joined("Talker").await;
    // Its stream broke, and it is expected back.
    drop(server.joined("Broken").await);
    let _health = watched_health(server.connect().await).await;
    let _reflection = ServerReflectionClient::new(server.connect().await)
        .server_reflection_info(tokio_stream::pending::<ServerReflectionRequest>())
        .await;
    // Connected, and silent for ever.
    let _silent = server.chat().await;
    // Called, and never says with what.
    let channel = server.connect().await;
    let mut call = std::pin::pin!(send_nothing(channel.clone()));
    let mut later = ChatServiceClient::new(channel);
    tokio::select! {
        biased;
        answer = &mut call => panic!("nothing was sent, and this came: {answer:?}"),
        answer = later.list_rooms(ListRoomsRequest {}) => {
            answer.expect("a later call on the same connection is answered");
        }
    }

    let ((), refused) = tokio::join!(server.stop(), call);

    assert_is_told(&mut talker).await;
    assert_eq!(reason(&refused.expect_err("it is refused")), "DRAINING");
}

/// A call of `SendMessage` whose request never comes.
async fn send_nothing(channel: Channel) -> Result<Response<SendMessageResponse>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("the connection should be ready");
    let nothing = Request::new(tokio_stream::pending::<JoinMsgLeave>());
    let path = PathAndQuery::from_static("/chitchat.v1.ChatService/SendMessage");
    grpc.client_streaming(nothing, path, ProstCodec::default())
        .await
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_it_up_for_the_drain_timeout_alone() {
    let server = ServerProcess::start(1_024).await;
    let _deaf = deaf(server.connect_narrow().await).await;
    let mut ada = Raw::open(server.connect().await, CHAT).await;
    ada.join("Ada").await;
    fill(&mut ada).await;

    server.signal(Signal::TERM);

    assert_is_told(&mut ada).await;
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn who_reads_has_read_everything_that_was_stored_before_the_farewell() {
    let server = start_with(|config| config.limits.rate = 0).await;
    let mut slow = deaf(server.connect_narrow().await).await;
    let mut ada = server.joined("Ada").await;
    fill(&mut ada).await;
    let history = server.history("lobby").await;

    let ((), (heard, ended)) = tokio::join!(server.stop(), slow.rest());

    let (farewell, events) = heard.split_last().expect("it reads");
    assert_eq!(sequences(events), sequences(&history));
    let notice = farewell.notice.as_ref().expect("the last is a notice");
    assert_eq!(notice.code(), NoticeCode::Draining);
    let status = ended.expect_err("the stream ends with an error");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn nobody_new_is_served_by_then() {
    let server = start_with(|config| {
        config.limits.rate = 0;
        config.server.drain_timeout = Duration::from_secs(1);
    })
    .await;
    let mut known = server.client().await;
    let _deaf = deaf(server.connect_narrow().await).await;
    let mut ada = server.joined("Ada").await;
    fill(&mut ada).await;
    let url = server.url();

    let ((), ()) = tokio::join!(server.stop(), async {
        assert_is_told(&mut ada).await;
        let refused = known.list_rooms(ListRoomsRequest {}).await;
        refused.expect_err("on a connection that is open");
        if let Ok(mut new) = ChatServiceClient::connect(url).await {
            let refused = new.list_rooms(ListRoomsRequest {}).await;
            refused.expect_err("on a new connection");
        }
    });
}

/// A participant whose window is too small for what [`fill`] says, and that does not read.
async fn deaf(narrow: Channel) -> Raw {
    let raw = Raw::open(narrow, CHAT).await;
    raw.send(join("Deaf"));
    raw
}

/// Says more than HTTP/2 holds for a client that does not read, and hears it: it is all stored.
async fn fill(talker: &mut Raw) {
    let long = "\u{1f980}".repeat(120);
    for number in 0..1_500 {
        talker.say(&format!("{number} {long}"), 0);
    }
    talker.read_to(&format!("1499 {long}")).await;
}

#[tokio::test]
async fn sigterm_and_sigint_end_the_program_well_with_streams_open() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = ServerProcess::start(1_024).await;
        let mut ada = Raw::open(server.connect().await, CHAT).await;
        ada.join("Ada").await;
        let _health = watched_health(server.connect().await).await;

        server.signal(signal);

        assert_is_told(&mut ada).await;
        assert_eq!(server.exit_code().await, Some(0), "{signal:?}");
    }
}

#[tokio::test]
async fn a_second_signal_does_not_cut_the_farewell_short() {
    let server = ServerProcess::start(1_024).await;
    let mut ada = Raw::open(server.connect().await, CHAT).await;
    ada.join("Ada").await;

    server.signal(Signal::TERM);
    server.signal(Signal::TERM);

    assert_is_told(&mut ada).await;
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_server_that_has_stopped_is_not_there_any_more() {
    let server = start().await;
    let mut client = server.client().await;
    client
        .list_rooms(ListRoomsRequest {})
        .await
        .expect("it is there");

    server.stop().await;

    let status = client
        .list_rooms(ListRoomsRequest {})
        .await
        .expect_err("it is gone");
    assert_eq!(status.code(), Code::Unavailable);
}
