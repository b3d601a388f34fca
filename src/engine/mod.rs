//! The rules of Cursus in rooms, a folder each; the head of the crate lists them from top to bottom. `http` and `worker` call
//! in here, and only here are transactions opened. What a node keeps in memory (queues of turns, waiting receivers, caches)
//! can be lost at any moment without losing a message.
//!
//! This file puts the parts of a node together: it makes the struct of each room, and starts their loops.

pub mod access;
pub mod bill;
mod catalog;
pub mod duty;
mod error;
pub mod events;
pub mod fleet;
mod inbox;
pub mod lease;
pub mod lifecycle;
pub mod limit;
pub mod log;
pub mod mask;
pub mod meter;
pub mod operate;
pub mod order;
mod page;
pub mod publish;
pub mod quota;
mod receive;
mod resources;
mod subscriber;
mod turn;

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blob::Blob;
use crate::clock::Clock;
use crate::outbound::Outbound;
use crate::store::Store;
use crate::store::installation::Installation;

pub use access::{Access, Tenant};
pub use error::Error;
pub use fleet::Readiness;
pub use limit::{Capacity, Limit};
pub use log::block::{Delivery, StoredMessage};
pub use meter::Metered;
pub use publish::draft::{Draft, Drafts, IdempotencyKey, PublishRoute, Streamed};
pub use receive::{Action, After, Browse, BrowseFrom};

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The database, its schema up to date.
    pub store: Store,
    /// Object storage.
    pub blob: Arc<Blob>,
    /// Requests to the outside.
    pub outbound: Outbound,
    /// Source of `$now`.
    pub clock: Clock,
    /// Whether requests without a key belong to the default tenant (embedded mode).
    pub open: bool,
    /// Bytes of blocks kept in memory.
    pub cache_bytes: usize,
    /// Largest body or batch kept in the database, in bytes.
    pub hot_limit_bytes: usize,
    /// Turn loops; a topic belongs to one of them.
    pub turn_loops: usize,
}

/// What the engine counts apart from its turns.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Messages moved to a dead-letter topic.
    pub dead_lettered: Counter,
    /// Events on their way to sinks.
    pub events: events::Metrics,
}

/// The engine of one node; clones are handles on the same.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    node: uuid::Uuid,
    gate: access::Gate,
    watched: fleet::watch::Watched,
    quotas: Arc<quota::Quotas>,
    signer: lease::receipt::Signer,
    tally: Arc<meter::deliveries::Tally>,
    uploads: log::upload::Uploads,
    reader: Arc<log::reader::Reader>,
    leases: Arc<lease::Leases>,
    turns: Arc<turn::Turns>,
    dispenser: Arc<order::Dispenser>,
    running: publish::idempotent::Running,
    metrics: Metrics,
    draining: CancellationToken,
}

impl Engine {
    /// An engine over its parts; its loops run on `tracker` until `stop`, after `draining` its receivers stop waiting.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn start(
        parts: Parts,
        tracker: &TaskTracker,
        draining: CancellationToken,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let (installation, default_tenant) = fleet::installation::installation(&parts).await?;
        let receipt_key = installation.receipt_key[..]
            .try_into()
            .map_err(|_| Error::Internal)?;
        let signer = lease::receipt::Signer::new(&receipt_key);
        let node = uuid::Uuid::new_v4();
        let (store, clock) = (parts.store.clone(), parts.clock.clone());
        let cache = Arc::new(log::cache::Cache::new(parts.cache_bytes));
        let shortage = Arc::new(quota::Shortage::new(parts.turn_loops.max(1)));
        let turns = Arc::new(turn::Turns::new(
            store.clone(),
            clock.clone(),
            cache.clone(),
            installation.hot_slot,
            shortage.clone(),
        ));
        let quotas = quota::Quotas::new(
            (store.clone(), clock.clone()),
            node,
            installation.quota_version,
            shortage,
        );
        let tally = Arc::new(meter::deliveries::Tally::default());
        let objects = (parts.blob.clone(), tally.clone());
        let reader = Arc::new(log::reader::Reader::new(store.clone(), objects, cache));
        let leases = Arc::new(lease::Leases::new(store.clone(), clock.clone()));
        let dispenser = Arc::new(order::Dispenser {
            store: store.clone(),
            clock: clock.clone(),
            reader: reader.clone(),
            leases: leases.clone(),
            turns: turns.clone(),
        });
        let uploads = log::upload::Uploads {
            store,
            blob: parts.blob.clone(),
            clock,
            installation,
            hot_limit_bytes: parts.hot_limit_bytes,
        };
        let inner = Inner {
            node,
            gate: access::Gate::new(
                (parts.store.clone(), parts.clock.clone()),
                parts.outbound.clone(),
                parts.open.then_some(default_tenant),
            ),
            watched: fleet::watch::Watched::default(),
            quotas: Arc::new(quotas),
            signer,
            tally,
            uploads,
            reader,
            leases,
            turns,
            dispenser,
            running: publish::idempotent::Running::default(),
            metrics: Metrics::default(),
            draining,
            parts,
        };
        let engine = Self {
            inner: Arc::new(inner),
        };
        // Before any request: it must know who is let in.
        engine.poll().await?;
        engine.spawn(tracker, &stop);
        Ok(engine)
    }

    fn spawn(&self, tracker: &TaskTracker, stop: &CancellationToken) {
        self.inner.quotas.start(tracker, stop);
        self.inner.turns.start(tracker, stop);
        self.inner.dispenser.start(tracker, stop);
        self.start_dead_letters(tracker, stop);
        let counts = (self.store().clone(), self.clock().clone());
        let flusher =
            meter::deliveries::Flusher::new(self.inner.tally.clone(), counts, self.inner.node);
        tracker.spawn(flusher.run(stop.clone()));
        fleet::spawn(self, tracker, stop);
        let (engine, token) = (self.clone(), stop.clone());
        tracker.spawn(async move { engine.gate().keep_issuers(token).await });
    }

    /// Largest body or batch kept in the database, in bytes; larger ones go through an object.
    #[must_use]
    pub fn hot_limit_bytes(&self) -> usize {
        self.inner.parts.hot_limit_bytes
    }

    /// What turns count.
    #[must_use]
    pub fn turn_metrics(&self) -> &turn::Metrics {
        &self.inner.turns.metrics
    }

    /// What the engine counts beside its turns.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Lets callers in.
    #[must_use]
    pub fn gate(&self) -> &access::Gate {
        &self.inner.gate
    }

    /// The quotas of this node.
    #[must_use]
    pub fn quotas(&self) -> &quota::Quotas {
        &self.inner.quotas
    }

    /// Bytes of blocks in memory.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.inner.reader.cache_bytes()
    }

    /// Names this run of this node.
    #[must_use]
    pub fn node(&self) -> uuid::Uuid {
        self.inner.node
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    /// Object storage.
    #[must_use]
    pub fn blob(&self) -> &Arc<Blob> {
        &self.inner.parts.blob
    }

    /// Source of `$now`.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.parts.clock
    }

    /// What a duty works with on this node.
    #[must_use]
    pub fn duty_context(&self) -> duty::Context {
        duty::Context {
            store: self.store().clone(),
            clock: self.clock().clone(),
        }
    }

    fn catalog(&self) -> &catalog::Catalog {
        &self.inner.turns.catalog
    }

    fn turns(&self) -> &turn::Turns {
        &self.inner.turns
    }

    fn leases(&self) -> &lease::Leases {
        &self.inner.leases
    }

    fn reader(&self) -> &log::reader::Reader {
        &self.inner.reader
    }

    fn uploads(&self) -> &log::upload::Uploads {
        &self.inner.uploads
    }

    fn tally(&self) -> &meter::deliveries::Tally {
        &self.inner.tally
    }

    fn signer(&self) -> &lease::receipt::Signer {
        &self.inner.signer
    }

    fn running(&self) -> &publish::idempotent::Running {
        &self.inner.running
    }

    fn installation(&self) -> &Installation {
        &self.inner.uploads.installation
    }

    fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }
}
