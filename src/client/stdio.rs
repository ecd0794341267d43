//! Standard input and output without waiting for either: a thread each, which ends when its owner is dropped.
//!
//! A thread that sits in `read` cannot be told to stop, and one that sits in `write` neither. These ask `poll` first,
//! for the stream and for a pipe whose other end their owner holds, so that they only do what will not wait. (Making
//! the streams non-blocking instead would change them for every process that shares them, the shell among them.)

use std::{
    io::{self, PipeReader, PipeWriter, Write as _},
    os::fd::{AsFd, BorrowedFd},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::{mpsc, oneshot};

/// Lines that may wait to be taken.
///
/// When full: the thread reads no further, so that whoever writes waits.
const LINES_CAPACITY: usize = 64;

/// How much of one line is kept.
///
/// Unit: bytes. What is beyond is dropped and the line marked; far above any text that may be sent.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How long what was heard may take to be shown once this is to end.
///
/// When it is over the rest is not shown, and a terminal is given back as it is. Source: a reader that takes longer has
/// stopped or is gone, and whoever sends SIGTERM soon sends SIGKILL.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Pieces of output that may wait to be written.
///
/// When full: [`Output::write`] waits.
const OUTPUT_CAPACITY: usize = 64;

/// How much is written at once.
///
/// Unit: bytes; `PIPE_BUF` of Linux. A pipe that `poll` calls writable takes as much without waiting.
const WRITE_BYTES: usize = 4096;

/// The lines of standard input.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: mpsc::Receiver<io::Result<Line>>,
    thread: Thread,
}

/// A line of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// Without its end.
    Text(String),
    /// Not UTF-8.
    NotText,
    /// Longer than any text may be.
    Endless,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    pieces: Option<mpsc::Sender<String>>,
    ended: Option<oneshot::Receiver<io::Result<()>>>,
    thread: Thread,
}

/// A look at standard input that reads nothing.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: oneshot::Receiver<()>,
    thread: Thread,
}

/// A thread and what ends it.
#[derive(Debug)]
struct Thread {
    stop: Option<PipeWriter>,
    handle: Option<JoinHandle<()>>,
}

impl Lines {
    /// Begins to read.
    pub(crate) fn of_stdin() -> io::Result<Self> {
        let (sender, lines) = mpsc::channel(LINES_CAPACITY);
        let thread = Thread::spawn("stdin", move |stop| {
            let stdin = io::stdin();
            if let Err(error) = read_lines(stdin.as_fd(), &stop, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        })?;
        Ok(Self { lines, thread })
    }

    /// The next line; `None` at the end of input. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Line>> {
        self.lines.recv().await
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // A thread that waits for room is woken by this, one that waits for input by the other.
        self.lines.close();
        self.thread.stop();
    }
}

impl Output {
    /// Begins to write.
    pub(crate) fn of_stdout() -> io::Result<Self> {
        let (sender, mut pieces) = mpsc::channel(OUTPUT_CAPACITY);
        let (end, ended) = oneshot::channel();
        let thread = Thread::spawn("stdout", move |stop| {
            let stdout = io::stdout();
            let _ = end.send(write_pieces(stdout.as_fd(), &stop, &mut pieces));
        })?;
        Ok(Self {
            pieces: Some(sender),
            ended: Some(ended),
            thread,
        })
    }

    /// Writes `piece` after what was given before; returns when there is room for it. Cancel safe: the piece is then
    /// not written.
    ///
    /// # Errors
    /// Why nothing can be written any more, such as [`io::ErrorKind::BrokenPipe`] when nobody reads.
    pub(crate) async fn write(&mut self, piece: &str) -> io::Result<()> {
        if let Some(pieces) = &self.pieces
            && let Ok(room) = pieces.reserve().await
        {
            room.send(piece.to_owned());
            return Ok(());
        }
        Err(self.failure().await)
    }

    /// Returns when nothing can be written any more. Cancel safe.
    pub(crate) async fn failure(&mut self) -> io::Error {
        match self.end().await {
            Err(error) => error,
            Ok(()) => io::ErrorKind::BrokenPipe.into(),
        }
    }

    /// Returns when all is written. Cancel safe; dropped instead, what waits is not written.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.pieces = None;
        self.end().await
    }

    async fn end(&mut self) -> io::Result<()> {
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        let Some(ended) = &mut self.ended else {
            return gone();
        };
        let result = ended.await;
        self.ended = None;
        result.unwrap_or_else(|_| gone())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.pieces = None;
        self.thread.stop();
    }
}

impl Watch {
    /// Begins to look out for something to read.
    pub(crate) fn for_input() -> io::Result<Self> {
        Self::begin(PollFlags::IN)
    }

    /// Begins to look out for the end: the other side has gone.
    pub(crate) fn for_end() -> io::Result<Self> {
        // The end is reported without being asked for.
        Self::begin(PollFlags::empty())
    }

    fn begin(wanted: PollFlags) -> io::Result<Self> {
        let (see, seen) = oneshot::channel();
        let thread = Thread::spawn("watch", move |stop| {
            if let Ok(true) = ready(io::stdin().as_fd(), wanted, &stop) {
                let _ = see.send(());
            }
        })?;
        Ok(Self { seen, thread })
    }

    /// Returns when it is there; never if that cannot be known. To be called once. Cancel safe.
    pub(crate) async fn seen(&mut self) {
        if (&mut self.seen).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.thread.stop();
    }
}

impl Thread {
    fn spawn(name: &str, run: impl FnOnce(PipeReader) + Send + 'static) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(stopped))?;
        Ok(Self {
            stop: Some(stop),
            handle: Some(handle),
        })
    }

    fn stop(&mut self) {
        self.stop = None;
        if let Some(handle) = self.handle.take() {
            // It has nothing left to wait for.
            let _ = handle.join();
        }
    }
}

/// What is to be told of an end of standard output: that nobody reads any more (`| head`) is an end like another.
///
/// # Errors
/// Standard output failed for another reason.
pub(crate) fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// A word to the person on standard error, beside what was asked for.
pub(crate) fn tell(what: &str) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "chitchat: {what}");
}

/// Waits until `fd` is ready for `wanted`; `false` if it is to stop instead.
fn ready(fd: BorrowedFd<'_>, wanted: PollFlags, stop: &PipeReader) -> io::Result<bool> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(fd, wanted),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(true),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_lines(
    fd: BorrowedFd<'_>,
    stop: &PipeReader,
    lines: &mpsc::Sender<io::Result<Line>>,
) -> io::Result<()> {
    let (mut bytes, mut line) = ([0; 8 * 1024], Partial::default());
    while ready(fd, PollFlags::IN, stop)? {
        let count = match rustix::io::read(fd, &mut bytes) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            // What a terminal answers whose other side has gone.
            Err(rustix::io::Errno::IO) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut parts = bytes[..count].split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            line.add(part);
            let ends = parts.peek().is_some() || (count == 0 && line.begun);
            if ends && lines.blocking_send(Ok(line.take())).is_err() {
                return Ok(());
            }
        }
        if count == 0 {
            break;
        }
    }
    Ok(())
}

/// The line that is being read.
#[derive(Default)]
struct Partial {
    kept: Vec<u8>,
    begun: bool,
    endless: bool,
}

impl Partial {
    fn add(&mut self, part: &[u8]) {
        self.begun |= !part.is_empty();
        if self.kept.len() + part.len() > LINE_BYTES_MAX {
            self.endless = true;
        } else {
            self.kept.extend_from_slice(part);
        }
    }

    fn take(&mut self) -> Line {
        let Self { kept, endless, .. } = std::mem::take(self);
        match String::from_utf8(kept) {
            _ if endless => Line::Endless,
            Ok(text) => Line::Text(text),
            Err(_) => Line::NotText,
        }
    }
}

fn write_pieces(
    fd: BorrowedFd<'_>,
    stop: &PipeReader,
    pieces: &mut mpsc::Receiver<String>,
) -> io::Result<()> {
    while let Some(piece) = pieces.blocking_recv() {
        let mut rest = piece.as_bytes();
        while !rest.is_empty() {
            if !ready(fd, PollFlags::OUT, stop)? {
                return Ok(());
            }
            match rustix::io::write(fd, &rest[..rest.len().min(WRITE_BYTES)]) {
                Ok(count) => rest = &rest[count..],
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(input: &[u8]) -> Vec<Line> {
        let (reader, mut writer) = io::pipe().unwrap();
        let (stopped, _stop) = io::pipe().unwrap();
        let (sender, mut lines) = mpsc::channel(1_000);
        let input = input.to_vec();
        let writing = std::thread::spawn(move || writer.write_all(&input).unwrap());
        read_lines(reader.as_fd(), &stopped, &sender).unwrap();
        writing.join().unwrap();
        drop(sender);
        std::iter::from_fn(|| lines.blocking_recv())
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let text = |text: &str| Line::Text(text.into());
        assert_eq!(lines_of(b"a\n\nb"), [text("a"), text(""), text("b")]);
        assert_eq!(lines_of(b"a\n"), [text("a")]);
        assert_eq!(lines_of(b""), []);
    }

    #[test]
    fn a_line_without_end_is_not_kept_and_the_next_one_is() {
        let mut input = vec![b'a'; 3 * LINE_BYTES_MAX];
        input.extend(b"\nb\n");
        assert_eq!(lines_of(&input), [Line::Endless, Line::Text("b".into())]);
    }

    #[test]
    fn what_is_not_utf8_is_not_guessed_at() {
        assert_eq!(
            lines_of(b"\xff\nb\n"),
            [Line::NotText, Line::Text("b".into())]
        );
    }

    #[test]
    fn a_writer_that_nobody_reads_can_be_stopped() {
        let (_reader, writer) = io::pipe().unwrap();
        let (stopped, stop) = io::pipe().unwrap();
        let (sender, mut pieces) = mpsc::channel(1);
        let writing =
            std::thread::spawn(move || write_pieces(writer.as_fd(), &stopped, &mut pieces));
        sender.blocking_send("x".repeat(1 << 20)).unwrap();
        drop(stop);
        assert!(writing.join().unwrap().is_ok());
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_not_the_end_of_the_process() {
        let (reader, writer) = io::pipe().unwrap();
        let (stopped, _stop) = io::pipe().unwrap();
        let (sender, mut pieces) = mpsc::channel(1);
        drop(reader);
        sender.blocking_send("x".into()).unwrap();
        let error = write_pieces(writer.as_fd(), &stopped, &mut pieces).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
