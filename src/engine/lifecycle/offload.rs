//! Duty `offload`: moves payloads that are still needed from the hot slots into object storage, so that the slots can
//! be truncated. It decides when to walk through a slot, and `walk` does it. Payloads that are consumed within the hot
//! window are deleted by the duty `expire` and cost no PUT. While object storage is down, the duty runs less and less
//! often, down to once a minute, and its metrics show the backlog.
//!
//! A walk starts when the hot window of all payloads in the slot is over, so one walk moves everything that is left.
//! When free slots become scarce, it starts at once. `Waits` remembers these times.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::blob::Blob;
use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::engine::lifecycle::walk::Walker;
use crate::store::installation::{self, Installation};
use crate::store::{hot_payload, session};

/// Most walks through a slot in one run. A walk that moves something is followed by another, because only a walk that
/// finds nothing proves that nothing is left. A slot that other nodes still publish into is continued in the next run.
const WALKS_MAX: usize = 2;

/// Size of objects, and time until payloads are moved.
#[derive(Debug, Clone)]
pub struct OffloadSettings {
    /// Bytes of an object. The last object of a slot is smaller, and a larger payload gets an object of its own.
    pub object_bytes: i64,
    /// How long a payload stays in Postgres, where it may be consumed without a PUT. Shorter when free slots become
    /// scarce.
    pub hot_window: Duration,
}

impl Default for OffloadSettings {
    fn default() -> Self {
        Self {
            object_bytes: 16 * 1024 * 1024,
            hot_window: Duration::from_secs(30),
        }
    }
}

/// What waits to be moved into object storage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// Bytes in slots other than the current one. Includes consumed payloads whose slot is not truncated yet.
    pub bytes: i64,
    /// Age of the oldest payload in these slots that is still needed, approximately.
    pub oldest_age_seconds: f64,
}

/// The duty.
#[derive(Debug)]
pub struct Offload {
    blob: Arc<Blob>,
    settings: OffloadSettings,
    waits: Waits,
    backlog_bytes: Gauge,
    oldest_age_seconds: Gauge<f64, AtomicU64>,
}

/// For each slot, the time before which a walk would find nothing that is due, by the database's clock. `None` means
/// unknown. It only saves walks, and correctness does not depend on it.
#[derive(Debug, Default)]
struct Waits {
    current: Option<i16>,
    until: [Option<OffsetDateTime>; hot_payload::SLOTS as usize],
}

impl Waits {
    /// Starts the hot window of a slot that has just stopped being the current one.
    fn observe(&mut self, ring: &Ring, window: Duration) {
        let left = self.current.replace(ring.installation.hot_slot);
        if let Some(left) = left.filter(|left| *left != ring.installation.hot_slot) {
            self.set(left, Some(ring.at + window));
        }
    }

    fn set(&mut self, slot: i16, until: Option<OffsetDateTime>) {
        let slot = usize::try_from(slot).ok();
        if let Some(kept) = slot.and_then(|slot| self.until.get_mut(slot)) {
            *kept = until;
        }
    }

    fn is_over(&self, slot: i16, at: OffsetDateTime) -> bool {
        let slot = usize::try_from(slot).ok();
        let until = slot.and_then(|slot| self.until.get(slot).copied());
        until.flatten().is_none_or(|until| until <= at)
    }
}

/// The state of the ring of hot slots.
struct Ring {
    at: OffsetDateTime,
    installation: Installation,
    /// The slots that are not current and not empty, oldest first.
    old: Vec<i16>,
    /// Bytes in `old`.
    bytes: i64,
    /// Whether at least half of all slots are in `old`, so that slots have to be emptied at once.
    is_scarce: bool,
}

impl Ring {
    async fn read(context: &Context) -> Result<Self, DutyError> {
        let mut session = context.store.session().await?;
        let installation = installation::get(&mut session)
            .await?
            .ok_or(DutyError::NotSetUp)?;
        let sizes = hot_payload::sizes(&mut session).await?;
        let at = session::now(&mut session, context.clock.now()).await?;
        let size = |slot: i16| {
            usize::try_from(slot)
                .ok()
                .and_then(|slot| sizes.get(slot))
                .copied()
                .unwrap_or(0)
        };
        let others =
            (1..hot_payload::SLOTS).map(|step| (installation.hot_slot + step) % hot_payload::SLOTS);
        let old: Vec<i16> = others.filter(|slot| size(*slot) > 0).collect();
        let bytes = old.iter().map(|slot| size(*slot)).sum();
        let is_scarce = old.len() * 2 >= sizes.len();
        Ok(Self {
            at,
            installation,
            old,
            bytes,
            is_scarce,
        })
    }
}

impl Offload {
    /// The duty over this object storage.
    #[must_use]
    pub fn new(blob: Arc<Blob>, settings: OffloadSettings) -> Self {
        Self {
            blob,
            settings,
            waits: Waits::default(),
            backlog_bytes: Gauge::default(),
            oldest_age_seconds: Gauge::default(),
        }
    }

    /// Empties the slots that are not current, oldest first, and returns how many blocks it moved. A slot that fails
    /// does not stop the next one; the first error is returned at the end.
    async fn empty_all(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let mut done = Done::default();
        let mut failed = None;
        let ring = Ring::read(context).await?;
        self.waits.observe(&ring, self.settings.hot_window);
        for slot in ring.old {
            if stop.is_cancelled() {
                break;
            }
            if let Err(error) = self.empty(slot, context, stop, &mut done).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(done), Err)
    }

    async fn empty(
        &mut self,
        slot: i16,
        context: &Context,
        stop: &CancellationToken,
        done: &mut Done,
    ) -> Result<(), DutyError> {
        let hot_window = self.settings.hot_window;
        // Read again for each slot, because emptying the last one may have freed enough slots.
        let ring = Ring::read(context).await?;
        self.waits.observe(&ring, hot_window);
        let window = if ring.is_scarce {
            Duration::ZERO
        } else {
            hot_window
        };
        if !ring.is_scarce && !self.waits.is_over(slot, ring.at) {
            return Ok(());
        }
        let walker = Walker {
            context,
            blob: &self.blob,
            object_bytes: self.settings.object_bytes,
            installation: &ring.installation,
        };
        for _ in 0..WALKS_MAX {
            let due = ring.at - window;
            let (moved, youngest) = walker.walk(slot, due, stop).await?;
            self.waits.set(slot, youngest.map(|at| at + hot_window));
            done.count += moved;
            if moved == 0 || stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// What waits to be moved into object storage.
    ///
    /// # Errors
    /// When the database does not respond.
    pub async fn backlog(&self, context: &Context) -> Result<Backlog, DutyError> {
        let ring = Ring::read(context).await?;
        let mut backlog = Backlog {
            bytes: ring.bytes,
            oldest_age_seconds: 0.0,
        };
        let mut session = context.store.session().await?;
        for slot in &ring.old {
            let age = hot_payload::oldest_age(&mut session, *slot, context.clock.now()).await?;
            if let Some(age) = age {
                backlog.oldest_age_seconds = age;
                break;
            }
        }
        Ok(backlog)
    }

    fn show(&self, backlog: Backlog) {
        self.backlog_bytes.set(backlog.bytes);
        self.oldest_age_seconds.set(backlog.oldest_age_seconds);
    }
}

impl Duty for Offload {
    const NAME: &'static str = "offload";
    const BUSY: Duration = Duration::from_millis(500);
    const IDLE: Duration = Duration::from_secs(5);

    /// Moves what is due, and returns how many blocks it moved. Stops between two objects.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let outcome = self.empty_all(context, stop).await;
        // Also after a failure, because then the backlog matters most.
        match self.backlog(context).await {
            Ok(backlog) => self.show(backlog),
            // Only metrics are missing.
            Err(error) => tracing::warn!(%error, "the backlog of offloading is unknown"),
        }
        outcome
    }

    fn stand_by(&mut self) {
        self.waits = Waits::default();
        self.show(Backlog::default());
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "offload_backlog_bytes",
            "Bytes in hot slots other than the current one, those consumed since included",
            self.backlog_bytes.clone(),
        );
        registry.register(
            "offload_oldest_age_seconds",
            "Age of the oldest payload that waits for object storage, about",
            self.oldest_age_seconds.clone(),
        );
    }
}
