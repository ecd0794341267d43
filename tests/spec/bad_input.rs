use std::time::Duration;

use bytes::Bytes;
use chitchat::{
    config::Config,
    wire::v1::{
        EventType, GetHistoryRequest, JoinMsgLeave, ListParticipantsRequest, ListRoomsRequest,
        NoticeCode, Resume, ServerMessage, WatchRequest,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    http2::{Connection, Stream, framed, prefixed},
    raw::{CHAT, Raw, join, said},
    server::{TestServer, start_with},
};

/// `limits.message_bytes`
const MESSAGE_BYTES: usize = 8 * 1024;

/// `limits.clock_jump`
const CLOCK_JUMP: i64 = 1 << 20;

// ---- A room where somebody listens while others misbehave.

/// A server, and somebody in its lobby who must not be harmed by what the test does.
struct Scene {
    server: TestServer,
    onlooker: Raw,
    /// The last event that the onlooker has read.
    read: ServerMessage,
}

impl Scene {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let server = start_with(|config| {
            // Who is sent away leaves at once; a test that waited for this would fail.
            config.server.grace = Duration::from_secs(3_600);
            change(config);
        });
        let server = server.await;
        let mut onlooker = server.chat().await;
        let read = onlooker.join("Onlooker").await;
        Self {
            server,
            onlooker,
            read,
        }
    }

    /// A participant whose messages go out as bytes.
    async fn joined(&mut self, name: &str) -> Stream {
        let mut stream = self.open(CHAT).await;
        stream.send(framed(&join(name)));
        stream.next().await.expect("the join should be answered");
        self.overhears(&[&format!("{name} joined")]).await;
        stream
    }

    async fn open(&self, path: &str) -> Stream {
        Connection::to(self.server.address()).await.open(path).await
    }

    /// Sends one request, all of it, and reads how the call ends.
    async fn call(&self, path: &str, bytes: impl Into<Bytes>) -> Status {
        let mut stream = self.open(path).await;
        stream.send(bytes).end();
        stream.status().await
    }

    /// What the others read of all this is `expected`, each with the next sequence and a later time, and nothing else.
    async fn overhears(&mut self, expected: &[&str]) {
        self.onlooker.say("still here", 0);
        let mut heard = Vec::new();
        loop {
            let event = self.onlooker.next().await;
            assert_eq!(event.sequence, self.read.sequence + 1, "{event:?}");
            assert!(event.timestamp > self.read.timestamp, "{event:?}");
            self.read = event;
            let Some(told) = told(&self.read) else { break };
            heard.push(told);
        }
        assert_eq!(heard, expected);
    }

    /// The service's clock.
    async fn clock(&self) -> i64 {
        let mut client = self.server.client().await;
        let rooms = client.list_rooms(ListRoomsRequest {}).await;
        rooms
            .expect("rooms should be listed")
            .into_inner()
            .timestamp
    }
}

fn told(event: &ServerMessage) -> Option<String> {
    let (name, text) = (&event.sender_name, &event.msg_stream);
    match event.r#type() {
        EventType::Message if text == "still here" => None,
        EventType::Join => Some(format!("{name} joined")),
        EventType::Message => Some(format!("{name}: {text}")),
        EventType::Leave => Some(format!("{name} left")),
    }
}

/// A status of the service: code, reason (`google.rpc.ErrorInfo`) and words.
#[track_caller]
fn assert_status(status: &Status, code: Code, reason: &str, words: &str) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .expect("the status should say its reason");
    let told = (status.code(), info.reason.as_str(), info.domain.as_str());
    assert_eq!(told, (code, reason, "chitchat"), "{status:?}");
    assert!(
        status.message().contains(words),
        "{:?} should say {words:?}",
        status.message()
    );
}

#[track_caller]
fn assert_notice(notice: &ServerMessage, code: NoticeCode, words: &str) {
    let told = notice.notice.as_ref().expect("it should be a notice");
    assert_eq!((told.code(), notice.msg_stream.as_str()), (code, words));
    assert_eq!(
        (notice.sender_name.as_str(), notice.sender_id),
        ("Server", 0)
    );
    assert_eq!((notice.r#type(), notice.sequence), (EventType::Message, 0));
}

// ---- Messages that are none.

fn named(name: &str) -> JoinMsgLeave {
    join(name)
}

fn message(text: &str) -> JoinMsgLeave {
    said(text, 0)
}

/// `client_name`, of bytes that are not UTF-8.
const NOT_UTF8: &[u8] = &[0x12, 0x02, 0xc3, 0x28];

/// What cannot be decoded: the bytes of a gRPC message, and what the answer says of it.
fn undecodable() -> Vec<(&'static str, Bytes, &'static str)> {
    let good = framed(&message("hi"));
    vec![
        ("not UTF-8", prefixed(0, 4, NOT_UTF8), "UTF-8"),
        (
            "a field without its value",
            prefixed(0, 1, &[0x12]),
            "decode",
        ),
        (
            "a length that goes beyond the end",
            prefixed(0, 3, &[0x12, 0x7f, b'a']),
            "decode",
        ),
        (
            "an endless number",
            prefixed(
                0,
                12,
                &[0x20, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            ),
            "decode",
        ),
        (
            "a wire type that there is not",
            prefixed(0, 2, &[0x17, 0]),
            "decode",
        ),
        ("noise", prefixed(0, 8, &[0xff; 8]), "decode"),
        (
            "a compressed message",
            prefixed(1, good.len() as u32 - 5, &good[5..]),
            "compress",
        ),
        (
            "a flag that there is not",
            prefixed(7, good.len() as u32 - 5, &good[5..]),
            "compress",
        ),
    ]
}

/// A message of exactly so many bytes. A MESSAGE's name is not looked at, so it is as good as padding.
fn of_size(bytes: usize, message: JoinMsgLeave) -> Bytes {
    use prost::Message as _;
    let mut message = message;
    let mut padding = bytes;
    while message.encoded_len() != bytes {
        padding -= 1;
        message.client_name = "x".repeat(padding);
    }
    framed(&message)
}

// ---- The first message.

#[tokio::test]
async fn a_first_message_that_is_no_join_is_answered_with_failed_precondition() {
    let mut scene = Scene::start().await;
    let leave = JoinMsgLeave {
        r#type: EventType::Leave.into(),
        ..named("Mallory")
    };
    let unknown = JoinMsgLeave {
        r#type: 7,
        ..named("Mallory")
    };

    for first in [said("hi", 0), leave, unknown] {
        let mut stream = scene.open(CHAT).await;
        let status = stream.send(framed(&first)).status().await;
        let words = "the first message must be a JOIN";
        assert_status(
            &status,
            Code::FailedPrecondition,
            "FIRST_MESSAGE_NOT_JOIN",
            words,
        );
    }

    assert_eq!(scene.clock().await, 1, "nothing ticked");
    scene.overhears(&[]).await;
}

#[tokio::test]
async fn a_stream_on_which_nothing_is_said_ends_with_failed_precondition() {
    let mut scene = Scene::start().await;

    let status = scene.call(CHAT, "").await;

    assert_status(
        &status,
        Code::FailedPrecondition,
        "FIRST_MESSAGE_NOT_JOIN",
        "the first message must be a JOIN",
    );
    scene.overhears(&[]).await;
}

#[tokio::test]
async fn a_join_that_cannot_be_granted_is_refused_with_its_reason_and_does_not_tick() {
    let mut scene = Scene::start().await;
    let session = |session: &str| JoinMsgLeave {
        session: session.into(),
        resume: Some(Resume {
            epoch: scene.read.welcome.clone().unwrap_or_default().epoch,
            after_sequence: 1,
        }),
        ..named("Onlooker")
    };
    let onlooker = scene.read.sender_id;
    let at = |timestamp| JoinMsgLeave {
        timestamp,
        ..named("Mallory")
    };
    let room = |room: &str| JoinMsgLeave {
        room: room.into(),
        ..named("Mallory")
    };
    let id = |id| JoinMsgLeave {
        id,
        ..named("Mallory")
    };
    let invalid = Code::InvalidArgument;
    let cases = [
        (named(""), invalid, "BAD_NAME", "the name is empty"),
        (named(" \t\n"), invalid, "BAD_NAME", "the name is empty"),
        (
            named(&"å".repeat(33)),
            invalid,
            "BAD_NAME",
            "the name is too long (33 chars); the limit is 32",
        ),
        (named("a\u{1b}[31mb"), invalid, "BAD_NAME", "U+001B"),
        (named("a\nb"), invalid, "BAD_NAME", "U+000A"),
        (named("a\u{0}b"), invalid, "BAD_NAME", "U+0000"),
        (named("a\u{202e}b"), invalid, "BAD_NAME", "U+202E"),
        (
            named("server"),
            invalid,
            "BAD_NAME",
            "the name is the service's own",
        ),
        (
            at(-1),
            invalid,
            "IMPOSSIBLE_TIMESTAMP",
            "timestamp -1 is not possible",
        ),
        (
            at(i64::MIN),
            invalid,
            "IMPOSSIBLE_TIMESTAMP",
            "the service's clock shows 1",
        ),
        (
            at(1 + CLOCK_JUMP + 1),
            invalid,
            "IMPOSSIBLE_TIMESTAMP",
            "0 to 1048576 ahead of it is allowed",
        ),
        (
            at(i64::MAX),
            invalid,
            "IMPOSSIBLE_TIMESTAMP",
            "timestamp 9223372036854775807 is not possible",
        ),
        (room(&"r".repeat(65)), invalid, "BAD_ROOM", "1 to 64 bytes"),
        (room("a b"), invalid, "BAD_ROOM", "1 to 64 bytes"),
        (room("../etc"), invalid, "BAD_ROOM", "1 to 64 bytes"),
        (room("\n"), invalid, "BAD_ROOM", "1 to 64 bytes"),
        (id(-1), invalid, "BAD_ID", "the id must be positive"),
        (id(i32::MIN), invalid, "BAD_ID", "the id must be positive"),
        (id(onlooker), Code::AlreadyExists, "ID_HELD", "is in use"),
        (
            named("ONLOOKER"),
            Code::AlreadyExists,
            "NAME_HELD",
            "name \"ONLOOKER\" is in use",
        ),
        (
            session("not the session"),
            Code::AlreadyExists,
            "NAME_HELD",
            "is in use",
        ),
    ];

    for (first, code, reason, words) in cases {
        let mut stream = scene.open(CHAT).await;
        let status = stream.send(framed(&first)).status().await;
        assert_status(&status, code, reason, words);
    }

    assert_eq!(scene.clock().await, 1, "nothing ticked");
    scene.overhears(&[]).await;
}

#[tokio::test]
async fn a_name_of_32_characters_and_a_room_of_64_bytes_are_let_in() {
    let mut scene = Scene::start().await;
    let (name, room) = ("å".repeat(32), "r".repeat(64));

    let mut in_the_lobby = scene.open(CHAT).await;
    let own = in_the_lobby.send(framed(&named(&name))).next().await;
    let mut elsewhere = scene.open(CHAT).await;
    let own_elsewhere = elsewhere
        .send(framed(&JoinMsgLeave {
            room: room.clone(),
            ..named("Ada")
        }))
        .next()
        .await;

    assert_eq!(own.map(|own| own.sender_name), Some(name.clone()));
    assert_eq!(
        own_elsewhere.map(|own| (own.room, own.sequence)),
        Some((room, 1))
    );
    scene.overhears(&[&format!("{name} joined")]).await;
}

#[tokio::test]
async fn a_join_2_to_the_20_ahead_of_the_clock_is_the_last_that_is_possible() {
    let mut scene = Scene::start().await;
    let latest = 1 + CLOCK_JUMP;

    let mut stream = scene.open(CHAT).await;
    stream.send(framed(&JoinMsgLeave {
        timestamp: latest,
        ..named("Ada")
    }));

    let own = stream.next().await.expect("it should be let in");
    assert_eq!((own.timestamp, own.sent_timestamp), (latest + 1, latest));
    scene.overhears(&["Ada joined"]).await;
}

// ---- Content that is not taken: a notice to its sender, and the stream lives on.

#[tokio::test]
async fn content_that_is_refused_is_told_to_its_sender_alone_and_ticks() {
    let mut scene = Scene::start().await;
    let mut mallory = scene.joined("Mallory").await;
    let at = |timestamp| said("hi", timestamp);
    let forbidden = |code: &str| format!("Message has a character that is not allowed (U+{code}).");
    let impossible =
        "Timestamp is not possible: it must not be negative nor far ahead of the service's clock.";
    let cases = [
        (
            message(&"é".repeat(129)),
            NoticeCode::TooLong,
            "Message too long (129 chars). Limit is 128.".into(),
        ),
        (message(""), NoticeCode::Empty, "Message is empty.".into()),
        (
            message(" \u{200b}\n"),
            NoticeCode::Empty,
            "Message is empty.".into(),
        ),
        (
            message("a\u{1b}[2Jb"),
            NoticeCode::ForbiddenCharacters,
            forbidden("001B"),
        ),
        (
            message("a\u{0}b"),
            NoticeCode::ForbiddenCharacters,
            forbidden("0000"),
        ),
        (
            message("a\rb"),
            NoticeCode::ForbiddenCharacters,
            forbidden("000D"),
        ),
        (
            message("a\u{9b}b"),
            NoticeCode::ForbiddenCharacters,
            forbidden("009B"),
        ),
        (
            message("a\u{202e}b"),
            NoticeCode::ForbiddenCharacters,
            forbidden("202E"),
        ),
        (at(-1), NoticeCode::ImpossibleTimestamp, impossible.into()),
        (
            at(i64::MIN),
            NoticeCode::ImpossibleTimestamp,
            impossible.into(),
        ),
        (
            at(CLOCK_JUMP + 1_000),
            NoticeCode::ImpossibleTimestamp,
            impossible.into(),
        ),
        (
            at(i64::MAX),
            NoticeCode::ImpossibleTimestamp,
            impossible.into(),
        ),
        (
            named("Mallory"),
            NoticeCode::AlreadyJoined,
            "Already joined: a stream joins once.".into(),
        ),
        (
            JoinMsgLeave {
                r#type: 3,
                ..message("hi")
            },
            NoticeCode::UnknownType,
            "Unknown event type 3.".into(),
        ),
        (
            JoinMsgLeave {
                r#type: -1,
                ..message("hi")
            },
            NoticeCode::UnknownType,
            "Unknown event type -1.".into(),
        ),
        (
            JoinMsgLeave {
                r#type: i32::MAX,
                ..message("hi")
            },
            NoticeCode::UnknownType,
            "Unknown event type 2147483647.".into(),
        ),
    ];

    let mut clock = scene.clock().await;
    let mut last_read = mallory.next().await.expect("the onlooker's words").sequence;
    for (number, (content, code, words)) in cases.into_iter().enumerate() {
        let message_id = format!("case {number}");
        mallory.send(framed(&JoinMsgLeave {
            message_id: message_id.clone(),
            ..content
        }));
        let notice = mallory.next().await.expect("a notice should come");
        assert_notice(&notice, code, &words);
        assert_eq!(
            notice.notice.map(|notice| notice.message_id),
            Some(message_id)
        );
        clock += 1;
        assert_eq!(
            notice.timestamp, clock,
            "it ticked, and the clock was not dragged: {words}"
        );
    }

    mallory.send(framed(&said("sorry", 0)));
    let said = mallory.next().await.expect("the stream should live on");
    assert_eq!(
        (said.msg_stream.as_str(), said.timestamp),
        ("sorry", clock + 1)
    );
    last_read += 1;
    assert_eq!(said.sequence, last_read, "no refusal is an event");
    scene.overhears(&["Mallory: sorry"]).await;
}

#[tokio::test]
async fn a_text_of_128_characters_is_said_and_one_of_2_to_the_20_ahead_too() {
    let mut scene = Scene::start().await;
    let mut ada = scene.joined("Ada").await;
    let longest = "🦀".repeat(128);

    let latest = scene.clock().await + CLOCK_JUMP;
    ada.send(framed(&said(&longest, latest)));
    ada.send(framed(&said("one beyond", latest + 1 + CLOCK_JUMP + 1)));
    ada.send(framed(&said("and back", 0)));

    let _onlooker = ada.next().await;
    let said = ada.next().await.expect("it should be said");
    assert_eq!((said.timestamp, said.sent_timestamp), (latest + 1, latest));
    let refused = ada.next().await.expect("it should be refused");
    assert_eq!((refused.timestamp, refused.sent_timestamp), (latest + 2, 0));
    assert_eq!(
        ada.next().await.map(|back| back.timestamp),
        Some(latest + 3)
    );
    scene
        .overhears(&[&format!("Ada: {longest}"), "Ada: and back"])
        .await;
}

#[tokio::test]
async fn a_leave_is_obeyed_whatever_else_it_says() {
    let mut scene = Scene::start().await;
    let mut mallory = scene.joined("Mallory").await;
    let clock = scene.clock().await;

    mallory.send(framed(&JoinMsgLeave {
        r#type: EventType::Leave.into(),
        timestamp: i64::MAX,
        id: -1,
        msg: "\u{1b}".repeat(600),
        message_id: "x".repeat(1_000),
        room: "no room".into(),
        ..named("")
    }));

    assert_eq!(mallory.status().await.code(), Code::Ok);
    assert_eq!(scene.clock().await, clock + 1);
    scene.overhears(&["Mallory left"]).await;
}

#[tokio::test]
async fn what_belongs_to_the_join_is_not_looked_at_again() {
    let mut scene = Scene::start().await;
    let mut ada = scene.joined("Ada").await;

    ada.send(framed(&JoinMsgLeave {
        id: -1,
        client_name: "Onlooker".into(),
        room: "no room".into(),
        session: "nonsense".into(),
        backlog: u32::MAX,
        traceparent: "00-zz-zz-zz".into(),
        ..message("hi")
    }));

    scene.overhears(&["Ada: hi"]).await;
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_told_to_be_stored_already_and_does_not_tick() {
    let mut scene = Scene::start().await;
    let mut ada = scene.joined("Ada").await;
    let once = framed(&JoinMsgLeave {
        message_id: "m1".into(),
        ..message("once")
    });

    ada.send(once.clone()).send(once);

    let mut answers = Vec::new();
    while answers.len() < 2 {
        answers.extend(
            ada.next()
                .await
                .filter(|heard| heard.msg_stream != "still here"),
        );
    }
    let (again, first): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|heard| heard.sequence == 0);
    let (again, first) = (&again[0], &first[0]);
    let words = format!(
        "Already stored as message {} (L={}).",
        first.sequence, first.timestamp
    );
    assert_notice(again, NoticeCode::Duplicate, &words);
    let notice = again.notice.as_ref().expect("it is a notice");
    assert_eq!(
        (notice.sequence, again.timestamp),
        (first.sequence, first.timestamp)
    );
    assert_eq!(
        (notice.message_id.as_str(), scene.clock().await),
        ("m1", first.timestamp)
    );
    scene.overhears(&["Ada: once"]).await;
}

// ---- What ends a stream: at once, with its reason, and the others read that its sender left.

#[tokio::test]
async fn what_cannot_be_decoded_ends_its_stream_alone() {
    let mut scene = Scene::start().await;

    for (what, bytes, words) in undecodable() {
        let mut nobody = scene.open(CHAT).await;
        let status = nobody.send(bytes.clone()).status().await;
        assert_status(&status, Code::InvalidArgument, "MALFORMED", words);

        let mut mallory = scene.joined("Mallory").await;
        let clock = scene.clock().await;
        let status = mallory.send(bytes).status().await;
        assert_status(&status, Code::InvalidArgument, "MALFORMED", words);
        scene.overhears(&["Mallory left"]).await;
        assert_eq!(
            scene.clock().await,
            clock + 2,
            "{what}: the LEAVE and the onlooker's words, nothing else"
        );
    }
}

#[tokio::test]
async fn a_stream_that_ends_within_a_message_was_not_half_closed_well() {
    let mut scene = Scene::start().await;
    let whole = framed(&message("never said"));

    for length in [1, 4, 6, whole.len() - 1] {
        let mut mallory = scene.joined("Mallory").await;
        mallory.send(whole.slice(..length)).end();
        assert_status(
            &mallory.status().await,
            Code::InvalidArgument,
            "MALFORMED",
            "",
        );
        scene.overhears(&["Mallory left"]).await;
    }
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_is_heard_and_one_byte_more_is_too_large() {
    let mut scene = Scene::start().await;
    let mut mallory = scene.joined("Mallory").await;

    mallory.send(of_size(MESSAGE_BYTES, message("just fits")));
    scene.overhears(&["Mallory: just fits"]).await;
    mallory.send(of_size(MESSAGE_BYTES + 1, message("does not")));

    let status = mallory.status().await;
    assert_status(
        &status,
        Code::ResourceExhausted,
        "TOO_LARGE",
        "a message is larger than 8192 bytes",
    );
    scene.overhears(&["Mallory left"]).await;
}

#[tokio::test]
async fn a_message_of_5_mb_is_not_waited_for_and_the_connection_goes_on() {
    let mut scene = Scene::start().await;
    let huge = of_size_unchecked(5 * 1024 * 1024);
    let mut connection = Connection::to(scene.server.address()).await;
    let mut neighbour = connection.open(CHAT).await;
    neighbour.send(framed(&named("Neighbour")));
    neighbour.next().await.expect("the neighbour should join");

    let mut as_first = connection.open(CHAT).await;
    as_first.send(huge.clone());
    let mut later = connection.open(CHAT).await;
    later.send(framed(&named("Mallory"))).send(huge);

    for stream in [&mut as_first, &mut later] {
        let status = stream.status().await;
        assert_status(
            &status,
            Code::ResourceExhausted,
            "TOO_LARGE",
            "a message is larger than 8192 bytes",
        );
    }
    // Neither of them has used up what the connection may send.
    for number in 0..100 {
        neighbour.send(of_size(MESSAGE_BYTES, message(&format!("number {number}"))));
    }
    let mut expected = vec![
        "Neighbour joined".into(),
        "Mallory joined".into(),
        "Mallory left".into(),
    ];
    expected.extend((0..100).map(|number| format!("Neighbour: number {number}")));
    while neighbour
        .next()
        .await
        .expect("the neighbour should read on")
        .msg_stream
        != "number 99"
    {}
    scene
        .overhears(&expected.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
}

fn of_size_unchecked(bytes: usize) -> Bytes {
    framed(&JoinMsgLeave {
        msg: "x".repeat(bytes),
        r#type: EventType::Message.into(),
        ..JoinMsgLeave::default()
    })
}

#[tokio::test]
async fn a_message_id_of_64_bytes_is_taken_and_a_longer_one_ends_the_stream() {
    let mut scene = Scene::start().await;
    let with_id = |bytes, message| {
        framed(&JoinMsgLeave {
            message_id: "m".repeat(bytes),
            ..message
        })
    };

    let mut mallory = scene.joined("Mallory").await;
    mallory.send(with_id(64, message("hi")));
    scene.overhears(&["Mallory: hi"]).await;
    mallory.send(with_id(65, message("ho")));
    assert_status(
        &mallory.status().await,
        Code::InvalidArgument,
        "BAD_MESSAGE_ID",
        "64 bytes",
    );
    scene.overhears(&["Mallory left"]).await;

    // Also where the content is refused anyhow: a notice would carry it back.
    for content in [
        message(""),
        named("Mallory"),
        JoinMsgLeave {
            r#type: 9,
            ..message("hi")
        },
    ] {
        let mut mallory = scene.joined("Mallory").await;
        mallory.send(with_id(65, content));
        assert_status(
            &mallory.status().await,
            Code::InvalidArgument,
            "BAD_MESSAGE_ID",
            "64 bytes",
        );
        scene.overhears(&["Mallory left"]).await;
    }
}

#[tokio::test]
async fn a_message_id_with_another_text_or_from_another_sender_ends_the_stream() {
    let mut scene = Scene::start().await;
    let with_id = |text| {
        framed(&JoinMsgLeave {
            message_id: "m1".into(),
            ..message(text)
        })
    };
    let mut ada = scene.joined("Ada").await;
    ada.send(with_id("first"));
    scene.overhears(&["Ada: first"]).await;

    let mut mallory = scene.joined("Mallory").await;
    mallory.send(with_id("first"));
    ada.send(with_id("second"));

    for stream in [&mut mallory, &mut ada] {
        let words = "this message_id was used for another message";
        assert_status(
            &stream.status().await,
            Code::AlreadyExists,
            "MESSAGE_ID_REUSED",
            words,
        );
    }
    let mut left = [String::new(), String::new()];
    for (left, event) in left.iter_mut().zip(scene.onlooker.take(2).await) {
        *left = told(&event).unwrap_or_default();
        scene.read = event;
    }
    left.sort();
    assert_eq!(left, ["Ada left", "Mallory left"]);
    scene.overhears(&[]).await;
}

// ---- Calls with one request.

/// The methods with one request, by path.
const UNARY: [&str; 5] = [
    "SendMessage",
    "Watch",
    "GetHistory",
    "ListParticipants",
    "ListRooms",
];

fn path(method: &str) -> String {
    format!("/chitchat.v1.ChatService/{method}")
}

#[tokio::test]
async fn a_request_that_cannot_be_decoded_is_answered_by_every_method() {
    let mut scene = Scene::start().await;

    for method in UNARY {
        for (what, bytes, words) in undecodable() {
            // Field 2 is a number in some requests, and a request without fields does not look at any.
            if what == "not UTF-8" && method != "SendMessage" {
                continue;
            }
            let status = scene.call(&path(method), bytes).await;
            assert_status(&status, Code::InvalidArgument, "MALFORMED", words);
        }
        let status = scene.call(&path(method), "").await;
        assert_status(
            &status,
            Code::InvalidArgument,
            "MALFORMED",
            "there is no request message",
        );
    }
    for method in ["Watch", "GetHistory", "ListParticipants"] {
        let room_not_utf8 = prefixed(0, 4, &[0x0a, 0x02, 0xc3, 0x28]);
        let status = scene.call(&path(method), room_not_utf8).await;
        assert_status(&status, Code::InvalidArgument, "MALFORMED", "UTF-8");
    }

    assert_eq!(scene.clock().await, 1, "nothing ticked");
    scene.overhears(&[]).await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_answered_by_every_method() {
    let mut scene = Scene::start().await;

    for method in UNARY {
        for size in [MESSAGE_BYTES + 1, 5 * 1024 * 1024] {
            let status = scene.call(&path(method), of_size_unchecked(size)).await;
            assert_status(
                &status,
                Code::ResourceExhausted,
                "TOO_LARGE",
                "a message is larger than 8192 bytes",
            );
        }
    }
    let just_fits = of_size(
        MESSAGE_BYTES,
        JoinMsgLeave {
            id: 0,
            msg: "hi".into(),
            ..JoinMsgLeave::default()
        },
    );
    let status = scene.call(&path("SendMessage"), just_fits).await;
    assert_status(
        &status,
        Code::InvalidArgument,
        "BAD_NAME",
        "the name is too long",
    );

    scene.overhears(&[]).await;
}

#[tokio::test]
async fn a_bad_room_is_answered_by_every_method_that_has_one() {
    let mut scene = Scene::start().await;

    for (room, good) in [
        ("r".repeat(64), true),
        ("r".repeat(65), false),
        ("a b".into(), false),
    ] {
        let requests = [
            (
                "SendMessage",
                framed(&JoinMsgLeave {
                    room: room.clone(),
                    ..said_by("Ada", "hi")
                }),
            ),
            (
                "Watch",
                framed(&WatchRequest {
                    room: room.clone(),
                    ..WatchRequest::default()
                }),
            ),
            (
                "GetHistory",
                framed(&GetHistoryRequest {
                    room: room.clone(),
                    ..GetHistoryRequest::default()
                }),
            ),
            (
                "ListParticipants",
                framed(&ListParticipantsRequest { room: room.clone() }),
            ),
        ];
        for (method, request) in requests {
            if good && method == "Watch" {
                let mut watching = scene.open(&path(method)).await;
                let welcome = watching
                    .send(request)
                    .end()
                    .next()
                    .await
                    .expect("a welcome should come");
                assert!(welcome.welcome.is_some(), "{welcome:?}");
                continue;
            }
            let status = scene.call(&path(method), request).await;
            if good {
                assert_eq!(status.code(), Code::Ok, "{method}: {status:?}");
            } else {
                assert_status(
                    &status,
                    Code::InvalidArgument,
                    "BAD_ROOM",
                    "1 to 64 bytes of letters, digits and . _ -",
                );
            }
        }
    }

    scene.overhears(&[]).await;
}

#[tokio::test]
async fn a_page_of_history_is_bounded_whatever_is_asked() {
    let scene = Scene::start().await;
    let history = async |after_sequence, before_sequence, limit| {
        let request = GetHistoryRequest {
            room: String::new(),
            after_sequence,
            before_sequence,
            limit,
        };
        let page = scene.server.client().await.get_history(request).await;
        page.expect("a page should come").into_inner().events.len()
    };

    assert_eq!(history(0, 0, u32::MAX).await, 1);
    assert_eq!(history(u64::MAX, 0, 1).await, 0);
    assert_eq!(history(u64::MAX, u64::MAX, 0).await, 0);
    assert_eq!(history(0, u64::MAX, u32::MAX).await, 1);
}

fn said_by(name: &str, text: &str) -> JoinMsgLeave {
    JoinMsgLeave {
        client_name: name.into(),
        ..message(text)
    }
}

#[tokio::test]
async fn send_message_says_what_is_wrong_with_its_request() {
    let mut scene = Scene::start().await;
    let onlooker = scene.read.sender_id;
    let at = |timestamp| JoinMsgLeave {
        timestamp,
        ..said_by("Ada", "hi")
    };
    let speaking_for = |id, session: &str| JoinMsgLeave {
        id,
        session: session.into(),
        ..message("hi")
    };
    let with_id = |bytes| JoinMsgLeave {
        message_id: "m".repeat(bytes),
        ..said_by("Ada", "hi")
    };
    let invalid = Code::InvalidArgument;
    // Content ticks, as it does on a stream; a request that fails before that does not.
    let cases = [
        (
            0,
            said_by("", "hi"),
            invalid,
            "BAD_NAME",
            "the name is empty",
        ),
        (
            0,
            said_by(&"a".repeat(33), "hi"),
            invalid,
            "BAD_NAME",
            "33 chars",
        ),
        (0, said_by("a\u{7}b", "hi"), invalid, "BAD_NAME", "U+0007"),
        (
            0,
            said_by("Onlooker", "hi"),
            Code::AlreadyExists,
            "NAME_HELD",
            "is in use",
        ),
        (
            0,
            speaking_for(-1, ""),
            invalid,
            "BAD_ID",
            "the id must be positive",
        ),
        (
            0,
            speaking_for(onlooker, ""),
            Code::Unauthenticated,
            "NO_SESSION",
            "a session is needed",
        ),
        (
            0,
            speaking_for(onlooker, "guess"),
            Code::PermissionDenied,
            "NOT_YOUR_SESSION",
            "the session is not",
        ),
        (
            0,
            speaking_for(onlooker ^ 1, "guess"),
            Code::NotFound,
            "NOT_IN_ROOM",
            "nobody in this room",
        ),
        (0, with_id(65), invalid, "BAD_MESSAGE_ID", "64 bytes"),
        (
            1,
            said_by("Ada", &"a".repeat(129)),
            invalid,
            "TOO_LONG",
            "Message too long (129 chars). Limit is 128.",
        ),
        (
            1,
            said_by("Ada", " "),
            invalid,
            "EMPTY",
            "Message is empty.",
        ),
        (
            1,
            said_by("Ada", "a\u{1b}b"),
            invalid,
            "FORBIDDEN_CHARACTERS",
            "U+001B",
        ),
        (
            1,
            at(-1),
            invalid,
            "IMPOSSIBLE_TIMESTAMP",
            "Timestamp is not possible",
        ),
        (
            1,
            at(i64::MAX),
            invalid,
            "IMPOSSIBLE_TIMESTAMP",
            "Timestamp is not possible",
        ),
    ];

    for (ticks, request, code, reason, words) in cases {
        let clock = scene.clock().await;
        let status = scene.call(&path("SendMessage"), framed(&request)).await;
        assert_status(&status, code, reason, words);
        assert_eq!(scene.clock().await, clock + ticks, "{reason}");
    }
    let stored = scene.call(&path("SendMessage"), framed(&with_id(64))).await;
    assert_eq!(stored.code(), Code::Ok);
    let reused = JoinMsgLeave {
        message_id: "m".repeat(64),
        ..said_by("Ada", "ho")
    };
    let status = scene.call(&path("SendMessage"), framed(&reused)).await;
    assert_status(
        &status,
        Code::AlreadyExists,
        "MESSAGE_ID_REUSED",
        "another message",
    );

    scene.overhears(&["Ada: hi"]).await;
}

#[tokio::test]
async fn a_method_that_there_is_not_is_unimplemented() {
    let mut scene = Scene::start().await;

    for path in [
        "/chitchat.v1.ChatService/Nothing",
        "/itu.chitchat.ChatService/SendMessage",
    ] {
        let status = scene.call(path, framed(&message("hi"))).await;
        assert_status(&status, Code::Unimplemented, "UNKNOWN_METHOD", path);
    }
    for path in ["/chitchat.v1.Nothing/Chat", "/", "/Chat"] {
        let status = scene.call(path, framed(&message("hi"))).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }

    scene.overhears(&[]).await;
}

// ---- Too much.

#[tokio::test]
async fn who_sends_faster_than_the_rate_is_told_so_without_a_tick() {
    let mut scene = Scene::start_with(|config| config.limits.rate = 1).await;
    let mut hasty = scene.joined("Hasty").await;
    let clock = scene.clock().await;

    // A burst may be of two seconds' worth.
    let mut burst = bytes::BytesMut::new();
    for number in 1..=3 {
        let message = JoinMsgLeave {
            message_id: format!("m{number}"),
            ..message(&format!("number {number}"))
        };
        burst.extend_from_slice(&framed(&message));
    }
    hasty.send(burst);

    let mut heard = Vec::new();
    while heard.len() < 4 {
        heard.push(hasty.next().await.expect("all should be answered"));
    }
    let (notices, events): (Vec<_>, Vec<_>) =
        heard.into_iter().partition(|heard| heard.sequence == 0);
    assert_eq!(
        events.iter().filter_map(told).collect::<Vec<_>>(),
        ["Hasty: number 1", "Hasty: number 2"]
    );
    assert_notice(
        &notices[0],
        NoticeCode::TooFast,
        "Too fast: more than 1 messages a second. This one was not taken.",
    );
    assert_eq!(
        notices[0]
            .notice
            .as_ref()
            .map(|notice| notice.message_id.as_str()),
        Some("m3")
    );
    assert_eq!(
        scene.clock().await,
        clock + 2,
        "what is too fast does not tick"
    );

    // LEAVE is always obeyed.
    hasty.send(framed(&JoinMsgLeave {
        r#type: EventType::Leave.into(),
        ..message("")
    }));
    assert_eq!(hasty.status().await.code(), Code::Ok);
}

#[tokio::test]
async fn a_message_id_that_is_too_long_comes_back_in_no_notice_however_fast_it_came() {
    let mut scene = Scene::start_with(|config| config.limits.rate = 1).await;
    let mut hasty = scene.joined("Hasty").await;

    for _ in 0..2 {
        hasty.send(framed(&message("hi")));
    }
    hasty.send(framed(&JoinMsgLeave {
        message_id: "m".repeat(65),
        ..message("hi")
    }));

    assert_status(
        &hasty.status().await,
        Code::InvalidArgument,
        "BAD_MESSAGE_ID",
        "64 bytes",
    );
}

#[tokio::test]
async fn send_message_faster_than_the_rate_is_resource_exhausted_and_the_haste_is_its_sender_s_own()
{
    let scene = Scene::start_with(|config| config.limits.rate = 1).await;
    let welcome = scene.read.welcome.clone().expect("the onlooker's welcome");
    let onlooker = |session: &str| JoinMsgLeave {
        id: welcome.id,
        session: session.into(),
        ..message("hi")
    };
    let send =
        async |request: JoinMsgLeave| scene.call(&path("SendMessage"), framed(&request)).await;

    for _ in 0..2 {
        assert_eq!(send(said_by("Ada", "hi")).await.code(), Code::Ok);
    }
    let too_fast = send(said_by("Bob", "hi")).await;
    assert_status(
        &too_fast,
        Code::ResourceExhausted,
        "TOO_FAST",
        "more than 1 messages a second",
    );

    // Whoever does not know the session cannot use up what its holder may send.
    for _ in 0..4 {
        let status = send(onlooker("guess")).await;
        assert!(
            matches!(
                status.code(),
                Code::PermissionDenied | Code::ResourceExhausted
            ),
            "{status:?}"
        );
    }
    for _ in 0..2 {
        assert_eq!(send(onlooker(&welcome.session)).await.code(), Code::Ok);
    }
    let too_fast = send(onlooker(&welcome.session)).await;
    assert_status(
        &too_fast,
        Code::ResourceExhausted,
        "TOO_FAST",
        "more than 1 messages a second",
    );
}

#[tokio::test]
async fn a_rate_of_0_is_no_limit() {
    let mut scene = Scene::start_with(|config| config.limits.rate = 0).await;
    let mut hasty = scene.joined("Hasty").await;
    let count = 3_000;

    let mut burst = bytes::BytesMut::new();
    for _ in 0..count {
        burst.extend_from_slice(&framed(&message("hi")));
    }
    hasty.send(burst);

    let _onlooker = hasty.next().await;
    for number in 0..count {
        let heard = hasty.next().await.expect("all should be said");
        assert_eq!(heard.msg_stream, "hi", "number {number}");
    }
}

#[tokio::test]
async fn one_room_more_than_the_limit_is_refused_and_the_others_go_on() {
    let mut scene = Scene::start_with(|config| config.limits.rooms = 3).await;
    let in_room = |room: &str, name: &str| JoinMsgLeave {
        room: room.into(),
        ..named(name)
    };
    let mut attic = scene.open(CHAT).await;
    attic
        .send(framed(&in_room("attic", "Ada")))
        .next()
        .await
        .expect("the second room should open");
    let posted = JoinMsgLeave {
        room: "cellar".into(),
        ..said_by("Bob", "hi")
    };
    assert_eq!(
        scene
            .call(&path("SendMessage"), framed(&posted))
            .await
            .code(),
        Code::Ok,
        "the third"
    );

    let words = "this service has 3 rooms, which is its limit";
    let mut stream = scene.open(CHAT).await;
    let status = stream
        .send(framed(&in_room("one-more", "Ada")))
        .status()
        .await;
    assert_status(&status, Code::ResourceExhausted, "LIMIT", words);
    let posted = JoinMsgLeave {
        room: "one-more".into(),
        ..said_by("Bob", "hi")
    };
    let status = scene.call(&path("SendMessage"), framed(&posted)).await;
    assert_status(&status, Code::ResourceExhausted, "LIMIT", words);
    let watched = WatchRequest {
        room: "one-more".into(),
        ..WatchRequest::default()
    };
    let status = scene.call(&path("Watch"), framed(&watched)).await;
    assert_status(
        &status,
        Code::ResourceExhausted,
        "LIMIT",
        "too many rooms are open",
    );

    let mut cellar = scene.open(CHAT).await;
    let own = cellar.send(framed(&in_room("cellar", "Ada"))).next().await;
    assert_eq!(
        own.map(|own| own.sequence),
        Some(2),
        "a room that is open stays open"
    );
    scene.overhears(&[]).await;
}
