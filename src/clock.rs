//! The only place that reads a clock. Leases, delays and retention are decided by the database's clock (I10);
//! `now` is `None` in production, which every statement reads as "the database's own time", and a time in tests and
//! the development mode, which the caller moves by hand. Node clocks serve only logs and pacing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use time::OffsetDateTime;

/// A time source that is the database's clock unless a test has taken it over.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    moved: Option<Arc<RwLock<OffsetDateTime>>>,
}

impl Clock {
    /// A clock that stands at `at` until it is moved with [`Clock::advance`]; clones move together.
    #[must_use]
    pub fn manual(at: OffsetDateTime) -> Self {
        Self {
            moved: Some(Arc::new(RwLock::new(at))),
        }
    }

    /// The value for a statement's `$now`: `None` means the database's own time.
    #[must_use]
    pub fn now(&self) -> Option<OffsetDateTime> {
        self.moved.as_ref().map(|at| *at.read())
    }

    /// Moves a manual clock forward. Does nothing to a real one.
    pub fn advance(&self, by: Duration) {
        if let Some(at) = &self.moved {
            *at.write() += by;
        }
    }
}
