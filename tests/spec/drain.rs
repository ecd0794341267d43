//! A server that is told to stop tells everybody, announces no departures, and is gone within ten seconds.

use std::time::Duration;

use chitchat::wire::v1::{ListRoomsRequest, NoticeCode};
use rustix::process::Signal;
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
};

use crate::support::{
    raw::{CHAT, Raw, join, reason, welcome},
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
async fn streams_of_every_kind_and_clients_that_neither_read_nor_end_do_not_hold_it_up() {
    let server = start_with(|config| {
        config.server.keepalive_interval = FOR_EVER;
        config.server.grace = FOR_EVER;
    })
    .await;
    let mut talker = server.joined("Talker").await;
    // Does not read: its window is full when the server stops.
    let deaf = server.narrow_chat().await;
    deaf.send(join("Deaf"));
    for n in 0..2_000 {
        talker.say(&format!("message {n}"), 0);
    }
    talker.read_to("message 1999").await;
    let _health = watched_health(server.connect().await).await;
    let _reflection = ServerReflectionClient::new(server.connect().await)
        .server_reflection_info(tokio_stream::pending::<ServerReflectionRequest>())
        .await;
    // Connected, and silent for ever.
    let _silent = server.chat().await;

    server.stop().await;

    assert_is_told(&mut talker).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_delivered_before_the_farewell_or_can_be_resumed() {
    let server = start().await;
    let (mut ada, own) = server.enter(join("Ada")).await;
    let mut bob = server.joined("Bob").await;
    ada.next().await;
    bob.say("the last word", 0);
    let acknowledged = bob.next().await;

    server.stop().await;

    let (heard, _) = ada.rest().await;
    let last = heard.iter().rfind(|message| message.sequence > 0);
    let read = last.map_or(welcome(&own).head, |message| message.sequence);
    assert!(read <= acknowledged.sequence);
    let in_order: Vec<_> = heard
        .iter()
        .map(|m| m.sequence)
        .filter(|s| *s > 0)
        .collect();
    assert!(in_order.windows(2).all(|pair| pair[0] < pair[1]));
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
