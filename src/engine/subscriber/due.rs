//! When redelivery scans for leases past their deadline. Instants pace the scans; what is due only the database's clock says
//! (I10).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Least pause between two scans of one subscription.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause while receivers ask.
const SCAN_LATEST: Duration = Duration::from_secs(1);
/// How long a lower bound of deadlines is believed: a lease that a slow commit put below it is found after that.
const LOW_AGE: Duration = Duration::from_secs(30);

/// In the database's time: below it there is no lease in any lane. `None`: nothing is known.
pub type Low = Option<OffsetDateTime>;

/// The pace of scans.
#[derive(Debug)]
pub struct Due {
    state: Mutex<State>,
    now: Notify,
    /// A scan that a subscription with an order of its own is to be served with.
    wanted: Mutex<Option<Low>>,
    /// Whether half of an odd number was rounded up the last time.
    was_up: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// No scan before: one that just ended is enough for all.
    not_before: Instant,
    /// A scan then at the latest, for leases that other nodes handed out.
    at_latest: Instant,
    /// A scan from then on: the earliest deadline that is known here.
    expected: Option<Instant>,
    low: Low,
    /// When `low` is forgotten.
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

    /// Whether it is time to scan; if so from this bound on, and the next scan waits for [`Due::none_below`] or a while.
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

    /// A scan left nothing due below `low`.
    pub fn none_below(&self, low: OffsetDateTime) {
        self.state.lock().low = Some(low);
    }

    /// Other transactions had what is due: not again at once.
    pub fn scan_later(&self) {
        let at = Instant::now() + SCAN_PAUSE;
        let mut due = self.state.lock();
        due.expected = Some(at);
        due.not_before = at;
    }

    /// A lease will be due after `wait`; zero when one is due now.
    pub fn expect(&self, wait: Duration) {
        let at = Instant::now() + wait;
        let mut due = self.state.lock();
        due.expected = Some(due.expected.map_or(at, |earlier| earlier.min(at)));
        if wait.is_zero() {
            due.not_before = due.not_before.min(at);
        }
    }

    /// All leases may be due, whatever was known.
    pub(super) fn forget(&self) {
        let mut due = self.state.lock();
        (due.low, due.expected) = (None, Some(Instant::now()));
    }

    /// Receivers that wait notice that something is due.
    pub fn wake(&self) {
        self.now.notify_waiters();
    }

    /// Resolves when something falls due before its time.
    pub fn now(&self) -> Notified<'_> {
        self.now.notified()
    }

    /// When the next scan is wanted.
    #[must_use]
    pub fn next_scan(&self) -> Instant {
        let due = self.state.lock();
        due.expected
            .map_or(due.at_latest, |at| at.min(due.at_latest))
            .max(due.not_before)
    }

    /// The next service of the receivers begins with a scan from `low` on.
    pub fn want_scan(&self, low: Low) {
        *self.wanted.lock() = Some(low);
    }

    /// How many of `messages` what is due may take while other messages wait for their first time: half of them; of an odd
    /// number every other time one more.
    #[must_use]
    pub fn share_of(&self, messages: u32) -> u32 {
        let up = messages % 2 == 1 && !self.was_up.fetch_xor(true, Ordering::Relaxed);
        messages / 2 + u32::from(up)
    }

    /// The scan that is wanted.
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
