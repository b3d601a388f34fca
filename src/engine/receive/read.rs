//! Reads the messages of leases and signs their receipts. Messages that cannot be read are given back: they are handed
//! out again later and do not hold up the messages behind them. Messages that retention has deleted meanwhile are left
//! out.

use std::sync::Arc;

use api::Timestamp;
use api::limits::RECEIVE_BLOCKS_BYTES_MAX;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::lease::receipt::Receipt;
use crate::engine::log::block::{Block, Delivery, StoredMessage};
use crate::engine::mask::{below, ones};
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store::turn::LeaseAction;

/// Seconds until messages that could not be read are due again.
const UNREADABLE_SECONDS: u32 = 5;

/// The messages of some leases, as far as they could be read.
#[derive(Debug)]
pub(super) struct LeasesRead {
    /// The messages.
    pub(super) messages: Vec<ReadMessage>,
    /// Messages that were not read, because their blocks would exceed the limit of bytes.
    beyond: Vec<Grant>,
    /// Messages that could not be read, and why.
    pub(super) unreadable: Vec<(Grant, Error)>,
}

/// A message of a lease.
#[derive(Debug)]
pub(super) struct ReadMessage {
    receipt: Receipt,
    /// The message.
    pub(super) message: StoredMessage,
    attempt: u32,
    visible_until: Timestamp,
}

impl Engine {
    /// The messages of these grants, maybe none. Gives back those that are not handed out.
    pub(super) async fn read_grants(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
    ) -> Result<Vec<Delivery>, Error> {
        if grants.is_empty() {
            return Ok(Vec::new());
        }
        let bytes_max = RECEIVE_BLOCKS_BYTES_MAX;
        let read = self.read_leases(subscriber, grants, bytes_max).await;
        if !read.beyond.is_empty() {
            self.turns()
                .give_back(subscriber, &read.beyond, LeaseAction::GiveBack(0))
                .await;
        }
        if read.unreadable.is_empty() {
            return Ok(self.signed(subscriber, read.messages));
        }
        Box::pin(self.without_unreadable(subscriber, read)).await
    }

    /// The messages that could be read. The others were not handed out to any receiver, so they are given back and fall
    /// due again after a pause. Fails when none could be read.
    async fn without_unreadable(
        &self,
        subscriber: &Arc<Subscriber>,
        mut read: LeasesRead,
    ) -> Result<Vec<Delivery>, Error> {
        for (grant, error) in &read.unreadable {
            tracing::warn!(%error, lane = grant.lane.get(), base = grant.base.get(), "messages could not be read");
            // A corrupt message stays corrupt. This counts as an attempt, so that it is dead-lettered in the end.
            let action = if matches!(error, Error::Internal) {
                LeaseAction::Return(UNREADABLE_SECONDS)
            } else {
                LeaseAction::GiveBack(UNREADABLE_SECONDS)
            };
            let grants = std::slice::from_ref(grant);
            self.turns().give_back(subscriber, grants, action).await;
        }
        let (_, error) = read.unreadable.swap_remove(0);
        if read.messages.is_empty() {
            return Err(error);
        }
        Ok(self.signed(subscriber, read.messages))
    }

    /// Messages with their receipts.
    fn signed(&self, subscriber: &Subscriber, messages: Vec<ReadMessage>) -> Vec<Delivery> {
        let signed = messages.into_iter().map(|read| Delivery {
            receipt: self.signer().sign(subscriber.id, read.receipt),
            message: read.message,
            attempt: read.attempt,
            visible_until: read.visible_until,
        });
        signed.collect()
    }

    /// The messages of some leases. Messages that retention has deleted meanwhile are left out.
    /// Stops reading when the blocks hold about `bytes_max`.
    pub(super) async fn read_leases(
        &self,
        subscriber: &Subscriber,
        grants: &[Grant],
        bytes_max: usize,
    ) -> LeasesRead {
        let messages = grants
            .iter()
            .map(|grant| grant.bits.count_ones() as usize)
            .sum();
        let mut found: Vec<ReadMessage> = Vec::with_capacity(messages);
        let (mut beyond, mut unreadable) = (Vec::new(), Vec::new());
        let payer = subscriber.payer();
        let mut room = bytes_max;
        for grant in grants {
            if room == 0 {
                beyond.push(*grant);
                continue;
            }
            let first = grant.base.plus(i64::from(grant.bits.trailing_zeros()));
            let last = grant.base.plus(i64::from(63 - grant.bits.leading_zeros()));
            let offsets = first..last.plus(1);
            let blocks = self.reader().blocks(payer, grant.lane, offsets, room);
            let read = match blocks.await {
                Ok(read) => read,
                Err(error) => {
                    let given = self.append_at_hand(subscriber, grant, &mut found);
                    let bits = grant.bits & !Box::pin(given).await;
                    unreadable.extend((bits != 0).then_some((Grant { bits, ..*grant }, error)));
                    continue;
                }
            };
            let held = found.last().map(|read| &read.message.block);
            let new_bytes: usize = read
                .blocks
                .iter()
                .filter(|block| held.is_none_or(|held| !Arc::ptr_eq(held, block)))
                .map(|block| block.payload.memory_bytes())
                .sum();
            room = room.saturating_sub(new_bytes);
            let mut given = *grant;
            if read.cut {
                room = 0;
                let end = read.blocks.last().map_or(first, |block| block.end());
                given.bits &= below(end.since(grant.base));
                let bits = grant.bits & !given.bits;
                beyond.extend((bits != 0).then_some(Grant { bits, ..*grant }));
            }
            append(subscriber, &given, &read.blocks, &mut found);
        }
        LeasesRead {
            messages: found,
            beyond,
            unreadable,
        }
    }

    /// Appends the messages of a lease that can be read without object storage. Returns the mask of these messages.
    async fn append_at_hand(
        &self,
        subscriber: &Subscriber,
        grant: &Grant,
        found: &mut Vec<ReadMessage>,
    ) -> u64 {
        let messages = i64::from(u64::BITS - grant.bits.leading_zeros());
        let offsets = grant.base..grant.base.plus(messages);
        let Ok(blocks) = self.reader().at_hand(grant.lane, offsets).await else {
            return 0;
        };
        let before = found.len();
        append(subscriber, grant, &blocks, found);
        found[before..].iter().fold(0, |bits, read| {
            bits | 1 << read.message.offset().since(grant.base)
        })
    }
}

/// Appends the messages of a lease that are in `blocks`.
fn append(
    subscriber: &Subscriber,
    grant: &Grant,
    blocks: &[Arc<Block>],
    found: &mut Vec<ReadMessage>,
) {
    let mut block = blocks.iter();
    let mut current = block.next();
    for bit in ones(grant.bits) {
        let offset = grant.base.plus(i64::from(bit));
        while current.is_some_and(|block| block.end() <= offset) {
            current = block.next();
        }
        let Some(block) = current.filter(|block| block.first_offset <= offset) else {
            continue;
        };
        let Ok(index) = usize::try_from(offset.since(block.first_offset)) else {
            continue;
        };
        let receipt = Receipt {
            lane: grant.lane,
            lease: grant.lease,
            offset,
            bit,
        };
        found.push(ReadMessage {
            receipt,
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
