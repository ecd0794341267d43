//! A network that fails on command: a TCP proxy in front of a server.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::within;

/// A way to a server; it is gone when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    connections: watch::Receiver<usize>,
    running: JoinHandle<()>,
}

/// What the network does at present.
#[derive(Clone, Copy)]
struct Weather {
    server: SocketAddr,
    /// Rises with each cut: connections of an earlier one are closed.
    cuts: usize,
    /// Connections of a lower number are held up, whatever else holds.
    held_up: usize,
    /// Connections of a lower number do not pass on that the client has closed.
    forgotten: usize,
    reachable: bool,
    to_server: bool,
    to_client: bool,
}

impl Proxy {
    /// In front of `server`; everything passes.
    pub async fn start(server: SocketAddr) -> Self {
        Self::start_at("http://127.0.0.1:0", server).await
    }

    /// The same, at `url`.
    pub async fn start_at(url: &str, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(url.trim_start_matches("http://")).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (weather, now) = watch::channel(Weather {
            server,
            cuts: 0,
            held_up: 0,
            forgotten: 0,
            reachable: true,
            to_server: true,
            to_client: true,
        });
        let (count, connections) = watch::channel(0);
        let running = tokio::spawn(accept(listener, now, count));
        Self {
            address,
            weather,
            connections,
            running,
        }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Awaits so many more connections.
    pub async fn connected(&self, more: usize) {
        let mut connections = self.connections.clone();
        let enough = *connections.borrow() + more;
        within(
            "connections",
            connections.wait_for(|count| *count >= enough),
        )
        .await
        .expect("the proxy runs");
    }

    /// Closes all connections, whatever was on its way in them.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Closes all connections, and new ones as soon as they are made.
    pub fn cut_for_long(&self) {
        self.change(|weather| weather.reachable = false);
        self.cut();
    }

    /// New connections are as they should be; those that were made so far are held up until [`Proxy::mend`]. What was
    /// sent on them then goes on, though its sender may have given up, which the server does not hear of.
    pub fn overtake(&self) {
        let made = *self.connections.borrow();
        self.mend();
        self.change(|weather| (weather.held_up, weather.forgotten) = (made, made));
    }

    /// Everything passes again, over connections that are still there and over new ones.
    pub fn mend(&self) {
        self.change(|weather| {
            weather.held_up = 0;
            (weather.reachable, weather.to_server, weather.to_client) = (true, true, true);
        });
    }

    /// New connections are let through again, and the client hears nothing on them.
    pub fn mend_requests(&self) {
        self.change(|weather| {
            (weather.reachable, weather.to_server, weather.to_client) = (true, true, false);
        });
    }

    /// Nothing passes, and no connection is closed.
    pub fn freeze(&self) {
        self.change(|weather| (weather.to_server, weather.to_client) = (false, false));
    }

    /// What the client sends arrives; it hears nothing.
    pub fn hold_answers(&self) {
        self.change(|weather| weather.to_client = false);
    }

    /// The client hears; what it sends does not arrive.
    pub fn hold_requests(&self) {
        self.change(|weather| weather.to_server = false);
    }

    /// New connections go to this server.
    pub fn lead_to(&self, server: SocketAddr) {
        self.change(|weather| weather.server = server);
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn accept(
    listener: TcpListener,
    weather: watch::Receiver<Weather>,
    count: watch::Sender<usize>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("the listener accepts");
                let number = *count.borrow();
                connections.spawn(carry(number, client, weather.clone()));
                count.send_modify(|count| *count += 1);
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until an end closes it or it is cut.
async fn carry(number: usize, client: TcpStream, mut weather: watch::Receiver<Weather>) {
    let Weather {
        server,
        cuts,
        reachable,
        ..
    } = *weather.borrow();
    if !reachable {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (upstream, downstream, ended) = (weather.clone(), weather.clone(), weather.clone());
    let passes = |weather: &Weather| number >= weather.held_up;
    let upstream = async {
        let passes = |weather: &Weather| passes(weather) && weather.to_server;
        copy(from_client, &mut to_server, upstream, passes).await;
        if number < ended.borrow().forgotten {
            std::future::pending().await
        }
    };
    let downstream = async {
        let passes = |weather: &Weather| passes(weather) && weather.to_client;
        copy(from_server, &mut to_client, downstream, passes).await;
    };
    tokio::select! {
        // The cut first: what is held when it comes is lost, even if everything may pass again by then.
        biased;
        _ = weather.wait_for(|weather| weather.cuts > cuts) => {}
        () = upstream => {}
        () = downstream => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    passes: impl Fn(&Weather) -> bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if weather.wait_for(&passes).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            // It has closed, which the other direction reads, after what it sent before.
            return std::future::pending().await;
        }
    }
}
