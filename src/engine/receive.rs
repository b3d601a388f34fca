//! Receive: first what is due again, then fresh messages from the next turn; when there is nothing, wait until something
//! is published, falls due, or the time is over. A message handed out is in exactly one lease (I2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::SubscriptionName;
use api::limits::{RECEIVE_BLOCKS_BYTES_MAX, WAIT_SECONDS};
use api::message::ReceiveRequest;
use api::usage::Meter;
use tokio::sync::oneshot;

use super::delivery::{Block, Delivery, StoredMessage};
use super::error::Error;
use super::plan::Step;
use super::quota::Limited;
use super::receipt::Receipt;
use super::subscriber::{Grant, Subscriber, Waiter};
use super::tally::Payer;
use super::units::Measure;
use super::{Capacity, Engine, Metered, Tenant};

/// Seconds until messages that could not be read come again.
const UNREADABLE_SECONDS: u32 = 5;

/// What was read of what was granted.
#[derive(Debug)]
pub(super) struct Read {
    /// Messages with their receipts.
    pub(super) deliveries: Vec<Delivery>,
    /// What would have been too much to hold.
    beyond: Vec<Grant>,
    /// What could not be read, and why.
    pub(super) unreadable: Vec<(Grant, Error)>,
}

/// What one receiver asks for, with defaults filled in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) wanted: u32,
    pub(super) visibility_seconds: u32,
    wait: Duration,
}

impl Ask {
    /// So many messages, without waiting.
    pub(super) const fn at_once(wanted: u32, visibility_seconds: u32) -> Self {
        Self {
            wanted,
            visibility_seconds,
            wait: Duration::ZERO,
        }
    }
}

impl Engine {
    /// Hands out messages; waits up to `wait_seconds`. Empty when nothing came or the node drains.
    ///
    /// # Errors
    /// When the subscription does not exist, or a part of the service does not answer.
    pub async fn receive(
        &self,
        (tenant, capacity): (Tenant, Capacity),
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
        let room = self.admit_receive(tenant)?;
        if let Some((limited, _)) = &room {
            subscriber.count_for(limited);
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
            let measure = measure.under(capacity);
            self.tally()
                .delivered(&subscriber, Meter::DeliverPull, measure);
        }
        Ok(Metered {
            answer: deliveries,
            units: measure.units,
        })
    }

    /// The messages of what was granted, which may be none; gives back what is not handed out.
    async fn read_grants(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
    ) -> Result<Vec<Delivery>, Error> {
        if grants.is_empty() {
            return Ok(Vec::new());
        }
        let bytes_max = RECEIVE_BLOCKS_BYTES_MAX;
        let read = self.deliveries(subscriber, grants, bytes_max).await;
        if !read.beyond.is_empty() {
            let give_back = self.give_back(subscriber, &read.beyond, Step::GiveBack(0));
            Box::pin(give_back).await;
        }
        if read.unreadable.is_empty() {
            return Ok(read.deliveries);
        }
        Box::pin(self.without_unreadable(subscriber, read)).await
    }

    /// The messages that could be read. Nobody has seen the others: they come again in a while, so that they do not keep
    /// those behind them from being received.
    async fn without_unreadable(
        &self,
        subscriber: &Arc<Subscriber>,
        mut read: Read,
    ) -> Result<Vec<Delivery>, Error> {
        for (grant, error) in &read.unreadable {
            tracing::warn!(%error, lane = grant.lane, base = grant.base, "messages could not be read");
            // What is corrupt stays so: it counts as an attempt, so that it is dead-lettered in the end.
            let step = if matches!(error, Error::Internal) {
                Step::Return(UNREADABLE_SECONDS)
            } else {
                Step::GiveBack(UNREADABLE_SECONDS)
            };
            self.give_back(subscriber, std::slice::from_ref(grant), step)
                .await;
        }
        let (_, error) = read.unreadable.swap_remove(0);
        if read.deliveries.is_empty() {
            return Err(error);
        }
        Ok(read.deliveries)
    }

    /// Leases for a receiver of a tenant that has too much in flight: what is due again is in flight already.
    async fn due_only(
        &self,
        subscriber: &Arc<Subscriber>,
        ask: Ask,
        limited: &Limited,
    ) -> Result<Vec<Grant>, Error> {
        let due = match subscriber.begin_look() {
            Some(low) => Box::pin(self.redeliver(subscriber, (ask, &[]), low)).await?,
            None => Vec::new(),
        };
        if due.is_empty() {
            return Err(self.too_much_in_flight(limited));
        }
        Ok(due)
    }

    /// Leases for one receiver.
    async fn grants(&self, subscriber: &Arc<Subscriber>, ask: Ask) -> Result<Vec<Grant>, Error> {
        let until = Instant::now() + ask.wait;
        if self.clock().now().is_some() {
            // Moved time falls due at once.
            subscriber.expect_due(Duration::ZERO);
        }
        loop {
            let look = subscriber.begin_look();
            if subscriber.is_fair() {
                // Who serves it looks, too: what is due again is not all that its receivers get.
                look.into_iter().for_each(|low| subscriber.want_look(low));
            } else if let Some(low) = look {
                let due = Box::pin(self.redeliver(subscriber, (ask, &[]), low)).await?;
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

    /// The messages of some leases, with their receipts; those that retention has deleted meanwhile are left out. Holds no
    /// more than about `bytes_max` of blocks.
    pub(super) async fn deliveries(
        &self,
        subscriber: &Subscriber,
        grants: &[Grant],
        bytes_max: usize,
    ) -> Read {
        let messages = grants
            .iter()
            .map(|grant| grant.bits.count_ones() as usize)
            .sum();
        let mut deliveries: Vec<Delivery> = Vec::with_capacity(messages);
        let (mut beyond, mut unreadable) = (Vec::new(), Vec::new());
        let payer = Payer {
            tenant: subscriber.tenant,
            topic: &subscriber.topic,
        };
        let mut room = bytes_max;
        for grant in grants {
            if room == 0 {
                beyond.push(*grant);
                continue;
            }
            let first = grant.base + i64::from(grant.bits.trailing_zeros());
            let last = grant.base + i64::from(63 - grant.bits.leading_zeros());
            let offsets = first..last + 1;
            let read = self.reader().blocks(payer, grant.lane, offsets, room);
            let read = match read.await {
                Ok(read) => read,
                Err(error) => {
                    let given = self.deliver_at_hand(subscriber, grant, &mut deliveries);
                    let bits = grant.bits & !Box::pin(given).await;
                    unreadable.extend((bits != 0).then_some((Grant { bits, ..*grant }, error)));
                    continue;
                }
            };
            let held = deliveries.last().map(|delivery| &delivery.message.block);
            let fresh = read.blocks.iter();
            let fresh = fresh.filter(|block| held.is_none_or(|held| !Arc::ptr_eq(held, block)));
            let bytes: usize = fresh.map(|block| block.payload.memory_bytes()).sum();
            room = room.saturating_sub(bytes);
            let mut given = *grant;
            if read.cut {
                room = 0;
                let end = read.blocks.last().map_or(first, |block| block.end());
                given.bits &= below(end - grant.base);
                let bits = grant.bits & !given.bits;
                beyond.extend((bits != 0).then_some(Grant { bits, ..*grant }));
            }
            self.deliver(subscriber, &given, &read.blocks, &mut deliveries);
        }
        Read {
            deliveries,
            beyond,
            unreadable,
        }
    }

    /// Adds the messages of a lease that can be read without object storage, and answers which they are.
    async fn deliver_at_hand(
        &self,
        subscriber: &Subscriber,
        grant: &Grant,
        deliveries: &mut Vec<Delivery>,
    ) -> u64 {
        let offsets = grant.base..grant.base + i64::from(u64::BITS - grant.bits.leading_zeros());
        let Ok(blocks) = self.reader().at_hand(grant.lane, offsets).await else {
            return 0;
        };
        let before = deliveries.len();
        self.deliver(subscriber, grant, &blocks, deliveries);
        let given = deliveries[before..].iter();
        given.fold(0, |bits, delivery| {
            bits | 1 << (delivery.message.id().offset - grant.base)
        })
    }

    /// Adds the messages of a lease, which are in `blocks`.
    fn deliver(
        &self,
        subscriber: &Subscriber,
        grant: &Grant,
        blocks: &[Arc<Block>],
        deliveries: &mut Vec<Delivery>,
    ) {
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
}

/// The bits below `bit`.
fn below(bit: i64) -> u64 {
    let bit = u32::try_from(bit.max(0)).unwrap_or(u32::MAX);
    1_u64.checked_shl(bit).map_or(u64::MAX, |above| above - 1)
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn a_mask_covers_the_bits_below() {
        for (bit, mask) in [(-1, 0), (0, 0), (1, 1), (63, u64::MAX >> 1), (64, u64::MAX)] {
            assert_eq!(below(bit), mask, "{bit}");
        }
        assert_eq!(below(i64::MAX), u64::MAX);
    }
}
