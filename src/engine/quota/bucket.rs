//! A bucket limits one rate, with some tolerance. It is the generic cell rate algorithm (ITU-T I.371): its state is one
//! number, the time at which all taken items are paid for, so taking is one atomic update. It does three things that
//! crates do not offer and quotas need. When nothing is owed, more than the tolerance may be taken at once, and later
//! requests wait for it. Taken items can be given back. The rate can change, and the number of items owed stays the
//! same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::quota::share::whole;

/// Items that may be taken ahead of the rate, as nanoseconds of this node's rate.
const AHEAD_NANOS: u64 = 200_000_000;
/// The same as nanoseconds of the whole fleet's quota, in addition, so that a node with a small share can take a few
/// items at once.
const AHEAD_OF_QUOTA_NANOS: u64 = 10_000_000;
/// Value of `rate` that means no limit.
const UNLIMITED: u64 = u64::MAX;

/// A bucket. Times are nanoseconds since a moment chosen by its owner.
#[derive(Debug)]
pub struct Bucket {
    /// Thousandths of an item per second.
    rate: AtomicU64,
    /// Nanoseconds that may be owed after an item was taken.
    ahead: AtomicU64,
    /// When all taken items are paid for.
    paid_at: AtomicU64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            rate: AtomicU64::new(UNLIMITED),
            ahead: AtomicU64::new(AHEAD_NANOS),
            paid_at: AtomicU64::new(0),
        }
    }
}

impl Bucket {
    /// Changes this node's share of the rate. `share` is the pair of the node's share and the fleet's quota, in items
    /// per second; `None` is no limit. The number of items owed stays the same.
    pub fn set(&self, share: Option<(f64, f64)>, now: u64) {
        self.change(share, now, |_, owed| owed);
    }

    /// The same after the quota itself has changed. The debt is paid in no more time than before, because the items
    /// taken ahead of a large quota would take a small one very long.
    pub fn renew(&self, share: Option<(f64, f64)>, now: u64) {
        self.change(share, now, u64::min);
    }

    /// Sets rate and tolerance. `owed` gets the nanoseconds that are owed and the same debt at the new rate, and
    /// returns the new debt.
    fn change(&self, share: Option<(f64, f64)>, now: u64, owed: impl Fn(u64, u64) -> u64) {
        let (rate, ahead) = match share {
            None => (UNLIMITED, AHEAD_NANOS),
            Some((share, quota)) => {
                let rate = whole(share * 1_000.0);
                let of_quota = nanos(whole(quota * 1_000.0), rate, AHEAD_OF_QUOTA_NANOS);
                (rate, AHEAD_NANOS.saturating_add(of_quota))
            }
        };
        let old = self.rate.swap(rate, Ordering::Relaxed);
        self.ahead.store(ahead, Ordering::Relaxed);
        if old == rate {
            return;
        }
        let owed_again = |paid_at: u64| {
            let before = paid_at.saturating_sub(now);
            let is_kept = before > 0 && old != UNLIMITED && rate != UNLIMITED;
            is_kept.then(|| now.saturating_add(owed(before, nanos(old, rate, before))))
        };
        // Changes nothing when nothing is owed.
        let _ = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, owed_again);
    }

    /// Takes `items`.
    ///
    /// # Errors
    /// When too much is owed already. The error is the time until there is room.
    pub fn take(&self, items: u64, now: u64) -> Result<(), Duration> {
        let Some(cost) = self.cost(items) else {
            return Ok(());
        };
        let ahead = self.ahead.load(Ordering::Relaxed);
        let taken = |paid_at: u64| {
            let owed = paid_at.saturating_sub(now);
            let has_room = cost < u64::MAX && (owed == 0 || owed.saturating_add(cost) <= ahead);
            has_room.then(|| paid_at.max(now).saturating_add(cost))
        };
        let took = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        took.map(drop).map_err(|paid_at| {
            let owed = paid_at.saturating_sub(now);
            let too_much = owed.saturating_sub(ahead.saturating_sub(cost));
            Duration::from_nanos(too_much.max(1))
        })
    }

    /// Takes `items` regardless of the debt, because they were used already.
    pub fn owe(&self, items: u64, now: u64) {
        let Some(cost) = self.cost(items).filter(|cost| *cost < u64::MAX) else {
            return;
        };
        let more = |paid_at: u64| Some(paid_at.max(now).saturating_add(cost));
        let _ = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Gives back `items` that were taken and not used.
    pub fn give_back(&self, items: u64) {
        let cost = self.cost(items).unwrap_or(0);
        let less = |paid_at: u64| Some(paid_at.saturating_sub(cost));
        let _ = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Items that are owed now.
    #[must_use]
    pub fn owed(&self, now: u64) -> u64 {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == UNLIMITED {
            return 0;
        }
        let owed = self.paid_at.load(Ordering::Relaxed).saturating_sub(now);
        let items = u128::from(owed) * u128::from(rate) / 1_000_000_000_000;
        u64::try_from(items).unwrap_or(u64::MAX)
    }

    /// Items that can be taken now, if they are taken one by one.
    #[must_use]
    pub fn room(&self, now: u64) -> u64 {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == UNLIMITED {
            return u64::MAX;
        }
        let owed = self.paid_at.load(Ordering::Relaxed).saturating_sub(now);
        let ahead = self.ahead.load(Ordering::Relaxed);
        let items = u128::from(ahead.saturating_sub(owed)) * u128::from(rate) / 1_000_000_000_000;
        let at_least = u64::from(owed == 0 && rate > 0);
        u64::try_from(items).unwrap_or(u64::MAX).max(at_least)
    }

    /// Nanoseconds that `items` cost: `None` without a limit, `u64::MAX` at a rate of zero.
    fn cost(&self, items: u64) -> Option<u64> {
        let rate = self.rate.load(Ordering::Relaxed);
        (rate != UNLIMITED).then(|| nanos(items.saturating_mul(1_000), rate, 1_000_000_000))
    }
}

/// Converts a time at rate `old` into the time in which rate `new` pays for the same items, rounded up.
fn nanos(old: u64, new: u64, nanos: u64) -> u64 {
    if new == 0 {
        return u64::MAX;
    }
    let product = u128::from(old) * u128::from(nanos);
    u64::try_from(product.div_ceil(u128::from(new))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bucket(rate: u64) -> Bucket {
        let bucket = Bucket::default();
        let rate = crate::engine::quota::share::items(rate);
        bucket.set(Some((rate, rate)), 0);
        bucket
    }

    proptest! {
        #[test]
        fn no_more_is_taken_than_the_rate_and_what_is_ahead(
            rate in 1..100_000_u64,
            steps in prop::collection::vec((0..50_000_000_u64, 1..300_u64), 1..200),
        ) {
            let bucket = bucket(rate);
            let (mut now, mut taken, mut largest) = (0, 0, 0);
            for (pause, items) in steps {
                now += pause;
                if bucket.take(items, now).is_ok() {
                    taken += items;
                    largest = largest.max(items);
                }
            }
            let most = u128::from(rate) * u128::from(now + 210_000_000) / u128::from(SECOND) + 1;
            prop_assert!(u128::from(taken) <= most + u128::from(largest), "{taken} of {most}");
        }

        #[test]
        fn after_the_time_that_it_says_there_is_room(
            rate in 1..100_000_u64, items in 1..1_000_u64, owed in 1..10_000_u64,
        ) {
            let bucket = bucket(rate);
            bucket.owe(owed, SECOND);
            if let Err(wait) = bucket.take(items, SECOND) {
                let then = SECOND + u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(bucket.take(items, then).is_ok());
            }
        }
    }

    #[test]
    fn more_than_fits_is_taken_when_nothing_is_owed_and_paid_for_later() {
        let bucket = bucket(100);
        assert_eq!(bucket.take(1_000, SECOND), Ok(()), "ten seconds of it");
        assert!(bucket.take(1, SECOND).is_err());
        assert_eq!(bucket.room(SECOND), 0);
        assert!(bucket.take(1, 10 * SECOND).is_err());
        assert_eq!(bucket.take(1, 11 * SECOND), Ok(()));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let bucket = bucket(10);
        assert_eq!(bucket.take(50, SECOND), Ok(()));
        bucket.give_back(50);
        assert_eq!(bucket.take(50, SECOND), Ok(()));
    }

    #[test]
    fn what_is_owed_stays_the_same_number_of_items_when_the_rate_changes() {
        let bucket = bucket(100);
        bucket.owe(200, SECOND);
        bucket.set(Some((50.0, 100.0)), SECOND);
        assert!(bucket.take(1, 4 * SECOND).is_err());
        assert_eq!(bucket.take(1, 5 * SECOND), Ok(()));
    }

    #[test]
    fn what_is_owed_takes_no_longer_when_the_quota_changes() {
        for rate in [1.0, 1_000.0] {
            let bucket = bucket(100);
            bucket.owe(200, SECOND);
            bucket.renew(Some((rate, rate)), SECOND);
            assert_eq!(bucket.take(1, 3 * SECOND), Ok(()), "{rate}");
        }
    }

    #[test]
    fn nothing_is_taken_at_a_rate_of_nothing_and_everything_without_one() {
        let bucket = bucket(0);
        assert!(bucket.take(1, SECOND).is_err());
        assert_eq!(bucket.room(SECOND), 0);
        bucket.set(None, SECOND);
        assert_eq!(bucket.take(u64::MAX, SECOND), Ok(()));
        assert_eq!(bucket.room(SECOND), u64::MAX);
    }
}
