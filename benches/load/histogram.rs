//! A log-linear histogram of latencies: 64 steps per doubling, so a quantile is accurate to 1.6 %. Every connection
//! fills its own, and they are merged at the end; nothing is shared during the load.

use std::time::Duration;

const STEPS: usize = 64;
const STEPS_LOG2: u32 = 6;
const BUCKETS: usize = STEPS * 27;

/// Counts of latencies in microseconds, up to 71 minutes.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The latency in milliseconds that the fraction `quantile` (0 to 1) of all does not exceed; `None` when nothing
    /// was recorded.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let wanted = (self.total as f64 * quantile).max(1.0);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return Some(upper_micros(at) as f64 / 1_000.0);
            }
        }
        None
    }
}

fn bucket(micros: u32) -> usize {
    let doubling = micros.max(1).ilog2().saturating_sub(STEPS_LOG2);
    doubling as usize * STEPS + (micros >> doubling) as usize
}

/// The largest latency that falls into a bucket; the inverse of [`bucket`].
fn upper_micros(at: usize) -> u64 {
    let doubling = (at / STEPS).saturating_sub(1);
    let step = at - doubling * STEPS;
    ((step as u64 + 1) << doubling) - 1
}
