//! The lanes of a subscription's topic as its claims go through them: one at a time, the one that was just published to
//! first, until each was tried since the last receiver came.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// The lanes, and which is tried next.
#[derive(Debug)]
pub struct Lanes {
    all: RwLock<Arc<Vec<i64>>>,
    /// Lanes still to be tried before receivers learn that there is nothing.
    untried: AtomicUsize,
    /// The lane that is tried next.
    next: AtomicUsize,
}

impl Lanes {
    pub(super) fn new(lanes: Vec<i64>) -> Self {
        Self {
            all: RwLock::new(Arc::new(lanes)),
            untried: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        }
    }

    pub(super) fn set(&self, lanes: Vec<i64>) {
        *self.all.write() = Arc::new(lanes);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<i64>> {
        self.all.read().clone()
    }

    /// Each may have something again.
    pub fn expect_fresh(&self) {
        let lanes = self.all.read().len();
        self.untried.store(lanes, Ordering::Release);
    }

    /// All of them, each time another one first.
    #[must_use]
    pub fn rotated(&self) -> Vec<i64> {
        let mut lanes = self.all().to_vec();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % lanes.len().max(1);
        lanes.rotate_left(first);
        lanes
    }

    /// The lane to claim from next.
    #[must_use]
    pub fn to_try(&self) -> Option<i64> {
        let lanes = self.all();
        let next = self.next.load(Ordering::Relaxed) % lanes.len().max(1);
        lanes.get(next).copied()
    }

    /// Claims from `lane` next: it has just been published to.
    pub fn prefer(&self, lane: i64) {
        if let Some(at) = self.all().iter().position(|known| *known == lane) {
            self.next.store(at, Ordering::Relaxed);
            self.untried.fetch_max(1, Ordering::AcqRel);
        }
    }

    /// The lane that was tried gave less than was wanted: the next one follows.
    pub fn was_empty(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
        let less = |untried: usize| untried.checked_sub(1);
        let _ = self
            .untried
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Whether some lane was not tried since the last receiver came or the last hint.
    #[must_use]
    pub fn has_untried(&self) -> bool {
        self.untried.load(Ordering::Acquire) > 0
    }
}
