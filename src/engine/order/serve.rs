//! Serving the receivers of subscriptions with an order of their own, off the turn: a few loops take subscriptions whose
//! receivers wait from the queue, and one service answers all receivers of a subscription that gathered on this node.
//!
//! What is due again may take half of what receivers want while other messages wait for their first time: the messages of
//! one customer that fail again and again hold up neither the others nor its own new ones. Among those that are due again
//! the customers take turns, too, as far as one scan reaches.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::error::Error;
use crate::engine::lease::ask::Ask;
use crate::engine::order::Dispenser;
use crate::engine::order::want::Want;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store;

/// Loops of a node. A look ahead that waits for object storage keeps one of them for seconds.
const LOOPS: usize = 16;

/// What there was for receivers.
#[derive(Default)]
struct Found {
    grants: Vec<Grant>,
    /// It helps to look again at once.
    again: bool,
}

impl Dispenser {
    /// Starts the loops on `tracker`; they end after `stop`.
    pub fn start(self: &Arc<Self>, tracker: &TaskTracker, stop: &CancellationToken) {
        for _ in 0..LOOPS {
            let (dispenser, stop) = (self.clone(), stop.clone());
            tracker.spawn(async move { dispenser.run(stop).await });
        }
    }

    async fn run(&self, stop: CancellationToken) {
        let queue = &self.turns.off_turn;
        loop {
            let subscriber = tokio::select! {
                subscriber = queue.take() => subscriber,
                () = stop.cancelled() => return,
            };
            self.serve(&subscriber).await;
            queue.done(&subscriber);
        }
    }

    /// Serves the receivers of a subscription that gathered.
    async fn serve(&self, subscriber: &Arc<Subscriber>) {
        if !subscriber.is_fair() {
            // Its order was switched off a moment ago.
            self.turns.queue(subscriber.topic_id).want(subscriber);
            return;
        }
        let Some(want) = Want::gather(subscriber) else {
            return;
        };
        let visibility_seconds = want.visibility_seconds;
        let wanted = want.messages();
        match self.find(subscriber, want).await {
            Err(error) => subscriber.fail(&error),
            Ok(found) => {
                let got: u32 = found.grants.iter().map(Grant::messages).sum();
                let mut rest = found.grants;
                rest.reverse();
                let unwanted = subscriber.give(visibility_seconds, rest);
                self.turns.returns.add(subscriber, unwanted);
                if got < wanted && !found.again {
                    subscriber.dismiss_impatient();
                }
                if subscriber.has_waiters() && (got >= wanted || found.again) {
                    self.turns.off_turn.want(subscriber);
                }
            }
        }
    }

    /// What is due again, what waits, and what is fresh.
    async fn find(&self, subscriber: &Arc<Subscriber>, mut want: Want) -> Result<Found, Error> {
        let mut found = Found::default();
        let look = subscriber.due.take_wanted();
        let mut is_due = look.is_some();
        if let Some(low) = look {
            let part = subscriber.due.share_of(want.messages());
            is_due = self
                .find_due(subscriber, (part, low), &mut want, &mut found)
                .await?;
        }
        let mut first = want.clone();
        let headroom = subscriber.headroom();
        if headroom < first.messages() {
            subscriber.in_flight.hold_back();
            first.limit(headroom);
        }
        let mut outcome = Ok(());
        if first.messages() > 0 {
            outcome = self
                .find_first(subscriber, first, &mut want, &mut found)
                .await;
        }
        if let (Some(low), true, Ok(())) = (look, is_due, &outcome) {
            let part = want.messages();
            let due = self.find_due(subscriber, (part, low), &mut want, &mut found);
            outcome = due.await.map(|_| ());
        }
        match outcome {
            Err(error) if found.grants.is_empty() => Err(error),
            Err(error) => {
                // What has been handed out already must not wait for the end of its lease.
                tracing::warn!(%error, "a fair subscription was served in part");
                Ok(found)
            }
            Ok(()) => Ok(found),
        }
    }

    /// Hands out part of what is due again; answers whether there may be more.
    async fn find_due(
        &self,
        subscriber: &Arc<Subscriber>,
        (part, low): (u32, Option<OffsetDateTime>),
        want: &mut Want,
        found: &mut Found,
    ) -> Result<bool, Error> {
        if part == 0 {
            return Ok(true);
        }
        let ask = Ask::at_once(part, want.visibility_seconds);
        let due = Box::pin(self.leases.redeliver(subscriber, (ask, &found.grants), low)).await?;
        let messages = due.iter().map(Grant::messages).sum();
        want.got(messages);
        found.grants.extend(due);
        Ok(messages == part)
    }

    /// What was never handed out, lane by lane.
    async fn find_first(
        &self,
        subscriber: &Arc<Subscriber>,
        mut first: Want,
        want: &mut Want,
        found: &mut Found,
    ) -> Result<(), Error> {
        let mut session = self.store.session().await?;
        let lanes = subscriber.lanes.rotated();
        let lanes = store::fairness::ahead(&mut session, subscriber.id, &lanes).await?;
        drop(session);
        let (mut failure, mut is_gone) = (None, true);
        for lane in &lanes {
            let Some(next) = lane.next_offset else {
                continue;
            };
            is_gone = false;
            let mut seen = Vec::new();
            if next < lane.until {
                let look = self.ahead(subscriber, lane.lane_id, next..lane.until);
                match Box::pin(look).await {
                    Ok(looked) => seen = looked,
                    Err(error) => failure = Some(error),
                }
            }
            if first.messages() == 0 || (seen.is_empty() && !lane.is_waiting) {
                continue;
            }
            let place = (lane.lane_id, lane.until);
            let claim = self.claim(subscriber, place, &seen, &first);
            let claimed = Box::pin(claim).await?;
            let given = claimed.given.iter();
            let messages: u32 = given.clone().map(|lease| lease.pending.count_ones()).sum();
            first.got(messages);
            want.got(messages);
            subscriber.in_flight.moved(i64::from(messages));
            self.turns.metrics.claimed.inc_by(u64::from(messages));
            found.grants.extend(given.map(Grant::of));
            // Whoever moved the cursor meanwhile has seen what this look has not.
            found.again |= claimed.again || (messages == 0 && !seen.is_empty());
        }
        if is_gone {
            self.turns.catalog.invalidate();
            let name = &subscriber.name;
            return Err(Error::not_found("subscription", name));
        }
        if !found.grants.is_empty() {
            let visible = Duration::from_secs(u64::from(want.visibility_seconds));
            subscriber.due.expect(visible);
            return Ok(());
        }
        failure.map_or(Ok(()), Err)
    }
}
