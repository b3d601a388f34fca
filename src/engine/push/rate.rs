//! Requests a second or a minute to one endpoint, by a leaky bucket (GCRA, crate `governor`).

use std::num::NonZeroU32;
use std::time::Duration;

use api::push::PushLimits;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};

use crate::engine::push::endpoint::Endpoint;

/// The share of a second's or minute's requests that may pass at once.
const BURST: u32 = 20;

/// A rate.
#[derive(Debug)]
pub struct Rate {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    /// Requests of one second, at least one.
    of_second: u32,
}

impl Rate {
    /// The lower of what is set and what is granted; `None`: no rate.
    #[must_use]
    pub fn of(limits: Option<&PushLimits>, granted_per_minute: Option<i32>) -> Option<Self> {
        let minute = Duration::from_secs(60);
        let granted = granted_per_minute.map(|requests| (requests.unsigned_abs(), minute));
        let second = limits
            .and_then(|limits| limits.per_second)
            .map(|requests| (requests, Duration::from_secs(1)));
        let minutes = limits
            .and_then(|limits| limits.per_minute)
            .map(|requests| (requests, minute));
        let all = [granted, second, minutes].into_iter().flatten();
        let (requests, period) = all
            .min_by_key(|(requests, period)| u128::from(*requests) * 60_000 / period.as_millis())?;
        let requests = requests.max(1);
        let burst = NonZeroU32::new(requests / BURST + 1)?;
        let quota = Quota::with_period(period / requests)?.allow_burst(burst);
        let seconds = u32::try_from(period.as_secs()).unwrap_or(1).max(1);
        Some(Self {
            limiter: DefaultDirectRateLimiter::direct(quota),
            clock: DefaultClock::default(),
            of_second: (requests / seconds).max(1),
        })
    }

    /// Waits until a request may pass.
    async fn permit(&self) {
        while let Err(not_until) = self.limiter.check() {
            let wait = not_until.wait_time_from(self.clock.now());
            tokio::time::sleep(wait).await;
        }
    }
}

impl Endpoint {
    /// Requests that its rate lets pass within a second.
    pub(super) fn rate_room(&self) -> u32 {
        self.rate.as_ref().map_or(u32::MAX, |rate| rate.of_second)
    }

    /// Waits until its rate lets a request pass.
    pub(super) async fn rate_permit(&self) {
        if let Some(rate) = &self.rate {
            rate.permit().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_second: Option<u32>, per_minute: Option<u32>) -> PushLimits {
        PushLimits {
            per_second,
            per_minute,
            ..PushLimits::default()
        }
    }

    #[test]
    fn the_lower_rate_counts() {
        let of_second = |limits: &PushLimits, granted| {
            let rate = Rate::of(Some(limits), granted);
            rate.map(|rate| rate.of_second)
        };
        assert_eq!(of_second(&limits(None, None), None), None);
        assert_eq!(of_second(&limits(Some(50), None), None), Some(50));
        assert_eq!(of_second(&limits(Some(50), None), Some(120)), Some(2));
        assert_eq!(of_second(&limits(Some(1), None), Some(6_000)), Some(1));
        assert_eq!(of_second(&limits(None, Some(30)), None), Some(1));
    }

    #[test]
    fn no_more_pass_than_the_rate_and_its_burst() {
        let rate = Rate::of(Some(&limits(Some(100), None)), None).unwrap();
        let passed = (0..1_000).filter(|_| rate.limiter.check().is_ok()).count();
        assert!((6..10).contains(&passed), "{passed} at once");
    }
}
