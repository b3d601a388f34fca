//! Receive: the next turn hands out messages that are due again, then fresh ones. When there are none, the receiver waits until a message is published or falls due, or until its wait is over. A message that is handed
//! out is in exactly one lease (I2). `read` turns leases into messages, `settle` ends or changes leases, `dead_letter`
//! moves messages to the dead-letter topic, `resend` hands out what was done, `browse` returns messages without leasing them.

mod browse;
mod dead_letter;
mod read;
mod resend;
mod settle;
pub mod used_up;

pub use browse::{After, Browse, BrowseFrom};
pub use settle::Action;

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::SubscriptionName;
use api::limits::WAIT_SECONDS;
use api::message::ReceiveRequest;
use api::usage::Meter;
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::lease::ask::Ask;
use crate::engine::limit::Capacity;
use crate::engine::log::block::Delivery;
use crate::engine::meter::Metered;
use crate::engine::meter::deliveries::Delivered;
use crate::engine::meter::measure::Measure;
use crate::engine::quota::Limited;
use crate::engine::subscriber::{Grant, Served, Subscriber, Waiter};

impl Engine {
    /// Hands out messages; waits up to `wait_seconds` for the first. Empty when there are none, or when the node
    /// drains.
    ///
    /// # Errors
    /// When the subscription does not exist, the tenant has too much in flight, too many receivers wait, or the
    /// database or object storage is unavailable.
    pub async fn receive(
        &self,
        tenant: Tenant,
        capacity: Capacity,
        subscription: &SubscriptionName,
        request: ReceiveRequest,
    ) -> Result<Metered<Vec<Delivery>>, Error> {
        let subscriber = self
            .catalog()
            .subscriber(self.store(), tenant, subscription)
            .await?;
        let settings = subscriber.settings();
        if settings.is_push() {
            let detail = format!(
                "messages of subscription {subscription} are pushed to its endpoint; put it with push.enabled false to receive them"
            );
            return Err(Error::Conflict(detail));
        }
        let visibility = settings.visibility_seconds.unsigned_abs();
        let ask = Ask {
            wanted: request.max_messages.unwrap_or(1),
            visibility_seconds: request.visibility_timeout_seconds.unwrap_or(visibility),
            wait: Duration::from_secs(u64::from(
                request.wait_seconds.unwrap_or(0).min(*WAIT_SECONDS.end()),
            )),
        };
        let room = self.quotas().admit_receive(tenant)?;
        if let Some((limited, _)) = &room {
            subscriber.in_flight.count_for(limited);
        }
        let grants = match &room {
            None => self.grants(&subscriber, ask).await?,
            Some((limited, 0)) => self.due_only(&subscriber, ask, limited).await?,
            Some((_, room)) => {
                let wanted = ask.wanted.min(*room);
                self.grants(&subscriber, Ask { wanted, ..ask }).await?
            }
        };
        let visibility = ask.visibility_seconds;
        let deliveries = self.read_grants(&subscriber, &grants, visibility).await?;
        let measure = self.count(&subscriber, &deliveries, Meter::DeliverPull, capacity);
        Ok(Metered {
            answer: deliveries,
            units: measure.units,
        })
    }

    /// Leases for a receiver whose tenant has too much in flight: only messages that are due again, because these are
    /// in flight already.
    async fn due_only(
        &self,
        subscriber: &Arc<Subscriber>,
        ask: Ask,
        limited: &Limited,
    ) -> Result<Vec<Grant>, Error> {
        self.expect_jumps(subscriber);
        let due = if subscriber.is_fair() {
            match subscriber.due.begin_scan() {
                Some(low) => Box::pin(self.leases().redeliver(subscriber, ask, &[], low)).await?,
                None => Vec::new(),
            }
        } else {
            let served = self.enqueue(subscriber, ask, Patience::DueOnly)?;
            served.await.map_err(|_| Error::Unavailable("the node"))??
        };
        if due.is_empty() {
            return Err(self.quotas().too_much_in_flight(limited));
        }
        Ok(due)
    }

    /// A manual clock jumps, so leases may be due earlier than instants show.
    fn expect_jumps(&self, subscriber: &Subscriber) {
        if self.clock().now().is_some() {
            subscriber.due.expect(Duration::ZERO);
        }
    }

    /// Adds a receiver to the wait queue, and makes the next turn claim messages for it.
    fn enqueue(
        &self,
        subscriber: &Arc<Subscriber>,
        ask: Ask,
        patience: Patience,
    ) -> Result<oneshot::Receiver<Served>, Error> {
        let (reply, served) = oneshot::channel();
        subscriber.enqueue(Waiter {
            wanted: ask.wanted,
            visibility_seconds: ask.visibility_seconds,
            due_only: patience == Patience::DueOnly,
            patient: patience == Patience::Waits,
            asked: false,
            reply,
        })?;
        self.turns().queue(subscriber.topic_id).want(subscriber);
        Ok(served)
    }

    /// Counts messages that a subscription has got, for the bill. Returns their measure.
    pub(in crate::engine) fn count(
        &self,
        subscriber: &Subscriber,
        deliveries: &[Delivery],
        meter: Meter,
        capacity: Capacity,
    ) -> Measure {
        let mut measure = Measure::default();
        for delivery in deliveries {
            measure.add(Measure::message(delivery.message.bytes()));
        }
        if !deliveries.is_empty() {
            let delivered = Delivered {
                subscription_id: subscriber.id,
                subscription: &subscriber.name,
                meter,
                measure: measure.under(capacity),
            };
            self.tally().delivered(subscriber.payer(), delivered);
            let cold = deliveries.iter().map(|given| given.message.cold_bytes());
            self.tally().read_cold(subscriber.payer(), cold.sum());
        }
        measure
    }

    /// Leases for the driver of an endpoint: waits for them until `end`, or until leases may be due earlier than it
    /// knows. It is asked for what is due by [`Engine::look_for_due`].
    pub(in crate::engine) async fn grants_for_push(
        &self,
        subscriber: &Arc<Subscriber>,
        mut ask: Ask,
        end: impl Future<Output = ()>,
    ) -> Result<Vec<Grant>, Error> {
        if let Some((limited, room)) = self.quotas().admit_receive(Tenant(subscriber.tenant))? {
            subscriber.in_flight.count_for(&limited);
            if room == 0 {
                return self.due_only(subscriber, ask, &limited).await;
            }
            ask.wanted = ask.wanted.min(room);
        }
        let mut served = self.enqueue(subscriber, ask, Patience::Waits)?;
        let answer = tokio::select! {
            biased;
            answer = &mut served => Some(answer),
            () = end => None,
            () = subscriber.due.now() => None,
        };
        served.close();
        match answer {
            Some(answer) => answer.map_err(|_| Error::Unavailable("the node"))?,
            None => served.try_recv().unwrap_or_else(|_| Ok(Vec::new())),
        }
    }

    /// Makes the next turn look for messages of a subscription that are due again.
    pub(in crate::engine) fn look_for_due(&self, subscriber: &Arc<Subscriber>) {
        subscriber.due.expect(Duration::ZERO);
        if subscriber.is_fair()
            && let Some(low) = subscriber.due.begin_scan()
        {
            subscriber.due.want_scan(low);
        }
        if subscriber.has_waiters() {
            subscriber.lanes.expect_fresh();
            self.turns().queue(subscriber.topic_id).want(subscriber);
        }
    }

    /// Leases for one receiver.
    async fn grants(&self, subscriber: &Arc<Subscriber>, ask: Ask) -> Result<Vec<Grant>, Error> {
        let until = Instant::now() + ask.wait;
        self.expect_jumps(subscriber);
        loop {
            if subscriber.is_fair()
                && let Some(low) = subscriber.due.begin_scan()
            {
                // `order` scans, because messages due again may fill only half of what its receivers want.
                subscriber.due.want_scan(low);
            }
            let patient = Instant::now() < until && !self.draining().is_cancelled();
            let patience = if patient {
                Patience::Waits
            } else {
                Patience::Leaves
            };
            let mut served = self.enqueue(subscriber, ask, patience)?;
            let answer = if patient {
                let scan = subscriber.due.next_scan().min(until);
                tokio::select! {
                    biased;
                    answer = &mut served => Some(answer),
                    () = tokio::time::sleep_until(scan.into()) => None,
                    () = subscriber.due.now() => None,
                    () = self.draining().cancelled() => None,
                }
            } else {
                Some((&mut served).await)
            };
            // Another task may be about to send: after `close` it cannot, and what it sent before can still be read.
            served.close();
            let answer = match answer {
                Some(answer) => answer.map_err(|_| Error::Unavailable("the node"))?,
                None => served.try_recv().unwrap_or_else(|_| Ok(Vec::new())),
            }?;
            if !answer.is_empty() || !patient {
                return Ok(answer);
            }
        }
    }
}

/// How a receiver waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Until messages come.
    Waits,
    /// It leaves when a claim finds none.
    Leaves,
    /// It leaves when a claim finds none that are due again, and takes no others.
    DueOnly,
}
