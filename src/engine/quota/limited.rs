//! The limits of one tenant on one node: buckets that fill at the node's share, places for concurrent requests, tallies of
//! what is counted in the database. Every number is an atomic one, asked and changed by requests without a lock; shares are
//! set by `exchange`, limits when the quota changes.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use api::quota::{Quota, QuotaUse, RateQuota};
use parking_lot::{Mutex, RwLock};
use time::OffsetDateTime;

use crate::engine::limit::Capacity;
use crate::engine::quota::bucket::Bucket;
use crate::engine::quota::share::{Counted, Pace, Shares, cautious, items, whole};
use crate::engine::quota::stored::Tally;
use crate::store::quota::QuotaRow;

/// One rate of a tenant.
#[derive(Debug, Default)]
pub(super) struct Rate {
    guaranteed: Bucket,
    ceiling: Bucket,
    /// Since it was last measured.
    wanted: AtomicU64,
    taken: AtomicU64,
    inside: AtomicU64,
}

impl Rate {
    /// Takes `items`, inside the guarantee when there is room.
    pub(super) fn take(&self, items: u64, now: u64) -> Result<Capacity, Duration> {
        self.wanted.fetch_add(items, Ordering::Relaxed);
        self.ceiling.take(items, now)?;
        self.taken.fetch_add(items, Ordering::Relaxed);
        if self.guaranteed.take(items, now).is_err() {
            return Ok(Capacity::Elastic);
        }
        self.inside.fetch_add(items, Ordering::Relaxed);
        Ok(Capacity::Guaranteed)
    }

    /// Takes `items` that have been had already, and were let in with `capacity`.
    pub(super) fn owe(&self, items: u64, capacity: Capacity, now: u64) {
        self.wanted.fetch_add(items, Ordering::Relaxed);
        self.taken.fetch_add(items, Ordering::Relaxed);
        self.ceiling.owe(items, now);
        if capacity == Capacity::Guaranteed {
            self.inside.fetch_add(items, Ordering::Relaxed);
            self.guaranteed.owe(items, now);
        }
    }

    /// Gives back what was taken, because something else stood against the request.
    pub(super) fn give_back(&self, items: u64, capacity: Capacity) {
        less(&self.taken, items);
        self.ceiling.give_back(items);
        if capacity == Capacity::Guaranteed {
            less(&self.inside, items);
            self.guaranteed.give_back(items);
        }
    }

    /// What was counted since it was last asked.
    pub(super) fn count(&self, now: u64) -> Counted {
        let [wanted, taken, guaranteed] =
            [&self.wanted, &self.taken, &self.inside].map(|count| count.swap(0, Ordering::Relaxed));
        Counted {
            wanted,
            taken,
            guaranteed,
            owed: self.owed(now),
        }
    }

    /// What is owed of what was counted before, in all and inside the guarantee.
    pub(super) fn owed_before(&self, now: u64) -> [u64; 2] {
        let [taken, inside] =
            [&self.taken, &self.inside].map(|count| count.load(Ordering::Relaxed));
        let [all, guaranteed] = self.owed(now);
        [all.saturating_sub(taken), guaranteed.saturating_sub(inside)]
    }

    /// What is owed, in all and inside the guarantee.
    pub(super) fn owed(&self, now: u64) -> [u64; 2] {
        [self.ceiling.owed(now), self.guaranteed.owed(now)]
    }

    fn room(&self, now: u64) -> u64 {
        self.ceiling.room(now)
    }
}

/// It may have been measured between taking and giving back.
fn less(count: &AtomicU64, by: u64) {
    let less = |count: u64| Some(count.saturating_sub(by));
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

/// Places for requests at the same time.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// How many this node may give.
    share: AtomicU64,
    taken: AtomicU64,
    /// Requests that found none since the last time that was asked.
    missed: AtomicU64,
}

impl Places {
    pub(super) fn take(&self) -> bool {
        let share = self.share.load(Ordering::Relaxed);
        let one_more = |taken: u64| (taken < share).then_some(taken + 1);
        let took = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if took.is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        took.is_ok()
    }

    pub(super) fn give_back(&self) {
        less(&self.taken, 1);
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many places were wanted since the last time that was asked.
    pub(super) fn wanted(&self) -> f64 {
        items(self.taken() + self.missed.swap(0, Ordering::Relaxed))
    }

    pub(super) fn set(&self, share: Option<f64>) {
        let share = share.map_or(u64::MAX, |share| whole(share).max(1));
        self.share.store(share, Ordering::Relaxed);
    }
}

/// A tenant's limits on this node.
#[derive(Debug, Default)]
pub struct Limited {
    /// The tenant.
    pub(super) tenant: i64,
    pub(super) requests: Rate,
    pub(super) messages: Rate,
    pub(super) bytes: Rate,
    pub(super) places: Places,
    pub(super) stored: Tally,
    pub(super) in_flight: Tally,
    /// Seconds since the Unix epoch until which a budget has stopped the tenant; zero when none has.
    stopped_until: AtomicI64,
    /// Whether there is any limit, a stop included.
    has_limits: AtomicBool,
    /// Whether it is told to the others.
    pub(super) awake: AtomicBool,
    /// Of requests, messages and bytes; used by the loop that tells the others, and by who looks.
    pub(super) paces: Mutex<[Pace; 3]>,
    set: RwLock<Set>,
}

/// What an operator set.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    quota: Quota,
    version: i64,
}

/// What a tenant may do, and what is left of it on this node. The tenant, the version and what is left determine all of it.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The tenant.
    pub tenant: i64,
    /// The version of its quota.
    pub version: i64,
    /// The limits.
    pub quota: Quota,
    /// What is left of the rates.
    pub left: Left,
}

/// What is left of each of [`Policy::RATES`]; `None` where there is no limit.
pub type Left = [Option<u64>; 3];

/// Steps into which what a second allows is divided to report what is left.
const LEFT_STEPS: u64 = 64;

impl Limited {
    /// A tenant whose other nodes have not been heard yet.
    pub(super) fn new(row: &QuotaRow, (nodes, now): (u32, u64)) -> Self {
        let limited = Self {
            tenant: row.tenant_id,
            ..Self::default()
        };
        limited.change(row);
        limited.begin_anew(nodes, now);
        limited
    }

    /// Sets the limits, unless they are older than those it has; true when they are other ones.
    pub(super) fn change(&self, row: &QuotaRow) -> bool {
        let (quota, version) = (super::quota_of(row), row.version);
        let mut set = self.set.write();
        if version < set.version {
            return false;
        }
        let until = row.stopped_until.map_or(0, OffsetDateTime::unix_timestamp);
        self.stopped_until.store(until, Ordering::Relaxed);
        let is_other = set.quota != quota;
        let has_limits = quota != Quota::default() || until != 0;
        self.has_limits.store(has_limits, Ordering::Relaxed);
        self.stored.set(quota.stored_bytes);
        self.in_flight.set(quota.in_flight_messages);
        // All of them: requests that come together after a pause find places, and who comes too many goes soon.
        self.places.set(quota.concurrent_requests.map(items));
        *set = Set { quota, version };
        is_other
    }

    /// Seconds since the Unix epoch until which publishes and receives are refused, if a budget has stopped the tenant.
    pub(super) fn stopped_until(&self) -> Option<i64> {
        let until = self.stopped_until.load(Ordering::Relaxed);
        (until != 0).then_some(until)
    }

    /// The limits.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.set.read().quota
    }

    /// Adds what is used on this node, and what was counted last where there is a cap.
    pub(in crate::engine) fn add_use(&self, used: &mut QuotaUse) {
        let rates = self.paces.lock().map(|pace| pace.rate());
        [
            used.requests_per_second,
            used.messages_per_second,
            used.bytes_per_second,
        ] = rates.map(whole);
        used.concurrent_requests = self.places.taken();
        let (stored, in_flight) = (&self.stored, &self.in_flight);
        used.stored_bytes = stored.is_counted().then(|| stored.used());
        used.in_flight_messages = in_flight.is_counted().then(|| in_flight.used());
    }

    /// Whether there is any limit.
    pub(super) fn has_limits(&self) -> bool {
        self.has_limits.load(Ordering::Relaxed)
    }

    pub(super) fn rates(&self) -> [&Rate; 3] {
        [&self.requests, &self.messages, &self.bytes]
    }

    /// The fleet's limits of each rate.
    pub(super) fn shares_of_all(&self) -> [Shares; 3] {
        self.quota().rates().map(|rate| {
            let rate = rate.unwrap_or_default();
            Shares {
                guaranteed: rate.guaranteed.map(items),
                ceiling: rate.ceiling.map(items),
            }
        })
    }

    /// Sets what this node may take.
    pub(super) fn set_shares(&self, shares: [Shares; 3], now: u64) {
        self.each_bucket(shares, |bucket, share| bucket.set(share, now));
    }

    fn each_bucket(&self, shares: [Shares; 3], set: impl Fn(&Bucket, Option<(f64, f64)>)) {
        let of_all = self.shares_of_all();
        for ((rate, share), all) in self.rates().into_iter().zip(shares).zip(of_all) {
            set(&rate.guaranteed, share.guaranteed.zip(all.guaranteed));
            set(&rate.ceiling, share.ceiling.zip(all.ceiling));
        }
    }

    /// An even part for each node: nobody was heard.
    pub(super) fn be_cautious(&self, nodes: u32, now: u64) {
        self.set_shares(self.even_shares(nodes), now);
    }

    /// The same after the quota changed.
    pub(super) fn begin_anew(&self, nodes: u32, now: u64) {
        let shares = self.even_shares(nodes);
        self.each_bucket(shares, |bucket, share| bucket.renew(share, now));
    }

    fn even_shares(&self, nodes: u32) -> [Shares; 3] {
        let even = |quota: f64| cautious(quota, f64::from(nodes));
        self.shares_of_all().map(|all| Shares {
            guaranteed: all.guaranteed.map(even),
            ceiling: all.ceiling.map(even),
        })
    }

    /// What it may do, and what is left of it on this node.
    pub(super) fn standing(&self, now: u64) -> Standing {
        let Set { quota, version } = *self.set.read();
        Standing {
            tenant: self.tenant,
            version,
            quota,
            left: self.left(&quota, now),
        }
    }

    /// What is left of each limited rate on this node, rounded down to a step, so that it seldom differs from the time before.
    /// A full bucket reports one step less: otherwise each request that finds it full would report another number.
    fn left(&self, quota: &Quota, now: u64) -> Left {
        let of = |(rate, quota): (&Rate, Option<RateQuota>)| {
            let ceiling = quota?.ceiling?;
            let step = (ceiling / LEFT_STEPS).max(1);
            let most = ceiling.saturating_sub(step - 1);
            Some(rate.room(now).min(most) / step * step)
        };
        let [requests, messages, bytes] = quota.rates();
        [
            of((&self.requests, requests)),
            of((&self.messages, messages)),
            of((&self.bytes, bytes)),
        ]
    }
}
