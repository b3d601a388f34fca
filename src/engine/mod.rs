//! The rules of Cursus, one verb a file. `http` and `worker` call in here; only here are transactions opened. What a node
//! keeps in memory — queues of turns, waiting receivers, caches — can be lost at any moment without losing a message.

pub mod access;
pub mod bill;
mod catalog;
pub mod duty;
mod error;
pub mod events;
pub mod fleet;
pub mod lease;
pub mod lifecycle;
pub mod log;
pub mod meter;
pub mod operate;
pub mod order;
pub mod publish;
pub mod quota;
mod receive;
mod resources;
mod subscriber;
mod turn;

use std::sync::Arc;
use std::sync::atomic::AtomicI16;

use api::MessageId;
use api::list::Page;
use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blob::Blob;
use crate::clock::Clock;
use crate::outbound::Outbound;
use crate::store::Store;
use crate::store::installation::Installation;

pub use access::Access;
pub use error::Error;
pub use fleet::readiness::Readiness;
pub use log::block::{Delivery, StoredMessage};
use log::payload::{self, Records};

/// A tenant that was looked up by a key or token, or the only one of the embedded mode (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenant(pub(crate) i64);

/// What a request is served from: what its tenant is guaranteed, or what happens to be free. Ordered by who goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capacity {
    /// Inside the guarantee, or without any limit.
    #[default]
    Guaranteed,
    /// Above the guarantee: served while there is room.
    Elastic,
}

/// Messages of one publish, checked and encoded; an invalid one keeps its place among its neighbours.
#[derive(Debug, Default)]
pub struct Drafts {
    /// The valid ones.
    pub records: Records,
    /// One per item in order; the valid ones stand in `records` in the same order.
    pub items: Vec<Draft>,
    /// Under which capacity they are published.
    pub capacity: Capacity,
}

/// An answer, and what it cost.
#[derive(Debug)]
pub struct Metered<T> {
    /// The answer.
    pub answer: T,
    /// Metering units of the call.
    pub units: u64,
}

impl<T> Metered<T> {
    /// The same with another answer.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Metered<U> {
        Metered {
            answer: change(self.answer),
            units: self.units,
        }
    }
}

/// A publish of one message whose body streams to object storage.
#[derive(Debug)]
pub struct Streamed<'a> {
    /// What it carries beside its body.
    pub meta: payload::Meta<'a>,
    /// The bare idempotency key.
    pub key: Option<String>,
    /// Under which capacity it is published.
    pub capacity: Capacity,
}

/// One item of [`Drafts`].
#[derive(Debug)]
pub enum Draft {
    /// Encoded into the records, with its `dedup_id` if it has one.
    Valid(Option<String>),
    /// Refused before it came this far.
    Refused(Error),
}

/// The route of a publish: the same `Idempotency-Key` on another one is another key.
#[derive(Debug, Clone, Copy)]
pub enum PublishRoute {
    /// One message.
    Single,
    /// A batch, also of one message.
    Batch,
}

/// An `Idempotency-Key` and what it was sent with.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// Where it was sent to.
    pub route: PublishRoute,
    /// The key, unquoted, 1 to 255 characters.
    pub key: String,
    /// SHA-256 of the request body.
    pub fingerprint: [u8; 32],
}

/// What to do with a message.
#[derive(Debug, Clone)]
pub enum Action {
    /// Done.
    Ack,
    /// Hand it out again after some seconds.
    Nack {
        /// Seconds.
        delay_seconds: u32,
    },
    /// Hide it for some seconds from now; the subscription's timeout when `None`.
    Extend {
        /// Seconds.
        visibility_seconds: Option<u32>,
    },
    /// Move it to the dead-letter topic.
    DeadLetter {
        /// Why.
        reason: Option<String>,
    },
}

/// Where a browse begins.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// The oldest kept message.
    Start,
    /// The first message published at or after a time.
    Time(api::Timestamp),
    /// A message, itself included.
    Message(MessageId),
    /// After a message.
    After(After),
}

/// Where a page of a browse ended; as text it is the `next` of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// The last message of the page.
    pub message: MessageId,
    /// The time from which the browse began: the lanes behind that of the message begin there, too.
    pub since: Option<api::Timestamp>,
}

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

/// What the engine counts beside its turns.
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
    installation: Installation,
    gate: access::Gate,
    watched: fleet::watch::Watched,
    quotas: quota::Quotas,
    signer: lease::receipt::Signer,
    tally: Arc<meter::deliveries::Tally>,
    reader: log::reader::Reader,
    running: publish::idempotent::Running,
    burials: receive::dead_letter::Burials,
    turns: Arc<turn::Shared>,
    queues: Vec<Arc<turn::Queue>>,
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
        let cache = Arc::new(log::cache::Cache::new(parts.cache_bytes));
        let turns = Arc::new(turn::Shared {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            cache: cache.clone(),
            catalog: Arc::default(),
            slot: AtomicI16::new(installation.hot_slot),
            hints: fleet::wake::Hints::default(),
            fair: order::fair::FairQueue::default(),
            returns: lease::redeliver::Returns::default(),
            shortage: quota::Shortage::default(),
            metrics: turn::Metrics::default(),
        });
        let queues: Vec<_> = std::iter::repeat_with(Arc::default)
            .take(parts.turn_loops.max(1))
            .collect();
        let gate = access::Gate::new(parts.open.then_some(default_tenant));
        let quotas = quota::Quotas::new(installation.quota_version);
        let tally = Arc::new(meter::deliveries::Tally::default());
        let objects = (parts.blob.clone(), tally.clone());
        let reader = log::reader::Reader::new(parts.store.clone(), objects, cache);
        let inner = Inner {
            parts,
            node: uuid::Uuid::new_v4(),
            installation,
            gate,
            watched: fleet::watch::Watched::default(),
            quotas,
            signer: lease::receipt::Signer::new(&receipt_key),
            tally,
            reader,
            running: publish::idempotent::Running::default(),
            burials: receive::dead_letter::Burials::default(),
            turns,
            queues,
            metrics: Metrics::default(),
            draining,
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
        for queue in &self.inner.queues {
            tracker.spawn(turn::run(
                self.inner.turns.clone(),
                queue.clone(),
                stop.clone(),
            ));
        }
        fleet::spawn(self, tracker, stop);
        let (engine, token) = (self.clone(), stop.clone());
        tracker.spawn(async move { engine.keep_issuers(token).await });
        let (engine, token) = (self.clone(), stop.clone());
        tracker.spawn(async move { engine.flush_tally(token).await });
        let (engine, token) = (self.clone(), stop.clone());
        tracker.spawn(async move { engine.exchange_demand(token).await });
        let (engine, token) = (self.clone(), stop.clone());
        tracker.spawn(async move { engine.count_used(token).await });
        for _ in 0..order::fair::LOOPS {
            let (engine, token) = (self.clone(), stop.clone());
            tracker.spawn(async move { engine.serve_fair(token).await });
        }
        for _ in 0..receive::dead_letter::BURIALS_AT_ONCE {
            let (engine, token) = (self.clone(), stop.clone());
            tracker.spawn(async move { engine.bury_waiting(token).await });
        }
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

    /// The quotas of this node.
    #[must_use]
    pub fn quotas(&self) -> &quota::Quotas {
        &self.inner.quotas
    }

    /// Whether the node is short of capacity, so that only what is inside a guarantee is served.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let shortage = &self.inner.turns.shortage;
        let queues = &self.inner.queues;
        if queues.iter().any(|queue| queue.is_nearly_full()) {
            return shortage.saw_full();
        }
        let waited = queues.iter().filter_map(|queue| queue.waited()).max();
        shortage.saw(waited.unwrap_or_default())
    }

    /// Bytes of blocks in memory.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.inner.turns.cache.bytes()
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

    fn hints(&self) -> &fleet::wake::Hints {
        &self.inner.turns.hints
    }

    fn reader(&self) -> &log::reader::Reader {
        &self.inner.reader
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
        &self.inner.installation
    }

    fn slot(&self) -> i16 {
        self.inner.turns.slot()
    }

    fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }

    /// Which of a topic's lanes this node publishes to.
    fn home(&self) -> usize {
        usize::try_from(self.inner.node.as_u128() % 65_536).unwrap_or(0)
    }

    /// The queue of the loop that a topic belongs to.
    fn queue(&self, topic: i64) -> &Arc<turn::Queue> {
        let index = usize::try_from(topic).unwrap_or(0) % self.inner.queues.len();
        &self.inner.queues[index]
    }
}

/// A page from one item more than fits on it.
fn page<T>(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(key);
    Page { items, next }
}
