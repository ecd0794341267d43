//! What all streams of a run report to, while it goes on.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use super::turns::Turn;

/// The latencies that are told apart.
///
/// Unit: nanoseconds, to three digits. What is shorter counts as the least, what is longer as the most; a wait of a
/// minute has ended as a failure before.
const LATENCY_RANGE: (u64, u64) = (1_000, 3_600_000_000_000);
const LATENCY_DIGITS: u8 = 3;

/// Parts of a meter, so that streams that report at the same time seldom wait for each other.
///
/// Unit: histograms, of 200 KB each; ten thousand streams cannot have one each. Source: far more than the threads that
/// report.
const PARTS: usize = 16;

/// Counts acknowledgements, and deliveries. Each stream reports once for all that it found when it was woken, so a lock
/// is held for moments.
#[derive(Debug)]
pub(super) struct Meter([Mutex<Readings>; PARTS]);

#[derive(Debug)]
struct Readings {
    latencies: Histogram<u64>,
    /// The warm-up's included.
    acknowledged: u64,
    /// The last one that was measured.
    measured_last: Option<Instant>,
    /// The last one at all, or the beginning.
    heard_last: Instant,
}

/// From a publisher's turn to its own event, over all messages that were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// Half of the messages took at most so long.
    #[serde(serialize_with = "microseconds")]
    pub p50: Duration,
    /// 99 of 100 did.
    #[serde(serialize_with = "microseconds")]
    pub p99: Duration,
    /// 999 of 1,000 did.
    #[serde(serialize_with = "microseconds", rename = "p99_9")]
    pub p999: Duration,
    /// All did.
    #[serde(serialize_with = "microseconds")]
    pub max: Duration,
}

/// Microseconds with what is left as their fraction.
pub(super) fn microseconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_nanos() as f64 / 1_000.0)
}

impl Meter {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(Readings::new())))
    }

    /// The stream `index` found that these messages were acknowledged, or delivered, all of them `now`; with none of
    /// them, that something else came.
    pub(super) fn acknowledged(&self, index: usize, turns: &[Turn], now: Instant) {
        let mut readings = lock(&self.0[index % PARTS]);
        for turn in turns.iter().filter(|turn| turn.measured) {
            let latency = now.saturating_duration_since(turn.due).as_nanos();
            let latency = u64::try_from(latency).unwrap_or(u64::MAX);
            readings.latencies.saturating_record(latency);
            readings.measured_last = Some(now);
        }
        readings.acknowledged += turns.len() as u64;
        readings.heard_last = now;
    }

    /// How many messages were acknowledged up to now, those of the warm-up included.
    pub(super) fn count(&self) -> u64 {
        self.parts().map(|readings| readings.acknowledged).sum()
    }

    /// How many of them were measured.
    pub(super) fn measured(&self) -> u64 {
        self.parts().map(|readings| readings.latencies.len()).sum()
    }

    /// For how long nothing has come.
    pub(super) fn silent(&self) -> Duration {
        let last = self.parts().map(|readings| readings.heard_last).max();
        last.map_or(Duration::ZERO, |last| last.elapsed())
    }

    /// When the last measured message was acknowledged.
    pub(super) fn last(&self) -> Option<Instant> {
        let last = self.parts().filter_map(|readings| readings.measured_last);
        last.max()
    }

    /// The latencies of what was measured; none if nothing was.
    pub(super) fn latencies(&self) -> Option<Latencies> {
        let mut latencies = latencies();
        for readings in self.parts() {
            latencies += &readings.latencies;
        }
        let at = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
        (!latencies.is_empty()).then(|| Latencies {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_nanos(latencies.max()),
        })
    }

    fn parts(&self) -> impl Iterator<Item = MutexGuard<'_, Readings>> {
        self.0.iter().map(lock)
    }
}

impl Readings {
    fn new() -> Self {
        Self {
            latencies: latencies(),
            acknowledged: 0,
            measured_last: None,
            heard_last: Instant::now(),
        }
    }
}

fn latencies() -> Histogram<u64> {
    let (least, most) = LATENCY_RANGE;
    Histogram::new_with_bounds(least, most, LATENCY_DIGITS)
        .expect("the bounds are apart and the digits at most five")
}

fn lock(readings: &Mutex<Readings>) -> MutexGuard<'_, Readings> {
    readings.lock().unwrap_or_else(PoisonError::into_inner)
}
