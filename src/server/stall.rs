//! Ends the streams of clients that take nothing although there is something for them.
//!
//! HTTP/2 asks a response body for more only when the client has taken what came before, so a body that is not read is
//! not asked either, and cannot notice by itself. Its connection does not notice: such a client may well answer PINGs.
//! Therefore somebody looks from outside. A body marks what it did last ([`Pulse`]), which takes no clock and no lock;
//! one task looks at the marks of all, [`LOOKS`] times in `limits.stall`.
//!
//! What a client takes counts in the pieces that a body hands over, the events that were ready together. Who takes less than
//! a piece in `limits.stall` takes nothing. That is no coarser than what HTTP/2 shows: clients tell of what they have read
//! when it is half of their window or so, which is more.
//!
//! Who has stalled is told when it reads again, behind what HTTP/2 holds for it: RESOURCE_EXHAUSTED, reason STALLED, and
//! the last sequence that it was sent. Meanwhile it counts as a participant whose stream broke.
//!
//! A client that does not even take from its socket what HTTP/2 has for it is noticed by the keepalive as well: it
//! cannot answer a PING that it does not read.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::yield_now, time::sleep};

use super::{Shared, outbox::Outbox};

/// How often everybody is looked at in `limits.stall`.
///
/// A client is ended when it has not moved in so many looks after the first that saw it as it is: a quarter of
/// `limits.stall` late at most, and never early. Looks are counted, not the time between them: a server that was itself
/// suspended for a while has not waited for anybody meanwhile.
const LOOKS: u8 = 4;

/// The shortest pause between two looks. A `limits.stall` of less than four times this, 100 ms, counts as that.
const PAUSE_MIN: Duration = Duration::from_millis(25);

/// Readers that are looked at before others have their turn on this thread: about 0.1 ms of work.
const READERS_AT_ONCE: usize = 1_024;

/// What a body did last. The body alone writes it.
///
/// Odd: it handed something over and was not asked for more since, so HTTP/2 still has that in its hands. Even: it was
/// asked for more than there is, and waits for its room. Each handing over makes another number.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    /// The body was asked, and had something or not.
    pub(super) fn beat(&self, had_something: bool) {
        let last = self.0.load(Ordering::Relaxed);
        let next = match had_something {
            true => (last | 1).wrapping_add(2),
            false => last & !1,
        };
        self.0.store(next, Ordering::Relaxed);
    }
}

/// Looks after all who read, and holds nobody: a reader that is gone is forgotten.
#[derive(Debug)]
pub(super) struct Lookout {
    limit: Duration,
    readers: Mutex<Vec<Watched>>,
}

/// Somebody who reads, as it was when last looked at.
#[derive(Debug)]
struct Watched {
    outbox: Weak<Outbox>,
    pulse: u64,
    /// Looks since that found it the same.
    looks: u8,
}

/// Looks at everybody, again and again, until the server drains.
pub(super) async fn look_out(shared: Arc<Shared>) {
    let lookout = &shared.lookout;
    if lookout.limit.is_zero() {
        return;
    }
    let pause = (lookout.limit / u32::from(LOOKS)).max(PAUSE_MIN);
    let looking = async {
        loop {
            sleep(pause).await;
            match lookout.look().await {
                0 => {}
                stalled => tracing::info!(
                    "{stalled} streams ended: their clients took nothing for {:?}, and may resume",
                    lookout.limit
                ),
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = shared.draining.begun() => {}
    }
}

impl Lookout {
    /// `limit`: `limits.stall`.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            readers: Mutex::default(),
        }
    }

    /// Looks after the body that reads `outbox` from now on.
    pub(super) fn add(&self, outbox: &Arc<Outbox>) {
        if self.limit.is_zero() {
            return;
        }
        let mut readers = self.lock();
        if readers.len() == readers.capacity() {
            // Those who are gone make place. Only if most are still there it takes more, so that this is rare.
            readers.retain(Watched::is_there);
            let there = readers.len();
            readers.reserve(there.max(1));
        }
        readers.push(Watched {
            outbox: Arc::downgrade(outbox),
            pulse: 0,
            looks: 0,
        });
    }

    /// One look at everybody, which ends those who have stalled: how many that were.
    async fn look(&self) -> usize {
        // Nobody who comes or goes meanwhile waits for this.
        let mut readers = mem::take(&mut *self.lock());
        let mut stalled = 0;
        for some in readers.chunks_mut(READERS_AT_ONCE) {
            for reader in some {
                if let Some(outbox) = reader.outbox.upgrade()
                    && reader.has_stalled(&outbox.pulse)
                {
                    outbox.stall(self.limit);
                    reader.outbox = Weak::new();
                    stalled += 1;
                }
            }
            yield_now().await;
        }
        readers.retain(Watched::is_there);
        let mut newer = self.lock();
        readers.append(&mut newer);
        *newer = readers;
        stalled
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn is_there(&self) -> bool {
        self.outbox.strong_count() > 0
    }

    fn has_stalled(&mut self, pulse: &Pulse) -> bool {
        let pulse = pulse.0.load(Ordering::Relaxed);
        let is_still = pulse % 2 == 1 && pulse == self.pulse;
        self.pulse = pulse;
        self.looks = if is_still { self.looks + 1 } else { 0 };
        self.looks >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::{
        server::outbox::{Next, Private},
        wire::Frame,
    };

    const LIMIT: Duration = Duration::from_secs(30);

    fn is_ended(outbox: &Outbox) -> bool {
        matches!(
            outbox.next(0, &Context::from_waker(Waker::noop())),
            Next::End(_)
        )
    }

    #[tokio::test]
    async fn who_takes_nothing_is_ended_by_the_fourth_look_that_finds_it_so_and_not_by_the_third() {
        let (lookout, outbox) = (Lookout::new(LIMIT), Outbox::new());
        lookout.add(&outbox);
        outbox.pulse.beat(true);

        for _ in 0..=3 {
            assert_eq!(lookout.look().await, 0);
            assert!(!is_ended(&outbox));
        }
        assert_eq!(lookout.look().await, 1);
        assert!(is_ended(&outbox));
        assert_eq!(lookout.look().await, 0, "once");
    }

    #[tokio::test]
    async fn an_answer_that_comes_too_late_does_not_put_the_end_off() {
        let (lookout, outbox) = (Lookout::new(LIMIT), Outbox::new());
        lookout.add(&outbox);
        outbox.pulse.beat(true);
        for _ in 0..=4 {
            lookout.look().await;
        }

        outbox.push(Private {
            after: 100,
            stands_for: 0,
            frame: Frame::of_encoded(b""),
            _place: None,
        });

        assert!(is_ended(&outbox));
    }

    #[tokio::test]
    async fn who_takes_one_thing_every_three_looks_stays() {
        let (lookout, outbox) = (Lookout::new(LIMIT), Outbox::new());
        lookout.add(&outbox);
        for look in 0..100 {
            if look % 4 == 0 {
                // All that there was, and then the next: the same again, for somebody who forgets in between.
                outbox.pulse.beat(false);
                outbox.pulse.beat(true);
            }
            assert_eq!(lookout.look().await, 0, "look {look}");
        }
    }

    #[tokio::test]
    async fn who_has_taken_everything_stays_however_long_nothing_comes() {
        let (lookout, outbox) = (Lookout::new(LIMIT), Outbox::new());
        lookout.add(&outbox);
        for body_was_asked in [false, true] {
            if body_was_asked {
                outbox.pulse.beat(true);
                outbox.pulse.beat(false);
            }
            for _ in 0..100 {
                assert_eq!(lookout.look().await, 0);
            }
        }
    }

    #[tokio::test]
    async fn those_who_are_gone_cost_nothing_also_between_two_looks() {
        let lookout = Lookout::new(LIMIT);
        let staying: Vec<_> = (0..100).map(|_| Outbox::new()).collect();
        staying.iter().for_each(|outbox| lookout.add(outbox));
        for _ in 0..10_000 {
            lookout.add(&Outbox::new());
        }
        assert!(lookout.lock().capacity() <= 512);
        lookout.look().await;
        assert_eq!(lookout.lock().len(), 100);
    }

    #[tokio::test]
    async fn without_a_limit_nobody_is_looked_at() {
        let (lookout, outbox) = (Lookout::new(Duration::ZERO), Outbox::new());
        lookout.add(&outbox);
        assert!(lookout.lock().is_empty());
    }
}
