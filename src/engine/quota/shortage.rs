//! When the node or its database is short of capacity: publishes wait too long for their turn, or too many bytes wait.
//! Then only what is inside a guarantee is served. It begins when a publish is seen to wait long and ends a while after
//! waits are short again; it is looked at when a turn ends and when something above a guarantee comes, so that a request
//! needs no timer and an unlimited one pays nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A publish that waited this long for its turn to end means shortage: many times what a turn takes.
const BEGINS: Duration = Duration::from_millis(250);
/// Shortage goes on while publishes wait longer than this.
const GOES_ON: Duration = Duration::from_millis(100);
/// It ends when that was not seen for this long.
const LINGERS: Duration = Duration::from_secs(1);

/// Whether the node is short of capacity.
#[derive(Debug)]
pub struct Shortage {
    began: Instant,
    /// Milliseconds after `began`; zero while there never was a shortage.
    until: AtomicU64,
}

impl Default for Shortage {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            until: AtomicU64::new(0),
        }
    }
}

impl Shortage {
    /// Takes note of how long the oldest publish waited, and answers whether the node is short.
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

    /// The queue is so full that this is shortage, however short the waits are.
    pub fn saw_full(&self) -> bool {
        self.saw(BEGINS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_long_wait_and_ends_a_while_after_waits_are_short() {
        let shortage = Shortage::default();
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
