//! An OTLP receiver on a real port, and what one can ask of the spans that arrived.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::span::SpanKind,
};
use tokio::{net::TcpSocket, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use chitchat::telemetry::Environment;

use super::within;

/// What a collector does with an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Take,
    Refuse,
    Hang,
}

/// A collector, until it is dropped.
pub struct Collector {
    address: SocketAddr,
    manner: watch::Sender<Manner>,
    received: watch::Receiver<Vec<Span>>,
    refused: watch::Receiver<usize>,
    server: JoinHandle<()>,
}

impl Collector {
    pub async fn start(manner: Manner) -> Self {
        Self::arrive(reserve(), manner).await
    }

    /// At an address that was reserved.
    pub async fn arrive(address: TcpSocket, manner: Manner) -> Self {
        let listener = address.listen(128).expect("nobody else is here");
        let address = listener.local_addr().expect("a listener has an address");
        let (spans, received) = watch::channel(Vec::new());
        let (refusals, refused) = watch::channel(0);
        let manner = watch::Sender::new(manner);
        let receiver = Receiver {
            spans,
            refusals,
            manner: manner.clone(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(receiver))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.expect("the collector serves") });
        Self {
            address,
            manner,
            received,
            refused,
            server,
        }
    }

    /// Like this from here on, to exports that wait as well.
    pub fn behave(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Telemetry that comes here, quickly.
    pub fn environment(&self) -> Environment {
        Environment::from([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint().as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_RESOURCE_ATTRIBUTES", "host.id=one-host"),
        ])
    }

    /// Awaits as many spans in all.
    pub async fn spans(&self, count: usize) -> Vec<Span> {
        let mut received = self.received.clone();
        let enough = received.wait_for(|spans| spans.len() >= count);
        within(&format!("{count} spans at the collector"), enough)
            .await
            .expect("the collector is here")
            .clone()
    }

    /// Awaits that so many exports were refused in all; a sender tries each four times at most.
    pub async fn refused(&self, count: usize) {
        let mut refused = self.refused.clone();
        let enough = refused.wait_for(|refused| *refused >= count);
        within(&format!("{count} refusals by the collector"), enough)
            .await
            .expect("the collector is here");
    }

    /// What is here.
    pub fn received(&self) -> Vec<Span> {
        self.received.borrow().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An address where nobody listens yet, and nobody else can.
pub fn reserve() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a free port");
    socket
}

struct Receiver {
    spans: watch::Sender<Vec<Span>>,
    refusals: watch::Sender<usize>,
    manner: watch::Sender<Manner>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut manner = self.manner.subscribe();
        let manner = *manner
            .wait_for(|manner| *manner != Manner::Hang)
            .await
            .expect("the sender is held here");
        if manner == Manner::Refuse {
            self.refusals.send_modify(|refusals| *refusals += 1);
            return Err(Status::unavailable("refused, as asked"));
        }
        self.spans
            .send_modify(|spans| spans.extend(flatten(request.into_inner())));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A span as it arrived, with the process that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub resource: BTreeMap<String, Value>,
    pub attributes: BTreeMap<String, Value>,
    /// What the wire had, attributes included.
    pub raw: opentelemetry_proto::tonic::trace::v1::Span,
}

impl Span {
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    pub fn kind(&self) -> SpanKind {
        self.raw.kind()
    }

    /// `service.name`
    pub fn service(&self) -> &str {
        match &self.resource["service.name"] {
            Value::StringValue(name) => name,
            other => panic!("service.name is {other:?}"),
        }
    }

    /// An integer attribute; that it is one is part of the promise.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attributes.get(name).map(|value| match value {
            Value::IntValue(int) => *int,
            other => panic!("{name} of {:?} is {other:?}, not an integer", self.name()),
        })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(|value| match value {
            Value::StringValue(text) => text.as_str(),
            other => panic!("{name} of {:?} is {other:?}, not a text", self.name()),
        })
    }

    /// Whether a boolean attribute is there and true.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.attributes.get(name), Some(Value::BoolValue(true)))
    }

    pub fn is_root(&self) -> bool {
        self.raw.parent_span_id.is_empty()
    }

    pub fn is_child_of(&self, parent: &Span) -> bool {
        self.raw.trace_id == parent.raw.trace_id && self.raw.parent_span_id == parent.raw.span_id
    }
}

/// All spans of an export.
pub fn flatten(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_process in request.resource_spans {
        let resource = by_name(&of_process.resource.unwrap_or_default().attributes);
        for raw in of_process
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            let attributes = by_name(&raw.attributes);
            spans.push(Span {
                resource: resource.clone(),
                attributes,
                raw,
            });
        }
    }
    spans
}

/// All spans of a file of OTLP JSON lines.
pub fn read_lines(path: &Path) -> Vec<Span> {
    let text = std::fs::read_to_string(path).expect("the file can be read");
    let request =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    text.lines().map(request).flat_map(flatten).collect()
}

fn by_name(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let pairs = attributes.iter().map(|attribute| {
        let value = attribute.value.clone().and_then(|any| any.value);
        (
            attribute.key.clone(),
            value.expect("an attribute has a value"),
        )
    });
    pairs.collect()
}

/// The one span of that name made by that service.
pub fn only<'a>(spans: &'a [Span], service: &str, name: &str) -> &'a Span {
    let found: Vec<_> = spans
        .iter()
        .filter(|span| span.service() == service && span.name() == name)
        .collect();
    match found[..] {
        [one] => one,
        _ => panic!("{} spans {name:?} of {service}, not one", found.len()),
    }
}

/// Lamport's rule, for any spans: each step is later than the one that caused it and than what it received, whether
/// or not the wall clocks agree. A parent that is not among them is a fault too.
pub fn assert_lamport_rises(spans: &[Span]) {
    let by_id: HashMap<_, _> = spans.iter().map(|span| (&span.raw.span_id, span)).collect();
    for span in spans {
        let time = span.int("lamport.time").expect("every step has a time");
        if let Some(received) = span.int("lamport.message.time") {
            assert!(
                time > received,
                "{} of {} at {time} received {received}",
                span.name(),
                span.service()
            );
        }
        if !span.is_root() {
            let parent = by_id
                .get(&span.raw.parent_span_id)
                .expect("the parent arrived as well");
            let before = parent.int("lamport.time").expect("every step has a time");
            assert!(
                time > before,
                "{} of {} at {time}, caused at {before}",
                span.name(),
                span.service()
            );
        }
    }
}
