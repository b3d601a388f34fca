//! The start of an engine: makes the struct of each room from the parts of the node, bottom up, and starts the loops.

use std::sync::Arc;

use api::limits::HELD_BODIES_BYTES_MAX;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::store::Session;
use crate::store::installation::Installation;

use super::access::{Gate, Tenant};
use super::duty::Context;
use super::fleet::watch::Watched;
use super::held::Budget;
use super::lease::Leases;
use super::lease::receipt::Signer;
use super::log::cache::Cache;
use super::log::reader::Reader;
use super::log::upload::Uploads;
use super::meter::deliveries::{Flusher, Tally};
use super::metrics::Metrics;
use super::order::Dispenser;
use super::publish::idempotent::Running;
use super::push::{self, Push};
use super::quota::{Quotas, Shortage};
use super::turn::Turns;
use super::{Engine, Error, Inner, Parts, fleet};

impl Engine {
    /// An engine over its parts. Its loops run on `tracker` until `stop`; its receivers stop waiting after `draining`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn start(
        parts: Parts,
        tracker: &TaskTracker,
        draining: CancellationToken,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let (installation, tenant) =
            fleet::installation::ensure(&parts.store, &parts.clock).await?;
        let inner = Inner::new(parts, installation, tenant, draining)?;
        let engine = Self {
            inner: Arc::new(inner),
        };
        let inner = Arc::downgrade(&engine.inner);
        engine.store().when_it_changes(move || {
            if let Some(inner) = inner.upgrade() {
                inner.forget();
            }
        });
        // Before any request: it must know which callers to let in.
        engine.poll_once().await?;
        let sessions = engine.inner.turns.connect().await?;
        engine.spawn(sessions, tracker, &stop);
        Ok(engine)
    }

    fn spawn(&self, sessions: Vec<Session>, tracker: &TaskTracker, stop: &CancellationToken) {
        self.inner.quotas.start(tracker, stop);
        self.inner.turns.start(sessions, tracker, stop);
        self.inner.dispenser.start(tracker, stop);
        self.start_dead_letters(tracker, stop);
        let context = Context {
            store: self.store().clone(),
            clock: self.clock().clone(),
        };
        let flusher = Flusher::new(self.inner.tally.clone(), context, self.inner.node);
        tracker.spawn(flusher.run(stop.clone()));
        push::spawn(self, tracker, stop);
        fleet::spawn(self, tracker, stop);
        let (engine, token) = (self.clone(), stop.clone());
        tracker.spawn(async move { engine.gate().keep_issuers(token).await });
    }
}

impl Inner {
    /// Forgets all that this node remembers of the database, because it has lost something (`store::history`).
    fn forget(&self) {
        self.turns.forget();
        self.gate.distrust();
        self.watched.forget();
        self.quotas.forget();
    }

    fn new(
        parts: Parts,
        installation: Installation,
        default_tenant: Tenant,
        draining: CancellationToken,
    ) -> Result<Self, Error> {
        let receipt_key = installation.receipt_key[..].try_into();
        let signer = Signer::new(&receipt_key.map_err(|_| Error::Internal)?);
        let node = Uuid::new_v4();
        let (store, clock) = (parts.store.clone(), parts.clock.clone());
        let context = || Context {
            store: store.clone(),
            clock: clock.clone(),
        };
        let open_to = parts.open.then_some(default_tenant);
        let proxies = parts.trusted_proxies.clone();
        let gate = Gate::new(context(), parts.outbound.clone(), open_to, proxies);
        let shortage = Arc::new(Shortage::new(parts.turn_loops.max(1)));
        let version = installation.quota_version;
        let quotas = Quotas::new(context(), node, version, shortage.clone());
        let tally = Arc::new(Tally::default());
        let cache = Arc::new(Cache::new(parts.cache_bytes));
        let blob = parts.blob.clone();
        let reader = Reader::new(store.clone(), blob, cache.clone());
        let reader = Arc::new(reader);
        let slot = installation.hot_slot;
        let turns = Arc::new(Turns::new(context(), cache, slot, shortage));
        let leases = Arc::new(Leases::new(context(), turns.clone()));
        let dispenser = Dispenser {
            store: store.clone(),
            clock: clock.clone(),
            reader: reader.clone(),
            leases: leases.clone(),
            turns: turns.clone(),
        };
        let uploads = Uploads {
            store,
            blob: parts.blob.clone(),
            clock,
            installation,
        };
        let metrics = Metrics::default();
        Ok(Self {
            parts,
            node,
            gate,
            watched: Watched::default(),
            quotas: Arc::new(quotas),
            signer,
            tally,
            uploads,
            reader,
            leases,
            turns,
            dispenser: Arc::new(dispenser),
            running: Running::default(),
            held: Budget::new(HELD_BODIES_BYTES_MAX),
            push: Push::new(metrics.events.failed_at_url()),
            metrics,
            draining,
        })
    }
}
