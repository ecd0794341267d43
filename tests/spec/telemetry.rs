//! One event is one trace, `send` → `order` → `deliver`; every span carries the logical time of its step; nothing is
//! lost at the end of a process; and whatever the collector does, chat goes on.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use chitchat::{
    config,
    telemetry::{Environment, EventName, Facts, SHUTDOWN_TIMEOUT, Sending, Telemetry},
    wire::v1::JoinMsgLeave,
};
use tokio::net::TcpStream;

use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};

use crate::support::{
    collector::{Collector, Manner, Span, assert_lamport_rises, only, read_lines, reserve},
    raw, server,
    traced::{self, MESSAGE, Traced, one_trace},
};

/// Two participants and a server, each a process of its own to the collector.
struct House {
    collector: Collector,
    alex: Telemetry,
    server: Telemetry,
    bob: Telemetry,
}

impl House {
    async fn start(config: config::Telemetry) -> Self {
        let collector = Collector::start(Manner::Take).await;
        let environment = collector.environment();
        let start = |service| Telemetry::start(&config, service, &environment);
        Self {
            alex: start("alex"),
            server: start("chitchat-server"),
            bob: start("bob"),
            collector,
        }
    }

    /// Alex says hello at 5, the server's clock was at 7, Bob's at 3.
    fn alex_says_hello(&self) {
        let send = self.alex.tracer().send(Sending::Message, "lobby");
        let sent = send.traceparent();
        let message = Facts {
            message_id: "m1",
            text: "Hello World!",
            ..MESSAGE
        };
        send.end(&Facts {
            lamport_time: 5,
            ..message
        });

        let order = self.server.tracer().order(&sent, "lobby");
        let ordered = order.traceparent();
        let event = Facts {
            sequence: 2,
            epoch: "e1",
            ..message
        };
        order.end(&Facts {
            lamport_time: 8,
            lamport_message_time: Some(5),
            process_id: "server",
            recipients: Some(2),
            ..event
        });

        for (telemetry, id, time) in [(&self.alex, "3300", 9), (&self.bob, "9400", 9)] {
            let deliver = telemetry.tracer().deliver(&ordered, "lobby");
            deliver.end(&Facts {
                lamport_time: time,
                lamport_message_time: Some(8),
                process_id: id,
                ..event
            });
        }
    }

    /// Everybody goes; what arrived in all.
    fn stop(self) -> Vec<Span> {
        for telemetry in [self.alex, self.server, self.bob] {
            telemetry.shutdown();
        }
        self.collector.received()
    }
}

fn with_text() -> config::Telemetry {
    config::Telemetry {
        text: true,
        ..config::Telemetry::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_is_one_trace_from_its_sender_through_the_server_to_each_receiver() {
    let house = House::start(with_text()).await;

    house.alex_says_hello();
    let spans = house.stop();

    assert_eq!(spans.len(), 4, "{spans:#?}");
    let send = only(&spans, "alex", "send lobby");
    let order = only(&spans, "chitchat-server", "order lobby");
    assert!(send.is_root());
    assert!(order.is_child_of(send));
    for receiver in ["alex", "bob"] {
        let deliver = only(&spans, receiver, "deliver lobby");
        assert!(deliver.is_child_of(order));
        assert_eq!(deliver.kind(), SpanKind::Consumer);
    }
    assert_eq!(send.kind(), SpanKind::Producer);
    assert_eq!(order.kind(), SpanKind::Consumer);
    assert_lamport_rises(&spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_say_what_happened_in_the_conventions_words_and_in_integers() {
    let house = House::start(with_text()).await;

    house.alex_says_hello();
    let spans = house.stop();

    let order = only(&spans, "chitchat-server", "order lobby");
    for (name, value) in [
        ("chat.event.type", "message"),
        ("chat.participant.name", "Alex"),
        ("chat.history.epoch", "e1"),
        ("chat.message.text", "Hello World!"),
        ("lamport.process.id", "server"),
        ("messaging.client.id", "server"),
        ("messaging.system", "chitchat"),
        ("messaging.operation.name", "order"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "lobby"),
        ("messaging.message.id", "m1"),
    ] {
        assert_eq!(order.text(name), Some(value), "{name}");
    }
    for (name, value) in [
        ("lamport.time", 8),
        ("lamport.message.time", 5),
        ("chat.room.sequence", 2),
        ("chat.broadcast.recipients", 2),
        ("chat.step.number", 1),
    ] {
        assert_eq!(order.int(name), Some(value), "{name}");
    }
    assert_eq!(order.attributes.len(), 16, "{:?}", order.attributes);

    let send = only(&spans, "alex", "send lobby");
    assert_eq!(send.text("messaging.operation.name"), Some("send"));
    assert_eq!(send.text("messaging.operation.type"), Some("send"));
    for left_out in [
        "lamport.message.time",
        "chat.room.sequence",
        "chat.history.epoch",
        "chat.broadcast.recipients",
    ] {
        assert!(!send.attributes.contains_key(left_out), "{left_out}");
    }
    assert!(
        spans
            .iter()
            .all(|span| span.raw.end_time_unix_nano >= span.raw.start_time_unix_nano)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_leaves_can_be_told_from_messages_by_the_name_of_the_root() {
    let house = House::start(with_text()).await;

    for (sending, event) in [
        (Sending::Join, EventName::Join),
        (Sending::Leave, EventName::Leave),
    ] {
        house
            .alex
            .tracer()
            .send(sending, "lobby")
            .end(&Facts { event, ..MESSAGE });
    }
    let spans = house.stop();

    let join = only(&spans, "alex", "join lobby");
    assert_eq!(join.text("chat.event.type"), Some("join"));
    assert_eq!(join.text("messaging.operation.name"), Some("join"));
    assert_eq!(
        only(&spans, "alex", "leave lobby").text("chat.event.type"),
        Some("leave")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_error_at_the_server_and_delivered_without_one() {
    let house = House::start(with_text()).await;
    let words = "Message too long (354 chars). Limit is 128.";
    let refusal = Facts {
        event: EventName::Refusal,
        text: words,
        ..MESSAGE
    };

    let order = house.server.tracer().order("", "lobby");
    let deliver = house.alex.tracer().deliver(&order.traceparent(), "lobby");
    order.end(&Facts {
        error: Some("TOO_LONG"),
        ..refusal
    });
    deliver.end(&Facts {
        lamport_time: 2,
        ..refusal
    });
    let spans = house.stop();

    let order = only(&spans, "chitchat-server", "order lobby");
    let status = order.raw.status.clone().unwrap();
    assert_eq!(
        (status.code(), status.message.as_str()),
        (StatusCode::Error, words)
    );
    assert_eq!(order.text("error.type"), Some("TOO_LONG"));
    let deliver = only(&spans, "alex", "deliver lobby");
    assert_eq!(
        deliver.raw.status.clone().unwrap().code(),
        StatusCode::Unset
    );
    for span in &spans {
        assert_eq!(span.text("chat.event.type"), Some("refusal"));
        assert_eq!(
            span.text("chat.message.text"),
            None,
            "a notice is nothing that was said"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departure_that_the_server_announces_itself_is_a_root() {
    let house = House::start(with_text()).await;

    let order = house.server.tracer().order("", "lobby");
    let deliver = house.alex.tracer().deliver(&order.traceparent(), "lobby");
    order.end(&Facts {
        event: EventName::Leave,
        lamport_time: 15,
        ..MESSAGE
    });
    deliver.end(&Facts {
        event: EventName::Leave,
        lamport_time: 16,
        lamport_message_time: Some(15),
        ..MESSAGE
    });
    let spans = house.stop();

    let order = only(&spans, "chitchat-server", "order lobby");
    assert!(order.is_root());
    assert_eq!(order.int("lamport.message.time"), None);
    assert!(only(&spans, "alex", "deliver lobby").is_child_of(order));
    assert_lamport_rises(&spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_say_is_in_no_span_unless_allowed() {
    let house = House::start(config::Telemetry::default()).await;

    house.alex_says_hello();
    let order = house.server.tracer().order("", "quiet");
    order.end(&Facts {
        event: EventName::Refusal,
        error: Some("TOO_LONG"),
        text: "Hello World!",
        ..MESSAGE
    });
    let spans = house.stop();

    assert_eq!(spans.len(), 5);
    assert!(!format!("{spans:?}").contains("Hello"), "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_fill_the_queue_with_one_endless_text() {
    let house = House::start(with_text()).await;

    let endless = "€".repeat(1 << 20);
    let step = house.bob.tracer().send(Sending::Message, &endless);
    step.end(&Facts {
        text: &endless,
        participant: &endless,
        message_id: &endless,
        epoch: &endless,
        ..MESSAGE
    });
    let spans = house.stop();

    assert_eq!(
        spans[0].text("chat.message.text").unwrap().len(),
        1023,
        "1024 would cut a character in two"
    );
    assert!(format!("{spans:?}").len() < 64 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_never_ended_leaves_no_span() {
    let house = House::start(with_text()).await;

    let tracer = house.server.tracer();
    drop(tracer.order("", "lobby"));
    drop(tracer.send(Sending::Message, "lobby"));
    tracer.order("", "other").end(&MESSAGE);
    let spans = house.stop();

    assert_eq!(spans.len(), 1);
    only(&spans, "chitchat-server", "order other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_does_not_sample_is_obeyed_everywhere() {
    let house = House::start(with_text()).await;
    let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    let order = house.server.tracer().order(unsampled, "lobby");
    let deliver = house.bob.tracer().deliver(unsampled, "lobby");
    assert_eq!(order.traceparent(), "", "so the receivers make no spans");
    order.end(&MESSAGE);
    deliver.end(&MESSAGE);

    assert_eq!(house.stop(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_traceparent_is_none() {
    let house = House::start(with_text()).await;
    let bad = [
        "",
        "nonsense",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00-é",
    ];

    for traceparent in bad {
        house
            .server
            .tracer()
            .order(traceparent, "lobby")
            .end(&MESSAGE);
        house
            .bob
            .tracer()
            .deliver(traceparent, "lobby")
            .end(&MESSAGE);
    }
    let spans = house.stop();

    assert_eq!(spans.len(), bad.len(), "the server's alone");
    assert!(
        spans
            .iter()
            .all(|span| span.is_root() && span.service() == "chitchat-server")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traceparent_is_known_as_soon_as_the_step_begins() {
    let house = House::start(with_text()).await;

    let step = house.alex.tracer().send(Sending::Message, "lobby");
    let traceparent = step.traceparent();
    step.end(&MESSAGE);
    let spans = house.stop();

    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let raw = &only(&spans, "alex", "send lobby").raw;
    assert_eq!(
        traceparent,
        format!("00-{}-{}-01", hex(&raw.trace_id), hex(&raw.span_id))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_sent_while_the_process_lives() {
    let house = House::start(with_text()).await;

    house.alex_says_hello();

    assert_lamport_rises(&house.collector.spans(4).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_continues_the_senders_trace_and_hands_it_on_to_everybody() {
    let house = House::start(with_text()).await;
    let server = server::start_traced(|_| {}, house.server.tracer()).await;
    let mut alex = server.joined("Alex").await;
    let mut bob = server.joined("Bob").await;
    alex.next().await;

    let send = house.alex.tracer().send(Sending::Message, "lobby");
    let traceparent = send.traceparent();
    alex.send(JoinMsgLeave {
        traceparent: traceparent.clone(),
        ..raw::said("Hello Bob", 40)
    });
    send.end(&Facts {
        lamport_time: 40,
        ..MESSAGE
    });
    let (own, heard) = (alex.next().await, bob.next().await);
    house
        .bob
        .tracer()
        .deliver(&heard.traceparent, "lobby")
        .end(&Facts {
            lamport_time: heard.timestamp + 1,
            lamport_message_time: Some(heard.timestamp),
            ..MESSAGE
        });
    server.stop().await;
    let spans = house.stop();

    assert_eq!(own.traceparent, heard.traceparent);
    let send = only(&spans, "alex", "send lobby");
    let deliver = only(&spans, "bob", "deliver lobby");
    let mut orders = spans
        .iter()
        .filter(|span| span.service() == "chitchat-server");
    let order = orders
        .find(|span| span.is_child_of(send))
        .expect("the server's part");
    assert!(deliver.is_child_of(order));
    assert_eq!(order.int("lamport.time"), Some(41));
    assert_eq!(order.int("lamport.message.time"), Some(40));
    assert_eq!(order.int("chat.broadcast.recipients"), Some(2));
    assert_eq!(order.text("chat.message.text"), Some("Hello Bob"));
    assert_lamport_rises(&spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_a_process_are_numbered_without_a_gap_so_that_a_lost_span_shows() {
    let collector = Collector::start(Manner::Take).await;
    let telemetry = Telemetry::start(&with_text(), "alex", &collector.environment());
    let tracer = telemetry.tracer();
    let message = Facts {
        lamport_time: 1,
        ..Facts::default()
    };
    for _ in 0..3 {
        tracer.send(Sending::Message, "lobby").end(&message);
        // One that never happened has no number.
        drop(tracer.send(Sending::Message, "lobby"));
    }
    let spans = collector.spans(3).await;
    telemetry.shutdown();
    let numbers: Vec<_> = spans
        .iter()
        .map(|span| span.int("chat.step.number"))
        .collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_moves_the_wall_times_of_spans_and_nothing_else() {
    const OFF: Duration = Duration::from_secs(2);
    let collector = Collector::start(Manner::Take).await;
    for (behind, named) in [(false, "ahead"), (true, "behind")] {
        let config = config::Telemetry {
            clock_offset: config::Offset { by: OFF, behind },
            ..with_text()
        };
        let telemetry = Telemetry::start(&config, named, &collector.environment());
        let before = SystemTime::now();
        let step = telemetry.tracer().send(Sending::Message, "lobby");
        step.end(&Facts {
            lamport_time: 7,
            ..Facts::default()
        });
        let after = SystemTime::now();
        telemetry.shutdown();
        let spans = collector.received();
        let span = only(&spans, named, "send lobby");
        let shown = |nanos| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
            if behind { time + OFF } else { time - OFF }
        };
        let start = shown(span.raw.start_time_unix_nano);
        let end = shown(span.raw.end_time_unix_nano);
        assert!(before <= start && start <= end && end <= after, "{named}");
        assert_eq!(span.int("lamport.time"), Some(7));
    }
}

#[test]
fn without_telemetry_there_is_nothing() {
    let telemetry = Telemetry::start(
        &config::Telemetry::default(),
        "alex",
        &Environment::default(),
    );
    let step = telemetry.tracer().send(Sending::Message, "lobby");
    assert_eq!(step.traceparent(), "");
    step.end(&MESSAGE);
    telemetry.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_says_who_it_is() {
    let collector = Collector::start(Manner::Take).await;
    let endpoint = collector.endpoint();
    let start = |service, more: &[(&str, &str)]| {
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
        let environment = Environment::from_iter(variables.iter().chain(more).copied());
        let telemetry = Telemetry::start(&config::Telemetry::default(), service, &environment);
        telemetry
            .tracer()
            .send(Sending::Message, "lobby")
            .end(&MESSAGE);
        telemetry.shutdown();
    };

    start("Alex", &[]);
    start(
        "alex",
        &[(
            "OTEL_RESOURCE_ATTRIBUTES",
            "host.id=h1, service.name=attribute, deployment=test",
        )],
    );
    start(
        "alex",
        &[
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute"),
            ("OTEL_SERVICE_NAME", "variable"),
        ],
    );
    let spans = collector.received();

    let services: Vec<_> = spans.iter().map(Span::service).collect();
    assert_eq!(services, ["alex", "attribute", "variable"]);
    let said = |span: usize, name: &str| format!("{:?}", spans[span].resource.get(name));
    assert!(said(0, "service.namespace").contains("chitchat"));
    assert!(said(0, "service.version").contains(env!("CARGO_PKG_VERSION")));
    assert!(said(1, "host.id").contains("h1"));
    assert!(said(1, "deployment").contains("test"));
    assert_eq!(
        said(0, "host.id"),
        said(2, "host.id"),
        "one machine, one id"
    );
    assert_ne!(
        said(0, "service.instance.id"),
        said(2, "service.instance.id"),
        "each start is another instance"
    );
}

// Processes of their own.

/// Not a test: what `Traced` starts.
#[test]
#[ignore = "the process that other tests start"]
fn traced_process() {
    traced::run();
}

/// Variables that send traces to `endpoint`, quickly, and wait for it at most half a second.
fn to(endpoint: &str) -> [(&str, &str); 3] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_lived_process_loses_nothing() {
    let collector = Collector::start(Manner::Take).await;
    let endpoint = collector.endpoint();
    // Nothing but its end makes it send.
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ];

    let mut process = Traced::start(variables, None);
    process.speak(500);
    let ending = process.finish().await;

    assert_eq!(collector.received().len(), 1_500);
    assert_lamport_rises(&collector.received());
    assert_eq!(ending.log, [""; 0], "and has nothing to say about it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_told_once_and_so_is_its_return() {
    let collector = Collector::start(Manner::Refuse).await;
    let endpoint = collector.endpoint();

    let variables = to(&endpoint)
        .into_iter()
        .chain([("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")]);
    let mut process = Traced::start(variables, None);
    process.speak(10);
    process.logs("takes no spans").await;
    // The third batch: the second failed as well, without a word.
    collector.refused(9).await;
    collector.behave(Manner::Take);
    process.speak(10);
    let back = process.logs("takes spans again").await;
    let ending = process.finish().await;

    let lost = 60 - collector.received().len();
    assert!(
        (20..=30).contains(&lost),
        "{lost}: the third may have come through"
    );
    assert!(
        back.ends_with(&format!("takes spans again; {lost} were lost meanwhile")),
        "{back}"
    );
    assert_eq!(ending.log.len(), 2, "{:?}", ending.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_absent_is_told_once_and_so_is_its_arrival() {
    let address = reserve();
    let endpoint = address.local_addr().unwrap().to_string();

    let mut process = Traced::start(to(&endpoint), None);
    process.speak(1);
    process.logs("takes no spans").await;
    let collector = Collector::arrive(address, Manner::Take).await;
    process.speak(1);
    process.logs("takes spans again").await;
    let ending = process.finish().await;

    assert_eq!(collector.received().len(), 3, "what came before is lost");
    assert_eq!(ending.log.len(), 2, "{:?}", ending.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_stays_away_costs_a_bounded_wait_at_the_end_and_the_loss_is_told() {
    let reserved = reserve();
    let address = reserved.local_addr().unwrap();
    let endpoint = format!("http://{address}");

    let mut process = Traced::start(to(&endpoint), None);
    process.speak(10);
    process.logs("takes no spans").await;
    let ending = process.finish().await;

    assert!(
        ending.took < SHUTDOWN_TIMEOUT + Duration::from_secs(2),
        "{:?}",
        ending.took
    );
    assert_eq!(
        ending.about_traces()[1..],
        [format!("30 spans did not reach {address}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_a_bounded_wait_at_the_end_and_the_loss_is_told() {
    let collector = Collector::start(Manner::Hang).await;
    let endpoint = collector.endpoint();
    // As long as it may be by default, and longer.
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
    ];

    let mut process = Traced::start(variables, None);
    process.speak(10);
    let ending = process.finish().await;

    assert!(
        ending.took < SHUTDOWN_TIMEOUT + Duration::from_secs(2),
        "{:?}",
        ending.took
    );
    assert_eq!(
        ending.about_traces(),
        [format!(
            "30 spans did not reach {}",
            &endpoint["http://".len()..]
        )]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_is_given_up_after_the_timeout() {
    let collector = Collector::start(Manner::Hang).await;
    let endpoint = collector.endpoint();

    let mut process = Traced::start(to(&endpoint), None);
    process.speak(10);
    process.logs("takes no spans").await;
    collector.behave(Manner::Take);
    process.speak(1);
    process.logs("takes spans again").await;
    let ending = process.finish().await;

    assert_eq!(ending.log.len(), 2, "{:?}", ending.log);
}

/// The kernel keeps a caller waiting whom nobody accepts, for two minutes; the SDK's timeout is for answers alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_even_accept_is_given_up_after_the_timeout() {
    let listener = reserve().listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut callers = Vec::new();
    let accepted =
        |address| tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address));
    while let Ok(caller) = accepted(address).await {
        callers.push(caller.unwrap());
    }

    let mut process = Traced::start(to(&address.to_string()), None);
    process.speak(1);
    process.logs("takes no spans").await;
    let ending = process.finish().await;

    assert!(
        ending.took < SHUTDOWN_TIMEOUT + Duration::from_secs(2),
        "{:?}",
        ending.took
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_spans_than_the_queue_holds_are_counted() {
    let collector = Collector::start(Manner::Hang).await;
    let endpoint = collector.endpoint();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
    ];

    let mut process = Traced::start(variables, None);
    process.speak(100);
    process.logs("more spans than").await;
    collector.behave(Manner::Take);
    let ending = process.finish().await;

    let lost = 300 - collector.received().len();
    assert!(lost >= 200 - 10, "{lost}");
    assert_eq!(
        ending.about_traces()[1..],
        [format!(
            "{lost} spans did not reach {}",
            &endpoint["http://".len()..]
        )]
    );
}

/// With room for 16,384 spans and a collector that takes none, 100,000 steps must not wait for anything.
#[tokio::test(flavor = "multi_thread")]
async fn chat_does_not_wait_for_a_collector_that_hangs() {
    let collector = Collector::start(Manner::Hang).await;
    let telemetry = Telemetry::start(&with_text(), "alex", &collector.environment());

    let began = Instant::now();
    for _ in 0..33_334 {
        one_trace(&telemetry.tracer());
    }

    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(10),
        "{took:?} for what takes less than a second alone on a machine"
    );
    telemetry.shutdown();
}

#[test]
fn a_flush_from_an_async_main_on_one_thread_loses_nothing() {
    let beside = tokio::runtime::Runtime::new().unwrap();
    let collector = beside.block_on(Collector::start(Manner::Take));
    let alone = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();

    alone.block_on(async {
        let telemetry = Telemetry::start(&with_text(), "alex", &collector.environment());
        let tracer = telemetry.tracer();
        one_trace(&tracer);
        // No word of shutdown: an early return must flush too, whoever still has a tracer.
        drop(telemetry);
        assert_eq!(collector.received().len(), 3);
        drop(tracer);
    });
    drop(collector);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_can_be_turned_off() {
    let collector = Collector::start(Manner::Take).await;
    let endpoint = collector.endpoint();
    let (_directory, file) = spans_file();

    for value in ["true", "TRUE"] {
        let mut process = Traced::start(
            to(&endpoint)
                .into_iter()
                .chain([("OTEL_SDK_DISABLED", value)]),
            Some(&file),
        );
        process.speak(10);
        assert_eq!(process.finish().await.log, [""; 0]);
    }

    assert_eq!(collector.received(), []);
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_exporter_means_none_but_the_file() {
    let collector = Collector::start(Manner::Take).await;
    let endpoint = collector.endpoint();
    let (_directory, file) = spans_file();

    let mut process = Traced::start(
        to(&endpoint)
            .into_iter()
            .chain([("OTEL_TRACES_EXPORTER", "none")]),
        Some(&file),
    );
    process.speak(10);
    let ending = process.finish().await;

    assert_eq!(collector.received(), []);
    assert_eq!(read_lines(&file).len(), 30);
    assert_eq!(ending.log, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_samplers_decide() {
    for (sampler, argument, expected) in [
        ("always_off", "", 0..=0),
        ("parentbased_always_off", "", 0..=0),
        ("always_on", "", 1_000..=1_000),
        ("traceidratio", "0", 0..=0),
        // 500 on the average, 16 the standard deviation.
        ("parentbased_traceidratio", "0.5", 350..=650),
    ] {
        let collector = Collector::start(Manner::Take).await;
        let endpoint = collector.endpoint();
        let sampling = [
            ("OTEL_TRACES_SAMPLER", sampler),
            ("OTEL_TRACES_SAMPLER_ARG", argument),
        ];

        let mut process = Traced::start(to(&endpoint).into_iter().chain(sampling), None);
        process.speak(1_000);
        let ending = process.finish().await;

        let spans = collector.received();
        let roots = spans.iter().filter(|span| span.is_root()).count();
        assert!(
            expected.contains(&roots),
            "{sampler} {argument}: {roots} traces"
        );
        assert_eq!(
            spans.len(),
            3 * roots,
            "{sampler}: a trace is whole or not there"
        );
        assert_eq!(ending.log, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_does_not_sample_is_obeyed_by_those_who_always_do() {
    let collector = Collector::start(Manner::Take).await;
    let endpoint = collector.endpoint();

    let variables = to(&endpoint)
        .into_iter()
        .chain([("OTEL_TRACES_SAMPLER", "always_on")]);
    let mut process = Traced::start(variables, None);
    process.receive("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    process.receive("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    process.finish().await;

    assert_eq!(collector.received().len(), 2, "of the second alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_makes_no_sense_is_named_and_chat_goes_on() {
    let endpoint = "http://127.0.0.1:1";
    for (name, value) in [
        ("OTEL_TRACES_SAMPLER", "ALWAYS_OFF"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://collector:4317",
        ),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://no way"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
    ] {
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), (name, value)];

        let ending = Traced::start(variables, None).finish().await;

        assert_eq!(ending.log.len(), 1, "{name}={value}: {:?}", ending.log);
        assert!(
            ending.log[0].contains(value),
            "{name}={value}: {:?}",
            ending.log
        );
    }
}

fn spans_file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("spans.jsonl");
    (directory, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_holds_what_was_sent() {
    let (_directory, file) = spans_file();
    let house = House::start(config::Telemetry {
        file: Some(file.clone()),
        ..with_text()
    })
    .await;

    house.alex_says_hello();
    let sent = house.stop();

    let mut written = read_lines(&file);
    for span in &sent {
        let at = written.iter().position(|other| other == span);
        written.swap_remove(at.unwrap_or_else(|| panic!("not in the file: {span:#?}")));
    }
    assert_eq!(written, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_the_collectors_format() {
    let (_directory, file) = spans_file();
    let house = House::start(config::Telemetry {
        file: Some(file.clone()),
        ..with_text()
    })
    .await;

    house.alex_says_hello();
    let spans = house.stop();

    let order = only(&spans, "chitchat-server", "order lobby");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.ends_with('\n'));
    let line = text
        .lines()
        .find(|line| line.contains("order lobby"))
        .unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let span = &line["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(span["traceId"], hex(&order.raw.trace_id));
    assert_eq!(span["spanId"], hex(&order.raw.span_id));
    assert_eq!(span["parentSpanId"], hex(&order.raw.parent_span_id));
    assert_eq!(span["kind"], 5);
    assert_eq!(
        span["startTimeUnixNano"],
        order.raw.start_time_unix_nano.to_string()
    );
    let attributes = span["attributes"].as_array().unwrap();
    let time = attributes
        .iter()
        .find(|attribute| attribute["key"] == "lamport.time")
        .unwrap();
    assert_eq!(time["value"], serde_json::json!({ "intValue": "8" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_may_write_to_one_file() {
    let (_directory, file) = spans_file();
    let mut processes: Vec<_> = (0..4)
        .map(|_| Traced::start([("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")], Some(&file)))
        .collect();

    // Few enough that writing them at the end stays within its limit on a busy machine.
    for _ in 0..10 {
        processes.iter_mut().for_each(|process| process.speak(20));
    }
    for process in processes {
        assert_eq!(process.finish().await.log, [""; 0]);
    }

    let spans = read_lines(&file);
    assert_eq!(spans.len(), 4 * 3 * 200);
    assert_lamport_rises(&spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_had_is_named_and_chat_goes_on() {
    let (directory, _) = spans_file();
    let collector = Collector::start(Manner::Take).await;
    let endpoint = collector.endpoint();

    for bad in [
        directory.path().to_owned(),
        directory.path().join("no/such/directory"),
        "/dev/full".into(),
    ] {
        let mut process = Traced::start(to(&endpoint), Some(&bad));
        process.speak(1);
        let ending = process.finish().await;

        assert_eq!(ending.log.len(), 1, "{:?}", ending.log);
        assert!(
            ending.log[0].contains(&bad.display().to_string()),
            "{:?}",
            ending.log
        );
    }
    assert_eq!(
        collector.received().len(),
        9,
        "the collector still gets them"
    );
}
