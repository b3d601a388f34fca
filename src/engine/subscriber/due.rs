//! Paces the scans of redelivery for leases past their deadline. Instants of the node pace the scans; only the
//! database's clock decides whether a lease is due (I10).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Least pause between two scans of one subscription.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two scans while receivers wait.
const SCAN_LATEST: Duration = Duration::from_secs(1);
/// How long a lower bound of deadlines is used. After that a scan without bound finds leases that a slow commit added
/// below it.
const LOW_AGE: Duration = Duration::from_secs(30);

/// A turn that is slow to commit may add a lease with a deadline below a bound that a scan found. Bounds are lowered by
/// this margin.
const LOW_MARGIN: time::Duration = time::Duration::seconds(1);

/// A lower bound of deadlines in the database's time: no lease in any lane has an earlier deadline. `None`: not known.
pub type Low = Option<OffsetDateTime>;

/// The pace of scans.
#[derive(Debug)]
pub struct Due {
    state: Mutex<State>,
    /// Wakes receivers when a lease is due earlier than expected.
    now: Notify,
    /// The bound of a scan that the next service of `order` begins with.
    wanted: Mutex<Option<Low>>,
    /// Whether `share_of` rounded up the last time.
    was_up: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// No scan before this instant.
    not_before: Instant,
    /// A scan at this instant at the latest, for leases that other nodes handed out.
    at_latest: Instant,
    /// The earliest deadline known on this node, as an instant.
    expected: Option<Instant>,
    /// No lease is due below it.
    low: Low,
    /// `low` is used until then.
    low_until: Instant,
}

impl Due {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                not_before: now,
                at_latest: now,
                expected: None,
                low: None,
                low_until: now,
            }),
            now: Notify::new(),
            wanted: Mutex::default(),
            was_up: AtomicBool::new(false),
        }
    }

    /// Begins a scan when it is time: returns the bound to scan from and schedules the next scan. `None`: not yet.
    #[must_use]
    pub fn begin_scan(&self) -> Option<Low> {
        let now = Instant::now();
        let mut due = self.state.lock();
        let wanted = now >= due.at_latest || due.expected.is_some_and(|at| now >= at);
        if !wanted || now < due.not_before {
            return None;
        }
        if now >= due.low_until {
            due.low = None;
            due.low_until = now + LOW_AGE;
        }
        due.not_before = now + SCAN_PAUSE;
        due.at_latest = now + SCAN_LATEST;
        due.expected = None;
        Some(due.low)
    }

    /// Sets the bound: a scan found no lease due below `low`.
    pub fn none_below(&self, low: OffsetDateTime) {
        self.state.lock().low = Some(low - LOW_MARGIN);
    }

    /// Schedules the next scan after a pause, because other transactions have locked the leases that are due.
    pub fn scan_later(&self) {
        let at = Instant::now() + SCAN_PAUSE;
        let mut due = self.state.lock();
        due.expected = Some(at);
        due.not_before = at;
    }

    /// Schedules a scan for a lease that is due after `wait`; zero when it is due now.
    pub fn expect(&self, wait: Duration) {
        let at = Instant::now() + wait;
        let mut due = self.state.lock();
        due.expected = Some(due.expected.map_or(at, |earlier| earlier.min(at)));
        if wait.is_zero() {
            due.not_before = due.not_before.min(at);
        }
    }

    /// Drops the bound and schedules a scan: any lease may be due.
    pub(super) fn forget(&self) {
        let mut due = self.state.lock();
        (due.low, due.expected) = (None, Some(Instant::now()));
    }

    /// Wakes waiting receivers, because a lease is due.
    pub fn wake(&self) {
        self.now.notify_waiters();
    }

    /// Resolves at the next [`Due::wake`].
    pub fn now(&self) -> Notified<'_> {
        self.now.notified()
    }

    /// When the next scan is scheduled.
    #[must_use]
    pub fn next_scan(&self) -> Instant {
        let due = self.state.lock();
        due.expected
            .map_or(due.at_latest, |at| at.min(due.at_latest))
            .max(due.not_before)
    }

    /// Asks the next service of `order` to begin with a scan from `low` on.
    pub fn want_scan(&self, low: Low) {
        *self.wanted.lock() = Some(low);
    }

    /// How many of `messages` may be messages that are due again, while other messages wait for their first delivery:
    /// half. Half of an odd number is rounded up every other time.
    #[must_use]
    pub fn share_of(&self, messages: u32) -> u32 {
        let up = messages % 2 == 1 && !self.was_up.fetch_xor(true, Ordering::Relaxed);
        messages / 2 + u32::from(up)
    }

    /// Takes the bound that [`Due::want_scan`] has set.
    #[must_use]
    pub fn take_wanted(&self) -> Option<Low> {
        self.wanted.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_gets_half_and_of_one_message_every_other_time() {
        let due = Due::new();
        let shares = [1, 1, 3, 3, 4].map(|messages| due.share_of(messages));
        assert_eq!(shares, [1, 0, 2, 1, 2]);
    }
}
