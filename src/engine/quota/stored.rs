//! Caps on what is counted in the database: bytes kept and messages in flight of a tenant. The database is counted now
//! and then, and only when there is a cap and a request has checked it. Between counts this node adds what it does
//! itself, so changes by other nodes show about a second late. The pause after a count is many times as long as the
//! count took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::engine::error::Error;
use crate::engine::quota::Quotas;
use crate::engine::quota::limited::Limited;
use crate::repeat::every;
use crate::store::{self, LaneId, Session, SubscriptionId, TenantId};

/// Pause between two scans for counts that are due.
const ROUND: Duration = Duration::from_millis(250);
/// Pause after a count, as a multiple of the time it took.
const REST: u32 = 20;
/// Upper bound on the delay between a commit and the call of [`CappedCount::moved`] for it. A count waits this long
/// before it reads `moves`.
const SETTLE: Duration = Duration::from_millis(20);
/// Counts that may be discarded in a row because something moved meanwhile. The next one is used in any case.
const DISCARDED_MAX: u32 = 8;
/// Topics or subscriptions whose lanes are read by one statement.
const NAMES: i64 = 10_000;
/// Value of `cap` that means no cap.
const NO_CAP: u64 = u64::MAX;

/// A cap on what is counted in the database, and the last count.
#[derive(Debug)]
pub(super) struct CappedCount {
    cap: AtomicU64,
    used: AtomicI64,
    /// Number of moves so far. A count that runs while this changes may or may not include the move.
    moves: AtomicU64,
    /// Counts discarded since the last one that was used.
    discarded: AtomicU32,
    /// Whether a request has checked the cap since the last count.
    is_checked: AtomicBool,
    count_after: Mutex<Option<Instant>>,
}

impl Default for CappedCount {
    fn default() -> Self {
        Self {
            cap: AtomicU64::new(NO_CAP),
            used: AtomicI64::new(0),
            moves: AtomicU64::new(0),
            discarded: AtomicU32::new(0),
            is_checked: AtomicBool::new(false),
            count_after: Mutex::default(),
        }
    }
}

impl CappedCount {
    pub(super) fn set_cap(&self, cap: Option<u64>) {
        self.cap.store(cap.unwrap_or(NO_CAP), Ordering::Relaxed);
    }

    /// The cap, and what is used of it; `None` without a cap. Makes the count due.
    pub(super) fn check(&self) -> Option<(u64, u64)> {
        let cap = self.cap.load(Ordering::Relaxed);
        if cap == NO_CAP {
            return None;
        }
        self.is_checked.store(true, Ordering::Relaxed);
        Some((cap, self.used()))
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    pub(super) fn is_counted(&self) -> bool {
        self.cap.load(Ordering::Relaxed) != NO_CAP
    }

    /// Adds a change that this node has committed.
    pub(super) fn moved(&self, by: i64) {
        self.used.fetch_add(by, Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::Release);
    }

    fn is_due(&self) -> bool {
        self.is_checked.load(Ordering::Relaxed)
            && self.is_counted()
            && self
                .count_after
                .lock()
                .is_none_or(|at| Instant::now() >= at)
    }

    /// Uses the result of `count`, unless something moved meanwhile: the result may or may not include that.
    async fn count(
        &self,
        count: impl Future<Output = Result<i64, store::Error>>,
    ) -> Result<(), Error> {
        let (before, began) = (self.moves.load(Ordering::Acquire), Instant::now());
        let used = count.await?;
        let took = began.elapsed();
        *self.count_after.lock() = Some(Instant::now() + took * REST);
        tokio::time::sleep(SETTLE).await;
        let has_moved = self.moves.load(Ordering::Acquire) != before;
        if has_moved && self.discarded.fetch_add(1, Ordering::Relaxed) < DISCARDED_MAX {
            return Ok(());
        }
        self.discarded.store(0, Ordering::Relaxed);
        let by = used - self.used.load(Ordering::Relaxed);
        self.used.fetch_add(by, Ordering::Relaxed);
        self.is_checked.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Limited {
    /// Adds to the count of messages in flight.
    pub fn moved(&self, by: i64) {
        self.in_flight.moved(by);
    }
}

impl Quotas {
    /// Counts what is due, until `stop`.
    pub async fn count_used(&self, stop: CancellationToken) {
        let mut rounds = every(ROUND, &stop);
        while rounds.next().await {
            if !self.in_use.get() {
                continue;
            }
            let is_due = |limited: &Limited| limited.stored.is_due() || limited.in_flight.is_due();
            for limited in self.known.limited_where(is_due) {
                if let Err(error) = self.count(&limited).await {
                    tracing::debug!(%error, "what is used could not be counted; it is tried again");
                }
            }
        }
    }

    async fn count(&self, limited: &Arc<Limited>) -> Result<(), Error> {
        let (stored, in_flight) = (&limited.stored, &limited.in_flight);
        let due = [stored.is_due(), in_flight.is_due()];
        if due == [false, false] {
            return Ok(());
        }
        let mut session: Session = self.store.session().await?;
        let tenant = limited.tenant;
        if due[0] {
            let bytes = count_stored_bytes(&mut session, tenant);
            stored.count(bytes).await?;
        }
        if due[1] {
            let messages = count_in_flight(&mut session, tenant);
            in_flight.count(messages).await?;
        }
        Ok(())
    }
}

/// Bytes of the payloads of a tenant's topics, as stored. Each page reads the lanes of some topics from the home
/// tables, and then the blocks of these lanes, because no statement reads both groups of tables.
pub async fn count_stored_bytes(
    session: &mut Session,
    tenant: TenantId,
) -> Result<i64, store::Error> {
    let (mut bytes, mut after) = (0, String::new());
    loop {
        let page = store::topic::lanes(session, tenant, &after, NAMES).await?;
        let Some(last) = page.last() else {
            return Ok(bytes);
        };
        after.clone_from(&last.name);
        let lanes: Vec<LaneId> = page.into_iter().flat_map(|topic| topic.lanes).collect();
        bytes += store::block::stored_bytes(session, &lanes).await?;
    }
}

/// Messages of a tenant that are handed out and not settled, read in the same way.
async fn count_in_flight(session: &mut Session, tenant: TenantId) -> Result<i64, store::Error> {
    let (mut messages, mut after) = (0, String::new());
    loop {
        let page = store::subscription::lanes(session, tenant, &after, NAMES).await?;
        let Some(last) = page.last() else {
            return Ok(messages);
        };
        after.clone_from(&last.name);
        let (lanes, subscriptions): (Vec<LaneId>, Vec<SubscriptionId>) = page
            .into_iter()
            .flat_map(|of| {
                let lanes = of.lanes.into_iter();
                lanes.map(move |lane| (lane, of.subscription_id))
            })
            .unzip();
        messages += store::lease::in_flight_of(session, &lanes, &subscriptions).await?;
    }
}
