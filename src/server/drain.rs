//! That the server drains: told once, heard by everybody.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Begins as "not yet" and changes once. Cheap to clone; all clones are one.
///
/// A [`CancellationToken`] alone takes a lock each time that it is asked, one lock for all; streams ask with every event.
#[derive(Debug, Clone, Default)]
pub(super) struct Drain {
    has_begun: Arc<AtomicBool>,
    token: CancellationToken,
}

/// Waits for a [`Drain`], for somebody who is polled for other things most of the time.
pub(super) struct Waiting {
    drain: Drain,
    /// What waits at the token, and whom it wakes.
    at_token: Option<(Pin<Box<WaitForCancellationFutureOwned>>, Waker)>,
}

impl Drain {
    /// Tells everybody.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Ends when the drain begins.
    pub(super) async fn begun(&self) {
        self.token.cancelled().await;
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            drain: self.clone(),
            at_token: None,
        }
    }
}

impl Waiting {
    /// Whether the drain has begun; if not, `context` is woken when it does.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.drain.has_begun() {
            self.at_token = None;
            return Poll::Ready(());
        }
        if let Some((_, waker)) = &self.at_token
            && waker.will_wake(context.waker())
        {
            return Poll::Pending;
        }
        let mut waiting = Box::pin(self.drain.token.clone().cancelled_owned());
        // The token is cancelled after the flag is set: whoever waits at it here is woken, or is ready.
        let polled = waiting.as_mut().poll(context);
        self.at_token = Some((waiting, context.waker().clone()));
        polled
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Waiting").field(&self.drain).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, task::Wake};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_was_polled_last_is_woken_once_when_it_begins() {
        let drain = Drain::default();
        let mut waiting = drain.waiting();
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        for count in &counts {
            let waker = Waker::from(Arc::clone(count));
            let mut context = Context::from_waker(&waker);
            assert!(waiting.poll(&mut context).is_pending());
            assert!(waiting.poll(&mut context).is_pending());
        }

        drain.begin();

        let woken = counts.map(|count| count.0.load(Ordering::SeqCst));
        assert_eq!(woken, [0, 1]);
        assert!(drain.has_begun());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.poll(&mut context).is_ready());
        assert!(drain.waiting().poll(&mut context).is_ready());
    }
}
