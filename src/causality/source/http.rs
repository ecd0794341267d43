//! Questions over plain HTTP: one GET, one answer, one connection.

use std::{future, io, pin::pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// How long a connection may take to come about.
///
/// Source: three retransmissions of a SYN (1 s, 2 s apart) and some.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a service is: `http://host:port/path`.
#[derive(Debug, Clone)]
pub(super) struct Address {
    host: String,
    port: u16,
    /// What stands before every path; no `/` at its end.
    base: String,
}

/// What may be asked of a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of an answer.
    pub(super) bytes: usize,
    /// Until the answer is complete, from the connection on.
    pub(super) patience: Duration,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It has more bytes than wanted.
    TooLarge,
    /// In words.
    Broken(String),
}

impl Address {
    /// Reads `http://host:port/path`; `http://`, port (then 80) and path may be left out.
    ///
    /// # Errors
    /// It is no such thing, in words.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let with_scheme = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = with_scheme
            .parse()
            .map_err(|_| "not an address such as http://localhost:16686".to_owned())?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        match uri.scheme_str() {
            Some("http") if authority.contains('@') => {
                Err("names and passwords are not supported".into())
            }
            Some("http") => Ok(Self {
                host: uri.host().unwrap_or_default().to_owned(),
                port: uri.port_u16().unwrap_or(80),
                base: uri.path().trim_end_matches('/').to_owned(),
            }),
            _ => Err("only http:// is supported; behind https, forward a port to it, or save its answers to a file for --spans".into()),
        }
    }

    /// Asks for `path`, with its query, below this address.
    ///
    /// # Errors
    /// [`Failure`]; every status is an answer.
    pub(super) async fn get(&self, path: &str, bounds: Bounds) -> Result<Answer, Failure> {
        let tcp = timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .map_err(|_| broken(format!("no connection within {CONNECT_TIMEOUT:?}")))?
            .map_err(|error| broken(format!("cannot connect: {error}")))?;
        let patience = bounds.patience;
        timeout(patience, self.ask(tcp, path, bounds.bytes))
            .await
            .map_err(|_| broken(format!("no complete answer within {patience:?}")))?
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        TcpStream::connect((host, self.port)).await
    }

    async fn ask(&self, tcp: TcpStream, path: &str, bytes: usize) -> Result<Answer, Failure> {
        let request = Request::get(format!("{}{path}", self.base))
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .body(String::new())
            .map_err(|error| broken(error.to_string()))?;
        let (mut requests, connection) =
            http1::handshake(TokioIo::new(tcp)).await.map_err(failed)?;
        let mut connection = pin!(connection);
        let mut exchange = pin!(async {
            let response = requests.send_request(request).await.map_err(failed)?;
            let (head, body) = response.into_parts();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: whole(body, bytes).await?,
            })
        });
        // What the connection still had when it ended is in the exchange's hands.
        tokio::select! {
            answer = &mut exchange => answer,
            _ = &mut connection => exchange.await,
        }
    }
}

async fn whole(body: Incoming, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut body = pin!(body);
    let mut whole = Vec::new();
    while let Some(frame) = future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let data: Bytes = frame.map_err(failed)?.into_data().unwrap_or_default();
        if whole.len() + data.len() > bytes_max {
            return Err(Failure::TooLarge);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

fn failed(error: hyper::Error) -> Failure {
    if error.is_parse() {
        return broken("does not speak HTTP/1.1".into());
    }
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    broken(match cause {
        Some(cause) => format!("the connection broke: {error}: {cause}"),
        None => format!("the connection broke: {error}"),
    })
}

fn broken(words: String) -> Failure {
    Failure::Broken(words)
}
