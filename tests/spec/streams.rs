//! Both directions of a stream are independent, and so are readers of each other.

use std::time::Duration;

use chitchat::wire::v1::ServerMessage;
use tonic::{Code, transport::Endpoint};

use crate::support::{
    raw::{Raw, reason, resume, sequences, texts, welcome},
    server::{TestServer, start, start_with},
};

/// About 2.4 MB: more than a reader's window, what HTTP/2 buffers for it and what the feed holds, together.
const MANY: usize = 4_000;

#[tokio::test]
async fn headers_come_before_the_client_has_said_anything() {
    let server = start().await;

    // Opening waits for the headers, and nothing has been sent by then.
    let mut raw = server.chat().await;

    raw.join("Ada").await;
}

#[tokio::test]
async fn a_client_may_send_two_thousand_messages_before_it_reads_one() {
    let server = start_with(|config| config.limits.rate = 0).await;
    let mut listener = server.joined("Listener").await;
    let mut sender = server.narrow_chat().await;
    sender.join("Sender").await;
    listener.next().await;

    for number in 0..2_000 {
        sender.say(&long(number), 0);
    }
    let heard = listener.take(2_000).await;

    assert_same(&heard, &sender.take(2_000).await);
    let said: Vec<_> = (0..2_000).map(long).collect();
    assert_eq!(texts(&heard), said);
}

#[tokio::test]
async fn a_client_that_says_nothing_hears_everything() {
    let server = start().await;
    let mut silent = server.joined("Silent").await;
    let mut sender = server.joined("Sender").await;
    silent.next().await;

    for number in 0..1_000 {
        sender.say(&number.to_string(), 0);
    }

    let heard = silent.take(1_000).await;
    assert_same(&heard, &sender.take(1_000).await);
}

#[tokio::test]
async fn a_stream_that_does_not_join_within_a_minute_is_ended() {
    let server = start_with(|config| {
        // The minute passes for the keepalive too.
        config.server.keepalive_interval = Duration::from_secs(3_600);
    })
    .await;
    let mut late = server.chat().await;
    let mut silent = server.chat().await;

    pass(Duration::from_secs(59)).await;
    late.join("Late").await;
    pass(Duration::from_secs(2)).await;

    let status = silent.failure().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(reason(&status), "NO_JOIN");
    // Who has joined may be silent as long as it likes.
    late.say("still here", 0);
    assert_eq!(late.next().await.msg_stream, "still here");
}

/// Lets `duration` pass at once.
async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_delays_nobody_and_reads_on_without_a_gap() {
    let server = start_with(|config| {
        config.limits.rate = 0;
        config.limits.feed_bytes = 256 * 1024;
        config.limits.stall = Duration::ZERO;
    })
    .await;
    let mut slow = server.narrow_chat().await;
    slow.join("Slow").await;

    let heard = talk(&server).await;

    // The feed holds the newest 256 KiB of this: the rest comes from the journal.
    let read = slow.take(heard.len()).await;
    assert_same(&read, &heard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_for_whom_history_was_dropped_is_told_and_given_no_gap() {
    let server = start_with(|config| {
        config.limits.rate = 0;
        config.limits.memory_bytes = 300 * 1024;
        config.limits.feed_bytes = 256 * 1024;
        config.limits.stall = Duration::ZERO;
    })
    .await;
    let mut slow = server.narrow_chat().await;
    let own = slow.join("Slow").await;

    let heard = talk(&server).await;
    let (read, ended) = slow.rest().await;

    assert_same(&read, &heard[..read.len()]);
    let status = ended.expect_err("it cannot have read everything");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status), "STALLED");

    // As the status asks: it resumes, and is told again that something is missing.
    let mut again = server.chat().await;
    let last = read.last().map_or(own.sequence, |event| event.sequence);
    again.send(resume(welcome(&own), last));
    assert!(!welcome(&again.next().await).recovered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn such_a_reader_is_told_also_while_a_refusal_waits_for_its_place() {
    let server = start_with(|config| {
        config.limits.rate = 0;
        config.limits.memory_bytes = 300 * 1024;
        config.limits.feed_bytes = 256 * 1024;
        config.limits.stall = Duration::ZERO;
    })
    .await;
    let mut slow = server.narrow_chat().await;
    slow.join("Slow").await;

    talk(&server).await;
    slow.say("", 0);
    talk(&server).await;

    // The refusal's place is among what was dropped.
    let status = slow.failure().await;
    assert_eq!(reason(&status), "STALLED");
}

/// A listener and a talker come; the talker says `MANY` things. Returns what the listener read, its own JOIN included.
async fn talk(server: &TestServer) -> Vec<ServerMessage> {
    let mut listener = server.chat().await;
    let mut heard = vec![listener.join("Listener").await];
    heard[0].welcome = None;
    let mut talker = server.joined("Talker").await;
    heard.push(listener.next().await);
    for number in 0..MANY {
        talker.say(&long(number), 0);
        // Little at a time: these two must not fall behind themselves.
        if number % 100 == 99 {
            talker.take(100).await;
            heard.extend(listener.take(100).await);
        }
    }
    talker.leave(0);
    heard.push(listener.next().await);
    listener.leave(0);
    let (rest, ended) = listener.rest().await;
    assert!(rest.is_empty() && ended.is_ok(), "{rest:?} {ended:?}");
    heard
}

/// About as long as a text may be: 512 bytes.
fn long(number: usize) -> String {
    format!("{number:04}{}", "🦀".repeat(124))
}

/// Like `assert_eq`, with a message that a person can read.
fn assert_same(read: &[ServerMessage], expected: &[ServerMessage]) {
    assert_eq!(sequences(read), sequences(expected));
    assert!(read == expected);
}

#[tokio::test]
async fn short_messages_may_wait_unread_by_the_thousand_without_costing_the_connection() {
    let server = start_with(|config| config.limits.rate = 0).await;
    // A small window, so that the notices back up into the server until it reads nothing more.
    let channel = Endpoint::from_shared(server.url())
        .expect("the address is an address")
        .initial_stream_window_size(1_024)
        .connect()
        .await
        .expect("the server should accept connections");
    let mut ada = Raw::open(channel, "/chitchat.v1.ChatService/Chat").await;
    ada.join("Ada").await;
    for _ in 0..SHORT_MESSAGES {
        ada.say("", 0);
        // Each in a frame of its own.
        tokio::task::yield_now().await;
    }
    let notices = ada.take(SHORT_MESSAGES).await;
    assert!(notices.iter().all(|notice| notice.notice.is_some()));
    ada.say("still here", 0);
    assert_eq!(ada.next().await.msg_stream, "still here");
}

/// More notices than the client's window, the server's send buffer (400 KB) and its outbox hold together.
const SHORT_MESSAGES: usize = 12_000;
