//! Loops of a node that repeat some work for as long as it runs, and the pauses between attempts that fail. Work that only one
//! node of the fleet needs to do is a duty (`engine::duty`) instead.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The rounds of a loop.
#[derive(Debug)]
pub struct Rounds<'a> {
    period: Duration,
    stop: &'a CancellationToken,
    is_first: bool,
}

/// Rounds with a pause of `period` between two of them, until `stop`.
#[must_use]
pub fn every(period: Duration, stop: &CancellationToken) -> Rounds<'_> {
    Rounds {
        period,
        stop,
        is_first: true,
    }
}

/// The pause after failures in a row: `first`, doubled this many times, but at most `longest`.
#[must_use]
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(31)).min(longest)
}

impl Rounds<'_> {
    /// Waits for the next round, the first of which begins at once; false after the stop. A round in progress is not cut
    /// short.
    pub async fn next(&mut self) -> bool {
        if self.is_first {
            self.is_first = false;
            return !self.stop.is_cancelled();
        }
        let pause = tokio::time::sleep(self.period);
        self.stop.run_until_cancelled(pause).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest() {
        let of = |times| doubled(Duration::from_secs(5), times, Duration::from_secs(300)).as_secs();
        assert_eq!([0, 1, 2, 5, 6].map(of), [5, 10, 20, 160, 300]);
        assert_eq!([32, u32::MAX].map(of), [300, 300]);
    }

    #[tokio::test]
    async fn rounds_follow_each_other_until_the_stop() {
        let stop = CancellationToken::new();
        let mut rounds = every(Duration::from_millis(1), &stop);
        let mut count = 0;
        while rounds.next().await {
            count += 1;
            if count == 3 {
                stop.cancel();
            }
        }
        assert_eq!(count, 3);
        assert!(!every(Duration::ZERO, &stop).next().await, "it is over");
    }
}
