//! The ceiling: the least a server can do to bring every message to every subscriber over TCP.
//!
//! One thread, one log of bytes, a cursor into it for each subscriber. After each round of reading, each subscriber that
//! is behind gets all the log holds for it in one write. The bytes that publishers send are the bytes that subscribers
//! get: a length of two bytes, then the text. Nothing is parsed beyond that length, stored, ordered by a rule, or checked.
//!
//! A connection begins with one byte that says what it is, [`PUBLISHER`] or [`SUBSCRIBER`]; one byte answers
//! ([`ACCEPTED`]): what is published after that reaches it.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use super::poller::{Poller, Ready};

pub const PUBLISHER: u8 = b'P';
pub const SUBSCRIBER: u8 = b'S';
pub const ACCEPTED: u8 = b'+';

/// Bytes of the length before each text.
pub const LENGTH_BYTES: usize = 2;

/// How much of the log may have been read by all before it is cut off. Unit: bytes; an arbitrary trade between memory
/// and moving what is left.
const READ_BY_ALL: usize = 4 << 20;

/// How far a subscriber may be behind. Unit: bytes; beyond it the connection is closed. A subscriber that reads at all
/// stays far below: the load client has a window.
const BEHIND: usize = 256 << 20;

/// The token of the listening socket; connections count from 0.
const LISTENER: usize = usize::MAX;

/// Serves until the process is ended.
///
/// # Errors
/// The port cannot be listened on, or the system refuses to tell of sockets.
pub fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let mut broadcaster = Broadcaster {
        poller: Poller::new()?,
        listener,
        log: Log::default(),
        connections: Vec::new(),
        buffer: vec![0; 64 << 10],
    };
    broadcaster.poller.add(&broadcaster.listener, LISTENER)?;
    let mut ready = Vec::new();
    loop {
        broadcaster.poller.wait(None, &mut ready)?;
        broadcaster.turn(&ready)?;
    }
}

struct Broadcaster {
    poller: Poller,
    listener: TcpListener,
    log: Log,
    /// By token; none where one has gone.
    connections: Vec<Option<Connection>>,
    buffer: Vec<u8>,
}

/// What was published, as it came; places in it count from the beginning of time.
#[derive(Default)]
struct Log {
    bytes: Vec<u8>,
    begin: usize,
}

struct Connection {
    socket: TcpStream,
    /// Until the first byte says.
    role: Option<u8>,
    /// Subscriber: the place in the log up to which it has got everything.
    cursor: usize,
    /// Subscriber: its socket takes no more for now.
    full: bool,
    /// Publisher: the beginning of a message whose end has not come.
    part: Vec<u8>,
}

impl Broadcaster {
    fn turn(&mut self, ready: &[Ready]) -> io::Result<()> {
        let before = self.log.end();
        let mut writable = false;
        for event in ready {
            if event.token == LISTENER {
                self.accept()?;
                continue;
            }
            if event.writable {
                writable |= self.has_room(event.token)?;
            }
            if event.readable && !self.read(event.token) {
                self.connections[event.token] = None;
            }
        }
        if writable || self.log.end() > before {
            self.broadcast()?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            self.poller.add(&socket, self.connections.len())?;
            self.connections.push(Some(Connection {
                socket,
                role: None,
                cursor: 0,
                full: false,
                part: Vec::new(),
            }));
        }
    }

    /// A subscriber that could take no more can again.
    fn has_room(&mut self, token: usize) -> io::Result<bool> {
        match &mut self.connections[token] {
            Some(connection) if connection.full => {
                connection.full = false;
                self.poller
                    .watch_writable(&connection.socket, token, false)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Takes over what has come; false: the connection is over.
    fn read(&mut self, token: usize) -> bool {
        let Some(connection) = &mut self.connections[token] else {
            return true;
        };
        let mut bytes = match connection.socket.read(&mut self.buffer) {
            Ok(0) => return false,
            Ok(read) => &self.buffer[..read],
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        if connection.role.is_none() {
            connection.role = Some(bytes[0]);
            connection.cursor = self.log.end();
            bytes = &bytes[1..];
            // A new connection has room for one byte.
            if connection.socket.write_all(&[ACCEPTED]).is_err() {
                return false;
            }
        }
        connection.part.extend_from_slice(bytes);
        let whole = whole_messages(&connection.part);
        self.log.bytes.extend(connection.part.drain(..whole));
        true
    }

    /// Every subscriber gets what it lacks, as far as its socket takes it.
    fn broadcast(&mut self) -> io::Result<()> {
        let mut slowest = self.log.end();
        for (token, place) in self.connections.iter_mut().enumerate() {
            let Some(connection) = place else { continue };
            if connection.role != Some(SUBSCRIBER) {
                continue;
            }
            if !connection.catch_up(&self.log) {
                *place = None;
                continue;
            }
            if connection.full {
                self.poller
                    .watch_writable(&connection.socket, token, true)?;
            }
            slowest = slowest.min(connection.cursor);
        }
        self.log.forget(slowest);
        Ok(())
    }
}

impl Connection {
    /// False: the connection is over, or too far behind.
    fn catch_up(&mut self, log: &Log) -> bool {
        while !self.full && self.cursor < log.end() {
            match self.socket.write(log.after(self.cursor)) {
                Ok(written) => self.cursor += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.full = true,
                Err(_) => return false,
            }
        }
        log.end() - self.cursor <= BEHIND
    }
}

impl Log {
    fn end(&self) -> usize {
        self.begin + self.bytes.len()
    }

    fn after(&self, cursor: usize) -> &[u8] {
        &self.bytes[cursor - self.begin..]
    }

    /// What is before `slowest` has been read by all.
    fn forget(&mut self, slowest: usize) {
        if slowest == self.end() {
            self.bytes.clear();
        } else if slowest - self.begin > READ_BY_ALL {
            self.bytes.drain(..slowest - self.begin);
        } else {
            return;
        }
        self.begin = slowest;
    }
}

/// How many of these bytes are messages that are complete.
fn whole_messages(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some([high, low]) = bytes.get(whole..whole + LENGTH_BYTES) {
        let next = whole + LENGTH_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        if next > bytes.len() {
            break;
        }
        whole = next;
    }
    whole
}
