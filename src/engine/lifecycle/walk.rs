//! A walk through a hot slot. It packs payloads that are due into objects, many blocks to an object, and truncates the
//! slot when no block refers to it. The duty `offload` calls it. A payload is reachable at every moment (I5), because
//! its block points to the slot until the transaction after the PUT points it to the object. A walk holds about one
//! object in memory, and no transaction is open during a PUT.
//!
//! # Why a truncated slot is not needed
//!
//! A node may insert payloads into any slot at any time, because its knowledge of the current slot may be old, and a
//! row may be placed on any page with room. A slot is truncated under its exclusive lock. An insert locks the table
//! until the end of its transaction, so no transaction that inserted into the slot is still running. A payload
//! committed by then was inserted by a transaction of one of two kinds:
//! - It ended before the last walk began. Then the walk's snapshot or a later one saw the row, on a page that the walk
//!   read, and found that no block referred to it. A block never begins to refer to a slot again, because it is
//!   inserted once, together with its payload, and offsets are never used twice.
//! - It was running when the walk began, or began later. Then its transaction id is not below the oldest id that was
//!   running when the walk began, and `is_needed` reads exactly the rows of such transactions, under the lock.
//!
//! So no block refers to the slot, and it can be truncated.

use std::collections::VecDeque;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::blob::Blob;
use crate::engine::duty::{Context, DutyError};
use crate::engine::meter::blocks;
use crate::store::block::Moved;
use crate::store::hot_payload::{self, Live, Walk};
use crate::store::installation::Installation;
use crate::store::turn::PART_BYTES;
use crate::store::{self, LaneId, block, object};

/// Pages of a slot scanned by one statement: 16 MiB.
const WINDOW_PAGES: i64 = 2_048;
/// Most blocks in one object, because one statement points all of them to it.
const BLOCKS_MAX: usize = 20_000;
/// Approximate bytes of payload read by one statement.
const READ_BYTES: i64 = 4 * 1024 * 1024;

/// Walks through the slots of an installation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walker<'a> {
    /// The database and the time.
    pub(super) context: &'a Context,
    /// Object storage.
    pub(super) blob: &'a Blob,
    /// Bytes of an object.
    pub(super) object_bytes: i64,
    /// The installation, which names the objects.
    pub(super) installation: &'a Installation,
}

impl Walker<'_> {
    /// Walks through a slot once: packs what was published up to `due`, and truncates the slot when nothing in it is
    /// needed. Returns how many blocks it moved, and the publish time of the youngest block that it left.
    pub(super) async fn walk(
        &self,
        slot: i16,
        due: OffsetDateTime,
        stop: &CancellationToken,
    ) -> Result<(u64, Option<OffsetDateTime>), DutyError> {
        let mut session = self.context.store.session().await?;
        let walk = hot_payload::begin_walk(&mut session, slot).await?;
        drop(session);
        let mut queue = Queue::default();
        let (mut moved, mut is_clean, mut youngest) = (0, true, None);
        for first in (0..walk.pages).step_by(usize::try_from(WINDOW_PAGES).unwrap_or(1)) {
            let pages = first..walk.pages.min(first + WINDOW_PAGES);
            let mut session = self.context.store.session().await?;
            let live = hot_payload::live(&mut session, slot, pages).await?;
            drop(session);
            is_clean &= live.is_empty();
            youngest = youngest.max(queue.push(live, due));
            while queue.bytes >= self.object_bytes || queue.blocks.len() >= BLOCKS_MAX {
                if stop.is_cancelled() {
                    return Ok((moved, None));
                }
                let blocks = queue.take(self.object_bytes);
                moved += self.pack(slot, &blocks).await?;
            }
        }
        if stop.is_cancelled() {
            return Ok((moved, None));
        }
        if !queue.blocks.is_empty() {
            let blocks = queue.take(self.object_bytes);
            moved += self.pack(slot, &blocks).await?;
        }
        if is_clean {
            self.truncate(slot, &walk).await?;
        }
        Ok((moved, youngest))
    }

    /// Writes the payloads of blocks into one object and points the blocks to it; returns how many. A crash before the
    /// commit leaves an object with a row that no block refers to; the duty `collect` deletes both.
    async fn pack(&self, slot: i16, blocks: &[Live]) -> Result<u64, DutyError> {
        let Context { store, clock } = self.context;
        let (body, moved) = self.read(slot, blocks).await?;
        if moved.is_empty() {
            return Ok(0);
        }
        let key = self.installation.object_key("pack");
        let mut session = store.session().await?;
        let object = object::insert(&mut session, &key, clock.now()).await?;
        drop(session);
        let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
        self.blob.put(&key, body).await?;
        let mut tx = store.tx("offload").await?;
        if !object::finish(&mut tx, object, bytes, clock.now()).await? {
            // The upload took longer than the grace of the duty `collect`, which gave the object up.
            return Ok(0);
        }
        let mut lanes: Vec<LaneId> = moved.iter().map(|moved| moved.lane_id).collect();
        lanes.sort_unstable();
        lanes.dedup();
        let meters = blocks::lock(&mut tx, clock, &lanes).await?;
        // Without meters the lanes are gone, and the time is not used.
        let at = meters.map_or(OffsetDateTime::UNIX_EPOCH, |meters| meters.at);
        let pointed = block::point(&mut tx, slot, object, &moved, at).await?;
        tx.commit().await?;
        tracing::debug!(slot, object, bytes, blocks = pointed, "offloaded");
        Ok(pointed)
    }

    /// Reads the payloads of blocks, one after the other, and where each of them begins.
    async fn read(&self, slot: i16, blocks: &[Live]) -> Result<(Bytes, Vec<Moved>), DutyError> {
        let bytes: i64 = blocks.iter().map(|block| block.bytes).sum();
        let mut body = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        let mut moved = Vec::with_capacity(blocks.len());
        let mut session = self.context.store.session().await?;
        let mut rest = blocks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest
                .iter()
                .take_while(|block| {
                    let fits = bytes < READ_BYTES;
                    bytes += block.bytes;
                    fits
                })
                .count();
            let (batch, later) = rest.split_at(fitting.max(1));
            rest = later;
            let parts = hot_payload::parts(&mut session, slot, batch).await?;
            join(&mut body, &mut moved, batch, parts);
        }
        Ok((body.into(), moved))
    }

    /// Truncates a slot in which a walk found nothing, unless a needed payload was added since or other transactions
    /// use the slot. A later run tries again.
    async fn truncate(&self, slot: i16, walk: &Walk) -> Result<(), store::Error> {
        let mut tx = self.context.store.tx("truncate").await?;
        if !hot_payload::lock(&mut tx, slot, walk.pages).await?
            || hot_payload::is_needed(&mut tx, slot, &walk.horizon).await? != Some(false)
        {
            return Ok(());
        }
        hot_payload::truncate(&mut tx, slot).await?;
        tx.commit().await?;
        tracing::debug!(slot, "slot truncated");
        Ok(())
    }
}

/// Blocks that were found and are not packed yet.
#[derive(Default)]
struct Queue {
    blocks: VecDeque<Live>,
    bytes: i64,
}

impl Queue {
    /// Adds the blocks that were published up to `due`; returns the publish time of the youngest of the others.
    fn push(&mut self, live: Vec<Live>, due: OffsetDateTime) -> Option<OffsetDateTime> {
        let mut youngest = None;
        for block in live {
            if block.published_at <= due {
                self.bytes += block.bytes;
                self.blocks.push_back(block);
            } else {
                youngest = youngest.max(Some(block.published_at));
            }
        }
        youngest
    }

    /// Takes blocks for one object, sorted by key, which is the order in which they are locked and later read.
    fn take(&mut self, object_bytes: i64) -> Vec<Live> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(block) = self.blocks.front().copied() {
            if taken.len() >= BLOCKS_MAX || (bytes > 0 && bytes + block.bytes > object_bytes) {
                break;
            }
            self.blocks.pop_front();
            bytes += block.bytes;
            taken.push(block);
        }
        self.bytes -= bytes;
        taken.sort_unstable();
        taken
    }
}

/// Puts the parts of payloads, which arrive in any order, into their places. A block with missing parts is left out:
/// another node has moved it and truncated its slot meanwhile.
fn join(
    body: &mut Vec<u8>,
    moved: &mut Vec<Moved>,
    blocks: &[Live],
    parts: Vec<hot_payload::Part>,
) {
    let mut payloads: Vec<(usize, Vec<u8>)> = blocks
        .iter()
        .map(|block| (0, vec![0; usize::try_from(block.bytes).unwrap_or(0)]))
        .collect();
    for part in parts {
        let position = usize::try_from(part.position - 1).ok();
        let start = usize::try_from(part.part)
            .ok()
            .and_then(|part| part.checked_mul(PART_BYTES));
        let Some((filled, payload)) = position.and_then(|position| payloads.get_mut(position))
        else {
            continue;
        };
        if let Some(target) =
            start.and_then(|start| payload.get_mut(start..start + part.data.len()))
        {
            target.copy_from_slice(&part.data);
            *filled += part.data.len();
        }
    }
    for (block, (filled, payload)) in blocks.iter().zip(payloads) {
        if filled != payload.len() {
            tracing::warn!(
                lane = block.lane_id.get(),
                offset = block.first_offset.get(),
                "payload is missing or was moved meanwhile"
            );
            continue;
        }
        let object_offset = i64::try_from(body.len()).unwrap_or(i64::MAX);
        moved.push(Moved {
            lane_id: block.lane_id,
            first_offset: block.first_offset,
            object_offset,
        });
        body.extend_from_slice(&payload);
    }
}
