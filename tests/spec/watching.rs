//! Reading a room without being in it, live and afterwards.

use chitchat::wire::v1::{
    GetHistoryRequest, GetHistoryResponse, JoinMsgLeave, ListParticipantsRequest, ListRoomsRequest,
    Resume, ServerMessage, WatchRequest,
};
use tonic::Streaming;

use crate::support::{
    raw::{Raw, join, sequences, texts},
    server::{TestServer, start, start_with},
    within,
};

async fn watch(
    server: &TestServer,
    request: WatchRequest,
) -> (ServerMessage, Streaming<ServerMessage>) {
    let answer = server.client().await.watch(request).await;
    let mut stream = answer.expect("a room can be watched").into_inner();
    let welcome = next(&mut stream).await;
    assert_eq!(welcome.sequence, 0, "the welcome is private");
    (welcome, stream)
}

async fn next(stream: &mut Streaming<ServerMessage>) -> ServerMessage {
    within("the next message", stream.message())
        .await
        .expect("the watch goes on")
        .expect("the watch does not end")
}

async fn page(server: &TestServer, request: GetHistoryRequest) -> GetHistoryResponse {
    let answer = server.client().await.get_history(request).await;
    answer.expect("history can be read").into_inner()
}

/// Ada, and her JOIN and five messages: the sequences 1 to 6.
async fn room_of_six() -> (TestServer, Raw) {
    let server = start().await;
    let mut ada = server.joined("Ada").await;
    for text in ["one", "two", "three", "four", "five"] {
        ada.say(text, 0);
    }
    ada.take(5).await;
    (server, ada)
}

#[tokio::test]
async fn a_watch_is_live_only_unless_more_is_asked() {
    let (server, mut ada) = room_of_six().await;

    let (first, mut stream) = watch(&server, WatchRequest::default()).await;
    ada.say("live", 0);

    let welcome = first.welcome.expect("a welcome");
    assert_eq!(
        (welcome.id, welcome.session.as_str(), welcome.head),
        (0, "", 6)
    );
    assert!(!welcome.recovered && !welcome.epoch.is_empty());
    assert_eq!(next(&mut stream).await, ada.next().await);
}

#[tokio::test]
async fn a_watch_may_begin_with_the_last_events_or_where_an_earlier_one_ended() {
    let (server, _ada) = room_of_six().await;
    let (first, mut stream) = watch(
        &server,
        WatchRequest {
            backlog: 2,
            ..WatchRequest::default()
        },
    )
    .await;
    assert_eq!(next(&mut stream).await.msg_stream, "four");
    assert_eq!(next(&mut stream).await.msg_stream, "five");

    let epoch = first.welcome.expect("a welcome").epoch;
    let resume = |epoch: &str, after_sequence| WatchRequest {
        resume: Some(Resume {
            epoch: epoch.into(),
            after_sequence,
        }),
        ..WatchRequest::default()
    };
    let (told, mut stream) = watch(&server, resume(&epoch, 4)).await;
    assert!(told.welcome.expect("a welcome").recovered);
    assert_eq!(next(&mut stream).await.sequence, 5);

    for (epoch, after) in [("another", 4), (epoch.as_str(), 7)] {
        let (told, _) = watch(&server, resume(epoch, after)).await;
        assert!(
            !told.welcome.expect("a welcome").recovered,
            "{epoch} {after}"
        );
    }
}

#[tokio::test]
async fn watching_leaves_no_trace() {
    let (server, mut ada) = room_of_six().await;
    let (_, _stream) = watch(&server, WatchRequest::default()).await;

    ada.say("alone?", 0);

    let heard = ada.next().await;
    assert_eq!(
        (heard.sequence, heard.timestamp),
        (7, 7),
        "no event, no tick"
    );
    assert_eq!(server.names("lobby").await, ["Ada"]);
}

#[tokio::test]
async fn a_room_may_be_watched_before_anybody_is_in_it() {
    let server = start().await;
    let (welcome, mut stream) = watch(&server, WatchRequest::default()).await;
    assert_eq!(welcome.welcome.expect("a welcome").head, 0);

    let _ada = server.joined("Ada").await;

    assert_eq!(next(&mut stream).await.sequence, 1);
}

#[tokio::test]
async fn history_is_read_in_ranges_and_says_whether_there_is_more() {
    let (server, _ada) = room_of_six().await;
    for (after, before, limit, expected, more) in [
        (0, 0, 0, vec![1, 2, 3, 4, 5, 6], false),
        (0, 0, 2, vec![1, 2], true),
        (2, 0, 2, vec![3, 4], true),
        (4, 0, 2, vec![5, 6], false),
        (6, 0, 2, vec![], false),
        (2, 5, 0, vec![3, 4], false),
        (2, 5, 1, vec![3], true),
        (0, 5, 2, vec![3, 4], true),
        (0, 3, 2, vec![1, 2], false),
        (0, 99, 2, vec![5, 6], true),
        (5, 2, 9, vec![], false),
    ] {
        let read = page(
            &server,
            GetHistoryRequest {
                after_sequence: after,
                before_sequence: before,
                limit,
                ..GetHistoryRequest::default()
            },
        )
        .await;
        let asked = format!("after {after}, before {before}, limit {limit}");
        assert_eq!(
            (sequences(&read.events), read.more),
            (expected, more),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_room_that_nobody_ever_joined_has_an_empty_history() {
    let server = start().await;

    let read = page(
        &server,
        GetHistoryRequest {
            room: "nowhere".into(),
            ..GetHistoryRequest::default()
        },
    )
    .await;

    assert!(read.events.is_empty() && !read.more && !read.epoch.is_empty());
}

#[tokio::test]
async fn participants_and_rooms_are_listed_as_they_are_now() {
    let (server, _ada) = room_of_six().await;
    let mut client = server.client().await;

    let there = client
        .list_participants(ListParticipantsRequest::default())
        .await;
    let there = there.expect("a list").into_inner();
    let rooms = client
        .list_rooms(ListRoomsRequest {})
        .await
        .expect("a list")
        .into_inner();

    let [ada] = &there.participants[..] else {
        panic!("one is there: {there:?}");
    };
    assert_eq!(
        (ada.name.as_str(), ada.joined_sequence, ada.joined_timestamp),
        ("Ada", 1, 1)
    );
    let [lobby] = &rooms.rooms[..] else {
        panic!("one room: {rooms:?}");
    };
    assert_eq!(
        (
            lobby.name.as_str(),
            lobby.participants,
            lobby.head,
            lobby.first
        ),
        ("lobby", 1, 6, 1)
    );
    assert_eq!((there.timestamp, rooms.timestamp), (6, 6));
    assert_eq!(texts(&server.history("lobby").await)[5], "five");
}

#[tokio::test]
async fn a_page_has_a_hundred_events_unless_asked_otherwise_and_never_more_than_a_thousand() {
    let server = start().await;
    let mut ada = server.joined("Ada").await;
    for number in 0..1_100 {
        ada.say(&number.to_string(), 0);
    }
    ada.take(1_100).await;

    for (limit, expected) in [(0, 100), (1_000, 1_000), (1_001, 1_000), (u32::MAX, 1_000)] {
        let read = page(
            &server,
            GetHistoryRequest {
                limit,
                ..GetHistoryRequest::default()
            },
        )
        .await;
        assert_eq!((read.events.len(), read.more), (expected, true), "{limit}");
    }
}

#[tokio::test]
async fn history_and_the_list_of_rooms_begin_with_the_oldest_event_that_is_kept() {
    let server = start_with(|config| config.limits.memory_bytes = 10_000).await;
    let mut ada = server.joined("Ada").await;
    for number in 0..200 {
        ada.say(&number.to_string(), 0);
        ada.next().await;
    }

    let read = page(&server, GetHistoryRequest::default()).await;
    let rooms = server.client().await.list_rooms(ListRoomsRequest {}).await;

    let first = read.events[0].sequence;
    assert!(first > 1, "something was dropped");
    let kept: Vec<u64> = (first..=201).collect();
    assert_eq!((sequences(&read.events), read.more), (kept, false));
    let rooms = rooms.expect("a list").into_inner().rooms;
    assert_eq!((rooms[0].first, rooms[0].head), (first, 201));
}

#[tokio::test]
async fn a_watch_that_cannot_go_on_where_it_ended_is_told_that_something_is_missing() {
    let server = start_with(|config| config.limits.memory_bytes = 10_000).await;
    let (told, stream) = watch(&server, WatchRequest::default()).await;
    drop(stream);
    let mut ada = server.joined("Ada").await;
    for number in 0..200 {
        ada.say(&number.to_string(), 0);
        ada.next().await;
    }

    let again = WatchRequest {
        resume: Some(Resume {
            epoch: told.welcome.expect("a welcome").epoch,
            after_sequence: 1,
        }),
        ..WatchRequest::default()
    };
    let (told, mut stream) = watch(&server, again).await;
    ada.say("live", 0);

    let welcome = told.welcome.expect("a welcome");
    assert_eq!((welcome.recovered, welcome.head), (false, 201));
    assert_eq!(next(&mut stream).await.msg_stream, "live");
}

#[tokio::test]
async fn lists_are_in_order_of_id_and_name() {
    let server = start().await;
    let mut streams = Vec::new();
    for (id, name, room) in [
        (9, "Ada", "lobby"),
        (3, "Bob", "lobby"),
        (5, "Eve", "attic"),
    ] {
        let joining = JoinMsgLeave {
            id,
            room: room.into(),
            ..join(name)
        };
        streams.push(server.enter(joining).await);
    }

    let rooms = server.client().await.list_rooms(ListRoomsRequest {}).await;

    assert_eq!(server.names("lobby").await, ["Bob", "Ada"]);
    let rooms = rooms.expect("a list").into_inner().rooms;
    let named: Vec<_> = rooms
        .iter()
        .map(|room| (room.name.as_str(), room.participants))
        .collect();
    assert_eq!(named, [("attic", 1), ("lobby", 2)]);
}
