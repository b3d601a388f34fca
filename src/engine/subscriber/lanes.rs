//! The lanes of a subscription's topic, in the order in which claims try them: one at a time, beginning with the lane
//! that was just published to. Claims stop when they have tried each lane since the last receiver arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::store::LaneId;

/// The lanes, and which is tried next.
#[derive(Debug)]
pub struct Lanes {
    all: RwLock<Arc<Vec<LaneId>>>,
    /// Lanes to try before receivers that do not wait get an empty result.
    untried: AtomicUsize,
    /// The lane that is tried next.
    next: AtomicUsize,
}

impl Lanes {
    pub(super) fn new(lanes: Vec<LaneId>) -> Self {
        Self {
            all: RwLock::new(Arc::new(lanes)),
            untried: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        }
    }

    pub(super) fn set(&self, lanes: Vec<LaneId>) {
        *self.all.write() = Arc::new(lanes);
    }

    /// All lanes.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<LaneId>> {
        self.all.read().clone()
    }

    /// Marks all lanes as untried: each may have messages.
    pub fn expect_fresh(&self) {
        let lanes = self.all.read().len();
        self.untried.store(lanes, Ordering::Release);
    }

    /// All lanes, beginning with another one at each call.
    #[must_use]
    pub fn rotated(&self) -> Vec<LaneId> {
        let mut lanes = self.all().to_vec();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % lanes.len().max(1);
        lanes.rotate_left(first);
        lanes
    }

    /// The lane to claim from next.
    #[must_use]
    pub fn to_try(&self) -> Option<LaneId> {
        let lanes = self.all();
        let next = self.next.load(Ordering::Relaxed) % lanes.len().max(1);
        lanes.get(next).copied()
    }

    /// Makes `lane` the next to try, because it was just published to.
    pub fn prefer(&self, lane: LaneId) {
        if let Some(at) = self.all().iter().position(|known| *known == lane) {
            self.next.store(at, Ordering::Relaxed);
            self.untried.fetch_max(1, Ordering::AcqRel);
        }
    }

    /// Moves on to the next lane: the one that was tried had fewer messages than wanted.
    pub fn was_empty(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
        let one_less = |untried: usize| untried.checked_sub(1);
        let _ = self
            .untried
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }

    /// Whether a lane was not tried since the last receiver arrived or the last hint of a publish.
    #[must_use]
    pub fn has_untried(&self) -> bool {
        self.untried.load(Ordering::Acquire) > 0
    }
}
