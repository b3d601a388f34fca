//! The pace that a client must keep while it holds resources, as the sender of an upload or the reader of a response:
//! no long pause, and a minimum average rate after a head start. Without it, a few clients that send or read a byte now
//! and then would hold all slots and connections (I9). Pure: the callers wait, and pass in for how long. Used by `blob`
//! and `listen`.

use std::time::Duration;

/// Minimum average rate in bytes per second; slower than any connection that is used to move megabytes.
const RATE: u64 = 16 * 1024;

/// Progress of one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pause_max: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// `pause_max` is the longest single pause, and also the head start before the rate counts.
    pub(crate) fn new(pause_max: Duration) -> Self {
        Self {
            pause_max,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Time that the client may take now; zero when it is already too slow.
    pub(crate) fn wait_max(&self) -> Duration {
        let earned = Duration::from_millis(self.bytes.saturating_mul(1_000) / RATE);
        let left = (self.pause_max + earned).saturating_sub(self.waited);
        left.min(self.pause_max)
    }

    /// Records that the client moved `bytes` after waiting for `waited`. Time that storage took must not be included.
    pub(crate) fn moved(&mut self, bytes: usize, waited: Duration) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited = self.waited.saturating_add(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE_MAX: Duration = Duration::from_secs(30);

    #[test]
    fn a_client_that_trickles_runs_out_of_time() {
        let mut pace = Pace::new(PAUSE_MAX);
        assert_eq!(pace.wait_max(), PAUSE_MAX);
        pace.moved(1, Duration::from_secs(29));
        assert_eq!(pace.wait_max(), Duration::from_secs(1));
        pace.moved(1, Duration::from_secs(1));
        assert_eq!(pace.wait_max(), Duration::ZERO);
    }

    #[test]
    fn a_client_that_keeps_the_rate_goes_on_but_may_not_pause() {
        let mut pace = Pace::new(PAUSE_MAX);
        for _ in 0..1_000 {
            pace.moved(32 * 1024, Duration::from_secs(1));
            assert_eq!(pace.wait_max(), PAUSE_MAX);
        }
    }
}
