//! Every event of a real conversation is one trace: from the session that sent it, through the server, to each session
//! that received it.

use std::collections::{BTreeMap, BTreeSet};

use chitchat::{config, telemetry::Telemetry};

use crate::support::{
    collector::{Collector, Manner, Span, assert_lamport_rises},
    participant::{Participant, stop},
    proxy::Proxy,
    server,
};

async fn join(server: String, collector: &Collector, name: &str) -> Participant {
    Participant::join(server, telemetry(collector, name), name).await
}

fn telemetry(collector: &Collector, name: &str) -> Telemetry {
    let config = config::Telemetry {
        text: true,
        ..config::Telemetry::default()
    };
    Telemetry::start(&config, name, &collector.environment())
}

fn by_trace(spans: &[Span]) -> BTreeMap<Vec<u8>, Vec<&Span>> {
    let mut traces: BTreeMap<_, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        let trace = traces.entry(span.raw.trace_id.clone()).or_default();
        trace.push(span);
    }
    traces
}

/// What one trace shows: its spans as `service: name @ logical time`.
fn shown(trace: &[&Span]) -> BTreeSet<String> {
    let time = |span: &Span| span.int("lamport.time").expect("every step has a time");
    trace
        .iter()
        .map(|span| format!("{}: {} @ {}", span.service(), span.name(), time(span)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_a_conversation_is_one_trace_with_the_logical_time_of_each_step() {
    let collector = Collector::start(Manner::Take).await;
    let traced_server = telemetry(&collector, "chitchat-server");
    let server = server::start_traced(|_| {}, traced_server.tracer()).await;

    let mut ada = join(server.url(), &collector, "Ada").await;
    ada.hears("Ada joined").await;
    let mut bob = join(server.url(), &collector, "Bob").await;
    bob.hears("Bob joined").await;
    ada.hears("Bob joined").await;
    ada.say("hello").await;
    for one in [&mut ada, &mut bob] {
        one.hears("hello").await;
    }
    bob.say(&"x".repeat(129)).await;
    bob.hears("Limit is 128").await;
    bob.crash().await;
    ada.hears("Bob left").await;
    ada.leave().await;
    server.stop().await;
    stop(traced_server).await;

    let spans = collector.received();
    assert_lamport_rises(&spans);
    let mut traces: Vec<_> = by_trace(&spans).into_values().map(|t| shown(&t)).collect();
    traces.sort_by_key(|trace| {
        let order = trace
            .iter()
            .find(|step| step.starts_with("chitchat-server"));
        let (_, time) = order
            .and_then(|step| step.split_once("@ "))
            .expect("a time");
        time.parse::<i64>().expect("a number")
    });
    let expected = [
        // Ada's clock: joins at 1; the service 2; hears it at 3.
        vec![
            "Ada: join lobby @ 1",
            "chitchat-server: order lobby @ 2",
            "Ada: deliver lobby @ 3",
        ],
        vec![
            "Bob: join lobby @ 1",
            "chitchat-server: order lobby @ 3",
            "Bob: deliver lobby @ 4",
            "Ada: deliver lobby @ 4",
        ],
        vec![
            "Ada: send lobby @ 5",
            "chitchat-server: order lobby @ 6",
            "Ada: deliver lobby @ 7",
            "Bob: deliver lobby @ 7",
        ],
        // Told to Bob alone.
        vec![
            "Bob: send lobby @ 8",
            "chitchat-server: order lobby @ 9",
            "Bob: deliver lobby @ 10",
        ],
        // A crash begins at the server.
        vec![
            "chitchat-server: order lobby @ 10",
            "Ada: deliver lobby @ 11",
        ],
        vec!["Ada: leave lobby @ 12", "chitchat-server: order lobby @ 13"],
    ];
    let expected: Vec<BTreeSet<String>> = expected
        .iter()
        .map(|trace| trace.iter().map(|step| step.to_lowercase()).collect())
        .collect();
    assert_eq!(traces, expected);
}

/// From times alone nobody could tell a replay from a slow reader, nor a resume in which nothing was missed from nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_came_back_says_so_and_which_deliveries_were_replayed() {
    let collector = Collector::start(Manner::Take).await;
    let traced_server = telemetry(&collector, "chitchat-server");
    let server = server::start_traced(|_| {}, traced_server.tracer()).await;
    let network = Proxy::start(server.address()).await;
    let mut ada = join(network.url(), &collector, "ada").await;
    ada.hears("ada joined").await;
    let mut bob = join(server.url(), &collector, "bob").await;
    ada.hears("bob joined").await;

    network.cut_for_long();
    ada.is_cut_off().await;
    for text in ["one", "two"] {
        bob.say(text).await;
        bob.hears(text).await;
    }
    network.mend();
    ada.hears("two").await;
    bob.say("three").await;
    ada.hears("three").await;
    network.cut();
    ada.is_cut_off().await;
    ada.say("four").await;
    ada.hears("four").await;
    ada.leave().await;
    bob.leave().await;
    server.stop().await;
    stop(traced_server).await;

    let spans = collector.received();
    let mut of_ada: Vec<&Span> = spans
        .iter()
        .filter(|span| span.service() == "ada")
        .collect();
    of_ada.sort_by_key(|span| span.int("chat.step.number"));
    let told: Vec<_> = of_ada
        .iter()
        .map(|span| {
            (
                span.name(),
                span.text("chat.event.type").unwrap(),
                span.int("chat.session.resumes").unwrap_or(0),
                span.flag("chat.event.replayed"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("join lobby", "join", 0, false),
            ("deliver lobby", "join", 0, false),
            ("deliver lobby", "join", 0, false),
            ("deliver lobby", "message", 1, true),
            ("deliver lobby", "message", 1, true),
            ("deliver lobby", "message", 1, false),
            ("send lobby", "message", 2, false),
            ("deliver lobby", "message", 2, false),
            ("leave lobby", "leave", 2, false),
        ]
    );
    let others = spans.iter().filter(|span| span.service() != "ada");
    for span in others {
        assert_eq!(span.int("chat.session.resumes"), None, "{span:?}");
        assert!(!span.flag("chat.event.replayed"), "{span:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_does_not_notice_what_the_collector_does() {
    for manner in [Manner::Refuse, Manner::Hang] {
        let collector = Collector::start(manner).await;
        let traced_server = telemetry(&collector, "chitchat-server");
        let server = server::start_traced(|_| {}, traced_server.tracer()).await;
        let mut ada = join(server.url(), &collector, "Ada").await;
        let mut bob = join(server.url(), &collector, "Bob").await;
        for n in 0..200 {
            ada.say(&format!("message {n} of 200")).await;
        }
        for one in [&mut ada, &mut bob] {
            one.hears("message 199 of 200").await;
        }
        assert_eq!(server.history("lobby").await.len(), 202);
        server.stop().await;
    }
}
