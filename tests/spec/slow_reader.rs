//! Who takes nothing, although there is something for it, is ended after a while and told how far it came; who takes a
//! little now and then is not. Whoever it was, nobody else notices, and it goes on where it stopped.

use std::{net::SocketAddr, path::Path, time::Duration};

use chitchat::{
    client::session::Update,
    wire::v1::{
        EventType, GetHistoryRequest, GetHistoryResponse, JoinMsgLeave, ListRoomsRequest, Resume,
        ServerMessage, WatchRequest,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    http2::{Connection, Frames, Stream, WINDOW_MAX, framed},
    listener::join as session,
    raw::{CHAT, Raw, join, reason, resume, said, sequences, texts, welcome},
    server::{GRACE, TestServer, start_with},
    server_process::ServerProcess,
    within,
};

const WATCH: &str = "/chitchat.v1.ChatService/Watch";
const GET_HISTORY: &str = "/chitchat.v1.ChatService/GetHistory";
const ORIGINAL_CHAT: &str = "/itu.chitchat.ChatService/Chat";

/// How long a reader may take nothing, where a test waits for the end of it.
const STALL: Duration = Duration::from_millis(200);

/// The same where time is passed by the test: the default.
const DEFAULT_STALL: Duration = Duration::from_secs(30);

/// How long a connection may be silent before it is asked, and how long the answer may take, where a test says so.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// A grace that no test lives to see the end of.
const ENDLESS: Duration = Duration::from_secs(3_600);

/// A client that takes hardly more than one event unless it reads. As long as there is room for that, HTTP/2 accepts what
/// the server has in one piece for it: some 30 of the events here.
struct Narrow {
    stream: Stream,
    _connection: Connection,
}

impl Narrow {
    async fn open(server: SocketAddr, path: &str, first: &impl prost::Message) -> Self {
        Self::open_with_window(server, 1_000, path, first).await
    }

    async fn open_with_window(
        server: SocketAddr,
        window: u32,
        path: &str,
        first: &impl prost::Message,
    ) -> Self {
        let mut connection = Connection::with_window(server, window).await;
        let mut stream = connection.open(path).await;
        stream.send(framed(first));
        Self {
            stream,
            _connection: connection,
        }
    }

    /// A participant, and its own JOIN.
    async fn join(server: &TestServer, name: &str) -> (Self, ServerMessage) {
        Self::enter(server, &join(name)).await
    }

    /// The same by `joining`.
    async fn enter(server: &TestServer, joining: &JoinMsgLeave) -> (Self, ServerMessage) {
        let mut joined = Self::open(server.address(), CHAT, joining).await;
        let own = joined.next().await;
        (joined, own)
    }

    /// A watch, and its welcome.
    async fn watch(server: &TestServer, request: &WatchRequest) -> (Self, ServerMessage) {
        let mut watch = Self::open(server.address(), WATCH, request).await;
        watch.stream.end();
        let first = watch.next().await;
        (watch, first)
    }

    fn send(&mut self, message: &JoinMsgLeave) {
        self.stream.send(framed(message));
    }

    async fn next(&mut self) -> ServerMessage {
        self.stream.next().await.expect("the stream should go on")
    }

    async fn take(&mut self, count: usize) -> Vec<ServerMessage> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(self.next().await);
        }
        taken
    }

    /// Reads until the stream ends: what came, and how it ended.
    async fn rest(&mut self) -> (Vec<ServerMessage>, Status) {
        let mut rest = Vec::new();
        while let Some(message) = self.stream.next().await {
            rest.push(message);
        }
        (rest, self.stream.status().await)
    }
}

async fn server(grace: Duration) -> TestServer {
    start_with(|config| {
        config.server.grace = grace;
        config.limits.stall = STALL;
        config.limits.rate = 0;
        config.limits.feed_bytes = 64 * 1024;
    })
    .await
}

/// A server on which no time passes but what the test lets pass.
async fn timeless(stall: Duration) -> TestServer {
    start_with(|config| {
        config.server.keepalive_interval = ENDLESS;
        config.limits.stall = stall;
        config.limits.rate = 0;
    })
    .await
}

/// Lets so many quarters of the default limit pass at once, each on its own.
async fn pass_quarters(server: &TestServer, count: usize) {
    for _ in 0..count {
        // Whatever was on its way has arrived by the time that this is answered.
        now(server).await;
        tokio::time::pause();
        tokio::time::advance(DEFAULT_STALL / 4).await;
        tokio::time::resume();
    }
}

/// The service's clock.
async fn now(server: &TestServer) -> i64 {
    let answer = server.client().await.list_rooms(ListRoomsRequest {}).await;
    let answer = answer.expect("rooms should be listed");
    answer.into_inner().timestamp
}

/// Says `count` long things, and hears them all: nobody holds up the talker.
async fn talk(talker: &mut Raw, count: usize) {
    for number in 0..count {
        let text = long(number);
        talker.say(&text, 0);
        talker.read_to(&text).await;
    }
}

/// Says long things until it hears of `name`'s departure.
async fn talk_until_departure(talker: &mut Raw, name: &str) {
    for number in 0..20_000 {
        let text = long(number);
        talker.say(&text, 0);
        let heard = talker.read_to(&text).await;
        if heard
            .iter()
            .any(|event| is_of(event, EventType::Leave, name))
        {
            return;
        }
    }
    panic!("{name} should be noticed");
}

/// Waits until the server has noticed everybody who has stalled so far: one more has, later, and cannot return, so that
/// its departure is announced at once.
async fn all_are_noticed(server: SocketAddr, talker: &mut Raw) {
    let marker = Narrow::open(server, ORIGINAL_CHAT, &join("Marker")).await;
    while !is_of(&talker.next().await, EventType::Join, "Marker") {}
    talk_until_departure(talker, "Marker").await;
    drop(marker);
}

/// About as long as a text may be: 512 bytes.
fn long(number: usize) -> String {
    format!("{number:04}{}", "🦀".repeat(124))
}

async fn departure(witness: &mut Raw, name: &str) {
    while !is_of(&witness.next().await, EventType::Leave, name) {}
}

fn is_of(event: &ServerMessage, kind: EventType, name: &str) -> bool {
    event.sequence > 0 && event.r#type() == kind && event.sender_name == name
}

fn assert_stalled_after(status: &Status, last: u64) {
    assert_eq!(
        (status.code(), reason(status).as_str()),
        (Code::ResourceExhausted, "STALLED")
    );
    let info = status.get_details_error_info().expect("it has a reason");
    assert_eq!(info.metadata["last_sequence"], last.to_string());
}

fn assert_dense(events: &[ServerMessage], from: u64) {
    let expected: Vec<_> = (from..).take(events.len()).collect();
    assert_eq!(sequences(events), expected);
}

// ---- Who takes nothing.

#[tokio::test]
async fn a_participant_that_takes_nothing_is_ended_and_told_how_far_it_came_and_resumes_without_a_gap()
 {
    let server = server(ENDLESS).await;
    let mut talker = server.joined("Talker").await;
    let (mut ada, own) = Narrow::join(&server, "Ada").await;
    talk(&mut talker, 100).await;
    all_are_noticed(server.address(), &mut talker).await;

    let (read, status) = ada.rest().await;

    // What HTTP/2 had for it, and not one event more.
    assert!(!read.is_empty() && read.len() < 60, "{}", read.len());
    assert_dense(&read, own.sequence + 1);
    let last = read.last().expect("it has read something").sequence;
    assert_stalled_after(&status, last);

    let (mut again, first) = server.enter(resume(welcome(&own), last)).await;
    assert!(welcome(&first).recovered);
    assert_eq!(welcome(&first).id, own.sender_id);
    let missed = again.take((welcome(&first).head - last) as usize).await;
    assert_dense(&missed, last + 1);
    again.say("back", 0);
    assert_eq!(again.next().await.sender_name, "Ada");
    // Nobody heard of it.
    let history = server.history("lobby").await;
    let about_ada = history.iter().filter(|event| event.sender_name == "Ada");
    let about_ada: Vec<_> = about_ada.map(|event| event.r#type()).collect();
    assert_eq!(about_ada, [EventType::Join, EventType::Message]);
}

#[tokio::test]
async fn a_watch_likewise() {
    let server = server(ENDLESS).await;
    let mut talker = server.joined("Talker").await;
    let (mut watch, first) = Narrow::watch(&server, &WatchRequest::default()).await;
    talk(&mut talker, 100).await;
    all_are_noticed(server.address(), &mut talker).await;

    let (read, status) = watch.rest().await;

    assert!(!read.is_empty() && read.len() < 60, "{}", read.len());
    let last = read.last().expect("it has read something").sequence;
    assert_stalled_after(&status, last);

    let request = after(welcome(&first).epoch.clone(), last);
    let (mut again, first) = Narrow::watch(&server, &request).await;
    assert!(welcome(&first).recovered);
    let missed = again.take((welcome(&first).head - last) as usize).await;
    assert_dense(&missed, last + 1);
}

#[tokio::test]
async fn who_stalls_at_its_welcome_likewise() {
    let server = server(ENDLESS).await;
    let mut talker = server.joined("Talker").await;
    talk(&mut talker, 5).await;
    let request = WatchRequest {
        backlog: 3,
        ..WatchRequest::default()
    };
    // As long as its client does not read, HTTP/2 takes no more than the welcome, which is the first.
    let mut watch = Narrow::open_with_window(server.address(), 1, WATCH, &request).await;
    watch.stream.end().opened().await;
    all_are_noticed(server.address(), &mut talker).await;

    let (read, status) = watch.rest().await;

    assert!(welcome(&read[0]).head == 6 && read[0].sequence == 0);
    assert_dense(&read[1..], 4);
    assert_stalled_after(&status, 3 + read[1..].len() as u64);
}

#[tokio::test]
async fn who_stalls_in_the_middle_of_a_long_past_likewise() {
    let server = server(ENDLESS).await;
    let mut talker = server.joined("Talker").await;
    // More than the feed holds.
    talk(&mut talker, 1_000).await;
    let epoch = welcome(&server.enter(join("Epoch")).await.1).epoch.clone();
    let (mut watch, _) = Narrow::watch(&server, &after(epoch.clone(), 0)).await;
    let mut read = watch.take(100).await;
    all_are_noticed(server.address(), &mut talker).await;

    let (rest, status) = watch.rest().await;

    read.extend(rest);
    assert!(read.len() < 160, "{}", read.len());
    assert_stalled_after(&status, read.len() as u64);
    let (mut again, first) = Narrow::watch(&server, &after(epoch, read.len() as u64)).await;
    let missing = welcome(&first).head as usize - read.len();
    read.extend(again.take(missing).await);
    assert_dense(&read, 1);
}

#[tokio::test]
async fn who_does_not_read_its_notices_likewise() {
    let server = server(ENDLESS).await;
    let mut talker = server.joined("Talker").await;
    // Alone in a room, where nothing else happens.
    let joining = JoinMsgLeave {
        room: "quiet".into(),
        ..join("Ada")
    };
    let (mut ada, own) = Narrow::enter(&server, &joining).await;
    for _ in 0..100 {
        ada.send(&said("", 0));
    }
    // Two have joined, and each refusal ticks.
    let refused = async { while now(&server).await < 2 + 100 {} };
    within("the refusals", refused).await;
    all_are_noticed(server.address(), &mut talker).await;

    let (read, status) = ada.rest().await;

    assert!(read.len() < 50, "{}", read.len());
    assert!(read.iter().all(|message| message.notice.is_some()));
    assert_stalled_after(&status, own.sequence);
}

#[tokio::test]
async fn its_departure_is_announced_once_when_its_grace_is_over_and_nobody_was_held_up() {
    let server = server(GRACE).await;
    let mut witness = server.joined("Witness").await;
    let (ada, own) = Narrow::join(&server, "Ada").await;
    witness.next().await;

    talk_until_departure(&mut witness, "Ada").await;

    assert_eq!(server.names("lobby").await, ["Witness"]);
    // That its connection ends now is nothing new to anybody.
    drop(ada);
    drop(server.joined("Marker").await);
    departure(&mut witness, "Marker").await;
    let history = server.history("lobby").await;
    let departures = history
        .iter()
        .filter(|event| event.r#type() == EventType::Leave && event.sender_id == own.sender_id);
    assert_eq!(departures.count(), 1);
}

#[tokio::test]
async fn who_has_come_back_is_not_asked_to_come_back_once_more() {
    let server = server(ENDLESS).await;
    let mut talker = server.joined("Talker").await;
    let (mut older, own) = Narrow::join(&server, "Ada").await;
    talk(&mut talker, 100).await;
    all_are_noticed(server.address(), &mut talker).await;

    let (_newer, _) = server.enter(resume(welcome(&own), own.sequence)).await;
    let (_, status) = older.rest().await;

    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Aborted, "SUPERSEDED")
    );
}

#[tokio::test]
async fn who_has_left_and_does_not_read_to_the_end_is_told_that_something_is_missing() {
    let server = server(ENDLESS).await;
    let mut talker = server.joined("Talker").await;
    let (mut ada, own) = Narrow::join(&server, "Ada").await;
    talk(&mut talker, 100).await;
    ada.send(&JoinMsgLeave {
        r#type: EventType::Leave.into(),
        ..JoinMsgLeave::default()
    });
    departure(&mut talker, "Ada").await;
    all_are_noticed(server.address(), &mut talker).await;

    let (read, status) = ada.rest().await;

    assert_stalled_after(&status, own.sequence + read.len() as u64);
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_who_has_stalled() {
    let server = start_with(|config| {
        config.limits.stall = STALL;
        config.server.grace = ENDLESS;
        config.server.drain_timeout = Duration::from_millis(300);
    })
    .await;
    let mut talker = server.joined("Talker").await;
    let _ada = Narrow::join(&server, "Ada").await;
    talk(&mut talker, 100).await;
    all_are_noticed(server.address(), &mut talker).await;

    server.stop().await;
}

/// Each is in the middle of a long past. HTTP/2 has 32 KiB of it for each, and the server had the rest of a page.
#[tokio::test]
async fn what_waits_for_who_has_stalled_is_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [
        ("CHITCHAT_LIMITS__STALL", "200ms"),
        ("CHITCHAT_LIMITS__RATE", "0"),
        ("CHITCHAT_LIMITS__FEED_BYTES", "65536"),
        ("CHITCHAT_SERVER__KEEPALIVE_INTERVAL", "1h"),
    ];
    let server = ServerProcess::with(directory.path(), &settings).await;
    let mut talker = Raw::open(server.connect().await, CHAT).await;
    let own = talker.join("Talker").await;
    talk(&mut talker, 1_000).await;
    let request = framed(&after(welcome(&own).epoch.clone(), 0));
    let mut held = Vec::new();
    let mut costs = Vec::new();

    for _ in 0..10 {
        for _ in 0..3 {
            let mut connection = Connection::with_windows(server.address(), 1_000, 65_535).await;
            for _ in 0..16 {
                let mut watch = connection.open(WATCH).await;
                watch.send(request.clone()).end();
                watch.next().await.expect("a welcome");
                held.push(watch);
            }
        }
        all_are_noticed(server.address(), &mut talker).await;
        costs.push(server.resident_bytes());
    }

    let cost = costs[9].saturating_sub(costs[0]);
    assert!(
        cost < 24 << 20,
        "9 times 48 readers cost {} KiB",
        cost >> 10
    );
}

/// Each waits for a page of the history, of half a megabyte.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_let_go_and_one_that_is_read_slowly_is_whole() {
    let settings = [
        ("CHITCHAT_LIMITS__STALL", "500ms"),
        ("CHITCHAT_LIMITS__RATE", "0"),
        ("CHITCHAT_SERVER__KEEPALIVE_INTERVAL", "1h"),
    ];
    let server = ServerProcess::with(Path::new("memory"), &settings).await;
    let mut talker = Raw::open(server.connect().await, CHAT).await;
    talker.join("Talker").await;
    let text = "\u{1F980}".repeat(128);
    for _ in 0..10 {
        (0..100).for_each(|_| talker.say(&text, 0));
        talker.take(100).await;
    }
    let request = GetHistoryRequest {
        limit: 1_000,
        ..GetHistoryRequest::default()
    };
    let mut unread = Vec::new();
    let mut costs = Vec::new();

    for _ in 0..5 {
        for _ in 0..4 {
            let mut connection = Connection::with_windows(server.address(), 1_000, 65_535).await;
            for _ in 0..16 {
                let mut history = connection.open(GET_HISTORY).await;
                history.send(framed(&request)).end();
                history.opened().await;
                unread.push(history);
            }
        }
        all_are_noticed(server.address(), &mut talker).await;
        costs.push(server.resident_bytes());
    }

    // Four times 64 pages would be 144 MB; once as much may have been held at a time, and stay with the allocator.
    let cost = costs[4].saturating_sub(costs[0]);
    assert!(cost < 64 << 20, "256 pages cost {} KiB", cost >> 10);
    for mut history in unread {
        let status = history.status().await;
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::ResourceExhausted, "STALLED".into())
        );
    }
    let mut slow = Connection::with_window(server.address(), 10_000).await;
    let mut history = slow.open(GET_HISTORY).await;
    history.send(framed(&request)).end();
    let page: GetHistoryResponse = history.answer().await;
    assert_eq!(page.events.len(), 1_000);
}

/// A PING cannot even be sent to it, and what it says would keep the keepalive quiet.
#[tokio::test]
async fn who_speaks_and_does_not_even_take_from_its_socket_is_noticed_and_cut_off_by_the_keepalive()
{
    for stall in [STALL, Duration::ZERO] {
        let server = start_with(|config| {
            config.limits.stall = stall;
            config.limits.rate = 0;
            config.server.keepalive_interval = KEEPALIVE;
            config.server.keepalive_timeout = KEEPALIVE;
        })
        .await;
        let mut witness = server.joined("Witness").await;
        let mut deaf = Deaf::join(&server).await;

        // About ten times what HTTP/2 and two sockets hold.
        let mut batches = 0..4_000;
        while deaf.is_heard_by(&mut witness).await {
            assert!(batches.next().is_some(), "it should be noticed");
        }

        // It has stopped speaking, as nobody listens, and reads what there was: then its connection ends.
        while deaf.0.next().await.is_some() {}
    }
}

/// A participant that allows the server everything, and takes nothing from its socket.
struct Deaf(Frames);

impl Deaf {
    async fn join(server: &TestServer) -> Self {
        let mut frames = Frames::to(server.address()).await;
        let window = [[0, 4].as_slice(), &WINDOW_MAX.to_be_bytes()].concat();
        frames.put(Frames::SETTINGS, 0, 0, &window);
        frames.put_window(0, WINDOW_MAX - 65_535);
        frames.put_request(1, CHAT);
        frames.put(Frames::DATA, 0, 1, &framed(&join("Deaf")));
        Self(frames)
    }

    /// Says as much as the server takes at once; once `witness` has heard it, there is room for more. Not, if `witness`
    /// hears of its departure.
    async fn is_heard_by(&mut self, witness: &mut Raw) -> bool {
        const AT_ONCE: usize = 20;
        for _ in 0..AT_ONCE {
            let said = framed(&said(&long(0), 0));
            self.0.put(Frames::DATA, 0, 1, &said);
        }
        self.0.flush().await;
        let mut heard = 0;
        while heard < AT_ONCE {
            let event = witness.next().await;
            if is_of(&event, EventType::Leave, "Deaf") {
                return false;
            }
            heard += usize::from(event.r#type() == EventType::Message);
        }
        true
    }
}

// ---- Who takes something, or has nothing to take.

#[tokio::test]
async fn a_reader_that_takes_a_little_now_and_then_is_left_alone() {
    let server = timeless(DEFAULT_STALL).await;
    let mut talker = server.joined("Talker").await;
    let (mut ada, own) = Narrow::join(&server, "Ada").await;
    talk(&mut talker, 300).await;

    let mut read = Vec::new();
    for _ in 0..10 {
        read.extend(ada.take(30).await);
        pass_quarters(&server, 2).await;
    }

    assert_dense(&read, own.sequence + 1);
    ada.send(&said("still here", 0));
    assert_eq!(ada.next().await.msg_stream, "still here");
}

#[tokio::test]
async fn a_silent_room_ends_nobody() {
    let server = timeless(DEFAULT_STALL).await;
    let (mut ada, _) = Narrow::join(&server, "Ada").await;
    let (mut watch, _) = Narrow::watch(&server, &WatchRequest::default()).await;

    pass_quarters(&server, 40).await;

    ada.send(&said("at last", 0));
    for reader in [&mut ada, &mut watch] {
        assert_eq!(texts(&[reader.next().await]), ["at last"]);
    }
}

#[tokio::test]
async fn a_reader_is_ended_when_the_limit_is_over_and_not_before() {
    let server = timeless(DEFAULT_STALL).await;
    let mut talker = server.joined("Talker").await;
    let (mut ada, _) = Narrow::join(&server, "Ada").await;

    talk(&mut talker, 100).await;
    pass_quarters(&server, 4).await;
    ada.take(100).await;
    talk(&mut talker, 100).await;
    pass_quarters(&server, 6).await;

    let (read, status) = ada.rest().await;
    assert!(read.len() < 60, "{}", read.len());
    assert_eq!(reason(&status), "STALLED");
}

#[tokio::test]
async fn without_a_limit_a_reader_may_take_its_time() {
    let server = timeless(Duration::ZERO).await;
    let mut talker = server.joined("Talker").await;
    let (mut ada, own) = Narrow::join(&server, "Ada").await;
    talk(&mut talker, 100).await;

    pass_quarters(&server, 100).await;

    assert_dense(&ada.take(100).await, own.sequence + 1);
}

// ---- Our own client.

#[tokio::test]
async fn a_session_that_was_not_listened_to_for_too_long_comes_back_and_has_missed_nothing() {
    let server = server(ENDLESS).await;
    let mut talker = server.joined("Talker").await;
    let mut ada = session(&server.url(), "Ada").await;
    let id = ada.id();
    // More than waits in a session and on its connection.
    talk(&mut talker, 800).await;
    all_are_noticed(server.address(), &mut talker).await;

    let (mut read, mut breaks, head) = (Vec::new(), 0, server.history("lobby").await.len());
    while read.len() < head - 2 {
        match ada.update().await {
            Update::Event(event) => read.push(event.message),
            Update::Disconnected { reason } => {
                assert!(reason.starts_with("nothing was read for 200ms"), "{reason}");
                breaks += 1;
            }
            Update::Reconnected(back) => assert!(back.recovered),
            other => panic!("{other:?}"),
        }
    }
    assert_dense(&read, 3);
    assert_eq!(breaks, 1);
    assert_eq!(ada.id(), id);
}

/// A watch from after `last` on.
fn after(epoch: String, last: u64) -> WatchRequest {
    let resume = Resume {
        epoch,
        after_sequence: last,
    };
    WatchRequest {
        resume: Some(resume),
        ..WatchRequest::default()
    }
}
