//! A server of the tests' own, which does what the real one never would.

use std::{convert::Infallible, io, net::SocketAddr};

use chitchat::wire::v1::chat_service_server::{ChatService, ChatServiceServer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{body::Body, server::NamedService, transport::Server};
use tower::Service;

/// It runs until this is dropped.
pub struct Fake {
    address: SocketAddr,
    running: JoinHandle<()>,
}

/// Serves `service` on any port of 127.0.0.1.
pub async fn serve(service: impl ChatService) -> Fake {
    serve_as(ChatServiceServer::new(service)).await
}

/// Serves `service`, whatever it is called, on any port of 127.0.0.1.
pub async fn serve_as<S>(service: S) -> Fake
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let listener = listener().await;
    let address = listener.local_addr().expect("it has an address");
    serve_those(address, TcpListenerStream::new(listener), service)
}

/// Any port of 127.0.0.1.
pub async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

/// Serves `service` to `connections`, which came to `address`.
pub fn serve_those<S>(
    address: SocketAddr,
    connections: impl Stream<Item = io::Result<TcpStream>> + Send + 'static,
    service: S,
) -> Fake
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let serving = Server::builder()
        .add_service(service)
        .serve_with_incoming(connections);
    let running = tokio::spawn(async move { serving.await.expect("the server should serve") });
    Fake { address, running }
}

impl Fake {
    /// `127.0.0.1:PORT`
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.running.abort();
    }
}
