//! The order of an endpoint that gets its messages one request at a time: what it did not take is sent again, without end,
//! before anything later. The pauses between are kept with the endpoint, so that the next node that drives it keeps them.
//!
//! Two nodes may drive an endpoint for a moment, and a node that died has left a lease. So what was leased is sent only
//! while no other lease has an earlier message (`lowest_other`). That is read after the claim: an earlier message is
//! not ahead of the cursor then, so it is done or in a lease that is seen.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::log::block::Delivery;
use crate::engine::mask::{below, ones};
use crate::engine::push::answer::Verdict;
use crate::engine::push::drive::{Drive, PAUSE};
use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::flow::Room;
use crate::engine::push::send::Sent;
use crate::engine::receive::Action;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::repeat::doubled;
use crate::store::turn::LeaseAction;
use crate::store::{self, CursorKey, LeaseId, Offset};

/// Pause before the second attempt. Each further pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// Longest pause, also when the endpoint asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// Messages that are leased at least.
const AHEAD: u32 = 64;
/// When the node stops, messages whose answers did not come are made due within this time.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// What stands before the next request.
#[derive(Debug)]
pub(super) struct InOrder {
    /// Attempts that failed since the last that did not.
    failed_attempts: u32,
    /// No request begins before.
    not_before: Option<OffsetDateTime>,
}

impl InOrder {
    /// Of an endpoint that wants it.
    pub(super) fn of(endpoint: &Endpoint) -> Option<Self> {
        endpoint.is_in_order().then(|| Self {
            failed_attempts: endpoint.row.failed_attempts.unsigned_abs(),
            not_before: endpoint.row.next_attempt_at,
        })
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

    /// Gives back what is leased when it is too late to send it, because another node may get it soon.
    pub(super) fn drop_late(&mut self, now: Instant) {
        if self.order.is_some() && self.ready.is_late(now) {
            self.give_back();
        }
    }

    /// Takes over what a change of the endpoint means for the next request: the pause is over.
    pub(super) fn reorder(&mut self) {
        self.order = InOrder::of(&self.endpoint);
        if let Some(order) = &self.order {
            let status = &self.control.status;
            status.pauses(order.failed_attempts, order.not_before);
        }
    }

    /// Takes the end of a request over, whose messages are done or are sent again before all others.
    pub(super) fn take_in_order(&mut self, sent: &Sent, verdict: Option<Verdict>) {
        let Some(order) = &mut self.order else {
            return;
        };
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
        let is_done = matches!(action, Action::Ack);
        let settled = sent.receipts().map(|receipt| (receipt, action.clone()));
        self.answered.extend(settled);
        if !is_done {
            // What follows must not be sent before it, also when the pause is over before this is settled.
            self.give_back();
        }
    }

    /// Ends what is being sent when the node has no time left for its answer, and makes it due. So another node need not
    /// wait for the end of the lease. The turns of this node have ended.
    pub(super) async fn let_go(&mut self) {
        if self.order.is_none() {
            return;
        }
        self.sending.shutdown().await;
        let expired = async {
            let mut session = self.engine.store().session().await?;
            let (lanes, now) = (self.subscriber.lanes.all(), self.engine.clock().now());
            store::lease::expire(&mut session, self.subscriber.id, &lanes, now).await
        };
        let expired = tokio::time::timeout(LAST_WITHIN, expired).await;
        if !matches!(expired, Ok(Ok(()))) {
            tracing::debug!(subscription = %self.endpoint.subscription, "leases of a sink end by time");
        }
    }
}

/// How many messages to lease when there is room for `room` requests. More than one request takes: they are sent one after
/// the other, and a lease of many costs the database as much as a lease of one.
pub(super) fn wanted(room: u32, batch: u32) -> u32 {
    let ahead = if room > 0 { AHEAD } else { 0 };
    room.saturating_mul(batch).max(ahead)
}

impl Engine {
    /// The messages of these grants in their order, up to the first that is in another lease, or cannot be read. Gives the
    /// rest back.
    pub(super) async fn read_in_order(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
        visibility_seconds: u32,
    ) -> Result<Vec<Delivery>, Error> {
        // When the database does not answer, any message may be in another lease.
        let other = self.lowest_other(subscriber, grants).await;
        let other = other.unwrap_or(Some(Offset::START));
        let (mine, rest) = split(grants, other.unwrap_or(Offset::MAX));
        let back = LeaseAction::GiveBack(0);
        if !rest.is_empty() {
            self.turns().give_back(subscriber, &rest, back).await;
        }
        if mine.is_empty() {
            let detail = "another lease has earlier messages";
            return Err(Error::Conflict(detail.to_owned()));
        }
        let mut read = self
            .read_grants(subscriber, &mine, visibility_seconds)
            .await?;
        read.sort_unstable_by_key(|one| one.message.offset());
        if let Some(missing) = first_missing(&mine, &read) {
            read.retain(|one| one.message.offset() < missing);
            let (_, rest) = split(&mine, missing);
            self.turns().give_back(subscriber, &rest, back).await;
        }
        Ok(read)
    }

    /// The first message in a lease apart from these.
    async fn lowest_other(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
    ) -> Result<Option<Offset>, Error> {
        let Some(first) = grants.first() else {
            return Ok(None);
        };
        let leases: Vec<LeaseId> = grants.iter().map(|grant| grant.lease).collect();
        let key = CursorKey {
            lane: first.lane,
            subscription: subscriber.id,
        };
        let mut session = self.store().session().await?;
        Ok(store::lease::lowest_other(&mut session, key, &leases).await?)
    }
}

/// The first message of the grants that was not read.
fn first_missing(grants: &[Grant], read: &[Delivery]) -> Option<Offset> {
    let read: HashSet<Offset> = read.iter().map(|one| one.message.offset()).collect();
    let granted = grants.iter().flat_map(|grant| {
        let base = grant.base;
        ones(grant.bits).map(move |bit| base.plus(bit.into()))
    });
    granted.filter(|offset| !read.contains(offset)).min()
}

/// What the grants have below an offset, and from there on.
fn split(grants: &[Grant], at: Offset) -> (Vec<Grant>, Vec<Grant>) {
    let part = |is_below: bool| {
        let parts = grants.iter().map(move |grant| {
            let below = below(at.get().saturating_sub(grant.base.get()));
            let mask = if is_below { below } else { !below };
            let bits = grant.bits & mask;
            Grant { bits, ..*grant }
        });
        parts.filter(|grant| grant.bits != 0).collect()
    };
    (part(true), part(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LaneId;

    #[test]
    fn pauses_grow_to_an_hour_and_are_as_long_as_asked_for() {
        let after = |attempts| pause(attempts, None, 1.0).as_secs();
        assert_eq!([0, 1, 2, 9].map(after), [5, 10, 20, 2_560]);
        assert_eq!([10, 31, u32::MAX].map(after), [3_600; 3]);
        let asked = |asked| pause(0, Some(Duration::from_secs(asked)), 1.0).as_secs();
        assert_eq!([1, 90, u64::MAX].map(asked), [5, 90, 3_600]);
        assert_eq!(pause(3, None, 0.8), Duration::from_secs(32));
    }
    #[test]
    fn what_follows_a_message_that_is_not_there_is_given_back() {
        let grant = |base, bits| Grant {
            lane: LaneId::new(1),
            lease: LeaseId::new(base),
            base: Offset::new(base),
            bits,
            attempt: 1,
            deadline: OffsetDateTime::UNIX_EPOCH,
            since: tokio::time::Instant::now(),
        };
        let grants = [grant(70, 0b11), grant(0, 0b1010)];
        assert_eq!(first_missing(&grants, &[]), Some(Offset::new(1)));
        let bits = |at| {
            let (mine, rest) = split(&grants, Offset::new(at));
            [mine, rest].map(|part| -> Vec<(i64, u64)> {
                let part = part.into_iter();
                part.map(|grant| (grant.base.get(), grant.bits)).collect()
            })
        };
        let all = vec![(70, 0b11), (0, 0b1010)];
        assert_eq!(bits(0), [vec![], all.clone()]);
        assert_eq!(bits(3), [vec![(0, 0b10)], vec![(70, 0b11), (0, 0b1000)]]);
        assert_eq!(bits(71), [vec![(70, 1), (0, 0b1010)], vec![(70, 0b10)]]);
        assert_eq!(bits(i64::MAX), [all, vec![]]);
    }
}
