//! Decides whether the node or its database is short of capacity, so that only requests inside a guarantee are served.
//! A shortage begins when a publish has waited long for its turn, or when many bytes wait. It ends a while after waits
//! are short again. It is evaluated when a turn ends and when a request above a guarantee arrives, so no timer is
//! needed and unlimited tenants pay nothing for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::limits::QUEUED_PUBLISH_BYTES_MAX;
use parking_lot::Mutex;

/// A publish that waited this long for its turn to end means shortage. It is many times the duration of a turn.
const BEGINS: Duration = Duration::from_millis(250);
/// A shortage continues while publishes wait at least this long.
const CONTINUES: Duration = Duration::from_millis(100);
/// A shortage ends when no such wait was seen for this long.
const LASTS: Duration = Duration::from_secs(1);

/// What the queue of one turn loop reports.
#[derive(Debug, Default)]
pub struct Pressure {
    /// Bytes of publishes that wait for the next turn.
    bytes: AtomicUsize,
    /// When the oldest publish of the running turn arrived.
    in_turn: Mutex<Option<Instant>>,
}

impl Pressure {
    /// Records how many bytes of publishes wait.
    pub fn waiting(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Records that all waiting publishes went into a turn; the oldest arrived at `oldest`.
    pub fn turn_began(&self, oldest: Option<Instant>) {
        self.waiting(0);
        *self.in_turn.lock() = oldest;
    }

    /// When the oldest publish of the running turn arrived.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        *self.in_turn.lock()
    }

    /// Records the end of the turn; returns how long its oldest publish waited, if it had any.
    pub fn turn_ended(&self) -> Option<Duration> {
        self.in_turn.lock().take().map(|oldest| oldest.elapsed())
    }
}

/// Whether the node is short of capacity.
#[derive(Debug)]
pub struct Shortage {
    loops: Vec<Arc<Pressure>>,
    began: Instant,
    /// End of the shortage in milliseconds after `began`; zero before the first shortage.
    until: AtomicU64,
}

impl Shortage {
    /// The state of a node with this many turn loops, without shortage.
    #[must_use]
    pub fn new(loops: usize) -> Self {
        Self {
            loops: std::iter::repeat_with(Arc::default).take(loops).collect(),
            began: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    /// One for each turn loop to report to.
    #[must_use]
    pub fn loops(&self) -> &[Arc<Pressure>] {
        &self.loops
    }

    /// Whether the node is short of capacity now, by the reports of its loops. A queue that is half full is shortage,
    /// even when the waits are short.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let is_full =
            |one: &Arc<Pressure>| one.bytes.load(Ordering::Relaxed) > QUEUED_PUBLISH_BYTES_MAX / 2;
        if self.loops.iter().any(is_full) {
            return self.observe(BEGINS);
        }
        let oldest = self.loops.iter().filter_map(|one| one.oldest()).min();
        self.observe(oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed()))
    }

    /// Records how long the oldest publish waited, and returns whether the node is short of capacity.
    pub fn observe(&self, waited: Duration) -> bool {
        self.observe_at(waited, self.began.elapsed())
    }

    fn observe_at(&self, waited: Duration, now: Duration) -> bool {
        let millis = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let is_short = millis(now) < self.until.load(Ordering::Relaxed);
        if waited >= BEGINS || (is_short && waited >= CONTINUES) {
            self.until.store(millis(now + LASTS), Ordering::Relaxed);
            return true;
        }
        is_short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_begins_with_a_long_wait_and_ends_a_while_after_waits_are_short() {
        let shortage = Shortage::new(0);
        let saw = |waited, at| {
            let [waited, at] = [waited, at].map(Duration::from_millis);
            shortage.observe_at(waited, at)
        };
        assert!(!saw(240, 10_000));
        assert!(saw(250, 10_100));
        assert!(saw(0, 11_000), "it lasts");
        assert!(saw(110, 11_050), "it continues while waits are not short");
        assert!(saw(0, 12_000));
        assert!(!saw(0, 12_050));
        assert!(!saw(110, 12_100), "such a wait does not begin a shortage");
    }
}
