//! The rules of Cursus in rooms, a folder each; the head of the crate lists them from top to bottom. `http` and `worker` call
//! in here, and only here are transactions opened. What a node keeps in memory (queues of turns, waiting receivers, caches)
//! can be lost at any moment without losing a message.
//!
//! This file holds the struct of each room together; `start` makes them and starts their loops.

pub mod access;
pub mod bill;
mod catalog;
pub mod duty;
mod error;
pub mod events;
pub mod fleet;
pub mod held;
mod inbox;
pub mod lease;
pub mod lifecycle;
pub mod limit;
pub mod log;
pub mod mask;
pub mod meter;
mod metrics;
pub mod operate;
pub mod order;
mod page;
pub mod publish;
pub mod push;
pub mod quota;
pub mod receive;
mod resources;
mod start;
mod subscriber;
mod turn;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::blob::Blob;
use crate::clock::Clock;
use crate::disk::Room;
use crate::network::Network;
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
    /// Room on the disk of the embedded mode; a fleet has always room.
    pub room: Room,
    /// Whether requests without a key belong to the default tenant (embedded mode).
    pub open: bool,
    /// Proxies that say from whom they pass a request on.
    pub trusted_proxies: Vec<Network>,
    /// Bytes of blocks kept in memory.
    pub cache_bytes: usize,
    /// Largest body or batch kept in the database, in bytes.
    pub hot_limit_bytes: usize,
    /// Turn loops; a topic belongs to one of them.
    pub turn_loops: usize,
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
    held: held::Budget,
    push: push::Push,
    metrics: metrics::Metrics,
    draining: CancellationToken,
}

impl Engine {
    /// Largest body or batch kept in the database, in bytes; larger ones go through an object.
    #[must_use]
    pub fn hot_limit_bytes(&self) -> usize {
        self.inner.parts.hot_limit_bytes
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

    /// The budget for bodies of this node.
    #[must_use]
    pub fn held(&self) -> &held::Budget {
        &self.inner.held
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

    /// Requests to the outside.
    fn outbound(&self) -> &Outbound {
        &self.inner.parts.outbound
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

    fn push(&self) -> &push::Push {
        &self.inner.push
    }

    fn installation(&self) -> &Installation {
        &self.inner.uploads.installation
    }

    fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }
}
