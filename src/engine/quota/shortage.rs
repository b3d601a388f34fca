//! When the node or its database is short of capacity: publishes wait too long for their turn, or too many bytes wait.
//! Then only what is inside a guarantee is served. It begins when a publish is seen to wait long and ends a while after
//! waits are short again; it is looked at when a turn ends and when something above a guarantee comes, so that a request
//! needs no timer and an unlimited one pays nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::limits::QUEUED_PUBLISH_BYTES_MAX;
use parking_lot::Mutex;

/// A publish that waited this long for its turn to end means shortage: many times what a turn takes.
const BEGINS: Duration = Duration::from_millis(250);
/// Shortage goes on while publishes wait longer than this.
const GOES_ON: Duration = Duration::from_millis(100);
/// It ends when that was not seen for this long.
const LINGERS: Duration = Duration::from_secs(1);

/// What the queue in front of one turn loop reports.
#[derive(Debug, Default)]
pub struct Pressure {
    /// Bytes of publishes that wait for the next turn.
    bytes: AtomicUsize,
    /// When the oldest publish of the turn that is under way came.
    in_turn: Mutex<Option<Instant>>,
}

impl Pressure {
    /// Publishes of this many bytes wait.
    pub fn waiting(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// All that waited went into a turn; the oldest publish came at `oldest`.
    pub fn turn_began(&self, oldest: Option<Instant>) {
        self.waiting(0);
        *self.in_turn.lock() = oldest;
    }

    /// When the oldest publish of the turn that is under way came.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        *self.in_turn.lock()
    }

    /// The turn is over; returns how long its oldest publish waited, if it had any.
    pub fn turn_ended(&self) -> Option<Duration> {
        self.in_turn.lock().take().map(|oldest| oldest.elapsed())
    }
}

/// Whether the node is short of capacity.
#[derive(Debug)]
pub struct Shortage {
    loops: Vec<Arc<Pressure>>,
    began: Instant,
    /// Milliseconds after `began`; zero while there never was a shortage.
    until: AtomicU64,
}

impl Shortage {
    /// No shortage yet, on a node with this many turn loops.
    #[must_use]
    pub fn new(loops: usize) -> Self {
        Self {
            loops: std::iter::repeat_with(Arc::default).take(loops).collect(),
            began: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    /// What each turn loop reports to.
    #[must_use]
    pub fn loops(&self) -> &[Arc<Pressure>] {
        &self.loops
    }

    /// Whether the node is short now, by what its loops report. A queue that is half full is shortage, however short the
    /// waits are.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let is_full =
            |one: &Arc<Pressure>| one.bytes.load(Ordering::Relaxed) > QUEUED_PUBLISH_BYTES_MAX / 2;
        if self.loops.iter().any(is_full) {
            return self.saw(BEGINS);
        }
        let oldest = self.loops.iter().filter_map(|one| one.oldest()).min();
        self.saw(oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed()))
    }

    /// Takes note of how long the oldest publish waited, and returns whether the node is short.
    pub fn saw(&self, waited: Duration) -> bool {
        self.saw_at(waited, self.began.elapsed())
    }

    fn saw_at(&self, waited: Duration, now: Duration) -> bool {
        let millis = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let is_short = millis(now) < self.until.load(Ordering::Relaxed);
        if waited >= BEGINS || (is_short && waited >= GOES_ON) {
            self.until.store(millis(now + LINGERS), Ordering::Relaxed);
            return true;
        }
        is_short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_long_wait_and_ends_a_while_after_waits_are_short() {
        let shortage = Shortage::new(0);
        let saw = |waited, at| {
            let [waited, at] = [waited, at].map(Duration::from_millis);
            shortage.saw_at(waited, at)
        };
        assert!(!saw(240, 10_000));
        assert!(saw(250, 10_100));
        assert!(saw(0, 11_000), "it lingers");
        assert!(saw(110, 11_050), "and goes on while waits are not short");
        assert!(saw(0, 12_000));
        assert!(!saw(0, 12_050));
        assert!(!saw(110, 12_100), "what kept it on does not begin it");
    }
}
