//! Receive: first what is due again, then fresh messages from the next turn; when there is nothing, wait until something
//! is published, falls due, or the time is over. A message handed out is in exactly one lease (I2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::SubscriptionName;
use api::limits::WAIT_SECONDS;
use api::message::ReceiveRequest;
use tokio::sync::oneshot;

use super::delivery::{Delivery, StoredMessage};
use super::error::Error;
use super::receipt::Receipt;
use super::subscriber::{Grant, Subscriber, Waiter};
use super::{Engine, Tenant};

/// What one receiver asks for, with defaults filled in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) wanted: u32,
    pub(super) visibility_seconds: u32,
    wait: Duration,
}

impl Engine {
    /// Hands out messages; waits up to `wait_seconds`. Empty when nothing came or the node drains.
    ///
    /// # Errors
    /// When the request is out of range, the subscription does not exist, or a part of the service does not answer.
    pub async fn receive(
        &self,
        tenant: Tenant,
        subscription: &SubscriptionName,
        request: ReceiveRequest,
    ) -> Result<Vec<Delivery>, Error> {
        let errors = request.validate();
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
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
        let grants = self.grants(&subscriber, ask).await?;
        if grants.is_empty() {
            return Ok(Vec::new());
        }
        match self.deliveries(&subscriber, &grants).await {
            Ok(deliveries) => Ok(deliveries),
            Err(error) => {
                // Nobody has seen them: they are due again at once, and it was no attempt.
                Box::pin(self.give_back(&subscriber, &grants)).await;
                Err(error)
            }
        }
    }

    /// Leases for one receiver.
    async fn grants(&self, subscriber: &Arc<Subscriber>, ask: Ask) -> Result<Vec<Grant>, Error> {
        let until = Instant::now() + ask.wait;
        if self.clock().now().is_some() {
            // Moved time falls due at once.
            subscriber.expect_due(Duration::ZERO);
        }
        loop {
            if let Some(low) = subscriber.begin_look() {
                let due = Box::pin(self.redeliver(subscriber, ask, low)).await?;
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
            self.queue(subscriber.topic_id).want(subscriber);
            let answer = if patient {
                let look = subscriber.next_look().min(until);
                tokio::select! {
                    biased;
                    answer = &mut served => Some(answer),
                    () = tokio::time::sleep_until(look.into()) => None,
                    () = subscriber.due_now() => None,
                    () = self.draining().cancelled() => None,
                }
            } else {
                Some((&mut served).await)
            };
            // The turn may be about to answer: after `close` it cannot, and what it sent before is still here.
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

    /// The messages of some leases, with their receipts; those that retention has deleted meanwhile are left out.
    pub(super) async fn deliveries(
        &self,
        subscriber: &Subscriber,
        grants: &[Grant],
    ) -> Result<Vec<Delivery>, Error> {
        let messages = grants
            .iter()
            .map(|grant| grant.bits.count_ones() as usize)
            .sum();
        let mut deliveries = Vec::with_capacity(messages);
        for grant in grants {
            let first = grant.base + i64::from(grant.bits.trailing_zeros());
            let last = grant.base + i64::from(63 - grant.bits.leading_zeros());
            let blocks = self.reader().blocks(grant.lane, first..last + 1).await?;
            let mut block = blocks.iter();
            let mut current = block.next();
            for bit in (0..64_u8).filter(|bit| grant.bits >> bit & 1 == 1) {
                let offset = grant.base + i64::from(bit);
                while current.is_some_and(|block| block.end() <= offset) {
                    current = block.next();
                }
                let Some(block) = current.filter(|block| block.first_offset <= offset) else {
                    continue;
                };
                let Ok(index) = usize::try_from(offset - block.first_offset) else {
                    continue;
                };
                let receipt = Receipt {
                    lane: grant.lane,
                    lease: grant.lease,
                    offset,
                    bit,
                };
                deliveries.push(Delivery {
                    receipt: self.signer().sign(subscriber.id, receipt),
                    message: StoredMessage {
                        block: block.clone(),
                        index,
                        topic: subscriber.topic.clone(),
                    },
                    attempt: grant.attempt,
                    visible_until: grant.deadline.into(),
                });
            }
        }
        Ok(deliveries)
    }
}
