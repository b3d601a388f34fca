//! Receive: hands out first messages that are due again, then fresh messages from the next turn. When there are none,
//! the receiver waits until a message is published or falls due, or until its wait is over. A message that is handed
//! out is in exactly one lease (I2). `read` turns leases into messages, `settle` ends or changes leases, `dead_letter`
//! moves messages to the dead-letter topic, `browse` returns messages without leasing them.

mod browse;
mod dead_letter;
mod read;
mod settle;

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
use crate::engine::subscriber::{Grant, Subscriber, Waiter};

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
        let visibility = subscriber.settings().visibility_seconds.unsigned_abs();
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
        let deliveries = self.read_grants(&subscriber, &grants).await?;
        let mut measure = Measure::default();
        for delivery in &deliveries {
            measure.add(Measure::message(delivery.message.bytes()));
        }
        if !deliveries.is_empty() {
            let delivered = Delivered {
                subscription_id: subscriber.id,
                subscription: &subscriber.name,
                meter: Meter::DeliverPull,
                measure: measure.under(capacity),
            };
            self.tally().delivered(subscriber.payer(), delivered);
        }
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
        let due = match subscriber.due.begin_scan() {
            Some(low) => Box::pin(self.leases().redeliver(subscriber, ask, &[], low)).await?,
            None => Vec::new(),
        };
        if due.is_empty() {
            return Err(self.quotas().too_much_in_flight(limited));
        }
        Ok(due)
    }

    /// Leases for one receiver.
    async fn grants(&self, subscriber: &Arc<Subscriber>, ask: Ask) -> Result<Vec<Grant>, Error> {
        let until = Instant::now() + ask.wait;
        if self.clock().now().is_some() {
            // A manual clock jumps, so leases may be due earlier than instants show.
            subscriber.due.expect(Duration::ZERO);
        }
        loop {
            let scan = subscriber.due.begin_scan();
            if subscriber.is_fair() {
                // `order` scans instead, because messages due again may fill only half of what its receivers want.
                scan.into_iter()
                    .for_each(|low| subscriber.due.want_scan(low));
            } else if let Some(low) = scan {
                let due = Box::pin(self.leases().redeliver(subscriber, ask, &[], low)).await?;
                if !due.is_empty() {
                    return Ok(due);
                }
            }
            let patient = Instant::now() < until && !self.draining().is_cancelled();
            let (reply, mut served) = oneshot::channel();
            let Ask {
                wanted,
                visibility_seconds,
                ..
            } = ask;
            subscriber.enqueue(Waiter {
                wanted,
                visibility_seconds,
                patient,
                asked: false,
                reply,
            })?;
            self.turns().queue(subscriber.topic_id).want(subscriber);
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
