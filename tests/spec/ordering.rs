//! One order: what participants read live is what history says, with the same logical times, however fast it goes.

use chitchat::wire::v1::{EventType, ServerMessage};
use tokio::task::{AbortHandle, JoinSet};
use tonic::Status;

use crate::support::{
    raw::{CHAT, Raw, join, said, sequences},
    server::{TestServer, start, start_with},
};

const NAMES: [&str; 3] = ["Ada", "Bob", "Eve"];
const MESSAGES: usize = 1_000;

/// What one participant read, its own JOIN first, and how its stream ended.
struct Heard {
    name: &'static str,
    messages: Vec<ServerMessage>,
    ended: Result<(), Status>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_clients_at_full_speed_read_the_same_events_in_the_same_order_with_the_same_logical_times()
 {
    for _ in 0..20 {
        let server = start().await;

        let heard = everybody_talks_and_leaves(&server).await;
        let history = server.history("lobby").await;

        assert_is_dense_and_rises(&history);
        assert_eq!(history.len(), NAMES.len() * (MESSAGES + 2));
        for one in &heard {
            assert!(one.ended.is_ok(), "{}: {:?}", one.name, one.ended);
            assert_same(&one.messages, presence(&history, one.name));
            assert_eq!(said_by(one.name, &history), numbered(), "{}", one.name);
        }
        server.stop().await;
    }
}

/// Each sends all its messages and its LEAVE without reading one, then reads.
async fn everybody_talks_and_leaves(server: &TestServer) -> Vec<Heard> {
    let mut joined = Vec::new();
    for name in NAMES {
        let mut raw = server.chat().await;
        joined.push((name, raw.join(name).await, raw));
    }
    let mut talking = JoinSet::new();
    for (name, own, mut raw) in joined {
        talking.spawn(async move {
            for (tick, text) in (2..).zip(numbered()) {
                raw.say(&text, tick);
            }
            raw.leave(0);
            let (rest, ended) = raw.rest().await;
            let mut messages = vec![own];
            messages.extend(rest);
            // On its own JOIN alone it is told more than everybody is.
            messages[0].welcome = None;
            Heard {
                name,
                messages,
                ended,
            }
        });
    }
    talking.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaver_reads_everything_before_its_leave_and_not_the_leave_itself() {
    let server = start_with(|config| config.limits.rate = 0).await;
    let talk = talk_without_end(server.joined("Talker").await);

    let mut visits = Vec::new();
    for visit in 0..100 {
        let name = format!("Visitor {visit}");
        let mut raw = server.joined(&name).await;
        raw.leave(0);
        let (read, ended) = raw.rest().await;
        assert!(ended.is_ok(), "{ended:?}");
        visits.push((name, read));
    }
    talk.abort();

    let history = server.history("lobby").await;
    for (name, read) in visits {
        assert_same(&read, &presence(&history, &name)[1..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_stands_between_the_event_before_it_and_the_event_after_it() {
    let server = start_with(|config| config.limits.rate = 0).await;
    let talk = talk_without_end(server.joined("Talker").await);
    let mut careless = server.joined("Careless").await;

    for _ in 0..500 {
        careless.say("", 0);
        careless.say("said", 0);
    }
    careless.leave(0);
    let (read, ended) = careless.rest().await;
    talk.abort();

    assert!(ended.is_ok(), "{ended:?}");
    let refusals = read.iter().filter(|one| one.notice.is_some()).count();
    assert_eq!(refusals, 500);
    assert_rises(&read);
}

/// Says one thing after the other until it is aborted, and reads what comes.
fn talk_without_end(mut talker: Raw) -> AbortHandle {
    let talking = tokio::spawn(async move {
        for round in 0_u64.. {
            let last = round.to_string();
            for _ in 0..20 {
                talker.say("on and on", 0);
            }
            talker.say(&last, 0);
            let read = talker.read_to(&last).await;
            assert!(read.iter().all(|one| one.notice.is_none()), "not for it");
        }
    });
    talking.abort_handle()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_reads_its_own_join_first_and_once() {
    let server = start().await;
    let mut entering = JoinSet::new();
    for number in 0..100 {
        let channel = server.connect().await;
        entering.spawn(async move {
            let name = format!("Guest {number}");
            // The JOIN is there before the server has answered with headers.
            let mut raw = Raw::open_with(channel, CHAT, [join(&name), said("here", 1)]).await;
            let read = raw.read_to("here").await;
            (name, raw, read)
        });
    }

    let guests = entering.join_all().await;

    for (name, _, read) in guests {
        let own: Vec<_> = read
            .iter()
            .filter(|one| one.sender_name == name && one.r#type() == EventType::Join)
            .collect();
        assert_eq!(own, [&read[0]]);
        assert!(read[0].welcome.is_some(), "{:?}", read[0]);
    }
}

#[tokio::test]
async fn all_rooms_share_one_logical_time_and_each_has_its_own_sequence() {
    let server = start().await;
    let mut lobby = server.joined("Ada").await;
    let mut attic = server.chat().await;
    let mut entering = join("Ada");
    entering.room = "attic".into();
    attic.send(entering);
    attic.next().await;

    let mut read = Vec::new();
    for turn in 0..4 {
        let raw = if turn % 2 == 0 {
            &mut lobby
        } else {
            &mut attic
        };
        raw.say("hello", 0);
        read.push(raw.next().await);
    }

    assert_rises(&read);
    assert_eq!(sequences(&read), [2, 2, 3, 3]);
}

fn numbered() -> Vec<String> {
    (0..MESSAGES).map(|number| number.to_string()).collect()
}

fn said_by(name: &str, history: &[ServerMessage]) -> Vec<String> {
    history
        .iter()
        .filter(|event| event.sender_name == name && event.r#type() == EventType::Message)
        .map(|event| event.msg_stream.clone())
        .collect()
}

/// From the JOIN of `name` up to its LEAVE, which is not included.
fn presence<'a>(history: &'a [ServerMessage], name: &str) -> &'a [ServerMessage] {
    let place = |kind| {
        let own = |event: &ServerMessage| event.sender_name == name && event.r#type() == kind;
        history.iter().position(own).expect("it came and left")
    };
    &history[place(EventType::Join)..place(EventType::Leave)]
}

fn assert_is_dense_and_rises(history: &[ServerMessage]) {
    let dense: Vec<u64> = (1..=history.len() as u64).collect();
    assert_eq!(sequences(history), dense);
    assert_rises(history);
}

/// Logical time strictly rises.
fn assert_rises(messages: &[ServerMessage]) {
    for pair in messages.windows(2) {
        assert!(pair[0].timestamp < pair[1].timestamp, "{pair:#?}");
    }
}

/// Like `assert_eq`, with a message that a person can read.
fn assert_same(read: &[ServerMessage], history: &[ServerMessage]) {
    for (read, event) in read.iter().zip(history) {
        assert_eq!(read, event);
    }
    assert_eq!(read.len(), history.len());
}
