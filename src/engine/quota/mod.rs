//! Quotas of tenants, enforced over all nodes of the fleet together. A request checks a few atomic numbers in memory
//! and never the database. A loop (`exchange`) publishes this node's demand to the other nodes and computes this node's
//! share of each rate. A tenant without a quota costs one lookup in a map, and an installation without any quota not
//! even that.
//!
//! `bucket` limits one rate, `share` is the arithmetic of dividing a rate between nodes, `limited` holds a tenant's
//! limits on this node, `stored` counts bytes and messages in the database, `known` remembers which tenants are
//! limited, `admit` holds the checks that the verbs of the engine call, and `shortage` decides when only guarantees are
//! served.

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

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::Clock;
use crate::engine::duty::Context;
use crate::engine::limit::Violation;
use crate::engine::quota::known::KnownTenants;
use crate::store::Store;

pub use admit::Admission;
pub(in crate::engine) use known::quota_of;
pub use limited::{Left, Limited, Standing};
pub use shortage::{Pressure, Shortage};
pub(in crate::engine) use stored::count_stored_bytes;

/// For this long after its start a node may be unknown to the others, which then take the whole quota for themselves.
const NEWCOMER: Duration = Duration::from_millis(2_500);
/// Number of nodes assumed until the first count: a node that starts must not assume that it is alone.
const NODES_UNKNOWN: u32 = 2;

/// Metric label of a refused request.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Throttled {
    /// The policy that refused it.
    pub policy: &'static str,
}

/// Whether there is any quota in the installation. Clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct InUse(Arc<AtomicBool>);

impl InUse {
    /// Whether there is any quota.
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
    /// When this object was made: the zero of the nanoseconds in all buckets.
    began: Instant,
    in_use: InUse,
    /// Number of nodes to divide quotas by: the larger of the last two counts.
    nodes: AtomicU32,
    /// Number of nodes in the last count.
    alive: AtomicU32,
    known: KnownTenants,
    awakened: exchange::Awakened,
    shortage: Arc<Shortage>,
    /// Requests refused, by policy.
    pub throttled: Family<Throttled, Counter>,
}

impl Quotas {
    /// The quotas of a node. `version` is the installation's number of quota changes so far.
    #[must_use]
    pub fn new(context: Context, node: Uuid, version: i64, shortage: Arc<Shortage>) -> Self {
        let quotas = Self {
            store: context.store,
            clock: context.clock,
            node,
            began: Instant::now(),
            in_use: InUse::default(),
            nodes: AtomicU32::new(NODES_UNKNOWN),
            alive: AtomicU32::new(1),
            known: KnownTenants::default(),
            awakened: exchange::Awakened::default(),
            shortage,
            throttled: Family::default(),
        };
        if version > 0 {
            // No quota is read here: each is looked up with the first request of its tenant.
            quotas.apply(&[], version);
        }
        quotas
    }

    /// Nanoseconds since [`Quotas::began`]: the time that all buckets use.
    fn now(&self) -> u64 {
        nanos_since(self.began)
    }

    /// Adds its metrics to a registry that prefixes `cursus`.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register(
            "throttled_requests",
            "Requests that a quota stood against, by policy",
            self.throttled.clone(),
        );
        registry.register_collector(Box::new(Short(self.clone())));
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

    /// Number of nodes that quotas are divided by.
    fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }

    /// Records how many nodes are alive. A node that disappears still counts for one more round, because a count that
    /// is too low admits more than the quota.
    pub fn observe_nodes(&self, alive: i64) {
        let alive = u32::try_from(alive.max(1)).unwrap_or(u32::MAX);
        let before = self.alive.swap(alive, Ordering::Relaxed);
        self.nodes.store(alive.max(before), Ordering::Relaxed);
    }

    /// Whether other nodes may not know of this node yet.
    fn is_newcomer(&self) -> bool {
        self.nodes() > 1 && self.began.elapsed() < NEWCOMER
    }

    /// Whether the node is short of capacity, so that only requests inside a guarantee are served.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.shortage.is_short()
    }

    /// Counts a refused request, and returns its violation.
    fn count_refused(&self, violation: Violation) -> Violation {
        let policy = violation.policy.name();
        self.throttled.get_or_create(&Throttled { policy }).inc();
        violation
    }
}

/// Nanoseconds since `began`.
fn nanos_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Whether the node is short of capacity, read when metrics are collected.
#[derive(Debug)]
struct Short(Arc<Quotas>);

impl Collector for Short {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let short = ConstGauge::new(u32::from(self.0.is_short()));
        let help = "1 while the node is short of capacity and serves only what is guaranteed";
        short.encode(encoder.encode_descriptor(
            "capacity_short",
            help,
            None,
            short.metric_type(),
        )?)
    }
}
