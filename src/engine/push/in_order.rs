//! The order of an endpoint that gets its messages one request at a time: what it did not take is sent again, without end,
//! before anything later. The pauses between are kept with the endpoint, so that the next node that drives it keeps them.
//!
//! Two nodes may drive an endpoint for a moment, and a node that died has left a lease. So what was leased is sent only
//! while no other lease has an earlier message ([`Engine::is_early`]). That is read after the claim: an earlier message is
//! not ahead of the cursor then, so it is done or in a lease that is seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::push::answer::Verdict;
use crate::engine::push::drive::{Drive, PAUSE};
use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::flow::Room;
use crate::engine::push::send::Sent;
use crate::engine::push::settle::settle;
use crate::engine::receive::Action;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::repeat::doubled;
use crate::store::{self, CursorKey, LeaseId};

/// Pause before the second attempt. Each further pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// Longest pause, also when the endpoint asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// When the node stops, messages whose answers did not come are given back within this time.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// What stands before the next request.
#[derive(Debug)]
pub(super) struct InOrder {
    /// Attempts that failed since the last that did not.
    failed_attempts: u32,
    /// No request begins before.
    not_before: Option<OffsetDateTime>,
    /// Receipts of the request that runs.
    sending: Vec<String>,
}

impl InOrder {
    /// Of an endpoint that wants it.
    pub(super) fn of(endpoint: &Endpoint) -> Option<Self> {
        endpoint.is_in_order().then(|| Self {
            failed_attempts: endpoint.row.failed_attempts.unsigned_abs(),
            not_before: endpoint.row.next_attempt_at,
            sending: Vec::new(),
        })
    }

    /// The same after a change of the endpoint, which ends the pause.
    pub(super) fn after(self, endpoint: &Endpoint) -> Option<Self> {
        let sending = self.sending;
        Self::of(endpoint).map(|new| Self { sending, ..new })
    }

    /// What may be sent when nothing runs, at a time of the database.
    fn room(&self, at: OffsetDateTime) -> Room {
        let left = self.not_before.map(|until| until - at);
        match left.and_then(|left| Duration::try_from(left).ok()) {
            Some(left) if !left.is_zero() => Room::At(Instant::now() + left),
            Some(_) | None => Room::Now(1),
        }
    }
}

/// Pause before the next attempt, after a failure that followed `attempts` other failures.
pub(in crate::engine) fn pause(attempts: u32, asked: Option<Duration>, jitter: f64) -> Duration {
    doubled(PAUSE_MIN, attempts, PAUSE_MAX)
        .mul_f64(jitter)
        .max(asked.unwrap_or_default())
        .min(PAUSE_MAX)
}

impl Drive {
    /// What may be sent now.
    pub(super) fn room(&self, now: Instant) -> Room {
        let Some(order) = &self.order else {
            return self.flow.room(now);
        };
        // Nothing is leased before what was sent is settled.
        if self.is_settled() {
            order.room(self.engine.clock().estimate())
        } else {
            Room::Now(0)
        }
    }

    /// Takes over what a change of the endpoint means for the next request: the pause is over.
    pub(super) fn reorder(&mut self) {
        let order = self.order.take();
        self.order = order.and_then(|order| order.after(&self.endpoint));
        if let Some(order) = &self.order {
            let status = &self.control.status;
            status.pauses(order.failed_attempts, order.not_before);
        }
    }

    /// Remembers what is sent, to give it back when its answer does not come in time.
    pub(super) fn remember(&mut self, receipts: impl Iterator<Item = String>) {
        if let Some(order) = &mut self.order {
            order.sending = receipts.collect();
        }
    }

    /// Takes the end of a request over, whose messages are done or are sent again before all others.
    pub(super) fn take_in_order(&mut self, sent: &Sent, verdict: Option<Verdict>) {
        let Some(order) = &mut self.order else {
            return;
        };
        order.sending.clear();
        let action = match verdict {
            None => {
                self.paused_until = Some(Instant::now() + PAUSE);
                Action::GiveBack
            }
            Some(Verdict::Done | Verdict::Later) => {
                (order.failed_attempts, order.not_before) = (0, None);
                Action::Ack
            }
            Some(Verdict::Again { .. } | Verdict::Gone) => {
                let asked = match verdict {
                    Some(Verdict::Again { pause }) => pause,
                    _ => None,
                };
                let jitter = rand::random_range(0.8..1.2);
                let pause = pause(order.failed_attempts, asked, jitter);
                order.failed_attempts = order.failed_attempts.saturating_add(1);
                order.not_before = Some(self.engine.clock().estimate() + pause);
                self.engine.push().failures_in_order.inc();
                Action::Nack { delay_seconds: 0 }
            }
        };
        let status = &self.control.status;
        status.pauses(order.failed_attempts, order.not_before);
        let settled = sent.receipts().map(|receipt| (receipt, action.clone()));
        self.answered.extend(settled);
    }

    /// Gives back what is being sent, when the node has no time left for its answer. So another node need not wait for
    /// the end of the lease.
    pub(super) async fn let_go(&mut self) {
        let Some(order) = &mut self.order else {
            return;
        };
        let receipts = std::mem::take(&mut order.sending).into_iter();
        let items = receipts
            .map(|receipt| (receipt, Action::GiveBack))
            .collect();
        self.sending.shutdown().await;
        let settled = settle(self.engine.clone(), self.endpoint.clone(), items);
        let _ = tokio::time::timeout(LAST_WITHIN, settled).await;
    }
}

impl Engine {
    /// Whether another lease has a message that comes before some of these.
    pub(super) async fn is_early(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
    ) -> Result<bool, Error> {
        let ends = grants.iter().map(|grant| grant.offsets().end);
        let (Some(end), Some(first)) = (ends.max(), grants.first()) else {
            return Ok(false);
        };
        let leases: Vec<LeaseId> = grants.iter().map(|grant| grant.lease).collect();
        let key = CursorKey {
            lane: first.lane,
            subscription: subscriber.id,
        };
        let mut session = self.store().session().await?;
        let lowest = store::lease::lowest_other(&mut session, key, &leases).await?;
        Ok(lowest.is_some_and(|lowest| lowest < end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour_and_are_as_long_as_asked_for() {
        let after = |attempts| pause(attempts, None, 1.0).as_secs();
        assert_eq!([0, 1, 2, 9].map(after), [5, 10, 20, 2_560]);
        assert_eq!([10, 31, u32::MAX].map(after), [3_600; 3]);
        let asked = |asked| pause(0, Some(Duration::from_secs(asked)), 1.0).as_secs();
        assert_eq!([1, 90, u64::MAX].map(asked), [5, 90, 3_600]);
        assert_eq!(pause(3, None, 0.8), Duration::from_secs(32));
    }
}
