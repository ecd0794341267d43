//! A real server on a real port, inside the test's process.

use std::{net::SocketAddr, time::Duration};

use chitchat::{
    config::{Config, Data},
    server::{ServeError, Server},
    telemetry::Tracer,
    wire::v1::{JoinMsgLeave, ServerMessage, chat_service_client::ChatServiceClient},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use super::{
    raw::{CHAT, Raw},
    within,
};

/// How long a vanished participant may come back, in tests.
pub const GRACE: Duration = Duration::from_millis(300);

/// The least that HTTP/2 has for a window from the start.
const WINDOW_BYTES: u32 = 65_535;

/// A server that runs; it stops when this is dropped, or by [`TestServer::stop`].
pub struct TestServer {
    address: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
}

/// A server with the settings of the tests: in memory, a short grace, any port of 127.0.0.1.
pub async fn start() -> TestServer {
    start_with(|_| {}).await
}

/// The same with some settings changed.
pub async fn start_with(change: impl FnOnce(&mut Config)) -> TestServer {
    start_traced(change, Tracer::default()).await
}

/// The same, with spans.
pub async fn start_traced(change: impl FnOnce(&mut Config), tracer: Tracer) -> TestServer {
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    config.server.data = Data::Memory;
    config.server.grace = GRACE;
    change(&mut config);
    let server = Server::bind(&config, tracer)
        .await
        .expect("the server should start");
    let address = server.local_addr().expect("the server has an address");
    let stop = CancellationToken::new();
    let running = tokio::spawn(server.run(stop.clone()));
    TestServer {
        address,
        stop,
        running,
    }
}

impl TestServer {
    /// `127.0.0.1:PORT`
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Channel {
        Channel::from_shared(self.url())
            .expect("the address is an address")
            .connect()
            .await
            .expect("the server should accept connections")
    }

    /// The same, by a client that soon cannot take more unless it reads.
    pub async fn connect_narrow(&self) -> Channel {
        connect_narrow(self.url()).await
    }

    /// The generated client, on a connection of its own.
    pub async fn client(&self) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.connect().await)
    }

    /// A stream of `Chat` on a connection of its own; nothing is said on it yet.
    pub async fn chat(&self) -> Raw {
        Raw::open(self.connect().await, CHAT).await
    }

    /// The same, by a client that soon cannot take more unless it reads.
    pub async fn narrow_chat(&self) -> Raw {
        Raw::open(self.connect_narrow().await, CHAT).await
    }

    /// The same by the original's path.
    pub async fn original_chat(&self) -> Raw {
        Raw::open(self.connect().await, "/itu.chitchat.ChatService/Chat").await
    }

    /// A stream on which `joining` has been said, and the first message that came.
    pub async fn enter(&self, joining: JoinMsgLeave) -> (Raw, ServerMessage) {
        let mut raw = self.chat().await;
        raw.send(joining);
        let first = raw.next().await;
        (raw, first)
    }

    /// How a stream ends on which `joining` is said and refused.
    pub async fn refusal(&self, joining: JoinMsgLeave) -> Status {
        let mut raw = self.chat().await;
        raw.send(joining);
        raw.failure().await
    }

    /// A participant of the lobby, whose own JOIN has been read.
    pub async fn joined(&self, name: &str) -> Raw {
        let mut raw = self.chat().await;
        raw.join(name).await;
        raw
    }

    /// All events of `room`, page by page.
    pub async fn history(&self, room: &str) -> Vec<ServerMessage> {
        super::raw::history(self.client().await, room).await
    }

    /// The names of those in `room`.
    pub async fn names(&self, room: &str) -> Vec<String> {
        super::raw::names(self.client().await, room).await
    }

    /// Stops it and waits until it has.
    pub async fn stop(mut self) {
        self.stop.cancel();
        within("the server to stop", &mut self.running)
            .await
            .expect("the server should not panic")
            .expect("the server should stop well");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A connection whose client lets the server send no more than `WINDOW_BYTES` ahead of what was read.
pub async fn connect_narrow(url: String) -> Channel {
    let endpoint = Channel::from_shared(url)
        .expect("the address is an address")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let channel = within("a connection", endpoint.connect()).await;
    channel.expect("the server should accept connections")
}
