//! What is under h2: the socket, with the DATA frames taken out of what it reads.
//!
//! A server that delivers each message in a frame of its own sends a million frames a second. h2 handles each with a look
//! at the stream, an allocation and four moves, 0.4 us in all, which is more than all the rest of a load generator's
//! work. So DATA frames go past it, into one buffer for each stream, and everything else (headers, settings, pings, resets,
//! all that is sent) is h2's business as before. What it cannot do then is to give the windows back: WINDOW_UPDATE frames
//! are put between those that it writes.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The header of an HTTP/2 frame (RFC 9113, section 4.1): three bytes of length, one of type, one of flags, and four that
/// name the stream.
const HEADER_BYTES: usize = 9;

/// What a client says before its first frame.
const PREFACE_BYTES: usize = 24;

const TYPE_DATA: u8 = 0;
const TYPE_WINDOW_UPDATE: u8 = 8;
const FLAG_END_STREAM: u8 = 0x1;
const FLAG_PADDED: u8 = 0x8;

/// What is read of the socket at once.
///
/// Unit: bytes, for each thread. Source: several frames of the greatest size that a server may use unasked (16 KiB).
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The socket of one connection, for h2.
pub(super) struct Tap<Io> {
    io: Io,
    intake: Intake,
    outgoing: Outgoing,
}

/// The DATA of one connection. All that hold it are polled by one task, so that nobody waits for it.
#[derive(Clone)]
pub(super) struct Intake(Arc<Mutex<State>>);

struct State {
    streams: Vec<Waiting>,
    /// What all streams together may still be sent, and what was read and not given back of that.
    allowed: u32,
    unreleased: u32,
    stream_window: u32,
    connection_window: u32,
    incoming: Incoming,
    /// What is for h2, and not taken yet.
    control: BytesMut,
    /// WINDOW_UPDATE frames that are to be sent.
    updates: BytesMut,
}

/// What has come on one stream.
struct Waiting {
    id: u32,
    data: BytesMut,
    /// What it may still be sent, and what was read and not given back of that.
    allowed: u32,
    unreleased: u32,
}

/// The frame that is being read.
#[derive(Default)]
struct Incoming {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that have come; 0 between two frames.
    have: usize,
    /// Bytes of the payload that are to come.
    missing: usize,
    sink: Sink,
}

/// Where a payload goes.
#[derive(Clone, Copy, Default)]
enum Sink {
    #[default]
    Control,
    /// The stream in this place.
    Stream(usize),
    /// It belongs to no stream any more.
    Nowhere,
}

/// Where h2 stands in what it writes.
struct Outgoing {
    header: [u8; HEADER_BYTES],
    have: usize,
    missing: usize,
}

impl<Io> Tap<Io> {
    /// A socket whose streams have these windows, and all of them together that one.
    pub(super) fn new(io: Io, stream_window: u32, connection_window: u32) -> (Self, Intake) {
        let intake = Intake(Arc::new(Mutex::new(State {
            streams: Vec::new(),
            allowed: connection_window,
            unreleased: 0,
            stream_window,
            connection_window,
            incoming: Incoming::default(),
            control: BytesMut::new(),
            updates: BytesMut::new(),
        })));
        let tap = Self {
            io,
            intake: intake.clone(),
            outgoing: Outgoing {
                header: [0; HEADER_BYTES],
                have: 0,
                missing: PREFACE_BYTES,
            },
        };
        (tap, intake)
    }
}

impl Intake {
    /// From now on the DATA of the stream `id` is kept.
    pub(super) fn open(&self, id: u32) {
        let mut state = self.lock();
        let allowed = state.stream_window;
        state.streams.push(Waiting {
            id,
            data: BytesMut::new(),
            allowed,
            unreleased: 0,
        });
    }

    /// Puts what has come on the stream `id` behind what is in `unread`, and gives the server that much back. Whether
    /// there was something.
    pub(super) fn take(&self, id: u32, unread: &mut BytesMut, context: &Context<'_>) -> bool {
        let mut state = self.lock();
        let Some(place) = state.place(id) else {
            return false;
        };
        let data = &mut state.streams[place].data;
        if data.is_empty() {
            return false;
        }
        let count = data.len() as u32;
        if unread.is_empty() {
            std::mem::swap(unread, data);
        } else {
            unread.extend_from_slice(data);
        }
        data.clear();
        if state.release(place, count) {
            // h2 is to flush, which sends them.
            context.waker().wake_by_ref();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn place(&self, id: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.id == id)
    }

    /// Sorts what was read of the socket.
    fn read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.incoming.have < HEADER_BYTES {
                let missing = HEADER_BYTES - self.incoming.have;
                let (header, rest) = bytes.split_at(missing.min(bytes.len()));
                self.incoming.header[self.incoming.have..][..header.len()].copy_from_slice(header);
                self.incoming.have += header.len();
                bytes = rest;
                if self.incoming.have < HEADER_BYTES {
                    break;
                }
                self.begin()?;
            }
            let (payload, rest) = bytes.split_at(self.incoming.missing.min(bytes.len()));
            match self.incoming.sink {
                Sink::Control => self.control.extend_from_slice(payload),
                Sink::Stream(place) => self.streams[place].data.extend_from_slice(payload),
                Sink::Nowhere => {}
            }
            bytes = rest;
            self.incoming.missing -= payload.len();
            if self.incoming.missing == 0 {
                self.end();
            }
        }
        Ok(())
    }

    /// The header of a frame is complete.
    fn begin(&mut self) -> io::Result<()> {
        let header = self.incoming.header;
        let length = length(&header);
        self.incoming.missing = length as usize;
        self.incoming.sink = Sink::Control;
        if header[3] != TYPE_DATA {
            self.control.extend_from_slice(&header);
            return Ok(());
        }
        if header[4] & FLAG_PADDED != 0 {
            let what = "the server pads its DATA frames, which a load generator does not read";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        self.allowed = take_from(self.allowed, length)?;
        self.incoming.sink = match self.place(stream_id(&header)) {
            Some(place) => {
                let stream = &mut self.streams[place];
                stream.allowed = take_from(stream.allowed, length)?;
                Sink::Stream(place)
            }
            None => {
                self.release_connection(length);
                Sink::Nowhere
            }
        };
        Ok(())
    }

    /// A frame is complete.
    fn end(&mut self) {
        let header = self.incoming.header;
        self.incoming.have = 0;
        if header[3] == TYPE_DATA && header[4] & FLAG_END_STREAM != 0 {
            // That the stream has ended is for h2 to know: a frame of no bytes says no more.
            self.control.extend_from_slice(&[0, 0, 0]);
            self.control.extend_from_slice(&header[3..]);
        }
    }

    /// So many bytes of the stream in `place` are read. Whether there is something to be sent now.
    fn release(&mut self, place: usize, count: u32) -> bool {
        let half = self.stream_window / 2;
        let stream = &mut self.streams[place];
        stream.unreleased += count;
        if stream.unreleased >= half {
            let count = std::mem::take(&mut stream.unreleased);
            stream.allowed += count;
            let id = stream.id;
            self.update(id, count);
        }
        self.release_connection(count);
        !self.updates.is_empty()
    }

    fn release_connection(&mut self, count: u32) {
        self.unreleased += count;
        if self.unreleased >= self.connection_window / 2 {
            let count = std::mem::take(&mut self.unreleased);
            self.allowed += count;
            self.update(0, count);
        }
    }

    fn update(&mut self, id: u32, count: u32) {
        self.updates
            .extend_from_slice(&[0, 0, 4, TYPE_WINDOW_UPDATE, 0]);
        self.updates.extend_from_slice(&id.to_be_bytes());
        self.updates.extend_from_slice(&count.to_be_bytes());
    }
}

/// # Errors
/// The server sends more than it may.
fn take_from(allowed: u32, length: u32) -> io::Result<u32> {
    allowed.checked_sub(length).ok_or_else(|| {
        let what = "the server sends more than HTTP/2's flow control allows it";
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

fn length(header: &[u8; HEADER_BYTES]) -> u32 {
    u32::from_be_bytes([0, header[0], header[1], header[2]])
}

/// The bit before it is reserved.
fn stream_id(header: &[u8; HEADER_BYTES]) -> u32 {
    u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & (u32::MAX >> 1)
}

impl Outgoing {
    fn is_between_frames(&self) -> bool {
        self.have == 0 && self.missing == 0
    }

    /// h2 has written these bytes.
    fn wrote(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.missing == 0 {
                let (header, rest) = bytes.split_at((HEADER_BYTES - self.have).min(bytes.len()));
                self.header[self.have..][..header.len()].copy_from_slice(header);
                self.have += header.len();
                bytes = rest;
                if self.have == HEADER_BYTES {
                    self.have = 0;
                    self.missing = length(&self.header) as usize;
                }
                continue;
            }
            let count = self.missing.min(bytes.len());
            self.missing -= count;
            bytes = &bytes[count..];
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Tap<Io> {
    /// Reads all that there is; ready with what of that is for h2.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, intake, .. } = &mut *self;
        let mut state = intake.lock();
        SCRATCH.with_borrow_mut(|scratch| {
            while state.control.is_empty() {
                let mut read = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *io).poll_read(context, &mut read))?;
                if read.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                state.read(read.filled())?;
            }
            let count = state.control.len().min(buffer.remaining());
            buffer.put_slice(&state.control.split_to(count));
            Poll::Ready(Ok(()))
        })
    }
}

impl<Io: AsyncWrite + Unpin> Tap<Io> {
    /// Writes the updates that are due, if h2 is not in the middle of a frame.
    fn poll_updates(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.intake.lock();
        while !state.updates.is_empty() && self.outgoing.is_between_frames() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &state.updates))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = state.updates.split_to(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Tap<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_updates(context))?;
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.outgoing.wrote(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_updates(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const HEADERS: u8 = 1;

    fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// A tap with the stream 1, and the server's end.
    fn tap(stream_window: u32) -> (Tap<DuplexStream>, Intake, DuplexStream) {
        let (io, server) = duplex(1 << 20);
        let (tap, intake) = Tap::new(io, stream_window, 16 * stream_window);
        intake.open(1);
        (tap, intake, server)
    }

    fn taken(intake: &Intake, id: u32) -> Vec<u8> {
        let mut unread = BytesMut::new();
        intake.take(id, &mut unread, &Context::from_waker(Waker::noop()));
        unread.to_vec()
    }

    #[tokio::test]
    async fn data_goes_to_its_stream_and_everything_else_to_h2_wherever_reading_breaks_off() {
        let headers = frame(HEADERS, 4, 1, b"headers");
        let trailers = frame(HEADERS, 5, 1, b"trailers");
        let sent = [
            headers.clone(),
            frame(TYPE_DATA, 0, 1, b"one"),
            frame(TYPE_DATA, 0, 3, b"of nobody"),
            frame(TYPE_DATA, 0, 1, b""),
            frame(TYPE_DATA, 0, 1, b" two"),
            trailers.clone(),
        ]
        .concat();
        for at_once in [1, 2, 7, sent.len()] {
            let (mut tap, intake, mut server) = tap(100);
            let reading = async {
                let mut heard = Vec::new();
                tap.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let writing = async {
                for part in sent.chunks(at_once) {
                    server.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                drop(server);
            };
            let (heard, ()) = tokio::join!(reading, writing);

            assert_eq!(heard, [&headers[..], &trailers].concat(), "{at_once}");
            assert_eq!(taken(&intake, 1), b"one two");
            assert_eq!(taken(&intake, 1), b"");
        }
    }

    #[tokio::test]
    async fn that_a_stream_ends_with_data_is_told_behind_the_data() {
        let (mut tap, intake, mut server) = tap(100);
        let last = frame(TYPE_DATA, FLAG_END_STREAM, 1, b"last");
        server.write_all(&last).await.unwrap();

        let mut heard = [0; HEADER_BYTES];
        tap.read_exact(&mut heard).await.unwrap();

        assert_eq!(&heard[..], frame(TYPE_DATA, FLAG_END_STREAM, 1, b""));
        assert_eq!(taken(&intake, 1), b"last");
    }

    #[tokio::test]
    async fn what_was_read_is_given_back_between_two_frames_and_never_within_one() {
        let (mut tap, intake, mut server) = tap(100);
        let ping = frame(6, 0, 0, b"8 bytes.");
        for _ in 0..2 {
            server
                .write_all(&frame(TYPE_DATA, 0, 1, &[0; 30]))
                .await
                .unwrap();
        }
        server.write_all(&ping).await.unwrap();
        let mut heard = [0; 17];
        tap.read_exact(&mut heard).await.unwrap();
        tap.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        tap.write_all(&ping[..5]).await.unwrap();

        assert_eq!(taken(&intake, 1).len(), 60);
        tap.flush().await.unwrap();
        tap.write_all(&ping[5..]).await.unwrap();
        tap.flush().await.unwrap();
        drop(tap);

        let mut written = Vec::new();
        server.read_to_end(&mut written).await.unwrap();
        let update = frame(TYPE_WINDOW_UPDATE, 0, 1, &60_u32.to_be_bytes());
        assert_eq!(written[PREFACE_BYTES..], [&ping[..], &update].concat());
    }

    #[tokio::test]
    async fn a_window_is_what_it_was_once_its_data_was_read_and_more_is_refused() {
        let (mut tap, intake, mut server) = tap(100);
        let mut heard = [0; 1];
        for _ in 0..3 {
            server
                .write_all(&frame(TYPE_DATA, 0, 1, &[0; 100]))
                .await
                .unwrap();
            server.write_all(&frame(HEADERS, 0, 1, b"")).await.unwrap();
            let mut heard = [0; HEADER_BYTES];
            tap.read_exact(&mut heard).await.unwrap();
            assert_eq!(taken(&intake, 1).len(), 100);
        }
        for data in [100, 1] {
            let data = vec![0; data];
            let frame = frame(TYPE_DATA, 0, 1, &data);
            server.write_all(&frame).await.unwrap();
        }
        let refused = tap.read_exact(&mut heard).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn padding_is_refused() {
        let (mut tap, _, mut server) = tap(100);
        let padded = frame(TYPE_DATA, FLAG_PADDED, 1, b"\x01a.");
        server.write_all(&padded).await.unwrap();
        let refused = tap.read_u8().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }
}
