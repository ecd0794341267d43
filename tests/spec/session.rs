//! A participant's session: its clock follows Lamport's rule, and a network that fails costs nobody a message.

use std::time::Duration;

use chitchat::{
    client::session::{Closed, Ending, JoinError, Options, Received, UPDATES_CAPACITY, Update},
    wire::v1::{EventType, NoticeCode},
};

use crate::support::{
    listener::{Listener, join, join_with, options, try_join},
    proxy::Proxy,
    server::{self, TestServer},
};

/// A grace that no test outlives.
const LONG: Duration = Duration::from_secs(60);

/// A server, a network that can fail, Alex behind it and Aske beside it; both have read Aske's JOIN.
struct Room {
    server: TestServer,
    network: Proxy,
    alex: Listener,
    aske: Listener,
}

impl Room {
    async fn open(grace: Duration) -> Self {
        Self::open_with(grace, |_| {}).await
    }

    async fn open_with(grace: Duration, change: impl FnOnce(&mut Options)) -> Self {
        let server = server::start_with(|config| config.server.grace = grace).await;
        let network = Proxy::start(server.address()).await;
        let mut options = options(&network.url(), "Alex");
        change(&mut options);
        let mut alex = join_with(options).await;
        let aske = join(&server.url(), "Aske").await;
        assert_eq!(alex.event().await.message.sender_name, "Aske");
        Self {
            server,
            network,
            alex,
            aske,
        }
    }

    /// What was said in the room, in order.
    async fn said(&self) -> Vec<String> {
        let history = self.server.history("lobby").await;
        let messages = history
            .into_iter()
            .filter(|event| event.r#type() == EventType::Message);
        messages.map(|event| event.msg_stream).collect()
    }

    /// What happened in the room, in order, as `JOIN Alex`.
    async fn happened(&self) -> Vec<String> {
        let history = self.server.history("lobby").await;
        let events = history
            .iter()
            .map(|event| format!("{} {}", event.r#type().as_str_name(), event.sender_name));
        events.collect()
    }
}

#[tokio::test]
async fn a_clock_ticks_with_each_send_and_is_later_than_everything_received() {
    let server = server::start().await;
    let mut alex = try_join(options(&server.url(), "Alex")).await.unwrap();

    let own = alex.event().await;
    alex.says("Hello World!").await;
    let hello = alex.event().await;

    assert_eq!(own.message.sent_timestamp, 1, "JOIN is the first step");
    assert_eq!(own.message.timestamp, 2, "the service's max(0, 1) + 1");
    assert_eq!((own.before, own.after), (1, 3), "max(1, 2) + 1");
    assert_eq!(hello.message.sent_timestamp, 4);
    assert_eq!(hello.message.timestamp, 5, "max(2, 4) + 1");
    assert_eq!((hello.before, hello.after), (4, 6));
    assert_eq!(alex.clock(), 6);
}

/// It once was a race: a session that spoke at once did so with or without the time of its own JOIN.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_the_own_join_is_read() {
    let server = server::start().await;
    for _ in 0..200 {
        let mut alex = try_join(options(&server.url(), "Alex")).await.unwrap();
        alex.says("at once").await;
        let own = alex.event().await;
        let said = alex.event().await;
        assert!(
            said.message.sent_timestamp > own.message.timestamp,
            "{said:?} after {own:?}"
        );
        alex.leave();
        alex.ending().await;
    }
}

#[tokio::test]
async fn a_clock_that_does_not_merge_counts_what_was_sent_as_in_the_report() {
    let server = server::start().await;
    let mut alex = join_with(Options {
        merge: false,
        ..options(&server.url(), "Alex")
    })
    .await;

    alex.says("Hello World!").await;
    let hello = alex.event().await;

    let history = server.history("lobby").await;
    assert_eq!((history[0].sent_timestamp, history[0].timestamp), (0, 1));
    assert_eq!(
        (hello.message.sent_timestamp, hello.message.timestamp),
        (1, 2)
    );
    assert_eq!((hello.before, hello.after), (1, 1));
}

#[tokio::test]
async fn the_past_moves_no_clock() {
    let server = server::start().await;
    let mut aske = join(&server.url(), "Aske").await;
    aske.says("before").await;
    aske.event().await;

    let mut alex = join_with(Options {
        backlog: 1,
        ..options(&server.url(), "Alex")
    })
    .await;
    let past = alex.event().await;
    let own = alex.event().await;

    assert_eq!(past.message.msg_stream, "before");
    assert!(past.past && !past.own);
    assert_eq!((past.before, past.after), (1, 1));
    assert!(own.own && !own.past);
    assert_eq!(own.after, own.message.timestamp + 1);
}

#[tokio::test]
async fn a_refusal_is_heard_by_its_sender_alone_and_moves_its_clock() {
    let mut room = Room::open(LONG).await;

    let refused = room.alex.says(&"x".repeat(129)).await;
    let notice = room.alex.notice().await;
    room.alex.says("short").await;

    assert_eq!(notice.message.message_id, refused);
    assert_eq!(
        notice.message.msg_stream,
        "Message too long (129 chars). Limit is 128."
    );
    assert_eq!(notice.after, notice.message.timestamp + 1);
    assert_eq!(room.aske.texts(1).await, ["short"]);
}

#[tokio::test]
async fn a_break_shorter_than_the_grace_is_nothing_to_the_others_and_nothing_is_missed() {
    let mut room = Room::open(LONG).await;

    room.network.cut_for_long();
    room.alex.disconnected().await;
    room.aske.says("one").await;
    room.aske.says("two").await;
    room.aske.texts(2).await;
    room.network.mend();

    assert!(room.alex.reconnected().await, "recovered");
    assert_eq!(room.alex.texts(2).await, ["one", "two"]);
    assert_eq!(
        room.happened().await,
        ["JOIN Alex", "JOIN Aske", "MESSAGE Aske", "MESSAGE Aske"]
    );
}

#[tokio::test]
async fn what_arrived_just_before_a_break_is_not_sent_again() {
    let mut room = Room::open(LONG).await;

    room.network.hold_answers();
    room.alex.says("one").await;
    room.alex.says("two").await;
    assert_eq!(room.aske.texts(2).await, ["one", "two"]);
    room.network.cut();
    room.network.mend();

    room.alex.disconnected().await;
    assert!(room.alex.reconnected().await);
    room.alex.says("three").await;
    assert_eq!(room.alex.texts(3).await, ["one", "two", "three"]);
    assert_eq!(room.aske.texts(1).await, ["three"], "and no notice to Alex");
    assert_eq!(room.said().await, ["one", "two", "three"]);
}

#[tokio::test]
async fn what_did_not_arrive_before_a_break_is_sent_again_as_it_was() {
    let mut room = Room::open(LONG).await;
    let clock = room.alex.clock();

    room.network.hold_requests();
    let one = room.alex.says("one").await;
    let two = room.alex.says("two").await;
    // What Aske says meanwhile moves Alex's clock, and not the times of what was sent already.
    room.aske.says("meanwhile").await;
    assert_eq!(room.alex.texts(1).await, ["meanwhile"]);
    assert_eq!(room.said().await, ["meanwhile"]);
    room.network.cut();
    room.network.mend();

    room.alex.disconnected().await;
    assert!(room.alex.reconnected().await);
    for (text, message_id, sent) in [("one", one, clock + 1), ("two", two, clock + 2)] {
        let event = room.alex.event().await;
        assert!(event.own);
        assert_eq!(event.message.msg_stream, text);
        assert_eq!(event.message.message_id, message_id);
        assert_eq!(event.message.sent_timestamp, sent);
    }
    assert_eq!(room.said().await, ["meanwhile", "one", "two"]);
}

/// What is on its way when a connection breaks has arrived or not; the replay tells. Sending first and asking the
/// service to sort it out would make notices of duplicates.
#[tokio::test]
async fn many_breaks_while_many_messages_are_on_their_way_lose_nothing_and_change_no_order() {
    let mut room = Room::open(LONG).await;
    let texts: Vec<String> = (0..500).map(|number| number.to_string()).collect();

    let speaker = room.alex.speaker();
    let to_say = texts.clone();
    let saying = tokio::spawn(async move {
        for text in to_say {
            speaker.say(text).await.expect("the session is there");
        }
    });
    let mut own = Vec::new();
    while own.len() < texts.len() {
        match room.alex.update().await {
            Update::Event(event) => own.push(event.message.msg_stream),
            Update::Disconnected { .. } => continue,
            Update::Reconnected(back) if back.recovered => continue,
            other => panic!("neither an event nor a break: {other:?}"),
        }
        if own.len() % 50 == 25 {
            room.network.cut();
        }
    }

    saying.await.expect("all is said");
    assert_eq!(own, texts);
    assert_eq!(room.aske.texts(texts.len()).await, texts);
}

#[tokio::test]
async fn what_is_said_while_the_server_is_away_is_sent_when_it_is_back() {
    let mut room = Room::open(LONG).await;

    room.network.cut_for_long();
    room.alex.disconnected().await;
    room.alex.says("one").await;
    room.alex.says("two").await;
    room.network.mend();

    assert!(room.alex.reconnected().await);
    assert_eq!(room.alex.texts(2).await, ["one", "two"]);
    assert_eq!(room.said().await, ["one", "two"]);
}

#[tokio::test]
async fn a_connection_that_is_frozen_counts_as_broken_after_the_keepalive() {
    let quick = |options: &mut Options| options.keepalive = Duration::from_millis(200);
    let mut room = Room::open_with(LONG, quick).await;

    room.network.freeze();
    room.alex.disconnected().await;
    room.aske.says("one").await;
    room.network.mend();

    assert!(room.alex.reconnected().await);
    assert_eq!(room.alex.texts(1).await, ["one"]);
}

/// A JOIN that a slow network delivers late takes the participant over, and nobody is at its other end. The stream that
/// it ended once took that for somebody else's doing, and the session was over.
#[tokio::test]
async fn an_attempt_that_arrives_late_ends_no_session() {
    let quick = |options: &mut Options| options.keepalive = Duration::from_millis(100);
    let mut room = Room::open_with(LONG, quick).await;

    room.network.freeze();
    room.alex.disconnected().await;
    // The first one was given up before the second began.
    room.network.connected(2).await;
    room.network.overtake();
    assert!(room.alex.reconnected().await);
    room.alex.says("in time").await;
    assert_eq!(room.alex.texts(1).await, ["in time"]);
    room.network.mend();

    // At least once; there may be more than one that arrives late.
    room.alex.disconnected().await;
    room.aske.says("after all").await;
    loop {
        match room.alex.update().await {
            Update::Event(event) if event.message.msg_stream == "after all" => break,
            Update::Disconnected { .. } => {}
            Update::Reconnected(back) if back.recovered => {}
            other => panic!("neither a break nor what was said: {other:?}"),
        }
    }
    let happened = room.happened().await;
    let joins = happened.iter().filter(|event| event.starts_with("JOIN"));
    assert_eq!(joins.count(), 2, "nobody joined anew: {happened:?}");
}

#[tokio::test]
async fn after_the_grace_a_session_comes_back_as_a_newcomer_that_has_missed_nothing() {
    let mut room = Room::open(server::GRACE).await;

    room.network.cut_for_long();
    room.alex.disconnected().await;
    room.alex.says("late").await;
    let left = room.aske.event().await.message;
    assert_eq!(
        (left.r#type(), &*left.sender_name),
        (EventType::Leave, "Alex")
    );
    room.network.mend();

    assert!(room.alex.reconnected().await, "all its events are there");
    let kinds = [EventType::Leave, EventType::Join, EventType::Message];
    for kind in kinds {
        let event = room.alex.event().await;
        assert!(event.own, "{event:?}");
        assert_eq!(event.message.r#type(), kind);
    }
    assert_eq!(room.said().await, ["late"]);
}

#[tokio::test]
async fn who_missed_what_is_no_longer_kept_is_told_so_and_what_it_said_is_stored_once() {
    let server = server::start_with(|config| {
        config.limits.memory_bytes = 10_000;
        config.server.grace = LONG;
    })
    .await;
    let network = Proxy::start(server.address()).await;
    let mut alex = join(&network.url(), "Alex").await;
    let mut aske = join(&server.url(), "Aske").await;
    let mut filler = server.joined("Filler").await;
    alex.event().await;
    alex.event().await;

    network.hold_answers();
    let heard = alex.says("heard by the others").await;
    while aske.event().await.message.msg_stream != "heard by the others" {}
    network.cut_for_long();
    alex.disconnected().await;
    let unheard = alex.says("heard by nobody").await;
    filler.next().await;
    for number in 0..200 {
        filler.say(&number.to_string(), 0);
        filler.next().await;
    }
    network.mend();

    let back = alex.back().await;
    assert!(!back.recovered && !back.new_history);
    let (left, joined) = (alex.event().await.message, alex.event().await.message);
    assert_eq!(
        (left.r#type(), joined.r#type()),
        (EventType::Leave, EventType::Join)
    );
    assert_eq!(left.sequence, back.from_sequence);
    // That the first one was stored cannot be read any more, and so is answered.
    let known = alex.notice().await.message.notice.expect("a notice");
    assert_eq!(
        (known.code(), known.message_id),
        (NoticeCode::Duplicate, heard)
    );
    assert_eq!(alex.event().await.message.message_id, unheard);
    let from_alex = |event: &Received| event.message.sender_name == "Alex";
    let mut said = Vec::new();
    while said.len() < 3 {
        said.extend(Some(aske.event().await).filter(from_alex));
    }
    let kinds = said.iter().map(|event| event.message.r#type());
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [EventType::Leave, EventType::Join, EventType::Message]
    );
}

#[tokio::test]
async fn a_new_history_is_a_new_world_where_clock_and_reading_start_anew() {
    let mut room = Room::open(LONG).await;
    for _ in 0..10 {
        room.alex.says("in the old world").await;
    }
    room.alex.texts(10).await;
    let (old_epoch, old_clock) = (room.alex.epoch(), room.alex.clock());

    room.network.cut_for_long();
    room.alex.disconnected().await;
    room.alex.says("in the new world").await;
    let new = server::start().await;
    room.network.lead_to(new.address());
    room.network.mend();

    let back = room.alex.back().await;
    assert!(!back.recovered && back.new_history);
    let joined = room.alex.event().await;
    assert!(joined.own && joined.message.r#type() == EventType::Join);
    assert_eq!(joined.message.sequence, back.from_sequence);
    let said = room.alex.event().await;
    assert_eq!(said.message.msg_stream, "in the new world");
    assert_eq!(said.after, said.message.timestamp + 1);
    assert!(said.after < old_clock, "{} and {old_clock}", said.after);
    assert_ne!(room.alex.epoch(), old_epoch);
    assert_eq!(new.history("lobby").await.len(), 2);
}

/// It was once refused, by its own ghost: the participant that its JOIN made whose answer was lost.
#[tokio::test]
async fn a_newcomer_whose_welcome_was_lost_waits_for_its_own_ghost_to_leave_and_keeps_its_id() {
    let mut room = Room::open(LONG).await;
    let id = room.alex.id();

    room.network.cut_for_long();
    room.alex.disconnected().await;
    room.alex.says("in the new world").await;
    // So long that the session finds itself held more than once.
    let new = server::start_with(|config| config.server.grace = Duration::from_secs(2)).await;
    let mut witness = join(&new.url(), "Witness").await;
    room.network.lead_to(new.address());
    room.network.mend_requests();
    let ghost = witness.event().await.message;
    room.network.cut();
    room.network.mend();

    assert!(!room.alex.reconnected().await, "another history");
    let own = room.alex.event().await;
    assert!(own.own && own.message.r#type() == EventType::Join);
    assert_eq!(room.alex.texts(1).await, ["in the new world"]);
    assert_eq!((ghost.sender_name.as_str(), ghost.sender_id), ("Alex", id));
    assert_eq!(room.alex.id(), id);
    let mut heard = Vec::new();
    for _ in 0..3 {
        let event = witness.event().await.message;
        assert_eq!(event.sender_id, id);
        heard.push(event.r#type());
    }
    assert_eq!(
        heard,
        [EventType::Leave, EventType::Join, EventType::Message]
    );
}

/// The same, where the first history goes on and the session was forgotten.
#[tokio::test]
async fn a_late_comer_whose_welcome_was_lost_reads_of_its_own_ghost_too() {
    let mut room = Room::open(Duration::from_secs(2)).await;

    room.network.cut_for_long();
    room.alex.disconnected().await;
    room.alex.says("late").await;
    assert_eq!(room.aske.event().await.message.r#type(), EventType::Leave);
    room.network.mend_requests();
    assert_eq!(room.aske.event().await.message.r#type(), EventType::Join);
    room.network.cut();
    room.network.mend();

    assert!(room.alex.reconnected().await, "nothing was missed");
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(room.alex.event().await.message.r#type());
    }
    use EventType::{Join, Leave, Message};
    assert_eq!(heard, [Leave, Join, Leave, Join, Message]);
    assert_eq!(room.said().await, ["late"]);
}

#[tokio::test]
async fn a_held_name_is_told_from_a_server_that_is_away_and_from_one_that_refuses() {
    let server = server::start().await;
    let _alex = join(&server.url(), "Alex").await;

    let held = try_join(options(&server.url(), "alex")).await.unwrap_err();
    let refused = try_join(options(&server.url(), &"x".repeat(33)))
        .await
        .unwrap_err();
    let unspeakable = try_join(options("http://", "Bob")).await.unwrap_err();
    let url = server.url();
    server.stop().await;
    let away = try_join(options(&url, "Bob")).await.unwrap_err();

    assert!(matches!(held, JoinError::Held(_)), "{held:?}");
    assert!(matches!(refused, JoinError::Refused(_)), "{refused:?}");
    assert!(
        matches!(unspeakable, JoinError::Address(_)),
        "{unspeakable:?}"
    );
    assert!(matches!(away, JoinError::Unreachable { .. }), "{away:?}");
}

#[tokio::test]
async fn who_leaves_has_said_everything_and_heard_everything_before() {
    let mut room = Room::open(LONG).await;
    let texts: Vec<String> = (0..20).map(|number| number.to_string()).collect();

    for text in &texts {
        room.alex.says(text).await;
    }
    room.alex.leave();

    assert_eq!(room.alex.texts(20).await, texts);
    let ending = room.alex.ending().await;
    assert!(matches!(ending, Ending::Left), "{ending:?}");
    assert_eq!(room.aske.texts(20).await, texts);
    let left = room.aske.event().await.message;
    assert_eq!(
        (left.r#type(), &*left.sender_name),
        (EventType::Leave, "Alex")
    );
    assert_eq!(room.alex.say("more").await, Err(Closed));
}

#[tokio::test]
async fn who_leaves_while_the_server_is_away_learns_what_may_be_lost() {
    let mut room = Room::open(LONG).await;

    room.network.cut_for_long();
    room.alex.disconnected().await;
    room.alex.says("never heard").await;
    room.alex.leave();

    let ending = room.alex.ending().await;
    assert!(
        matches!(ending, Ending::Abandoned { unacknowledged: 1 }),
        "{ending:?}"
    );
}

#[tokio::test]
async fn who_leaves_while_the_server_is_away_with_everything_said_need_not_wait() {
    let mut room = Room::open(LONG).await;

    room.network.cut_for_long();
    room.alex.disconnected().await;
    let asked = std::time::Instant::now();
    room.alex.leave();

    let ending = room.alex.ending().await;
    assert!(
        matches!(ending, Ending::Abandoned { unacknowledged: 0 }),
        "{ending:?}"
    );
    assert!(asked.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn who_leaves_in_a_break_comes_back_to_say_what_is_left() {
    let mut room = Room::open(LONG).await;

    room.network.cut_for_long();
    room.alex.disconnected().await;
    room.alex.says("goodbye").await;
    room.alex.leave();
    room.network.mend();

    assert!(room.alex.reconnected().await);
    assert_eq!(room.alex.texts(1).await, ["goodbye"]);
    assert!(matches!(room.alex.ending().await, Ending::Left));
    assert_eq!(room.aske.texts(1).await, ["goodbye"]);
    assert_eq!(room.aske.event().await.message.r#type(), EventType::Leave);
}

/// A request stream that merely ended would be a half-close, and so a LEAVE at once.
#[tokio::test]
async fn a_crash_is_no_leave_and_a_dropped_session_is_a_crash() {
    let mut room = Room::open(Duration::from_secs(1)).await;
    let bob = join(&room.server.url(), "Bob").await;
    room.aske.event().await;

    room.alex.crash();
    drop(bob);
    room.aske.says("they are still held").await;

    let ending = loop {
        if let Update::Ended(ending) = room.alex.update().await {
            break ending;
        }
    };
    assert!(matches!(ending, Ending::Crashed), "{ending:?}");
    assert_eq!(room.aske.texts(1).await, ["they are still held"]);
    for _ in 0..2 {
        assert_eq!(room.aske.event().await.message.r#type(), EventType::Leave);
    }
}

#[tokio::test]
async fn who_does_not_listen_loses_nothing() {
    let mut room = Room::open(LONG).await;
    let texts: Vec<String> = (0..UPDATES_CAPACITY * 4).map(|n| n.to_string()).collect();

    for text in &texts {
        room.aske.says(text).await;
        room.aske.event().await;
    }

    assert_eq!(room.alex.texts(texts.len()).await, texts);
}

#[tokio::test]
async fn a_server_that_drains_is_left_for_its_successor() {
    let mut room = Room::open(LONG).await;
    let successor = server::start().await;

    room.network.lead_to(successor.address());
    room.server.stop().await;

    let draining = room.alex.notice().await;
    assert_eq!(draining.message.sender_name, "Server");
    room.alex.disconnected().await;
    assert!(!room.alex.reconnected().await, "another history");
    assert_eq!(successor.names("lobby").await, ["Alex"]);
}
