//! From leases to messages with their receipts. What cannot be read is given back, so that it comes again and does not keep
//! the messages behind it from being received; what retention has deleted meanwhile is left out.

use std::sync::Arc;

use api::limits::RECEIVE_BLOCKS_BYTES_MAX;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::lease::plan::Step;
use crate::engine::lease::receipt::Receipt;
use crate::engine::log::block::{Block, Delivery, StoredMessage};
use crate::engine::mask::{below, ones};
use crate::engine::subscriber::{Grant, Subscriber};

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

impl Engine {
    /// The messages of what was granted, which may be none; gives back what is not handed out.
    pub(super) async fn read_grants(
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
            let give_back = self
                .leases()
                .give_back(subscriber, &read.beyond, Step::GiveBack(0));
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
            let grants = std::slice::from_ref(grant);
            self.leases().give_back(subscriber, grants, step).await;
        }
        let (_, error) = read.unreadable.swap_remove(0);
        if read.deliveries.is_empty() {
            return Err(error);
        }
        Ok(read.deliveries)
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
        let payer = subscriber.payer();
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
        for bit in ones(grant.bits) {
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
                    topic_id: subscriber.topic_id,
                },
                attempt: grant.attempt,
                visible_until: grant.deadline.into(),
            });
        }
    }
}
