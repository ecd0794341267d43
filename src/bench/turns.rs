//! When messages are sent, and which of them count.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

/// How long the pacing thread sleeps at most, so that it hears soon that nobody needs it any more.
const NAP: Duration = Duration::from_millis(100);

/// How long a run measures.
#[derive(Debug, Clone, Copy)]
pub enum Extent {
    /// So long.
    Duration(Duration),
    /// Until so many messages are acknowledged, over all streams.
    Messages(u64),
}

impl Extent {
    /// Of a number of messages, what the stream `index` of `streams` sends.
    pub(super) fn share(self, index: usize, streams: usize) -> Option<u64> {
        let Self::Messages(messages) = self else {
            return None;
        };
        let (index, streams) = (index as u64, streams as u64);
        Some(messages / streams + u64::from(index < messages % streams))
    }
}

/// The part of a run that is measured: what is due in it counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// The warm-up is over.
    pub(super) from: Instant,
    /// Nothing more is sent; none if a number of messages decides.
    pub(super) until: Option<Instant>,
}

/// The messages of one stream, one after the other.
#[derive(Debug)]
pub(super) struct Turns {
    window: Window,
    pace: Option<Pace>,
    /// Measured messages that are still to be sent; none if time decides.
    quota: Option<u64>,
}

/// A message that is to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// When it was to be sent: its latency counts from here, however late it is.
    pub(super) due: Instant,
    /// It is no part of the warm-up.
    pub(super) measured: bool,
}

impl Turns {
    pub(super) fn new(window: Window, pace: Option<Pace>, quota: Option<u64>) -> Self {
        Self {
            window,
            pace,
            quota,
        }
    }

    /// The next message that is due; none if that was all. While it waits, `context` is woken when one is.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Turn>> {
        loop {
            let now = Instant::now();
            if self.are_over(now) {
                return Poll::Ready(None);
            }
            let due = self.pace.as_ref().map_or(now, Pace::due);
            if due <= now {
                return Poll::Ready(Some(self.take(due)));
            }
            let pace = self.pace.as_mut().expect("only a schedule is ahead");
            if ready!(pace.wakes.poll_recv(context)).is_none() {
                return Poll::Ready(None);
            }
        }
    }

    /// When nothing more is sent, if time decides that.
    pub(super) fn until(&self) -> Option<Instant> {
        self.window.until
    }

    /// Whether that was all.
    pub(super) fn are_over(&self, now: Instant) -> bool {
        self.quota == Some(0) || self.window.until.is_some_and(|until| now >= until)
    }

    fn take(&mut self, due: Instant) -> Turn {
        if let Some(pace) = &mut self.pace {
            pace.taken += 1;
        }
        let measured = due >= self.window.from;
        if measured && let Some(quota) = &mut self.quota {
            *quota -= 1;
        }
        Turn { due, measured }
    }

    /// Measured messages that were due before the end and were not sent: the server, or this client, was too slow.
    pub(super) fn missed(mut self) -> u64 {
        let Some((mut pace, until)) = self.pace.take().zip(self.window.until) else {
            return 0;
        };
        let mut missed = 0;
        while pace.due() < until {
            missed += u64::from(pace.due() >= self.window.from);
            pace.taken += 1;
        }
        missed
    }
}

/// A run that begins now: its window, and the turns of each of `streams`. With a `rate` of messages a second over all
/// streams, somebody must be there to wake them, too.
///
/// # Errors
/// There is no thread to be had for that.
pub(super) fn begin(
    warm_up: Duration,
    extent: Extent,
    rate: Option<u32>,
    streams: usize,
) -> io::Result<(Window, Vec<Turns>, Option<Pacer>)> {
    let begin = Instant::now();
    let from = begin + warm_up;
    let until = match extent {
        Extent::Duration(duration) => Some(from + duration),
        Extent::Messages(_) => None,
    };
    let window = Window { from, until };
    let (pacer, mut paces) = match rate {
        None => (None, Vec::new()),
        Some(rate) => {
            let (pacer, paces) = Pacer::start(begin, rate, streams, until)?;
            (Some(pacer), paces)
        }
    };
    let mut paces = paces.drain(..);
    let turns = (0..streams)
        .map(|stream| Turns::new(window, paces.next(), extent.share(stream, streams)))
        .collect();
    Ok((window, turns, pacer))
}

/// Messages that are due at fixed times, whatever becomes of the earlier ones.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    begin: Instant,
    /// Messages a second.
    rate: u32,
}

impl Schedule {
    fn due(self, message: u64) -> Instant {
        self.begin + Duration::from_secs_f64(message as f64 / f64::from(self.rate))
    }
}

/// One stream's part of a schedule.
#[derive(Debug)]
pub(super) struct Pace {
    schedule: Schedule,
    stream: usize,
    streams: usize,
    taken: u64,
    /// Each says that the clock is to be looked at, and no more.
    wakes: mpsc::Receiver<()>,
}

impl Pace {
    /// When the stream's next message is due.
    fn due(&self) -> Instant {
        let message = self.taken * self.streams as u64 + self.stream as u64;
        self.schedule.due(message)
    }
}

/// The thread that wakes each stream when its next message is due: the runtime's own timers are a millisecond coarse,
/// which would be most of a latency. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// A schedule of `rate` messages a second from `begin` on, dealt to `streams` in turn.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        begin: Instant,
        rate: u32,
        streams: usize,
        until: Option<Instant>,
    ) -> io::Result<(Self, Vec<Pace>)> {
        let schedule = Schedule { begin, rate };
        let (wakers, paces): (Vec<_>, Vec<_>) = (0..streams)
            .map(|stream| {
                let (waker, wakes) = mpsc::channel(1);
                let pace = Pace {
                    schedule,
                    stream,
                    streams,
                    taken: 0,
                    wakes,
                };
                (waker, pace)
            })
            .unzip();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("pacer".into())
            .spawn(move || wake_in_turn(schedule, &wakers, until, &stopped))?;
        let pacer = Self {
            stop,
            thread: Some(thread),
        };
        Ok((pacer, paces))
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Wakes whose message is due; all of them at the end, which they find by their own look at the clock.
fn wake_in_turn(
    schedule: Schedule,
    streams: &[mpsc::Sender<()>],
    until: Option<Instant>,
    stop: &AtomicBool,
) {
    for message in 0.. {
        let due = schedule.due(message);
        let wake_at = until.map_or(due, |until| due.min(until));
        loop {
            if stop.load(Ordering::Acquire) {
                return;
            }
            let left = wake_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(NAP));
        }
        if until.is_some_and(|until| due >= until) {
            break;
        }
        // One that has not looked since it was last woken will find both.
        let _ = streams[message as usize % streams.len()].try_send(());
    }
    for stream in streams {
        let _ = stream.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn window(from: Instant, until: Option<Instant>) -> Window {
        Window { from, until }
    }

    fn dues(turns: &mut Turns) -> Vec<Turn> {
        let mut context = Context::from_waker(Waker::noop());
        let mut dues = Vec::new();
        while let Poll::Ready(Some(turn)) = turns.poll(&mut context) {
            dues.push(turn);
        }
        dues
    }

    #[test]
    fn a_number_of_messages_is_dealt_to_the_streams_without_a_rest() {
        let shares = (0..3).map(|stream| Extent::Messages(11).share(stream, 3));
        assert_eq!(shares.collect::<Vec<_>>(), [Some(4), Some(4), Some(3)]);
        assert_eq!(Extent::Duration(NAP).share(0, 3), None);
    }

    #[test]
    fn the_warm_up_takes_nothing_of_the_number_of_messages() {
        let from = Instant::now() + Duration::from_secs(60);
        let mut warming = Turns::new(window(from, None), None, Some(1));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let turn = warming.poll(&mut context);
            assert!(
                matches!(
                    turn,
                    Poll::Ready(Some(Turn {
                        measured: false,
                        ..
                    }))
                ),
                "{turn:?}"
            );
        }
        let mut measuring = Turns::new(window(Instant::now(), None), None, Some(2));
        assert!(dues(&mut measuring).iter().all(|turn| turn.measured));
        assert!(matches!(measuring.poll(&mut context), Poll::Ready(None)));
    }

    #[test]
    fn what_was_late_is_due_when_it_was_due_and_what_was_never_sent_is_told() {
        // Two streams, ten messages a second, and nobody looked for a second: the other stream's are not ours.
        let second = Duration::from_secs(1);
        let begin = Instant::now() - second;
        let until = begin + 3 * second;
        let (_pacer, mut paces) = Pacer::start(begin, 10, 2, Some(until)).unwrap();
        let first = paces.swap_remove(0);
        let mut turns = Turns::new(window(begin + second / 2, Some(until)), Some(first), None);
        let late = dues(&mut turns);
        assert_eq!(late.len(), 6, "{late:?}");
        assert_eq!(late[1].due, begin + second / 5);
        let measured = late.iter().filter(|turn| turn.measured).count();
        assert_eq!(measured, 3, "{late:?}");
        assert_eq!(turns.missed(), 9, "15 are due, 6 were taken");
    }
}
