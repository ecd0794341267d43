//! The session of the report's appendix, played as the original's clients play it: on the original's path, with clocks
//! that are never merged and ids of their own. The logical times are the report's.

use chitchat::wire::v1::{EventType, JoinMsgLeave, ServerMessage};

use crate::support::{
    raw::{Raw, join, said},
    server::{TestServer, start},
};

/// The message that the report's server refused: 354 characters, with the report's own spelling `adistributed`.
const TOO_LONG: &str = "In this assignment you will design and implement Chit Chat, adistributed chat service where \
     participants can join, exchange messages, and leave the conversation at any time. Chit Chat is a lively \
     playground for exploring the essence of distributed systems: communication, coordination, and the ordering of \
     events in a world without a single shared clock.";

/// One of the original's clients: it counts its own messages and never merges.
struct Original {
    raw: Raw,
    clock: i64,
}

impl Original {
    async fn join(server: &TestServer, name: &str, id: i32) -> Self {
        let raw = server.original_chat().await;
        raw.send(JoinMsgLeave {
            id,
            timestamp: 0,
            // The original reads the name with its newline and sends both.
            ..join(&format!("{name}\n"))
        });
        Self { raw, clock: 0 }
    }

    fn say(&mut self, text: &str) {
        self.clock += 1;
        self.raw.send(said(text, self.clock));
    }

    fn leave(&mut self) {
        self.clock += 1;
        self.raw.leave(self.clock);
    }

    async fn hears(&mut self, timestamp: i64, sender: &str, text: &str) -> ServerMessage {
        let heard = self.raw.next().await;
        let told = (
            heard.timestamp,
            heard.sender_name.as_str(),
            heard.msg_stream.as_str(),
        );
        assert_eq!(told, (timestamp, sender, text));
        heard
    }
}

#[tokio::test]
async fn the_report_s_session_has_the_report_s_logical_times() {
    assert_eq!(TOO_LONG.chars().count(), 354);
    let server = start().await;

    let mut alex = Original::join(&server, "Alex", 3300).await;
    let joined = alex
        .hears(
            1,
            "Alex",
            "Participant Alex joined Chit Chat at logical time L=1",
        )
        .await;
    assert_eq!((joined.sender_id, joined.r#type()), (3300, EventType::Join));
    assert_eq!(joined.welcome, None, "the original knows no welcome");

    alex.say("Hello World!");
    alex.hears(2, "Alex", "Hello World!").await;

    let mut aske = Original::join(&server, "Aske", 4800).await;
    for client in [&mut alex, &mut aske] {
        client
            .hears(
                3,
                "Aske",
                "Participant Aske joined Chit Chat at logical time L=3",
            )
            .await;
    }
    aske.say("Hello Alex");
    for client in [&mut alex, &mut aske] {
        client.hears(4, "Aske", "Hello Alex").await;
    }
    alex.say("I will try to type a really long message");
    for client in [&mut alex, &mut aske] {
        client
            .hears(5, "Alex", "I will try to type a really long message")
            .await;
    }

    alex.say(TOO_LONG);
    let refusal = alex
        .hears(6, "Server", "Message too long (354 chars). Limit is 128.")
        .await;
    assert_eq!((refusal.sender_id, refusal.sequence), (0, 0));

    aske.say("I could not see the msg");
    for client in [&mut alex, &mut aske] {
        client.hears(7, "Aske", "I could not see the msg").await;
    }
    aske.say("Now I will leave the chat");
    for client in [&mut alex, &mut aske] {
        client.hears(8, "Aske", "Now I will leave the chat").await;
    }

    let mut bob = Original::join(&server, "Bob", 9400).await;
    for client in [&mut alex, &mut aske, &mut bob] {
        client
            .hears(
                9,
                "Bob",
                "Participant Bob joined Chit Chat at logical time L=9",
            )
            .await;
    }
    aske.say("exitexit");
    for client in [&mut alex, &mut aske, &mut bob] {
        client.hears(10, "Aske", "exitexit").await;
    }
    aske.leave();
    for client in [&mut alex, &mut bob] {
        client
            .hears(
                11,
                "Aske",
                "Participant Aske left Chit Chat at logical time L=11",
            )
            .await;
    }
    let (rest, ended) = aske.raw.rest().await;
    assert!(rest.is_empty() && ended.is_ok(), "{rest:?} {ended:?}");

    for (timestamp, text) in [
        (12, "Can I send a message now."),
        (13, "Oh, great. It seems to work now."),
    ] {
        bob.say(text);
        for client in [&mut alex, &mut bob] {
            client.hears(timestamp, "Bob", text).await;
        }
    }
    // The original broadcast the empty line; here it is refused, to Bob alone.
    bob.say("");
    bob.hears(14, "Server", "Message is empty.").await;

    // Bob's process is gone without a word. The original never told the others.
    drop(bob);
    alex.hears(
        15,
        "Bob",
        "Participant Bob left Chit Chat at logical time L=15",
    )
    .await;

    for (timestamp, text) in [(16, "What about now"), (17, "I am alone"), (18, "goodbye")] {
        alex.say(text);
        alex.hears(timestamp, "Alex", text).await;
    }
    alex.leave();
    let (rest, ended) = alex.raw.rest().await;
    assert!(rest.is_empty() && ended.is_ok(), "{rest:?} {ended:?}");

    let times: Vec<_> = server
        .history("lobby")
        .await
        .iter()
        .map(|event| event.timestamp)
        .collect();
    assert_eq!(
        times,
        [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19]
    );
    server.stop().await;
}
