//! The only place that reads a clock. Leases, delays and retention are decided by the database's clock (I10);
//! `now` is `None` in production, which every statement reads as "the database's own time", and a time in tests and
//! the development mode, which the caller moves by hand. Node clocks serve only logs and pacing. What must be decided
//! without asking the database, such as whether a key has expired, goes by its time as last heard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use time::OffsetDateTime;

/// A time source that is the database's clock unless a test has taken it over.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    moved: Option<Arc<RwLock<OffsetDateTime>>>,
    heard: Arc<RwLock<Option<(OffsetDateTime, Instant)>>>,
}

impl Clock {
    /// A clock that stands at `at` until it is moved with [`Clock::advance`]; clones move together.
    #[must_use]
    pub fn manual(at: OffsetDateTime) -> Self {
        Self {
            moved: Some(Arc::new(RwLock::new(at))),
            heard: Arc::default(),
        }
    }

    /// Takes note of the database's time.
    pub fn hear(&self, at: OffsetDateTime) {
        *self.heard.write() = Some((at, Instant::now()));
    }

    /// The database's time as last heard and what has passed since, or the time of a manual clock; the node's own time
    /// before anything was heard.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the only place; nothing was heard of the database yet"
    )]
    pub fn estimate(&self) -> OffsetDateTime {
        if let Some(at) = self.now() {
            return at;
        }
        match *self.heard.read() {
            Some((at, then)) => at + then.elapsed(),
            None => OffsetDateTime::now_utc(),
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
