//! The pace that a client must keep while it holds a slot, as the sender of an upload or the taker of a download: no long
//! pause, and a least average rate once it has had time to get going. A slot is scarce, and without this a few clients
//! that trickle a byte now and then would keep all of them (I9). Pure: the callers wait and tell it for how long.

use std::time::Duration;

/// Least average rate, in bytes a second: slower than any line that anybody moves megabytes over.
const RATE: u64 = 16 * 1024;

/// How well one client has kept up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pause_max: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// `pause_max` is the longest single pause, and also the head start before the rate counts.
    pub(super) fn new(pause_max: Duration) -> Self {
        Self {
            pause_max,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// How long the client may keep us waiting now; zero when it is too slow already.
    pub(super) fn patience(&self) -> Duration {
        let earned = Duration::from_millis(self.bytes.saturating_mul(1_000) / RATE);
        let left = (self.pause_max + earned).saturating_sub(self.waited);
        left.min(self.pause_max)
    }

    /// The client moved so many bytes after this wait. Time that storage took is not the client's and not counted.
    pub(super) fn moved(&mut self, bytes: usize, waited: Duration) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited = self.waited.saturating_add(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE_MAX: Duration = Duration::from_secs(30);

    #[test]
    fn a_client_that_trickles_runs_out_of_patience() {
        let mut pace = Pace::new(PAUSE_MAX);
        assert_eq!(pace.patience(), PAUSE_MAX);
        pace.moved(1, Duration::from_secs(29));
        assert_eq!(pace.patience(), Duration::from_secs(1));
        pace.moved(1, Duration::from_secs(1));
        assert_eq!(pace.patience(), Duration::ZERO);
    }

    #[test]
    fn a_client_that_keeps_the_rate_goes_on_but_may_not_pause() {
        let mut pace = Pace::new(PAUSE_MAX);
        for _ in 0..1_000 {
            pace.moved(32 * 1024, Duration::from_secs(1));
            assert_eq!(pace.patience(), PAUSE_MAX);
        }
    }
}
