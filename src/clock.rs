//! The only module that reads a clock. The database's clock decides leases, delays and retention (I10). `now` is `None`
//! in production, which every statement reads as the database's own time; in tests and the development mode it is a
//! time that the caller moves by hand. Node clocks serve only logs and pacing. A decision without a statement, such as
//! whether a key has expired, uses the last time received from the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use time::OffsetDateTime;

/// A time source: the database's clock, or a manual clock in tests.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    moved: Option<Arc<RwLock<OffsetDateTime>>>,
    heard: Arc<RwLock<Option<(OffsetDateTime, Instant)>>>,
}

impl Clock {
    /// A clock that stands at `at` until [`Clock::advance`] moves it; clones move together.
    #[must_use]
    pub fn manual(at: OffsetDateTime) -> Self {
        Self {
            moved: Some(Arc::new(RwLock::new(at))),
            heard: Arc::default(),
        }
    }

    /// Records the database's current time.
    pub fn hear(&self, at: OffsetDateTime) {
        *self.heard.write() = Some((at, Instant::now()));
    }

    /// The time of a manual clock; otherwise the last time received from the database plus the time since then;
    /// otherwise the node's own time.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the only place; the database's time is not known yet"
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

    /// The value of a statement's `$now`: `None` means the database's own time.
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
