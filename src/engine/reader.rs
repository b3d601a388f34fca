//! Reading messages: from memory, from the ring of hot payloads, from object storage. A cold read is bounded in number and
//! bytes, reads ahead, and is done once for all that wait for the same lane; it never touches the connections of turns.

use std::ops::Range;
use std::sync::Arc;

use api::Timestamp;
use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore};

use crate::blob::Blob;
use crate::store::block::BlockRow;
use crate::store::{self, Session, Store};

use super::cache::{Cache, Origin};
use super::delivery::Block;
use super::error::Error;
use super::payload::Payload;

/// Cold reads at once in one node.
const COLD_READS_MAX: usize = 8;
/// Lanes are spread over so many locks, each of which lets one cold read through.
const LANE_LOCKS: usize = 64;
/// Blocks of one cold read, those read ahead included.
const BLOCKS_MAX: i64 = 64;
/// Bytes (as stored) that a cold read takes beyond what was asked for.
const READ_AHEAD_BYTES: i64 = 512 << 10;
/// Messages looked ahead.
const READ_AHEAD_MESSAGES: i64 = 4_096;
/// A block of one message with more bytes is read only so far: its body is given as an address.
const HEAD_BYTES: i64 = 320 << 10;
/// Bytes of a payload uncompressed; a turn's block is far below, a batch in an object near.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// A block whose payload has moved between two statements is looked up again.
const MOVES_MAX: u32 = 5;

/// What was read of what was asked for.
#[derive(Debug)]
pub struct Blocks {
    /// The blocks, in order.
    pub blocks: Vec<Arc<Block>>,
    /// Bytes that might still be held.
    room: usize,
    /// Whether there may be more of what was asked for, which would have been too much.
    pub cut: bool,
}

impl Blocks {
    fn push(&mut self, block: Arc<Block>) {
        self.room = self.room.saturating_sub(block.payload.memory_bytes());
        self.blocks.push(block);
    }
}

/// Reads blocks for one node.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    blob: Arc<Blob>,
    cache: Arc<Cache>,
    cold: Semaphore,
    lanes: Vec<Mutex<()>>,
}

impl Reader {
    /// A reader over all places of payloads.
    #[must_use]
    pub fn new(store: Store, blob: Arc<Blob>, cache: Arc<Cache>) -> Self {
        let lanes = std::iter::repeat_with(|| Mutex::new(()))
            .take(LANE_LOCKS)
            .collect();
        Self {
            store,
            blob,
            cache,
            cold: Semaphore::new(COLD_READS_MAX),
            lanes,
        }
    }

    /// The block that holds `offset` of `lane`; `None` when there is none (any more).
    ///
    /// # Errors
    /// When a place of payloads does not answer.
    pub async fn block(&self, lane: i64, offset: i64) -> Result<Option<Arc<Block>>, Error> {
        let mut found = self.blocks(lane, offset..offset + 1, usize::MAX).await?;
        Ok(found.blocks.pop())
    }

    /// The blocks that hold `offsets` of `lane`, in order, as many of them as still exist; no more of them than hold about
    /// `bytes_max` in memory, but always the first.
    ///
    /// # Errors
    /// When a place of payloads does not answer.
    pub async fn blocks(
        &self,
        lane: i64,
        offsets: Range<i64>,
        bytes_max: usize,
    ) -> Result<Blocks, Error> {
        let mut taken = Blocks {
            blocks: Vec::new(),
            room: bytes_max.max(1),
            cut: false,
        };
        let mut at = self.cached(lane, offsets.clone(), &mut taken);
        while at < offsets.end && taken.room > 0 {
            let index = usize::try_from(lane).unwrap_or(0) % LANE_LOCKS;
            let _lane = self.lanes[index].lock().await;
            // Another reader of this lane may just have brought it.
            at = self.cached(lane, at..offsets.end, &mut taken);
            if at >= offsets.end || taken.room == 0 {
                break;
            }
            let _slot = self.cold.acquire().await.map_err(|_| Error::Internal)?;
            let read = Box::pin(self.read(lane, at..offsets.end, taken.room)).await?;
            if read.is_empty() {
                at = offsets.end;
            }
            for block in read {
                if block.first_offset >= offsets.end {
                    at = offsets.end;
                }
                if at >= offsets.end || taken.room == 0 {
                    break;
                }
                at = block.end();
                taken.push(block);
            }
        }
        taken.cut = at < offsets.end;
        Ok(taken)
    }

    /// Takes blocks from memory as far as they go without a gap; answers where the rest begins.
    fn cached(&self, lane: i64, offsets: Range<i64>, taken: &mut Blocks) -> i64 {
        let mut at = offsets.start;
        while at < offsets.end && taken.room > 0 {
            let Some(block) = self.cache.get(lane, at) else {
                break;
            };
            at = block.end();
            taken.push(block);
        }
        at
    }

    /// Reads the blocks of `offsets`, of about `room` bytes at most, and a little ahead, and keeps them in memory.
    async fn read(
        &self,
        lane: i64,
        offsets: Range<i64>,
        room: usize,
    ) -> Result<Vec<Arc<Block>>, Error> {
        let ahead = offsets.end.saturating_add(READ_AHEAD_MESSAGES);
        let mut session = self.store.session().await?;
        let mut rows =
            store::block::covering(&mut session, lane, offsets.start, ahead, BLOCKS_MAX).await?;
        let (mut before, mut bytes) = (0, 0);
        rows.retain(|row| {
            let fits = usize::try_from(before).is_ok_and(|before| before < room);
            let wanted = row.first_offset < offsets.end && fits;
            bytes += row.bytes;
            before += fetched_bytes(row);
            wanted || bytes <= READ_AHEAD_BYTES
        });
        let payloads = hot(&mut session, lane, &rows).await?;
        drop(session);
        let mut blocks = Vec::with_capacity(rows.len());
        let mut held = 0;
        for row in rows {
            if held >= room {
                break;
            }
            let data = payloads
                .iter()
                .find(|(first, _)| *first == row.first_offset)
                .map(|(_, data)| data.clone());
            let Some(block) = self.load(row, data).await? else {
                continue;
            };
            let block = Arc::new(block);
            held += block.payload.memory_bytes();
            self.cache.insert(block.clone(), Origin::Read);
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// One block, from the payload at hand or from where its row says; a row whose payload has moved is read again.
    async fn load(
        &self,
        mut row: BlockRow,
        mut data: Option<Bytes>,
    ) -> Result<Option<Block>, Error> {
        for _ in 0..MOVES_MAX {
            if let Some(data) = data.take() {
                return block(&row, data).map(Some);
            }
            if let (Some(key), Some(start)) = (&row.object_key, row.object_offset) {
                let start = start.unsigned_abs();
                let end = start + fetched_bytes(&row).unsigned_abs();
                let data = self.blob.range(key, start..end).await?;
                return block(&row, data).map(Some);
            }
            let mut session = self.store.session().await?;
            let (lane, first) = (row.lane_id, row.first_offset);
            let mut again = store::block::covering(&mut session, lane, first, first + 1, 1).await?;
            let Some(found) = again.pop() else {
                return Ok(None);
            };
            row = found;
            data = hot(&mut session, lane, std::slice::from_ref(&row))
                .await?
                .pop()
                .map(|(_, data)| data);
        }
        tracing::error!(
            lane = row.lane_id,
            first_offset = row.first_offset,
            "payload not found where its block says"
        );
        Err(Error::Internal)
    }
}

/// Bytes of a block in an object that are read: of a large message, only the head.
fn fetched_bytes(row: &BlockRow) -> i64 {
    if row.count == 1 {
        row.bytes.min(HEAD_BYTES)
    } else {
        row.bytes
    }
}

/// Payloads of those rows that are in hot slots.
async fn hot(
    session: &mut Session,
    lane: i64,
    rows: &[BlockRow],
) -> Result<Vec<(i64, Bytes)>, Error> {
    let mut slots: Vec<i16> = rows.iter().filter_map(|row| row.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    let mut payloads = Vec::with_capacity(rows.len());
    for slot in slots {
        let of_slot = rows.iter().filter(|row| row.slot == Some(slot));
        let firsts: Vec<i64> = of_slot.map(|row| row.first_offset).collect();
        let read = store::hot_payload::read(session, slot, lane, &firsts).await?;
        payloads.extend(
            read.into_iter()
                .map(|(first, data)| (first, Bytes::from(data))),
        );
    }
    Ok(payloads)
}

fn block(row: &BlockRow, data: Bytes) -> Result<Block, Error> {
    let corrupt = || {
        let row = format!("({}, {})", row.lane_id, row.first_offset);
        Error::from(store::Error::Corrupt {
            table: "block",
            column: "payload",
            row,
        })
    };
    let (data, total) = if row.compressed {
        let raw = zstd::stream::decode_all(&data[..]).map_err(|_| corrupt())?;
        if raw.len() > PAYLOAD_BYTES_MAX {
            return Err(corrupt());
        }
        let total = raw.len() as u64;
        (Bytes::from(raw), total)
    } else {
        (data, row.bytes.unsigned_abs())
    };
    let payload = Payload::parse(data, total).map_err(|_| corrupt())?;
    if payload.len() != usize::try_from(row.count).unwrap_or(0) {
        return Err(corrupt());
    }
    let published_at = Timestamp::from(row.published_at);
    Ok(Block {
        lane: row.lane_id,
        first_offset: row.first_offset,
        published_at,
        payload,
    })
}
