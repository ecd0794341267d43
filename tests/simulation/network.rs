//! The simulated network as the server and its clients see it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    task::{Context, Poll},
};

use chitchat::{client::Dial, server::Listener, wire::v1::chat_service_client::ChatServiceClient};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::{TcpListener, TcpStream};

/// The server's host.
pub const SERVER: &str = "server";

/// Where the server is.
pub const URL: &str = "http://server:50052";

const PORT: u16 = 50052;

/// Connections that may wait to be taken. When full: the simulated system keeps the rest.
const WAITING: usize = 16;

/// The server's port on its simulated host.
pub struct Port {
    address: SocketAddr,
    accepted: mpsc::Receiver<io::Result<(TcpStream, SocketAddr)>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Port {
    /// Takes the port, on the simulated host that this runs on.
    pub async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(WAITING);
        let accepting =
            tokio::spawn(
                async move { while sender.send(listener.accept().await).await.is_ok() {} },
            );
        Ok(Self {
            address,
            accepted,
            _accepting: AbortOnDropHandle::new(accepting),
        })
    }
}

impl Listener for Port {
    type Io = TcpStream;

    fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Self::Io, SocketAddr)>> {
        self.accepted.poll_recv(context).map(|accepted| {
            accepted.unwrap_or_else(|| Err(io::ErrorKind::ConnectionAborted.into()))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// How a session gets its connection.
pub fn dial() -> Dial {
    Dial::new(|host, port| async move { TcpStream::connect((host, port)).await })
}

/// A client for unary calls, on a connection of its own that is made with the first call.
pub fn service() -> ChatServiceClient<Channel> {
    let connector = tower::service_fn(|_: Uri| async {
        let io = TcpStream::connect((SERVER, PORT)).await?;
        Ok::<_, io::Error>(TokioIo::new(io))
    });
    ChatServiceClient::new(Endpoint::from_static(URL).connect_with_connector_lazy(connector))
}
