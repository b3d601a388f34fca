//! Reads the messages of leases and signs their receipts. Messages that cannot be read are given back: they are handed
//! out again later and do not hold up the messages behind them. Messages that retention has deleted meanwhile are left
//! out.
//!
//! When object storage is slow or away, what can be read without it is handed out soon, and nothing after its visibility
//! timeout (`Patience`). What was not read in time was not handed out to anybody, so it is no attempt.

use std::pin::pin;
use std::sync::Arc;

use api::Timestamp;
use api::limits::RECEIVE_BLOCKS_BYTES_MAX;
use tokio::time::{Instant, timeout_at};

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::lease::patience::Patience;
use crate::engine::lease::receipt::Receipt;
use crate::engine::log::block::{Block, Delivery, StoredMessage};
use crate::engine::log::reader::Blocks;
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
    /// Bytes of blocks that may still be added.
    room: usize,
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
    /// The messages of these grants; maybe none. Gives back those that are not handed out.
    pub(in crate::engine) async fn read_grants(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
        visibility_seconds: u32,
    ) -> Result<Vec<Delivery>, Error> {
        let Some(since) = grants.iter().map(|grant| grant.since).min() else {
            return Ok(Vec::new());
        };
        let patience = Patience::of(visibility_seconds, since);
        let bytes_max = RECEIVE_BLOCKS_BYTES_MAX;
        let read = self
            .read_leases(subscriber, grants, bytes_max, Some(patience))
            .await;
        if !read.beyond.is_empty() {
            self.turns()
                .give_back(subscriber, &read.beyond, LeaseAction::GiveBack(0))
                .await;
        }
        let messages = if read.unreadable.is_empty() {
            read.messages
        } else {
            Box::pin(self.without_unreadable(subscriber, read)).await?
        };
        if Instant::now() >= patience.visible {
            // Others may have them by now.
            return Err(Error::Unavailable("the database"));
        }
        Ok(self.signed(subscriber, messages))
    }

    /// The messages that could be read. The others were not handed out to any receiver, so they are given back and fall
    /// due again after a pause. Fails when none could be read.
    async fn without_unreadable(
        &self,
        subscriber: &Arc<Subscriber>,
        read: LeasesRead,
    ) -> Result<Vec<ReadMessage>, Error> {
        let (mut corrupt, mut late, mut first) = (Vec::new(), Vec::new(), None);
        for (grant, error) in read.unreadable {
            tracing::warn!(%error, lane = grant.lane.get(), base = grant.base.get(), "messages could not be read");
            if matches!(error, Error::Internal) {
                corrupt.push(grant);
            } else {
                late.push(grant);
            }
            first.get_or_insert(error);
        }
        // A corrupt message stays corrupt. This counts as an attempt, so that it is dead-lettered in the end.
        for (grants, action) in [
            (corrupt, LeaseAction::Return(UNREADABLE_SECONDS)),
            (late, LeaseAction::GiveBack(UNREADABLE_SECONDS)),
        ] {
            if !grants.is_empty() {
                self.turns().give_back(subscriber, &grants, action).await;
            }
        }
        match first {
            Some(error) if read.messages.is_empty() => Err(error),
            _ => Ok(read.messages),
        }
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

    /// The messages of some leases. Messages that retention has deleted meanwhile are left out. Stops reading when the
    /// blocks hold about `bytes_max`, and leaves out what needs object storage when that takes too long.
    pub(super) async fn read_leases(
        &self,
        subscriber: &Subscriber,
        grants: &[Grant],
        bytes_max: usize,
        patience: Option<Patience>,
    ) -> LeasesRead {
        let messages = grants
            .iter()
            .map(|grant| grant.bits.count_ones() as usize)
            .sum();
        let mut read = LeasesRead {
            messages: Vec::with_capacity(messages),
            beyond: Vec::new(),
            unreadable: Vec::new(),
            room: bytes_max,
        };
        for (index, grant) in grants.iter().enumerate() {
            if read.room == 0 {
                read.beyond.push(*grant);
                continue;
            }
            let blocks = self.in_time(subscriber, &grants[index..], patience, &read);
            match blocks.await {
                Ok(blocks) => read.add(subscriber, grant, &blocks),
                Err(error @ Error::Internal) => {
                    let given = Box::pin(self.add_at_hand(subscriber, grant, &mut read)).await;
                    read.fail(grant, given, error);
                }
                Err(error) => {
                    // The others would wait as well.
                    for grant in &grants[index..] {
                        let given = Box::pin(self.add_at_hand(subscriber, grant, &mut read)).await;
                        read.fail(grant, given, error.clone());
                    }
                    break;
                }
            }
        }
        read
    }

    /// The blocks of the first of these grants. Waits for them only soon when other messages can be handed out: those
    /// read before, or those of any of these grants that need no object storage.
    async fn in_time(
        &self,
        subscriber: &Subscriber,
        grants: &[Grant],
        patience: Option<Patience>,
        before: &LeasesRead,
    ) -> Result<Blocks, Error> {
        let Some(grant) = grants.first() else {
            return Err(Error::Internal);
        };
        let (lane, offsets) = (grant.lane, grant.offsets());
        let blocks = self
            .reader()
            .blocks(subscriber.tenant, lane, offsets, before.room);
        let Some(patience) = patience else {
            return blocks.await;
        };
        let mut blocks = pin!(blocks);
        if let Ok(blocks) = timeout_at(patience.soon, &mut blocks).await {
            return blocks;
        }
        if before.messages.is_empty()
            && !Box::pin(self.has_at_hand(subscriber, grants)).await
            && let Ok(blocks) = timeout_at(patience.late, blocks).await
        {
            return blocks;
        }
        Err(Error::Unavailable("object storage"))
    }

    /// Whether a message of these leases can be read without object storage.
    async fn has_at_hand(&self, subscriber: &Subscriber, grants: &[Grant]) -> bool {
        for grant in grants {
            let Ok(blocks) = self.reader().at_hand(grant.lane, grant.offsets()).await else {
                return false;
            };
            let mut found = Vec::new();
            append(subscriber, grant, &blocks, &mut found);
            if !found.is_empty() {
                return true;
            }
        }
        false
    }

    /// Adds the messages of a lease that can be read without object storage. Returns the mask of these messages.
    async fn add_at_hand(
        &self,
        subscriber: &Subscriber,
        grant: &Grant,
        read: &mut LeasesRead,
    ) -> u64 {
        if read.room == 0 {
            return 0;
        }
        let Ok(blocks) = self.reader().at_hand(grant.lane, grant.offsets()).await else {
            return 0;
        };
        read.take_room(&blocks);
        let before = read.messages.len();
        append(subscriber, grant, &blocks, &mut read.messages);
        read.messages[before..].iter().fold(0, |bits, read| {
            bits | 1 << read.message.offset().since(grant.base)
        })
    }
}

impl LeasesRead {
    /// Adds the messages of a lease, as far as its blocks were read.
    fn add(&mut self, subscriber: &Subscriber, grant: &Grant, read: &Blocks) {
        self.take_room(&read.blocks);
        let mut given = *grant;
        if read.cut {
            self.room = 0;
            let first = grant.offsets().start;
            let end = read.blocks.last().map_or(first, |block| block.end());
            given.bits &= below(end.since(grant.base));
            let bits = grant.bits & !given.bits;
            self.beyond
                .extend((bits != 0).then_some(Grant { bits, ..*grant }));
        }
        append(subscriber, &given, &read.blocks, &mut self.messages);
    }

    /// Records that the messages of a lease could not be read, but for those `given`.
    fn fail(&mut self, grant: &Grant, given: u64, error: Error) {
        let bits = grant.bits & !given;
        self.unreadable
            .extend((bits != 0).then_some((Grant { bits, ..*grant }, error)));
    }

    /// Takes the room of blocks that are added. Two leases may share a block.
    fn take_room(&mut self, blocks: &[Arc<Block>]) {
        let held = self.messages.last().map(|read| &read.message.block);
        let new_bytes: usize = blocks
            .iter()
            .filter(|block| held.is_none_or(|held| !Arc::ptr_eq(held, block)))
            .map(|block| block.payload.memory_bytes())
            .sum();
        self.room = self.room.saturating_sub(new_bytes);
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
