//! Serves the receivers of subscriptions with an order of their own, off the turn. A few loops take subscriptions with
//! waiting receivers from the queue. One service serves all receivers of a subscription that gathered on this node.
//!
//! Messages that are due again fill at most half of what receivers want while other messages wait for their first
//! delivery. So messages of one customer that fail again and again hold up neither other customers nor its own new
//! messages. The customers of messages that are due again share that half, as far as one scan reaches.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::error::Error;
use crate::engine::lease::ask::Ask;
use crate::engine::lease::patience::Patience;
use crate::engine::order::Dispenser;
use crate::engine::order::want::Want;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store;

/// Loops of a node. Reading ahead from slow object storage keeps one of them busy for seconds.
const LOOPS: usize = 16;

/// What one service has done so far.
struct Served {
    /// What receivers still want.
    want: Want,
    /// The messages handed out.
    grants: Vec<Grant>,
    /// Whether another service should follow at once.
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

    /// Serves the receivers of a subscription that gathered on this node.
    async fn serve(&self, subscriber: &Arc<Subscriber>) {
        if !subscriber.is_fair() {
            // Its order was switched off a moment ago.
            self.turns.queue(subscriber.topic_id).want(subscriber);
            return;
        }
        let Some(want) = Want::gather(subscriber) else {
            return;
        };
        let group = want.group;
        let wanted = want.messages();
        match self.hand_out(subscriber, want).await {
            Err(error) => subscriber.fail(&error),
            Ok(Served { grants, again, .. }) => {
                let got: u32 = grants.iter().map(Grant::messages).sum();
                let mut rest = grants;
                rest.reverse();
                let unwanted = subscriber.give(group, rest);
                self.turns.give_back_later(subscriber, &unwanted);
                if got < wanted && !again {
                    subscriber.dismiss_impatient();
                }
                if subscriber.has_waiters() && (got >= wanted || again) {
                    self.turns.off_turn.want(subscriber);
                }
            }
        }
    }

    /// Hands out messages: first a share of those due again, then those never handed out before, then more of those due
    /// again.
    async fn hand_out(&self, subscriber: &Arc<Subscriber>, want: Want) -> Result<Served, Error> {
        let mut served = Served {
            want,
            grants: Vec::new(),
            again: false,
        };
        let scan = subscriber.due.take_wanted();
        let mut has_more_due = scan.is_some();
        if let Some(low) = scan {
            let share = subscriber.due.share_of(served.want.messages());
            has_more_due = self
                .hand_out_due(subscriber, share, low, &mut served)
                .await?;
        }
        let mut first_want = served.want.clone();
        let headroom = subscriber.headroom();
        if headroom < first_want.messages() {
            subscriber.in_flight.hold_back();
            first_want.limit(headroom);
        }
        let mut outcome = Ok(());
        if first_want.messages() > 0 {
            outcome = self
                .hand_out_first(subscriber, first_want, &mut served)
                .await;
        }
        if let (Some(low), true, Ok(())) = (scan, has_more_due, &outcome) {
            let rest = served.want.messages();
            let due = self.hand_out_due(subscriber, rest, low, &mut served);
            outcome = due.await.map(|_| ());
        }
        match outcome {
            Err(error) if served.grants.is_empty() => Err(error),
            Err(error) => {
                // Messages handed out already go to the receivers, or they would stay hidden until their lease ends.
                tracing::warn!(%error, "a fair subscription was served in part");
                Ok(served)
            }
            Ok(()) => Ok(served),
        }
    }

    /// Hands out up to `share` messages that are due again. Returns whether there may be more.
    async fn hand_out_due(
        &self,
        subscriber: &Arc<Subscriber>,
        share: u32,
        low: Option<OffsetDateTime>,
        served: &mut Served,
    ) -> Result<bool, Error> {
        if share == 0 {
            return Ok(true);
        }
        let ask = Ask::at_once(share, served.want.group.visibility_seconds);
        let before = &served.grants;
        let due = Box::pin(self.leases.redeliver(subscriber, ask, before, low)).await?;
        let messages = due.iter().map(Grant::messages).sum();
        served.want.got(messages);
        served.grants.extend(due);
        Ok(messages == share)
    }

    /// Hands out messages for the first time, lane by lane: at most `first_want`, which is `served.want` under the
    /// limit in flight.
    async fn hand_out_first(
        &self,
        subscriber: &Arc<Subscriber>,
        mut first_want: Want,
        served: &mut Served,
    ) -> Result<(), Error> {
        let visibility = served.want.group.visibility_seconds;
        let since = served.grants.iter().map(|grant| grant.since).min();
        let patience = Patience::of(visibility, since.unwrap_or_else(Instant::now));
        let mut session = self.store.session().await?;
        let rotated = subscriber.lanes.rotated();
        let lanes = store::fairness::ahead(&mut session, subscriber.id, &rotated).await?;
        drop(session);
        let (mut failure, mut is_gone) = (None, true);
        for lane in &lanes {
            let Some(next) = lane.next_offset else {
                continue;
            };
            is_gone = false;
            let mut blocks = Vec::new();
            if next < lane.until {
                // What is handed out already must not wait for the rest.
                let until = if served.grants.is_empty() && !lane.is_waiting {
                    patience.late
                } else {
                    patience.soon
                };
                let read = self.ahead(subscriber, lane.lane_id, next..lane.until, until);
                match Box::pin(read).await {
                    Ok(ahead) => blocks = ahead,
                    Err(error) => failure = Some(error),
                }
            }
            if first_want.messages() == 0 || (blocks.is_empty() && !lane.is_waiting) {
                continue;
            }
            let claim = self.claim(subscriber, lane, &blocks, &first_want);
            let claimed = Box::pin(claim).await?;
            let given = claimed.given.iter();
            let messages: u32 = given.clone().map(|lease| lease.pending.count_ones()).sum();
            first_want.got(messages);
            served.want.got(messages);
            subscriber.in_flight.moved(i64::from(messages));
            self.turns.metrics.claimed.inc_by(u64::from(messages));
            served.grants.extend(given.map(Grant::of));
            // Blocks were read and no message came of them: another claim has moved the cursor meanwhile, so try again.
            served.again |= claimed.again || (messages == 0 && !blocks.is_empty());
        }
        if is_gone {
            self.turns.catalog.invalidate();
            let name = &subscriber.name;
            return Err(Error::not_found("subscription", name));
        }
        if !served.grants.is_empty() {
            subscriber
                .due
                .expect(Duration::from_secs(visibility.into()));
            return Ok(());
        }
        failure.map_or(Ok(()), Err)
    }
}
