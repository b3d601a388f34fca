//! Counts the messages of a subscription that are in flight, to enforce `max_in_flight`. The count is exact when it was
//! just read from the database. Then it moves with the messages that this node hands out and settles.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::quota::Limited;

/// Pause after a count, as a multiple of the time that it took: counts must not keep the database busy.
const COUNT_REST: u32 = 20;

/// The count.
#[derive(Debug)]
pub struct InFlight {
    messages: AtomicI64,
    /// Whether `max_in_flight` has held a receiver back since the last settle.
    held_back: AtomicBool,
    /// No count before this instant.
    count_after: Mutex<Instant>,
    /// The tenant's limits, once they bound messages in flight.
    limited: OnceLock<Arc<Limited>>,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            messages: AtomicI64::new(0),
            held_back: AtomicBool::new(false),
            count_after: Mutex::new(Instant::now()),
            limited: OnceLock::new(),
        }
    }

    /// Messages that may still be handed out under `max`, as far as this node knows.
    pub(super) fn headroom(&self, max: i32) -> u32 {
        let room = i64::from(max) - self.messages.load(Ordering::Relaxed);
        u32::try_from(room.max(0)).unwrap_or(u32::MAX)
    }

    /// Records that `max_in_flight` holds receivers back.
    pub fn hold_back(&self) {
        self.held_back.store(true, Ordering::Relaxed);
    }

    /// Clears the record of [`InFlight::hold_back`]. Returns whether receivers were held back. Called after a settle.
    pub fn release(&self) -> bool {
        self.is_held() && self.held_back.swap(false, Ordering::Relaxed)
    }

    pub(super) fn is_held(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Moves the count. Messages handed out by other nodes may be settled here, so the count is clamped at zero.
    pub fn moved(&self, by: i64) {
        if let Some(limited) = self.limited.get() {
            limited.moved(by);
        }
        let add = |messages: i64| Some(messages.saturating_add(by).max(0));
        let _ = self
            .messages
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Forgets the count. It is taken again soon.
    pub(super) fn forget(&self) {
        *self.count_after.lock() = Instant::now();
        self.hold_back();
    }

    /// From now on, moves of the count also move the tenant's count.
    pub fn count_for(&self, limited: &Arc<Limited>) {
        self.limited.get_or_init(|| limited.clone());
    }

    /// Whether the pause after the last count is over.
    pub(super) fn may_count(&self) -> bool {
        Instant::now() >= *self.count_after.lock()
    }

    /// Sets the count to a count that took this long, and begins the pause after it.
    pub(super) fn counted(&self, messages: i64, took: Duration) {
        self.messages.store(messages, Ordering::Relaxed);
        *self.count_after.lock() = Instant::now() + took * COUNT_REST;
    }
}
