//! Quotas: what a tenant may do, over all nodes of the fleet together. A request asks a few atomic numbers of its node and
//! never the database; a small loop (`exchange`) tells the other nodes what is asked for here and works out this node's
//! share. A tenant without a quota costs one look into a map, and an installation without any not even that.
//!
//! `bucket` is one rate with its debt, `share` the arithmetic of dividing, `limited` a
//! tenant's limits on this node, `tally` what is counted in the database, `known` which tenants are limited, `admit` what
//! the engine's verbs ask, `settings` what an operator sets, `shortage` when only guarantees are served.

mod admit;
mod bucket;
mod exchange;
mod known;
mod limited;
mod share;
mod shortage;
mod stored;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::Clock;
use crate::store::Store;
use crate::engine::limit::Violation;

use known::Known;

pub use admit::Admission;
pub(in crate::engine) use known::quota_of;
pub use limited::{Left, Limited, Standing};
pub use shortage::{Pressure, Shortage};
pub(in crate::engine) use stored::count_stored_bytes;

/// A node that began so lately may be unknown to the others, who then leave it nothing of what they take.
const NEWCOMER: Duration = Duration::from_millis(2_500);
/// How many nodes there are until they were counted: one that begins does not take itself to be alone.
const NODES_UNKNOWN: u32 = 2;

/// Label of what was refused.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Throttled {
    /// The policy that stood against it.
    pub policy: &'static str,
}

/// Whether there is any quota in the installation; clones look at the same.
#[derive(Debug, Clone, Default)]
pub struct InUse(Arc<AtomicBool>);

impl InUse {
    /// Whether there is.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The quotas of a node.
#[derive(Debug)]
pub struct Quotas {
    store: Store,
    clock: Clock,
    /// This run of this node.
    node: Uuid,
    /// Where the nanoseconds of all buckets begin.
    began: Instant,
    in_use: InUse,
    nodes: AtomicU32,
    /// As counted last.
    alive: AtomicU32,
    known: Known,
    awakened: exchange::Awakened,
    shortage: Arc<Shortage>,
    /// Requests refused, by policy.
    pub throttled: Family<Throttled, Counter>,
}

impl Quotas {
    /// The quotas of a node, when `version` changes of quotas were made in the installation.
    #[must_use]
    pub fn new(
        (store, clock): (Store, Clock),
        node: Uuid,
        version: i64,
        shortage: Arc<Shortage>,
    ) -> Self {
        let quotas = Self {
            store,
            clock,
            node,
            began: Instant::now(),
            in_use: InUse::default(),
            nodes: AtomicU32::new(NODES_UNKNOWN),
            alive: AtomicU32::new(1),
            known: Known::default(),
            awakened: exchange::Awakened::default(),
            shortage,
            throttled: Family::default(),
        };
        if version > 0 {
            // None was looked at yet: each is looked up when its tenant comes.
            quotas.apply(&[], version);
        }
        quotas
    }

    /// Nanoseconds since it began: the time of all buckets.
    fn now(&self) -> u64 {
        nanos_since(self.began)
    }

    /// Starts the loops on `tracker`; they end at `stop`.
    pub fn start(self: &Arc<Self>, tracker: &TaskTracker, stop: &CancellationToken) {
        let (quotas, token) = (self.clone(), stop.clone());
        tracker.spawn(async move { quotas.exchange_demand(token).await });
        let (quotas, token) = (self.clone(), stop.clone());
        tracker.spawn(async move { quotas.count_used(token).await });
    }

    /// Whether there is any quota in the installation.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        self.in_use.clone()
    }

    /// How many nodes the fleet has.
    fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }

    /// Takes note of how many nodes there are. One that is missed goes on counting for a round: taking oneself to be alone
    /// when one is not gives away more than the quota.
    pub fn observe_nodes(&self, alive: i64) {
        let alive = u32::try_from(alive.max(1)).unwrap_or(u32::MAX);
        let before = self.alive.swap(alive, Ordering::Relaxed);
        self.nodes.store(alive.max(before), Ordering::Relaxed);
    }

    /// Whether the others may not know of this node yet.
    fn is_newcomer(&self) -> bool {
        self.nodes() > 1 && self.began.elapsed() < NEWCOMER
    }

    /// Whether the node is short of capacity, so that only what is inside a guarantee is served.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.shortage.is_short()
    }

    /// Counts what is refused.
    fn refused(&self, violation: Violation) -> Violation {
        let policy = violation.policy.name();
        self.throttled.get_or_create(&Throttled { policy }).inc();
        violation
    }
}

/// Nanoseconds since `began`.
fn nanos_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
