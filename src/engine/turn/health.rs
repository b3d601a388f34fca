//! What stands in the way of turns, for readiness. A read of the database may succeed while no turn does, for example when
//! its disk is full.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::Trouble;

/// A node without requests has no turns that could succeed: after this time a failure counts no more.
const LASTS: Duration = Duration::from_secs(5);

/// The last failure of a turn, until one succeeds.
#[derive(Debug, Default)]
pub struct Health {
    is_failing: AtomicBool,
    last: Mutex<Option<(Instant, Trouble)>>,
}

impl Health {
    /// A turn was committed.
    pub fn succeeded(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            self.is_failing.store(false, Ordering::Relaxed);
            *self.last.lock() = None;
        }
    }

    /// A turn failed, and so would others.
    pub fn failed(&self, trouble: Trouble) {
        self.is_failing.store(true, Ordering::Relaxed);
        *self.last.lock() = Some((Instant::now(), trouble));
    }

    /// Why turns fail.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let last = *self.last.lock();
        last.filter(|(at, _)| at.elapsed() < LASTS)
            .map(|(_, trouble)| trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_until_a_turn_succeeds() {
        let health = Health::default();
        assert_eq!(health.trouble(), None);
        health.failed(Trouble::Full);
        assert_eq!(health.trouble(), Some(Trouble::Full));
        health.succeeded();
        assert_eq!(health.trouble(), None);
    }
}
