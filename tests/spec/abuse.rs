use std::{
    path::Path,
    time::{Duration, Instant},
};

use chitchat::wire::v1::{
    GetHistoryRequest, ListRoomsRequest, NoticeCode, chat_service_client::ChatServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    http2::{Connection, Frames, PREFACE, WINDOW_MAX, framed, prefixed},
    raw::{CHAT, Raw, join, said},
    server::{start, start_with},
    server_process::ServerProcess,
    within,
};

/// Longer than any test waits: a server that waits for this fails the test.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// HTTP/2's error codes (RFC 9113, section 7).
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Says something and reads it: the participant is served.
async fn is_served(participant: &mut Raw, text: &str) {
    participant.say(text, 0);
    while participant.next().await.msg_stream != text {}
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().expect("four bytes are a number"))
}

// ---- Streams that are opened to be broken.

impl Frames {
    /// Opens streams and has the server reset each: more is allowed on it than HTTP/2's windows can hold.
    fn put_faulty_streams(&mut self, count: u32) {
        for stream in (0..count).map(|n| 2 * n + 1) {
            self.put_request(stream, CHAT);
            self.put_window(stream, WINDOW_MAX);
            self.put_window(stream, WINDOW_MAX);
        }
    }

    /// Reads until the server closes the connection: the last GOAWAY's code and words.
    async fn closing(&mut self) -> Option<(u32, String)> {
        let mut closing = None;
        while let Some(frame) = self.next().await {
            if frame.kind == Self::GOAWAY {
                let words = String::from_utf8_lossy(&frame.payload[8..]).into_owned();
                closing = Some((number(&frame.payload[4..]), words));
            }
        }
        closing
    }

    /// Asks whether the connection lives, and waits for the answer.
    async fn ping(&mut self) {
        const PING: u8 = 6;
        self.put(PING, 0, 0, b"anybody?");
        self.flush().await;
        loop {
            let frame = self.next().await.expect("the connection should live");
            assert_ne!(frame.kind, Self::GOAWAY, "{frame:?}");
            if frame.kind == PING && &frame.payload[..] == b"anybody?" {
                return;
            }
        }
    }
}

/// RUSTSEC-2024-0003, and CVE-2025-8671 ("MadeYouReset"); tonic's default has no limit here.
#[tokio::test]
async fn a_connection_whose_streams_must_be_reset_too_often_is_closed() {
    let server = start().await;
    let mut ada = server.joined("Ada").await;
    let mut attacker = Frames::to(server.address()).await;

    attacker.put_faulty_streams(1_000);
    attacker.flush().await;

    let (code, words) = attacker.closing().await.expect("the server should say why");
    assert_eq!(
        (code, words.as_str()),
        (ENHANCE_YOUR_CALM, "too_many_internal_resets")
    );
    is_served(&mut ada, "unharmed").await;
    server.stop().await;
}

#[tokio::test]
async fn a_few_streams_that_must_be_reset_are_forgiven() {
    let server = start().await;
    let mut clumsy = Frames::to(server.address()).await;

    clumsy.put_faulty_streams(100);

    clumsy.ping().await;
}

/// CVE-2023-44487, "rapid reset".
#[tokio::test]
async fn a_connection_that_opens_streams_to_reset_them_is_closed() {
    let server = start().await;
    let mut ada = server.joined("Ada").await;
    let mut attacker = Frames::to(server.address()).await;
    const CANCEL: [u8; 4] = [0, 0, 0, 8];

    for stream in (0..1_000).map(|n| 2 * n + 1) {
        attacker.put_request(stream, CHAT);
        attacker.put(Frames::RST_STREAM, 0, stream, &CANCEL);
    }
    attacker.flush().await;

    let (code, words) = attacker.closing().await.expect("the server should say why");
    assert_eq!(
        (code, words.as_str()),
        (ENHANCE_YOUR_CALM, "too_many_resets")
    );
    is_served(&mut ada, "unharmed").await;
}

#[tokio::test]
async fn a_connection_has_at_most_16_streams_and_one_more_is_refused() {
    const MAX_CONCURRENT_STREAMS: [u8; 6] = [0, 3, 0, 0, 0, 16];
    let server = start().await;
    let mut greedy = Frames::to(server.address()).await;

    for stream in (0..17).map(|n| 2 * n + 1) {
        greedy.put_request(stream, CHAT);
    }
    greedy.flush().await;

    let (mut told, mut opened, mut refused) = (false, vec![], None);
    while opened.len() < 16 || refused.is_none() {
        let frame = greedy.next().await.expect("the connection should live");
        match frame.kind {
            Frames::SETTINGS => {
                told |= frame
                    .payload
                    .chunks(6)
                    .any(|one| one == MAX_CONCURRENT_STREAMS)
            }
            Frames::HEADERS => opened.push(frame.stream),
            Frames::RST_STREAM => refused = Some((frame.stream, number(&frame.payload))),
            _ => {}
        }
    }
    assert!(told, "a client that keeps to it waits with its 17th");
    opened.sort_unstable();
    assert_eq!(opened, (0..16).map(|n| 2 * n + 1).collect::<Vec<_>>());
    assert_eq!(refused, Some((33, REFUSED_STREAM)));
}

// ---- Connections that say nothing.

/// They take no part in HTTP/2's shutdown, so a server that only asked them by HTTP/2 waited for ever.
#[tokio::test]
async fn connections_that_never_speak_do_not_hold_up_the_stop() {
    let server = start_with(|config| {
        config.server.first_byte_timeout = Duration::from_millis(300);
        // For those that have said the preface, and do not answer either.
        config.server.keepalive_interval = Duration::from_millis(300);
        config.server.keepalive_timeout = Duration::from_millis(300);
        config.server.drain_timeout = FOR_EVER;
    });
    let server = server.await;
    let _silent = TcpStream::connect(server.address())
        .await
        .expect("it should be accepted");
    let mut half = TcpStream::connect(server.address())
        .await
        .expect("it should be accepted");
    half.write_all(&PREFACE[..12])
        .await
        .expect("half a preface should be sent");
    let mut preface_only = TcpStream::connect(server.address())
        .await
        .expect("it should be accepted");
    preface_only
        .write_all(PREFACE)
        .await
        .expect("a preface should be sent");
    let mut idle = Frames::to(server.address()).await;
    idle.ping().await;

    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_does_not_complete_its_preface_in_time_is_closed_and_one_that_does_stays()
{
    let server =
        start_with(|config| config.server.first_byte_timeout = Duration::from_millis(200)).await;
    let mut idle = Frames::to(server.address()).await;
    idle.ping().await;

    for said in [&PREFACE[..0], &PREFACE[..12], &PREFACE[..23]] {
        let mut silent = TcpStream::connect(server.address())
            .await
            .expect("it should be accepted");
        silent
            .write_all(said)
            .await
            .expect("the beginning should be sent");
        // What it is sent first are the server's SETTINGS.
        let mut heard = Vec::new();
        let closed = silent.read_to_end(&mut heard);
        // Cut with something unread, it ends with an error; that is an end too.
        let _ = within("the silent connection to be closed", closed).await;
    }

    // Each of them was younger than this one.
    idle.ping().await;
}

// ---- Streams that never end.

/// A handler that still held its request kept the connection, and so the server, open.
#[tokio::test]
async fn clients_that_never_stop_sending_do_not_hold_up_the_stop() {
    let server = start_with(|config| config.server.drain_timeout = FOR_EVER).await;
    let mut connection = Connection::to(server.address()).await;
    let mut participant = connection.open(CHAT).await;
    participant.send(framed(&join("Ada")));
    participant.next().await.expect("she should join");
    let mut undecided = connection.open(CHAT).await;
    undecided.opened().await;
    let mut within_a_message = connection.open(CHAT).await;
    within_a_message
        .send(prefixed(0, 100, b"half"))
        .opened()
        .await;
    let mut asking = connection.open("/chitchat.v1.ChatService/GetHistory").await;
    asking.send(prefixed(0, 100, b"half"));
    // Streams of a connection are heard in order: once this is answered, the one before is being served.
    let mut last = connection.open(CHAT).await;
    last.opened().await;

    server.stop().await;
}

// ---- A client that takes nothing.

/// Every message of its is answered by a notice that waits for it.
#[tokio::test]
async fn a_client_that_does_not_read_its_notices_is_not_listened_to_until_it_does() {
    const IN_FLIGHT_MAX: i64 = 1_024;
    let server = start_with(|config| config.limits.rate = 0).await;
    let mut ada = server.joined("Ada").await;
    let mut client = server.client().await;
    // Each tick is an event or a refusal, as nobody's clock is ahead.
    let mut refusals = async || {
        let rooms = client.list_rooms(ListRoomsRequest {}).await;
        let rooms = rooms.expect("rooms should be listed").into_inner();
        rooms.timestamp - rooms.rooms[0].head as i64
    };
    let small_window = 1_000;
    let mut connection = Connection::with_window(server.address(), small_window).await;
    let mut mallory = connection.open(CHAT).await;
    let count = 5_000;

    mallory.send(framed(&join("Mallory")));
    mallory.send(framed(&said("", 0)).repeat(count));
    let used_up = async { while refusals().await < IN_FLIGHT_MAX {} };
    within("her notices to pile up", used_up).await;
    for number in 0..20 {
        is_served(&mut ada, &format!("unharmed {number}")).await;
    }
    let taken = refusals().await;
    let in_her_window = i64::from(small_window) / 50;
    assert!(taken <= IN_FLIGHT_MAX + in_her_window, "{taken} were taken");

    let (mut last, mut notices) = (0, 0);
    while notices < count {
        let heard = mallory.next().await.expect("all should be answered");
        if let Some(notice) = &heard.notice {
            assert_eq!(notice.code(), NoticeCode::Empty);
            assert!(heard.timestamp > last, "{heard:?}");
            last = heard.timestamp;
            notices += 1;
        }
    }
}

/// What a server has ready for a client that takes nothing is bounded by the streams of its connection: each of these
/// answers is made for its caller alone, and is half a megabyte.
#[tokio::test]
async fn a_client_that_reads_nothing_costs_bounded_memory() {
    let server = ServerProcess::start(1_024).await;
    let mut ada = Raw::open(server.connect().await, CHAT).await;
    ada.join("Ada").await;
    for _ in 0..1_000 {
        ada.say(&"🦀".repeat(128), 0);
    }
    ada.take(1_000).await;
    let mut client = ChatServiceClient::new(server.connect().await);
    let everything = GetHistoryRequest {
        limit: 1_000,
        ..GetHistoryRequest::default()
    };
    let page = client.get_history(everything.clone()).await;
    assert_eq!(
        page.expect("history should be read")
            .into_inner()
            .events
            .len(),
        1_000
    );
    let before = server.resident_bytes();

    let mut greedy = Frames::to(server.address()).await;
    greedy.put(
        Frames::SETTINGS,
        0,
        0,
        &[[0, 4].as_slice(), &WINDOW_MAX.to_be_bytes()].concat(),
    );
    greedy.put_window(0, WINDOW_MAX - 65_535);
    for stream in (0..140).map(|n| 2 * n + 1) {
        greedy.put_request(stream, "/chitchat.v1.ChatService/GetHistory");
        const DATA: (u8, u8) = (0, 1);
        greedy.put(DATA.0, DATA.1, stream, &framed(&everything));
    }
    greedy.flush().await;

    // By the time that these are answered, so is what was asked before.
    for _ in 0..20 {
        client
            .get_history(everything.clone())
            .await
            .expect("others should be served");
    }
    let cost = server.resident_bytes().saturating_sub(before);
    assert!(cost < 30 << 20, "one connection costs {} MiB", cost >> 20);
    is_served(&mut ada, "unharmed").await;
}

// ---- Too many connections.

#[tokio::test]
async fn one_connection_more_than_the_limit_is_closed_at_once_and_a_place_that_is_left_is_given_again()
 {
    let server = start_with(|config| {
        config.server.connections = 3;
        config.server.first_byte_timeout = FOR_EVER;
    });
    let server = server.await;
    let mut ada = server.joined("Ada").await;
    let mut bob = server.joined("Bob").await;
    let mut third = Frames::to(server.address()).await;
    third.ping().await;

    let mut fourth = TcpStream::connect(server.address())
        .await
        .expect("the system accepts it");
    let read = within("the fourth to be closed", fourth.read(&mut [0; 64])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    for participant in [&mut ada, &mut bob] {
        is_served(participant, "unharmed").await;
    }

    drop(third);
    let again = async {
        loop {
            let mut next = TcpStream::connect(server.address())
                .await
                .expect("the system accepts it");
            let _ = next.write_all(PREFACE).await;
            // The server's SETTINGS, once there is a place.
            if matches!(next.read(&mut [0; 64]).await, Ok(1..)) {
                return;
            }
        }
    };
    within("the third's place", again).await;
}

/// tonic's own accept loop tried again without a pause, and took most of a core.
#[tokio::test]
async fn a_server_without_file_descriptors_waits_for_some_and_goes_on() {
    let mut server = ServerProcess::start(40).await;
    let mut ada = Raw::open(server.connect().await, CHAT).await;
    ada.join("Ada").await;

    let mut hoard = Vec::new();
    for _ in 0..60 {
        hoard.push(Frames::to(server.address()).await);
    }
    for one in &mut hoard {
        one.flush().await;
    }
    let refused = "cannot accept a connection now";
    server.logs(refused).await;

    let before = Instant::now();
    for _ in 0..10 {
        server.logs(refused).await;
    }
    // The pauses are 50 ms each; an attempt may have been logged before the first was read.
    let took = before.elapsed();
    assert!(
        took > Duration::from_millis(300),
        "ten attempts in {took:?}"
    );
    is_served(&mut ada, "unharmed").await;

    drop(hoard);
    let mut newcomer = ChatServiceClient::new(server.connect().await);
    let rooms = within("an answer", newcomer.list_rooms(ListRoomsRequest {})).await;
    assert_eq!(
        rooms.expect("it should be served").into_inner().rooms.len(),
        1
    );
}

// ---- A connection that ends in the moment in which it begins streams.

impl Frames {
    /// A CONNECT with a body, which HTTP/2 knows no way to answer: the server closes the connection.
    fn put_connect_with_a_body(&mut self, stream: u32) {
        // HPACK: literals with an indexed name, :method, :authority and content-length.
        let (method, authority, content_length) = ([0x02], [0x01], [0x0f, 0x0d]);
        let mut block = Vec::new();
        for (name, value) in [
            (method.as_slice(), b"CONNECT".as_slice()),
            (&authority, b"x"),
            (&content_length, b"5"),
        ] {
            block.extend_from_slice(name);
            block.push(value.len() as u8);
            block.extend_from_slice(value);
        }
        self.put(Self::HEADERS, END_HEADERS, stream, &block);
    }
}

const END_HEADERS: u8 = 4;

/// It once kept them all, with everything that hyper had for them: 78 KiB for each connection.
#[tokio::test]
async fn streams_that_begin_as_their_connection_ends_leave_nothing_behind() {
    let server = ServerProcess::with(Path::new("memory"), &[]).await;
    let mut resident = Vec::new();

    for _ in 0..2 {
        for _ in 0..300 {
            let mut frames = Frames::to(server.address()).await;
            (0..15).for_each(|n| frames.put_request(2 * n + 1, CHAT));
            frames.put_connect_with_a_body(31);
            frames.flush().await;
            frames.closing().await;
        }
        resident.push(server.resident_bytes());
    }

    let left = resident[1].saturating_sub(resident[0]);
    assert!(left < 4 << 20, "{} KiB are left of 300", left >> 10);
}
