//! How deliveries to an endpoint go, for people: written by its driver, read by the loop that stores it.

use api::Timestamp;
use api::push::{PushFailure, PushState, PushStats};
use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::flow::Flow;
use crate::store::SubscriptionId;
use crate::store::push_driver::{Report, StateRow};

/// The state of an endpoint as its driver sees it.
#[derive(Debug, Default)]
pub struct Status {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the endpoint.
    version: i64,
    stats: PushStats,
    failing_since: Option<OffsetDateTime>,
    disable: Option<String>,
    failed_attempts: u32,
    next_attempt_at: Option<OffsetDateTime>,
    /// Whether it differs from what was stored.
    is_new: bool,
}

impl Status {
    /// Of an endpoint that was taken over. What was known of one that gets messages in order is kept.
    #[must_use]
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let row = &endpoint.row;
        let known = row.stats.as_deref().filter(|_| endpoint.is_in_order());
        let state = State {
            version: row.version,
            failing_since: row.failing_since,
            stats: known.map(parsed).unwrap_or_default(),
            failed_attempts: row.failed_attempts.unsigned_abs(),
            next_attempt_at: row.next_attempt_at,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Takes over that the endpoint has changed. That it failed, or was to be disabled, is said of the endpoint before.
    pub(super) fn changed(&self, endpoint: &Endpoint) {
        let mut state = self.state.lock();
        state.version = endpoint.row.version;
        state.failing_since = endpoint.row.failing_since;
        state.disable = None;
        state.is_new = true;
    }

    /// Records a request that was accepted.
    pub fn succeeded(&self, at: OffsetDateTime) {
        let mut state = self.state.lock();
        state.stats.succeeded += 1;
        state.stats.succeeded_at = Some(at.into());
        state.failing_since = None;
        state.is_new = true;
    }

    /// Records a request that failed. Returns since when all have failed.
    pub fn failed(&self, at: OffsetDateTime, detail: String) -> OffsetDateTime {
        let mut state = self.state.lock();
        state.stats.failed += 1;
        state.stats.last_failure = Some(PushFailure {
            at: at.into(),
            detail,
        });
        state.is_new = true;
        *state.failing_since.get_or_insert(at)
    }

    /// Records what stands before the next request of an endpoint that gets messages in order.
    pub fn pauses(&self, failed_attempts: u32, next_attempt_at: Option<OffsetDateTime>) {
        let mut state = self.state.lock();
        state.failed_attempts = failed_attempts;
        state.next_attempt_at = next_attempt_at;
        state.is_new = true;
    }

    /// Has the endpoint disabled.
    pub fn disable(&self, reason: String) {
        let mut state = self.state.lock();
        state.disable.get_or_insert(reason);
        state.is_new = true;
    }

    /// Whether it is to be disabled.
    pub fn is_disabled(&self) -> bool {
        self.state.lock().disable.is_some()
    }

    /// Takes over what the flow knows.
    pub fn of_flow(&self, flow: &Flow) {
        let stats = &mut self.state.lock().stats;
        stats.state = if flow.is_open() {
            PushState::Open
        } else {
            PushState::Active
        };
        stats.concurrency = flow.concurrency();
        stats.success_ratio = flow.accepted();
        stats.latency_seconds = flow.latency();
    }

    /// What is to be stored; `None` when nothing has changed since it was last asked.
    pub fn report(&self, subscription_id: SubscriptionId) -> Option<Report> {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.is_new) {
            return None;
        }
        state.stats.failing_since = state.failing_since.map(Timestamp::from);
        Some(Report {
            subscription_id,
            version: state.version,
            stats: serde_json::to_string(&state.stats).ok()?,
            failing_since: state.failing_since,
            disable: state.disable.clone(),
            failed_attempts: i32::try_from(state.failed_attempts).unwrap_or(i32::MAX),
            next_attempt_at: state.next_attempt_at,
        })
    }
}

/// How deliveries go, as it was stored.
#[must_use]
pub fn parsed(stats: &str) -> PushStats {
    serde_json::from_str(stats).unwrap_or_default()
}

/// The state of an endpoint as the API shows it.
#[must_use]
pub fn stats(row: StateRow) -> PushStats {
    let mut stats = row.stats.as_deref().map(parsed).unwrap_or_default();
    stats.failing_since = row.failing_since.map(Timestamp::from);
    if row.disabled_reason.is_some() {
        stats.state = PushState::Disabled;
    } else if row.paused_at.is_some() {
        stats.state = PushState::Paused;
    }
    stats.disabled_reason = row.disabled_reason;
    stats
}
