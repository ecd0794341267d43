//! What stands in for a Jaeger: its search over a set of spans, as Jaeger 2.20 answered when it was asked
//! (`data/jaeger` has its words), and things that are no Jaeger.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::UNIX_EPOCH,
};

use chitchat::causality::step::Step;
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::spans;

/// The report's session, as Jaeger gave it: 64 spans of 18 traces.
pub const SESSION: &str = include_str!("../data/jaeger/session.json");

/// The same, and among it 27 spans of Jaeger itself.
pub const ANY_SERVICE: &str = include_str!("../data/jaeger/any-service.json");

const NONE_FOUND: &str = include_str!("../data/jaeger/none-found.json");
const NO_WINDOW: &str = include_str!("../data/jaeger/no-window.json");
const BAD_TIME: &str = include_str!("../data/jaeger/bad-time.json");
const DEPTH_TOO_LARGE: &str = include_str!("../data/jaeger/depth-too-large.json");

/// What a Jaeger's storage answers that cannot search over all services.
const NEEDS_SERVICE: &str = r#"{"error":{"httpCode":500,"message":"service name must be set"}}"#;

/// What its UI is, for every path that is no API's.
const UI: &str = "<!doctype html><html><title>Jaeger UI</title></html>";

/// The traces that a Jaeger has, and how it is set up.
#[derive(Debug, Default)]
pub struct Store {
    traces: BTreeMap<String, Trace>,
    services: BTreeSet<String>,
    base: String,
    max_traces: usize,
    needs_service: bool,
}

#[derive(Debug, Default)]
struct Trace {
    spans: Vec<Span>,
    /// Its elements of `resourceSpans`, as text.
    json: Vec<String>,
}

/// What a span can be found by.
#[derive(Debug)]
struct Span {
    service: String,
    start: u64,
    attributes: BTreeMap<String, String>,
}

impl Store {
    /// With these steps.
    pub fn of(steps: &[Step]) -> Self {
        Self::of_document(&spans::document(steps))
    }

    /// With the spans of `{"resourceSpans":[...]}`, or of an answer that has it as its `result`.
    pub fn of_document(document: &Value) -> Self {
        let mut store = Self {
            max_traces: 100_000,
            ..Self::default()
        };
        let document = document.get("result").unwrap_or(document);
        for of_program in array(&document["resourceSpans"]) {
            let resource = &of_program["resource"];
            let service = attributes(resource)["service.name"].clone();
            for span in array(&of_program["scopeSpans"])
                .iter()
                .flat_map(|scope| array(&scope["spans"]))
            {
                store.add(&service, resource, span);
            }
        }
        store
    }

    fn add(&mut self, service: &str, resource: &Value, span: &Value) {
        self.services.insert(service.to_owned());
        let trace = span["traceId"].as_str().unwrap().to_owned();
        let trace = self.traces.entry(trace).or_default();
        trace.spans.push(Span {
            service: service.to_owned(),
            start: span["startTimeUnixNano"].as_str().unwrap().parse().unwrap(),
            attributes: attributes(span),
        });
        let json = json!({ "resource": resource, "scopeSpans": [{ "spans": [span] }] });
        trace.json.push(json.to_string());
    }

    /// Below this path, as behind a reverse proxy.
    pub fn below(mut self, path: &str) -> Self {
        path.clone_into(&mut self.base);
        self
    }

    /// Which keeps, and can be asked for, so many traces.
    pub fn with_max_traces(mut self, max_traces: usize) -> Self {
        self.max_traces = max_traces;
        self
    }

    /// Which searches in one service at a time.
    pub fn needing_a_service(mut self) -> Self {
        self.needs_service = true;
        self
    }

    /// Starts it.
    pub async fn start(self) -> Jaeger {
        Jaeger::start(self).await
    }

    fn answer(&self, target: &str) -> (StatusCode, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path.strip_prefix(&self.base) {
            Some("/api/v3/services") => {
                let services = json!({ "services": self.services });
                (StatusCode::OK, services.to_string())
            }
            Some("/api/v3/traces") => self.search(query),
            _ => (StatusCode::OK, UI.to_owned()),
        }
    }

    fn search(&self, query: &str) -> (StatusCode, String) {
        let query: BTreeMap<&str, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name, decoded(value)))
            .collect();
        let refused = |status, words: &str| (status, words.to_owned());
        let (Some(from), Some(to)) = (
            query.get("query.startTimeMin"),
            query.get("query.startTimeMax"),
        ) else {
            return refused(StatusCode::BAD_REQUEST, NO_WINDOW);
        };
        let (Some(from), Some(to)) = (nanoseconds(from), nanoseconds(to)) else {
            return refused(StatusCode::BAD_REQUEST, BAD_TIME);
        };
        let depth = query.get("query.searchDepth");
        let depth = depth.map_or(100, |depth| depth.parse().unwrap());
        if depth == 0 || depth > self.max_traces {
            return refused(StatusCode::INTERNAL_SERVER_ERROR, DEPTH_TOO_LARGE);
        }
        let service = query.get("query.serviceName");
        if self.needs_service && service.is_none() {
            return refused(StatusCode::INTERNAL_SERVER_ERROR, NEEDS_SERVICE);
        }
        let wanted: BTreeMap<String, String> = query
            .get("query.attributes")
            .map_or_else(BTreeMap::new, |json| serde_json::from_str(json).unwrap());
        let found_by = |span: &&Span| {
            (from..=to).contains(&span.start)
                && service.is_none_or(|service| *service == span.service)
                && wanted
                    .iter()
                    .all(|(name, value)| span.attributes.get(name) == Some(value))
        };
        let mut found: Vec<(u64, &Trace)> = self
            .traces
            .values()
            .filter_map(|trace| Some((trace.spans.iter().find(found_by)?.start, trace)))
            .collect();
        if found.is_empty() {
            return refused(StatusCode::NOT_FOUND, NONE_FOUND);
        }
        found.sort_by_key(|(start, _)| std::cmp::Reverse(*start));
        found.truncate(depth);
        let spans: Vec<&str> = found
            .iter()
            .flat_map(|(_, trace)| trace.json.iter().map(String::as_str))
            .collect();
        let spans = spans.join(",");
        let answer = format!(r#"{{"result":{{"resourceSpans":[{spans}]}}}}"#);
        (StatusCode::OK, answer)
    }
}

/// A Jaeger that runs, until it is dropped.
pub struct Jaeger {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _running: JoinSet<()>,
}

impl Jaeger {
    async fn start(store: Store) -> Self {
        let (listener, url) = listen().await;
        let url = format!("{url}{}", store.base);
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        let store = Arc::new(store);
        let mut running = JoinSet::new();
        running.spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let service = service_fn(|request: Request<Incoming>| {
                    let target = request.uri().to_string();
                    let (status, body) = store.answer(&target);
                    log.lock().unwrap().push(target);
                    let response = Response::builder().status(status).body(body).unwrap();
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                // One after the other: who asks here waits for each answer.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(tcp), service)
                    .await;
            }
        });
        Self {
            url,
            asked,
            _running: running,
        }
    }

    /// Something that answers every connection's request with these bytes, and then closes it; with none it is silent.
    pub async fn that_answers(bytes: impl Into<Vec<u8>>) -> Self {
        let (listener, url) = listen().await;
        let bytes: Vec<u8> = bytes.into();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match tcp.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                if bytes.is_empty() {
                    silent.push(tcp);
                } else {
                    let _ = tcp.write_all(&bytes).await;
                    let _ = tcp.shutdown().await;
                }
            }
        });
        Self {
            url,
            asked: Arc::default(),
            _running: running,
        }
    }

    /// What `--jaeger` is given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How often it was asked for traces.
    pub fn searches(&self) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|target| target.contains("/traces?"))
            .count()
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A span's or a resource's attributes, which Jaeger's search compares as texts.
fn attributes(of: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| {
        let value = value.as_object()?.values().next()?;
        Some(
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        )
    };
    array(&of["attributes"])
        .iter()
        .filter_map(|attribute| {
            let name = attribute["key"].as_str()?.to_owned();
            Some((name, text(&attribute["value"])?))
        })
        .collect()
}

fn decoded(value: &str) -> String {
    percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .unwrap()
        .into_owned()
}

fn nanoseconds(time: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}
