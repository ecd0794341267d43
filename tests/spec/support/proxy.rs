//! A network that fails on command: a TCP proxy in front of a server.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::within;

/// What passes at once where nothing is slow, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

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
    /// Whether the last cut was a reset, not a close.
    by_reset: bool,
    reachable: bool,
    to_server: Way,
    to_client: Way,
}

/// What the network does in one direction.
#[derive(Clone, Copy)]
struct Way {
    open: bool,
    /// Rises with each end: connections of before hear that there is nothing more to come.
    ends: usize,
    /// What passes at once, in bytes, and how long it takes.
    piece: usize,
    pause: Duration,
}

impl Way {
    const GOOD: Self = Self {
        open: true,
        ends: 0,
        piece: PIECE_BYTES,
        pause: Duration::ZERO,
    };
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
            by_reset: false,
            reachable: true,
            to_server: Way::GOOD,
            to_client: Way::GOOD,
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
        self.change(|weather| (weather.cuts, weather.by_reset) = (weather.cuts + 1, false));
    }

    /// The same by a reset (RST): both ends lose even what had arrived and was not read yet.
    pub fn reset(&self) {
        self.change(|weather| (weather.cuts, weather.by_reset) = (weather.cuts + 1, true));
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
            (weather.held_up, weather.reachable) = (0, true);
            for way in [&mut weather.to_server, &mut weather.to_client] {
                *way = Way {
                    ends: way.ends,
                    ..Way::GOOD
                };
            }
        });
    }

    /// New connections are let through again, and the client hears nothing on them.
    pub fn mend_requests(&self) {
        self.mend();
        self.hold_answers();
    }

    /// Nothing passes, and no connection is closed.
    pub fn freeze(&self) {
        self.hold_requests();
        self.hold_answers();
    }

    /// What the client sends arrives; it hears nothing.
    pub fn hold_answers(&self) {
        self.change(|weather| weather.to_client.open = false);
    }

    /// The client hears; what it sends does not arrive.
    pub fn hold_requests(&self) {
        self.change(|weather| weather.to_server.open = false);
    }

    /// The server hears that the client has nothing more to send (FIN); what it sends still arrives.
    pub fn end_requests(&self) {
        self.change(|weather| weather.to_server.ends += 1);
    }

    /// The client hears that the server has nothing more to send (FIN); what it sends still arrives.
    pub fn end_answers(&self) {
        self.change(|weather| weather.to_client.ends += 1);
    }

    /// Both directions carry at most `piece` bytes at once, and each piece takes `pause`: a delay when pieces are large,
    /// a narrow line when they are small.
    pub fn slow_down(&self, piece: usize, pause: Duration) {
        self.change(|weather| {
            for way in [&mut weather.to_server, &mut weather.to_client] {
                (way.piece, way.pause) = (piece.min(PIECE_BYTES), pause);
            }
        });
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
async fn carry(number: usize, mut client: TcpStream, mut weather: watch::Receiver<Weather>) {
    let Weather {
        server,
        cuts,
        reachable,
        ..
    } = *weather.borrow();
    if !reachable {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let (upstream, downstream, ended) = (weather.clone(), weather.clone(), weather.clone());
    let at_hand = |way: Way, weather: &Weather| Way {
        open: way.open && number >= weather.held_up,
        ..way
    };
    let cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let upstream = async {
            let way = |weather: &Weather| at_hand(weather.to_server, weather);
            copy(from_client, to_server, upstream, way).await;
            if number < ended.borrow().forgotten {
                std::future::pending().await
            }
        };
        let downstream = async {
            let way = |weather: &Weather| at_hand(weather.to_client, weather);
            copy(from_server, to_client, downstream, way).await;
        };
        tokio::select! {
            // The cut first: what is held when it comes is lost, even if everything may pass again by then.
            biased;
            _ = weather.wait_for(|weather| weather.cuts > cuts) => true,
            () = upstream => false,
            () = downstream => false,
        }
    };
    if cut && weather.borrow().by_reset {
        for end in [client, server] {
            // Fails when the connection is gone already.
            let _ = end.set_zero_linger();
        }
    }
}

/// Carries what comes `from` one end `to` the other, until either is gone.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    way: impl Fn(&Weather) -> Way,
) {
    let ends = way(&weather.borrow()).ends;
    let mut ending = weather.clone();
    let carried = async {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let Way { piece, pause, .. } = way(&weather.borrow());
            let Ok(read @ 1..) = from.read(&mut buffer[..piece]).await else {
                return;
            };
            // Not for no time at all: the shortest sleep takes a millisecond.
            if !pause.is_zero() {
                super::chance::pass(pause).await;
            }
            if weather.wait_for(|weather| way(weather).open).await.is_err() {
                return;
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                // It has closed, which the other direction reads, after what it sent before.
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        biased;
        _ = ending.wait_for(|weather| way(weather).ends > ends) => {}
        () = carried => return,
    }
    // The other direction goes on, until its ends have had enough of it.
    if to.shutdown().await.is_ok() {
        std::future::pending::<()>().await;
    }
}
