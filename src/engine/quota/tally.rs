//! What is counted in the database: bytes kept and messages in flight of a tenant. Counted now and then, only where there
//! is a cap and somebody asks, and moved in between by what this node does; so it is about a second behind what other nodes
//! do. A count rests for many times as long as it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::store::{self, Session};

use super::limited::Limited;

/// Pause between two looks at what should be counted.
const ROUND: Duration = Duration::from_millis(250);
/// A count rests for so many times as long as it took.
const REST: u32 = 20;
/// Stands for no cap.
const NO_CAP: u64 = u64::MAX;

/// A cap, and what was counted last.
#[derive(Debug)]
pub(super) struct Tally {
    cap: AtomicU64,
    used: AtomicI64,
    /// Whether anybody asked since it was counted.
    asked: AtomicBool,
    count_after: Mutex<Option<Instant>>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            cap: AtomicU64::new(NO_CAP),
            used: AtomicI64::new(0),
            asked: AtomicBool::new(false),
            count_after: Mutex::default(),
        }
    }
}

impl Tally {
    pub(super) fn set(&self, cap: Option<u64>) {
        self.cap.store(cap.unwrap_or(NO_CAP), Ordering::Relaxed);
    }

    /// The cap and what is used of it; `None` without a cap.
    pub(super) fn ask(&self) -> Option<(u64, u64)> {
        let cap = self.cap.load(Ordering::Relaxed);
        if cap == NO_CAP {
            return None;
        }
        self.asked.store(true, Ordering::Relaxed);
        Some((cap, self.used()))
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    pub(super) fn is_counted(&self) -> bool {
        self.cap.load(Ordering::Relaxed) != NO_CAP
    }

    /// What this node did since it was counted.
    pub(super) fn moved(&self, by: i64) {
        self.used.fetch_add(by, Ordering::Relaxed);
    }

    fn is_due(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
            && self.is_counted()
            && self
                .count_after
                .lock()
                .is_none_or(|at| Instant::now() >= at)
    }

    fn counted(&self, used: i64, took: Duration) {
        self.used.store(used, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
        *self.count_after.lock() = Some(Instant::now() + took * REST);
    }
}

impl Limited {
    /// Moves the count of messages in flight.
    pub(in crate::engine) fn moved(&self, by: i64) {
        self.in_flight.moved(by);
    }
}

impl Engine {
    /// Counts what is used, until `stop`.
    pub(in crate::engine) async fn count_used(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = stop.cancelled() => return,
            }
            if !self.quotas().in_use.get() {
                continue;
            }
            let is_due = |limited: &Limited| limited.stored.is_due() || limited.in_flight.is_due();
            for limited in self.quotas().known.limited_where(is_due) {
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
        let mut session: Session = self.store().session().await?;
        if due[0] {
            let began = Instant::now();
            let bytes = store::quota::stored_bytes(&mut session, limited.tenant).await?;
            stored.counted(bytes, began.elapsed());
        }
        if due[1] {
            let began = Instant::now();
            let messages = store::quota::in_flight(&mut session, limited.tenant).await?;
            in_flight.counted(messages, began.elapsed());
        }
        Ok(())
    }
}
