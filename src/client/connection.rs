//! The way to a server: one gRPC connection.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::wire::v1::chat_service_client::ChatServiceClient;

/// How long a connection may take to come about.
///
/// Source: three retransmissions of a SYN (1 s, 2 s apart) and some.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a stream may be on its way unread.
///
/// Unit: bytes. When full: the server keeps what follows. Small, so that what was sent is soon what was read: with the
/// default of 2 MiB a server runs ten thousand messages ahead of a reader that has stopped.
const WINDOW_BYTES: u32 = 64 * 1024;

/// The address of a server is not one.
#[derive(Debug, thiserror::Error)]
#[error("{server:?} is not the address of a server, such as http://127.0.0.1:50052")]
pub struct AddressError {
    /// What was given.
    pub server: String,
    /// What is wrong with it.
    #[source]
    source: tonic::transport::Error,
}

/// A client for single calls (history, participants, rooms). Connects with its first call, and again when it must.
///
/// A silent connection is asked after `keepalive` whether the server is still there, and given as long to answer.
///
/// # Errors
/// [`AddressError`] when `server` is not `http://host:port`; `http://` may be left out.
pub fn service(
    server: &str,
    keepalive: Duration,
) -> Result<ChatServiceClient<Channel>, AddressError> {
    Ok(ChatServiceClient::new(
        endpoint(server, keepalive)?.connect_lazy(),
    ))
}

/// The settings of every connection to a server.
pub(super) fn endpoint(server: &str, keepalive: Duration) -> Result<Endpoint, AddressError> {
    let uri = if server.contains("://") {
        server.to_owned()
    } else {
        format!("http://{server}")
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|source| AddressError {
        server: server.to_owned(),
        source,
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        // An idle chat is silent for hours; without this a frozen or cut off server would never be noticed.
        .keep_alive_while_idle(true))
}
