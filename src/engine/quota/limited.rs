//! The limits of one tenant on one node: buckets that fill at the node's share of each rate, a limit of concurrent
//! requests, and caps on what is counted in the database. Requests read and change atomic numbers here without a lock.
//! `exchange` sets the shares, and a change of the quota sets the limits.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use api::quota::{Quota, QuotaUse, RateQuota};
use parking_lot::{Mutex, RwLock};
use time::OffsetDateTime;

use crate::engine::limit::Capacity;
use crate::engine::quota::bucket::Bucket;
use crate::engine::quota::share::{Pace, RateCount, Shares, cautious, items, whole};
use crate::engine::quota::stored::CappedCount;
use crate::store::TenantId;
use crate::store::quota::QuotaRow;

/// One rate of a tenant: a bucket for its guarantee and one for its ceiling.
#[derive(Debug, Default)]
pub(super) struct Rate {
    guaranteed: Bucket,
    ceiling: Bucket,
    /// Items requested since the last measurement.
    wanted: AtomicU64,
    /// Items admitted since then.
    taken: AtomicU64,
    /// Items admitted inside the guarantee since then.
    inside: AtomicU64,
}

impl Rate {
    /// Takes `items`, inside the guarantee when that has room.
    ///
    /// # Errors
    /// When the ceiling is reached. The error is the time until there is room.
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

    /// Takes `items` that were used already by a request that was admitted with `capacity`.
    pub(super) fn owe(&self, items: u64, capacity: Capacity, now: u64) {
        self.wanted.fetch_add(items, Ordering::Relaxed);
        self.taken.fetch_add(items, Ordering::Relaxed);
        self.ceiling.owe(items, now);
        if capacity == Capacity::Guaranteed {
            self.inside.fetch_add(items, Ordering::Relaxed);
            self.guaranteed.owe(items, now);
        }
    }

    /// Gives back `items` that were taken, because another limit refused the request.
    pub(super) fn give_back(&self, items: u64, capacity: Capacity) {
        reduce(&self.taken, items);
        self.ceiling.give_back(items);
        if capacity == Capacity::Guaranteed {
            reduce(&self.inside, items);
            self.guaranteed.give_back(items);
        }
    }

    /// Returns what was counted since the last call, and begins to count anew.
    pub(super) fn count(&self, now: u64) -> RateCount {
        let [wanted, taken, guaranteed] =
            [&self.wanted, &self.taken, &self.inside].map(|count| count.swap(0, Ordering::Relaxed));
        RateCount {
            wanted,
            taken,
            guaranteed,
            owed: self.owed(now),
        }
    }

    /// Items owed from before the present measurement, in all and inside the guarantee.
    pub(super) fn owed_before(&self, now: u64) -> [u64; 2] {
        let [taken, inside] =
            [&self.taken, &self.inside].map(|count| count.load(Ordering::Relaxed));
        let [all, guaranteed] = self.owed(now);
        [all.saturating_sub(taken), guaranteed.saturating_sub(inside)]
    }

    /// Items owed, in all and inside the guarantee.
    pub(super) fn owed(&self, now: u64) -> [u64; 2] {
        [self.ceiling.owed(now), self.guaranteed.owed(now)]
    }

    fn room(&self, now: u64) -> u64 {
        self.ceiling.room(now)
    }
}

/// Reduces a count, but not below zero: it may have been reset by a measurement since the items were taken.
fn reduce(count: &AtomicU64, by: u64) {
    let less = |count: u64| Some(count.saturating_sub(by));
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

/// The concurrent requests of a tenant on this node.
#[derive(Debug, Default)]
pub(super) struct Concurrency {
    /// How many this node may admit.
    share: AtomicU64,
    /// How many run now.
    running: AtomicU64,
    /// Requests refused since the last call of [`Concurrency::wanted`].
    refused: AtomicU64,
}

impl Concurrency {
    /// Admits a request; false when too many run already.
    pub(super) fn begin(&self) -> bool {
        let share = self.share.load(Ordering::Relaxed);
        let one_more = |running: u64| (running < share).then_some(running + 1);
        let begun = self
            .running
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if begun.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        begun.is_ok()
    }

    /// Records that an admitted request has ended.
    pub(super) fn end(&self) {
        reduce(&self.running, 1);
    }

    pub(super) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// How many concurrent requests were wanted since the last call: those that run now and those that were refused.
    pub(super) fn wanted(&self) -> f64 {
        items(self.running() + self.refused.swap(0, Ordering::Relaxed))
    }

    /// Sets how many this node may admit, at least one; `None` is no limit.
    pub(super) fn set_share(&self, share: Option<f64>) {
        let share = share.map_or(u64::MAX, |share| whole(share).max(1));
        self.share.store(share, Ordering::Relaxed);
    }
}

/// A tenant's limits on this node.
#[derive(Debug, Default)]
pub struct Limited {
    /// The tenant.
    pub(super) tenant: TenantId,
    pub(super) requests: Rate,
    pub(super) messages: Rate,
    pub(super) bytes: Rate,
    pub(super) concurrency: Concurrency,
    /// Bytes kept.
    pub(super) stored: CappedCount,
    /// Messages handed out and not settled.
    pub(super) in_flight: CappedCount,
    /// Until when a spent budget stops the tenant, in seconds since the Unix epoch; zero when no budget does.
    stopped_until: AtomicI64,
    /// Whether there is any limit, a stop by a budget included.
    has_limits: AtomicBool,
    /// Whether there is demand, which the exchange loop then reports to the other nodes.
    pub(super) awake: AtomicBool,
    /// One each for requests, messages and bytes. Used by the exchange loop, and to report usage.
    pub(super) paces: Mutex<[Pace; 3]>,
    settings: RwLock<Settings>,
}

/// The quota that an operator set, and its version.
#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    quota: Quota,
    version: i64,
}

/// A tenant's quota, and what is left of it on this node. Equal tenant, version and `left` mean an equal standing, so
/// that the texts of headers can be cached by these three.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The tenant.
    pub tenant: TenantId,
    /// The version of its quota.
    pub version: i64,
    /// The limits.
    pub quota: Quota,
    /// What is left of the rates on this node.
    pub left: Left,
}

/// Items left of each of [`Policy::RATES`](crate::engine::limit::Policy::RATES); `None` where there is no limit.
pub type Left = [Option<u64>; 3];

/// What is left is reported in steps; a second's quota has this many.
const LEFT_STEPS: u64 = 64;

impl Limited {
    /// The limits of a tenant before any report of other nodes was read: an even share for each of `nodes`.
    pub(super) fn new(row: &QuotaRow, nodes: u32, now: u64) -> Self {
        let limited = Self {
            tenant: row.tenant_id,
            ..Self::default()
        };
        limited.change(row);
        limited.begin_anew(nodes, now);
        limited
    }

    /// Sets the limits, unless the row is older than the present ones. Returns whether the quota has changed.
    pub(super) fn change(&self, row: &QuotaRow) -> bool {
        let (quota, version) = (super::quota_of(row), row.version);
        let mut settings = self.settings.write();
        if version < settings.version {
            return false;
        }
        let until = row.stopped_until.map_or(0, OffsetDateTime::unix_timestamp);
        self.stopped_until.store(until, Ordering::Relaxed);
        let is_other = settings.quota != quota;
        let has_limits = quota != Quota::default() || until != 0;
        self.has_limits.store(has_limits, Ordering::Relaxed);
        self.stored.set_cap(quota.stored_bytes);
        self.in_flight.set_cap(quota.in_flight_messages);
        // The full cap, so that a burst after a pause is admitted. The next exchange lowers it to this node's share.
        self.concurrency
            .set_share(quota.concurrent_requests.map(items));
        *settings = Settings { quota, version };
        is_other
    }

    /// Takes away all limits, until a row of any version is applied.
    pub(super) fn forget(&self) {
        self.settings.write().version = i64::MIN;
        self.change(&QuotaRow {
            version: i64::MIN,
            ..QuotaRow::default()
        });
    }

    /// Until when a spent budget refuses publishes and receives, in seconds since the Unix epoch; `None` when no budget
    /// does.
    pub(super) fn stopped_until(&self) -> Option<i64> {
        let until = self.stopped_until.load(Ordering::Relaxed);
        (until != 0).then_some(until)
    }

    /// The limits.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.settings.read().quota
    }

    /// Sets what is used: the fleet's rates, the concurrent requests of this node, and the last counts where there is a
    /// cap.
    pub(in crate::engine) fn add_use(&self, used: &mut QuotaUse) {
        let rates = self.paces.lock().map(|pace| pace.rate());
        [
            used.requests_per_second,
            used.messages_per_second,
            used.bytes_per_second,
        ] = rates.map(whole);
        used.concurrent_requests = self.concurrency.running();
        let (stored, in_flight) = (&self.stored, &self.in_flight);
        used.stored_bytes = stored.is_counted().then(|| stored.used());
        used.in_flight_messages = in_flight.is_counted().then(|| in_flight.used());
    }

    /// Whether there is any limit, a stop by a budget included.
    pub(super) fn has_limits(&self) -> bool {
        self.has_limits.load(Ordering::Relaxed)
    }

    /// The rates in the order of [`Policy::RATES`](crate::engine::limit::Policy::RATES).
    pub(super) fn rates(&self) -> [&Rate; 3] {
        [&self.requests, &self.messages, &self.bytes]
    }

    /// The limits of each rate for the whole fleet.
    pub(super) fn shares_of_all(&self) -> [Shares; 3] {
        self.quota().rates().map(|rate| {
            let rate = rate.unwrap_or_default();
            Shares {
                guaranteed: rate.guaranteed.map(items),
                ceiling: rate.ceiling.map(items),
            }
        })
    }

    /// Sets this node's share of each rate.
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

    /// Falls back to an even share for each node, because there are no current reports of the others.
    pub(super) fn be_cautious(&self, nodes: u32, now: u64) {
        self.set_shares(self.even_shares(nodes), now);
    }

    /// The same after the quota has changed.
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

    /// The quota, and what is left of it on this node.
    pub(super) fn standing(&self, now: u64) -> Standing {
        let Settings { quota, version } = *self.settings.read();
        Standing {
            tenant: self.tenant,
            version,
            quota,
            left: self.left(&quota, now),
        }
    }

    /// What is left of each limited rate on this node, rounded down to a step, so that it seldom changes between
    /// requests. A full bucket reports one step less, because otherwise each request that finds it full would change
    /// the number.
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
