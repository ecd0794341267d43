//! Writes what HTTP/2 has to say in one piece.
//!
//! h2 hands each DATA frame to the socket by itself. A burst of events is two or three of them, and each on its own is a
//! system call, a segment and a wake-up of the client. So the connection's task takes them all first, and then writes them
//! at once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered at most before it is written, in bytes: what a burst of some hundred events takes. Reached: it is
/// written at once, and the rest after it. A client that takes nothing leaves its connection with as much.
const GATHERED_MAX: usize = 65_536;

/// HTTP/2's side: what it writes is gathered, and counts as flushed.
pub(super) struct Gathering<Io>(Arc<Mutex<Gathered<Io>>>);

/// The connection's task's side: it writes what was gathered.
pub(super) struct Out<Io>(Arc<Mutex<Gathered<Io>>>);

struct Gathered<Io> {
    io: Io,
    bytes: Vec<u8>,
    written: usize,
}

/// Both sides of `io`. They are used by one task, so that neither ever waits for the other.
pub(super) fn gather<Io>(io: Io) -> (Gathering<Io>, Out<Io>) {
    let gathered = Arc::new(Mutex::new(Gathered {
        io,
        bytes: Vec::new(),
        written: 0,
    }));
    (Gathering(Arc::clone(&gathered)), Out(gathered))
}

impl<Io: AsyncWrite + Unpin> Out<Io> {
    /// Writes all that was gathered.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(super) fn poll_write(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_write(context)
    }
}

impl<Io: AsyncWrite + Unpin> Gathered<Io> {
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let rest = &self.bytes[self.written..];
            match ready!(Pin::new(&mut self.io).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        // Not kept: a silent connection would hold it for nothing.
        self.bytes = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

fn lock<Io>(gathered: &Mutex<Gathered<Io>>) -> MutexGuard<'_, Gathered<Io>> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Io: AsyncRead + Unpin> AsyncRead for Gathering<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_read(context, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Gathering<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = lock(&self.0);
        let length = slices.iter().map(|slice| slice.len()).sum();
        // What the socket did not take is not added to: what HTTP/2 holds of one connection has its own bounds.
        if gathered.written > 0 || gathered.bytes.len() + length > GATHERED_MAX {
            ready!(gathered.poll_write(context))?;
        }
        if length > GATHERED_MAX {
            return Pin::new(&mut gathered.io).poll_write_vectored(context, slices);
        }
        gathered.bytes.reserve(length);
        for slice in slices {
            gathered.bytes.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_write(context))?;
        Pin::new(&mut gathered.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A socket that takes so many bytes and then waits, and what was written to it, call by call.
    struct Socket {
        room: usize,
        writes: Vec<Vec<u8>>,
        is_shut_down: bool,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.writes.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_shut_down = true;
            Poll::Ready(Ok(()))
        }
    }

    fn socket(room: usize) -> (Gathering<Socket>, Out<Socket>) {
        gather(Socket {
            room,
            writes: Vec::new(),
            is_shut_down: false,
        })
    }

    fn write(gathering: &mut Gathering<Socket>, bytes: &[u8]) -> Poll<usize> {
        let mut context = Context::from_waker(Waker::noop());
        let written = Pin::new(gathering).poll_write(&mut context, bytes);
        written.map(|written| written.expect("this socket never fails"))
    }

    fn write_out(out: &Out<Socket>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        out.poll_write(&mut context).is_ready()
    }

    fn sizes(out: &Out<Socket>) -> Vec<usize> {
        lock(&out.0).io.writes.iter().map(Vec::len).collect()
    }

    #[test]
    fn what_http2_writes_in_one_round_goes_out_in_one_write_and_nothing_before_its_end() {
        let (mut gathering, out) = socket(usize::MAX);
        assert_eq!(write(&mut gathering, b"one"), Poll::Ready(3));
        assert_eq!(write(&mut gathering, b"two"), Poll::Ready(3));
        assert!(sizes(&out).is_empty());
        assert!(write_out(&out) && write_out(&out));
        assert_eq!(lock(&out.0).io.writes, [b"onetwo".to_vec()]);
    }

    #[test]
    fn what_is_gathered_stays_within_its_limit() {
        let (mut gathering, out) = socket(usize::MAX);
        let full = vec![0; GATHERED_MAX];
        assert_eq!(write(&mut gathering, &full), Poll::Ready(GATHERED_MAX));
        assert!(sizes(&out).is_empty());
        assert_eq!(write(&mut gathering, b"more"), Poll::Ready(4));
        assert_eq!(sizes(&out), [GATHERED_MAX]);
        let too_long = vec![0; GATHERED_MAX + 1];
        assert_eq!(
            write(&mut gathering, &too_long),
            Poll::Ready(GATHERED_MAX + 1)
        );
        assert_eq!(sizes(&out), [GATHERED_MAX, 4, GATHERED_MAX + 1]);
    }

    #[test]
    fn a_socket_that_takes_nothing_more_is_given_nothing_more_and_loses_nothing() {
        let (mut gathering, out) = socket(2);
        assert_eq!(write(&mut gathering, b"one"), Poll::Ready(3));
        assert!(!write_out(&out));
        assert!(write(&mut gathering, b"two").is_pending());
        lock(&out.0).io.room = usize::MAX;
        assert_eq!(write(&mut gathering, b"two"), Poll::Ready(3));
        assert!(write_out(&out));
        assert_eq!(lock(&out.0).io.writes.concat(), b"onetwo");
    }

    #[test]
    fn the_end_comes_after_all_that_was_written() {
        let (mut gathering, out) = socket(0);
        assert_eq!(write(&mut gathering, b"last words"), Poll::Ready(10));
        let mut context = Context::from_waker(Waker::noop());
        assert!(
            Pin::new(&mut gathering)
                .poll_shutdown(&mut context)
                .is_pending()
        );
        assert!(!lock(&out.0).io.is_shut_down);
        lock(&out.0).io.room = usize::MAX;
        assert!(
            Pin::new(&mut gathering)
                .poll_shutdown(&mut context)
                .is_ready()
        );
        assert!(lock(&out.0).io.is_shut_down);
        assert_eq!(sizes(&out), [10]);
    }
}
