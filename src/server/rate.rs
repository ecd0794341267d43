//! How fast one participant may send.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a sender may have been quiet for its saved-up allowance to grow: a burst is at most so many seconds' worth.
const SAVED: Duration = Duration::from_secs(2);

/// Senders outside a stream that are remembered at one time.
///
/// About 64 bytes each. When full: those whose allowance is whole again are forgotten, which changes nothing for them;
/// if nobody is, a new sender is refused as too fast.
const SENDERS_MAX: usize = 10_000;

/// One sender's allowance (a token bucket, kept as the time when it will be whole again).
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    whole_at: Instant,
}

impl Allowance {
    pub(super) fn whole(now: Instant) -> Self {
        Self { whole_at: now }
    }

    /// Takes one message's worth at `rate` messages a second (0: no limit), if it is there.
    pub(super) fn take(&mut self, rate: u32, now: Instant) -> bool {
        if rate == 0 {
            return true;
        }
        let whole_at = self.whole_at.max(now) + Duration::from_secs(1) / rate;
        let fits = whole_at <= now + SAVED;
        if fits {
            self.whole_at = whole_at;
        }
        fits
    }
}

/// The allowances of senders that have no stream to keep it on.
#[derive(Debug)]
pub(super) struct Allowances<K>(Mutex<HashMap<K, Allowance>>);

impl<K> Default for Allowances<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Allowances<K> {
    pub(super) fn take(&self, sender: K, rate: u32, now: Instant) -> bool {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if senders.len() >= SENDERS_MAX && !senders.contains_key(&sender) {
            senders.retain(|_, allowance| allowance.whole_at > now);
            if senders.len() >= SENDERS_MAX {
                return false;
            }
        }
        senders
            .entry(sender)
            .or_insert_with(|| Allowance::whole(now))
            .take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allowance: &mut Allowance, rate: u32, now: Instant) -> usize {
        (0..1_000).filter(|_| allowance.take(rate, now)).count()
    }

    #[test]
    fn a_burst_is_two_seconds_worth_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut allowance = Allowance::whole(start);
        assert_eq!(taken(&mut allowance, 10, start), 20);
        assert_eq!(
            taken(&mut allowance, 10, start + Duration::from_secs(1)),
            10
        );
        assert_eq!(
            taken(&mut allowance, 10, start + Duration::from_secs(60)),
            20
        );
    }

    #[test]
    fn a_rate_of_0_is_no_limit() {
        let now = Instant::now();
        assert_eq!(taken(&mut Allowance::whole(now), 0, now), 1_000);
    }

    #[test]
    fn a_sender_s_haste_is_its_own_and_memory_is_bounded() {
        let now = Instant::now();
        let senders = Allowances::default();
        for sender in 0..SENDERS_MAX {
            assert!(senders.take(sender, 1, now));
        }
        assert!(!senders.take(SENDERS_MAX, 1, now), "no place for one more");
        let later = now + Duration::from_secs(10);
        assert!(senders.take(SENDERS_MAX, 1, later), "others are forgotten");
    }
}
