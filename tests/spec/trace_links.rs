//! Who sees an event finds its trace: as an address of Jaeger's pages, or its id.

use std::collections::BTreeMap;

use chitchat::{
    config,
    telemetry::{Telemetry, trace_id},
    wire::v1::ServerMessage,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    collector::{Collector, Manner},
    piped,
    program::chitchat,
    server::{self, TestServer},
    tty::{self, Setup, Terminal},
};

/// A setting of the programs that are run.
const JAEGER: (&str, &str) = ("CHITCHAT_CLIENT__JAEGER", "http://localhost:16686/");

/// Makes every program that decides by the usual list believe that its terminal knows hyperlinks.
const KNOWS_HYPERLINKS: (&str, &str) = ("FORCE_HYPERLINK", "1");

const HYPERLINK: &str = "\u{1b}]8";

/// A server that traces, until the collector is dropped.
async fn traced() -> (TestServer, Collector, Telemetry) {
    let collector = Collector::start(Manner::Take).await;
    let telemetry = Telemetry::start(
        &config::Telemetry::default(),
        "chitchat-server",
        &collector.environment(),
    );
    let server = server::start_traced(|_| {}, telemetry.tracer()).await;
    (server, collector, telemetry)
}

/// The page of the trace of `event`, as [`JAEGER`] has it.
fn page(event: &ServerMessage) -> String {
    page_of(&id(event))
}

fn page_of(trace: &str) -> String {
    format!("http://localhost:16686/trace/{trace}?uiFind=lamport")
}

/// The id of the trace of `event`.
fn id(event: &ServerMessage) -> String {
    trace_id(&event.traceparent).expect("a trace").to_string()
}

fn ada(server: &TestServer, more: &[&str]) -> Setup {
    tty::chat(&server.url(), &[&["--name", "ada"], more].concat()).variable(JAEGER.0, JAEGER.1)
}

fn sent(terminal: &Terminal) -> String {
    String::from_utf8_lossy(&terminal.raw).into_owned()
}

#[tokio::test]
async fn trace_prints_the_page_of_the_last_event_shown() {
    let (server, _collector, _telemetry) = traced().await;
    let mut ada = ada(&server, &[]).start();
    ada.see_last("ada L=3>").await;

    ada.line("/trace").await;
    ada.see("The trace of L=2:").await;
    ada.line("hello").await;
    ada.see("[Server @ L=5] ada: hello").await;
    ada.line("/trace").await;
    ada.see("The trace of L=5:").await;
    let events = server.history("lobby").await;
    ada.see(&page(&events[1])).await;

    let pages: Vec<_> = ada
        .lines()
        .into_iter()
        .filter(|line| line.contains("http://"))
        .collect();
    assert_eq!(
        pages,
        [
            format!("  {}", page(&events[0])),
            format!("  {}", page(&events[1]))
        ]
    );
    assert_ne!(pages[0], pages[1]);
}

#[tokio::test]
async fn what_was_shown_can_be_asked_for_by_its_logical_time_the_past_included() {
    let (server, _collector, _telemetry) = traced().await;
    let mut bob = server.joined("bob").await;
    bob.say("one", 0);
    bob.say("two", 0);
    bob.take(2).await;
    let events = server.history("lobby").await;

    let mut ada = ada(&server, &["--backlog", "2"]).start();
    ada.see("ada joined").await;
    ada.line("/trace 2").await;
    ada.see(&page(&events[1])).await;
    ada.line("/trace L=3").await;
    ada.see(&page(&events[2])).await;
    ada.line("/trace 1").await;
    ada.see("Nothing at L=1 was shown here.").await;
    ada.line("/history 10").await;
    ada.see("  [Server @ L=1] bob: ").await;
    ada.line("/trace 1").await;
    ada.see(&page(&events[0])).await;
    ada.line("/trace 99").await;
    ada.see("Nothing at L=99 was shown here.").await;
    ada.line("/trace first").await;
    ada.see("/trace takes a logical time, such as 5 or L=5.")
        .await;
    ada.line("/help").await;
    ada.see("/trace [L]").await;

    let events = server.history("lobby").await;
    assert_eq!(events.len(), 4, "nothing of this was said: {events:?}");
}

#[tokio::test]
async fn a_refusal_has_a_trace_too() {
    let (server, collector, _telemetry) = traced().await;
    let mut ada = ada(&server, &[])
        // So that it is the server that refuses.
        .variable("CHITCHAT_LIMITS__TEXT_CHARS", "200")
        .start();
    ada.see_last("ada L=3>").await;
    ada.line(&"x".repeat(129)).await;
    ada.see("Limit is 128.").await;
    let spans = collector.spans(2).await;

    let refusal = spans
        .iter()
        .find(|span| span.text("chat.event.type") == Some("refusal"))
        .expect("an order step of it");
    let trace: String = (refusal.raw.trace_id.iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ada.line("/trace").await;
    ada.see("The trace of L=5:").await;
    ada.see(&page_of(&trace)).await;
    ada.line("/trace 2").await;
    ada.see("The trace of L=2:").await;
    ada.line("/trace 5").await;
    ada.until("the page again", |lines| {
        let page = page_of(&trace);
        lines.iter().filter(|line| line.contains(&page)).count() == 2
    })
    .await;
}

#[tokio::test]
async fn without_the_address_of_jaeger_trace_prints_the_id_and_what_makes_it_an_address() {
    let (server, _collector, _telemetry) = traced().await;
    let mut ada = tty::chat(&server.url(), &["--name", "ada"]).start();
    ada.see_last("ada L=3>").await;

    ada.line("/trace").await;

    let id = id(&server.history("lobby").await[0]);
    ada.see(&format!(
        "L=2: trace {id} (client.jaeger makes it an address)"
    ))
    .await;
}

#[tokio::test]
async fn an_event_without_a_trace_is_said_to_have_none() {
    let server = server::start().await;
    let mut ada = ada(&server, &[]).start();
    ada.see_last("ada L=3>").await;

    ada.line("/trace").await;

    ada.see("L=2 has no trace: the server recorded none.").await;
}

#[tokio::test]
async fn an_address_is_a_hyperlink_where_the_terminal_is_known_to_make_one_and_text_everywhere() {
    let (server, _collector, _telemetry) = traced().await;
    let known = |setup: Setup| setup.variable(KNOWS_HYPERLINKS.0, KNOWS_HYPERLINKS.1);
    let cases = [
        (known(ada(&server, &[])), true),
        (ada(&server, &[]).variable("VTE_VERSION", "7600"), true),
        (ada(&server, &[]), false),
        (known(ada(&server, &[])).variable("NO_COLOR", "1"), false),
        (known(ada(&server, &[])).variable("TERM", "dumb"), false),
        (known(ada(&server, &[])).through_a_pipe(), false),
    ];
    for (number, (setup, wanted)) in cases.into_iter().enumerate() {
        let mut ada = setup.start();
        ada.see("ada joined").await;
        ada.line("/trace").await;
        ada.see("The trace of L=").await;
        let events = server.history("lobby").await;
        let page = page(events.last().expect("her JOIN"));
        ada.see(&page).await;
        ada.line("exit").await;
        assert_eq!(ada.ended().await, Some(0), "case {number}");

        let sent = sent(&ada);
        let linked = format!("\u{1b}]8;;{page}\u{1b}\\{page}\u{1b}]8;;\u{1b}\\");
        assert_eq!(sent.contains(&linked), wanted, "case {number}: {sent}");
        assert_eq!(sent.contains(HYPERLINK), wanted, "case {number}: {sent}");
    }
}

#[tokio::test]
async fn history_prints_below_each_event_where_its_trace_is() {
    let (server, _collector, _telemetry) = traced().await;
    let mut bob = server.joined("bob").await;
    // Not to be mistaken for the address of its own trace.
    bob.say("http://localhost:16686/trace/1", 0);
    bob.next().await;
    let events = server.history("lobby").await;
    let history = async |jaeger: &str| {
        chitchat(["history", "--traces", "--server", &server.url()])
            .variable(JAEGER.0, jaeger)
            .variable(KNOWS_HYPERLINKS.0, KNOWS_HYPERLINKS.1)
            .run()
            .await
    };

    let linked = history(JAEGER.1).await;
    assert_eq!(
        linked.stdout,
        format!(
            "[Server @ L=1] bob: Participant bob joined Chit Chat at logical time L=1\n  {}\n\
             [Server @ L=2] bob: http://localhost:16686/trace/1\n  {}\n",
            page(&events[0]),
            page(&events[1])
        )
    );
    let named = history("").await;
    let traces: Vec<_> = named.stdout.lines().skip(1).step_by(2).collect();
    assert_eq!(
        traces,
        [
            format!("  trace {}", id(&events[0])),
            format!("  trace {}", id(&events[1]))
        ]
    );
    let both = chitchat(["history", "--traces", "--json", "--server", &server.url()]);
    assert_eq!(both.run().await.code, 2, "JSON has it anyway");
}

#[tokio::test]
async fn history_says_of_an_event_without_a_trace_that_it_has_none() {
    let server = server::start().await;
    let _bob = server.joined("bob").await;

    let read = chitchat(["history", "--traces", "--server", &server.url()]).run();

    assert_eq!(
        read.await.stdout,
        "[Server @ L=1] bob: Participant bob joined Chit Chat at logical time L=1\n  no trace\n"
    );
}

#[tokio::test]
async fn in_json_each_event_has_the_id_of_its_trace_wherever_it_is_read() {
    let (server, _collector, _telemetry) = traced().await;
    let url = server.url();
    let mut bob = server.joined("bob").await;
    bob.say("one", 0);
    bob.next().await;

    let mut ada = piped::start(&["chat", "--json", "--name", "ada", "--server", &url]);
    let heard = [ada.next().await, ada.next().await, ada.next().await];
    let mut follower = piped::start(&["history", "--json", "--follow", "--server", &url]);
    let followed = [
        follower.next().await,
        follower.next().await,
        follower.next().await,
    ];
    follower.signal(Signal::INT);
    let read = chitchat(["history", "--json", "--server", &url])
        .run()
        .await;

    let events = server.history("lobby").await;
    let wanted: BTreeMap<u64, String> = events
        .iter()
        .map(|event| (event.sequence, id(event)))
        .collect();
    assert_eq!(traces(heard.iter().map(String::as_str)), wanted, "chat");
    assert_eq!(
        traces(followed.iter().map(String::as_str)),
        wanted,
        "history --follow"
    );
    assert_eq!(traces(read.stdout.lines()), wanted, "history");
}

/// By sequence.
fn traces<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<u64, String> {
    let of = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let trace = event["trace_id"].as_str().expect("a trace");
        (event["sequence"].as_u64().unwrap(), trace.to_owned())
    };
    lines.map(of).collect()
}
