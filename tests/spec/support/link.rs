//! A way to the server that can be cut, half or whole.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A forwarder of TCP connections on a port of its own, for clients to connect to in place of the server.
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything passes, both ways.
    Whole(SocketAddr),
    /// The client is heard; what the server answers goes no further.
    Deaf(SocketAddr),
    /// No connection lives.
    Cut,
}

impl Link {
    /// A link that is whole.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, seen) = watch::channel(State::Whole(server));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, seen.clone()));
            }
        });
        Self {
            address,
            state,
            accepting,
        }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, what the server says reaches nobody.
    pub fn deafen(&self) {
        self.state.send_modify(|state| {
            if let State::Whole(server) = *state {
                *state = State::Deaf(server);
            }
        });
    }

    /// Ends every connection, and every new one at once. What a deaf client has not been told is lost.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// New connections are forwarded to `server`.
    pub fn mend(&self, server: SocketAddr) {
        self.state.send_replace(State::Whole(server));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn forward(client: TcpStream, mut state: watch::Receiver<State>) {
    let (State::Whole(server) | State::Deaf(server)) = *state.borrow() else {
        return;
    };
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let hearing = state.clone();
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        () = copy_while_heard(from_server, to_client, hearing) => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
    }
}

async fn copy_while_heard(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let heard = |state: &State| matches!(state, State::Whole(_));
        if state.wait_for(heard).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
