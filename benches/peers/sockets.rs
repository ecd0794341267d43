//! What the standard library does not tell about TCP sockets, or let one ask of them.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
};

use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};

/// The least that a receiving socket holds; the system makes it as much as it must. Unit: bytes.
const LITTLE_ROOM: usize = 1;

/// Connects a socket that takes little from its peer without being read.
///
/// The room must be small from the beginning: what a peer's system holds for a connection follows from it.
///
/// # Errors
/// As when connecting.
pub fn connect_with_little_room(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_recv_buffer_size(&socket, LITTLE_ROOM)?;
    connect(&socket, &server)?;
    Ok(TcpStream::from(socket))
}

/// Bytes that the peer, a process of this machine, has written to `socket` and that have not arrived, as /proc/net/tcp
/// has it; 0 if the peer has none such any more.
///
/// # Errors
/// It is no socket of IPv4, or there is no such file.
pub fn bytes_on_their_way_to(socket: &TcpStream) -> anyhow::Result<u64> {
    let (peer, own) = (hex(socket.peer_addr())?, hex(socket.local_addr())?);
    let table = fs::read_to_string("/proc/net/tcp").context("cannot read /proc/net/tcp")?;
    let row = table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let ends = (words.next()?, words.next()?);
        (ends == (&peer, &own)).then(|| words.nth(1))?
    });
    let Some(queues) = row else { return Ok(0) };
    let sent = queues.split(':').next().unwrap_or_default();
    u64::from_str_radix(sent, 16)
        .with_context(|| format!("/proc/net/tcp has a queue of {queues:?}"))
}

/// An address as /proc/net/tcp writes it.
fn hex(address: io::Result<SocketAddr>) -> io::Result<String> {
    match address? {
        SocketAddr::V4(address) => {
            let ip = u32::from_ne_bytes(address.ip().octets());
            Ok(format!("{ip:08X}:{:04X}", address.port()))
        }
        SocketAddr::V6(_) => Err(io::Error::new(ErrorKind::Unsupported, "an IPv6 address")),
    }
}
