//! Reads blocks from memory, from the hot slots in the database, or from object storage. A read is bounded in blocks
//! and bytes, and reads ahead. Concurrent readers of one lane share one read. Reads never use the database connections
//! of turns. Hot and cold reads have separate bounds, so object storage that hangs delays only the reads that need it.
//! Within each bound, tenants share the reads fairly (`turnstile`). What a read costs in bytes depends on what this node
//! remembers and reads ahead, so it is not metered here, but where messages are handed out.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use api::Timestamp;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

use crate::blob::Blob;
use crate::engine::error::Error;
use crate::engine::log::block::Block;
use crate::engine::log::cache::{Cache, Origin};
use crate::engine::log::pack::unpack;
use crate::engine::log::payload::Payload;
use crate::store::block::BlockRow;
use crate::store::{self, LaneId, Offset, Session, Store, TenantId};
use crate::turnstile::Turnstile;

/// Concurrent reads of the database on one node. Each holds a connection of the pool.
const HOT_READS_MAX: usize = 4;
/// Concurrent requests to object storage on one node.
const COLD_READS_MAX: usize = 8;
/// Concurrent requests to object storage for one read.
const COLD_READS_OF_ONE: usize = 4;
/// Number of locks that lanes are spread over. Each lock admits one read at a time.
const LANE_LOCKS: usize = 64;
/// Most blocks of one read, those read ahead included.
const BLOCKS_MAX: i64 = 64;
/// Most bytes (as stored) of one read, and so of one request to object storage. The first block may be larger.
const READ_BYTES_MAX: i64 = 8 << 20;
/// A read takes blocks after the wanted ones while it has at most this many bytes (as stored) in all.
const READ_AHEAD_BYTES: i64 = 512 << 10;
/// Messages after the wanted ones that a read may include.
const READ_AHEAD_MESSAGES: i64 = 4_096;
/// A larger uncompressed block of one message in object storage is read only up to this many bytes. The receiver then
/// gets a link to the body instead of the body.
const HEAD_BYTES: i64 = 320 << 10;
/// Most bytes of an uncompressed payload. Blocks of turns are far smaller; batches in objects can come near it.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// How many times in a row a block is looked up again because its payload was moved between two statements.
const MOVES_MAX: u32 = 5;

/// The result of a read.
#[derive(Debug)]
pub struct Blocks {
    /// The blocks, in order.
    pub blocks: Vec<Arc<Block>>,
    /// Bytes that may still be added.
    room: usize,
    /// Whether the read stopped at its limit of bytes, so that more of the wanted offsets may exist.
    pub cut: bool,
}

impl Blocks {
    fn push(&mut self, block: Arc<Block>) {
        self.room = self.room.saturating_sub(block.payload.memory_bytes());
        self.blocks.push(block);
    }

    /// Adds the blocks of a read, from `offsets.start` on; returns the offset at which the rest begins.
    fn extend(&mut self, read: Vec<Arc<Block>>, offsets: Range<Offset>) -> Offset {
        let mut at = offsets.start;
        for block in read {
            if block.first_offset >= offsets.end {
                return offsets.end;
            }
            if at >= offsets.end || self.room == 0 {
                break;
            }
            at = block.end();
            self.push(block);
        }
        at
    }
}

/// Reads blocks for one node.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    blob: Arc<Blob>,
    cache: Arc<Cache>,
    hot: ReadBounds,
    cold: ReadBounds,
}

/// Bounds the reads from one kind of storage (the database or object storage).
#[derive(Debug)]
struct ReadBounds {
    reads: Turnstile,
    lanes: Vec<Mutex<()>>,
}

impl ReadBounds {
    fn new(reads_max: usize) -> Self {
        let lanes = std::iter::repeat_with(|| Mutex::new(()));
        Self {
            reads: Turnstile::new(reads_max, reads_max),
            lanes: lanes.take(LANE_LOCKS).collect(),
        }
    }

    /// The lock that admits one reader of a lane. The others then find its result in the cache.
    fn lane(&self, lane: LaneId) -> &Mutex<()> {
        &self.lanes[usize::try_from(lane.get()).unwrap_or(0) % LANE_LOCKS]
    }
}

/// Outcome of one read.
enum ReadOutcome {
    /// Blocks from the wanted offset on, at least one. More may follow after them.
    Blocks(Vec<Arc<Block>>),
    /// The payload was moved after its block row was read.
    Moved,
    /// There is no such block, or not any more.
    Nothing,
}

impl Reader {
    /// Adds its metrics to a registry that prefixes `cursus`.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(CacheBytes(self.clone())));
    }

    /// A reader of the database, object storage and the cache.
    #[must_use]
    pub fn new(store: Store, blob: Arc<Blob>, cache: Arc<Cache>) -> Self {
        Self {
            store,
            blob,
            cache,
            hot: ReadBounds::new(HOT_READS_MAX),
            cold: ReadBounds::new(COLD_READS_MAX),
        }
    }

    /// The block that holds `offset` of `lane`; `None` when there is none, or not any more.
    ///
    /// # Errors
    /// When the database or object storage does not respond.
    pub async fn block(
        &self,
        tenant: TenantId,
        lane: LaneId,
        offset: Offset,
    ) -> Result<Option<Arc<Block>>, Error> {
        let offsets = offset..offset.plus(1);
        let mut found = self.blocks(tenant, lane, offsets, usize::MAX).await?;
        Ok(found.blocks.pop())
    }

    /// The blocks that hold `offsets` of `lane`, in order, as far as they still exist. The result occupies about
    /// `bytes_max` in memory at most, but always includes the first block.
    ///
    /// # Errors
    /// When the database or object storage does not respond.
    pub async fn blocks(
        &self,
        tenant: TenantId,
        lane: LaneId,
        offsets: Range<Offset>,
        bytes_max: usize,
    ) -> Result<Blocks, Error> {
        let mut taken = Blocks {
            blocks: Vec::new(),
            room: bytes_max.max(1),
            cut: false,
        };
        let (mut at, mut moves) = (offsets.start, 0);
        loop {
            at = self.cached(lane, at..offsets.end, &mut taken);
            if at >= offsets.end || taken.room == 0 {
                break;
            }
            match Box::pin(self.read(tenant, lane, at..offsets.end)).await? {
                ReadOutcome::Blocks(read) => {
                    at = taken.extend(read, at..offsets.end);
                    moves = 0;
                }
                ReadOutcome::Moved if moves < MOVES_MAX => moves += 1,
                ReadOutcome::Moved => {
                    tracing::error!(
                        lane = lane.get(),
                        offset = at.get(),
                        "payload not found where its block points to"
                    );
                    return Err(Error::Internal);
                }
                ReadOutcome::Nothing => at = offsets.end,
            }
        }
        taken.cut = at < offsets.end;
        Ok(taken)
    }

    /// The blocks that hold `offsets` and can be read without object storage, for when it does not respond.
    ///
    /// # Errors
    /// When the database does not respond.
    pub async fn at_hand(
        &self,
        lane: LaneId,
        offsets: Range<Offset>,
    ) -> Result<Vec<Arc<Block>>, Error> {
        let (from, until) = (offsets.start, offsets.end);
        let mut session = self.store.session().await?;
        let rows = store::block::covering(&mut session, lane, from, until, BLOCKS_MAX).await?;
        let rows = bounded(rows, until, 0);
        let payloads = hot_payloads(&mut session, lane, &rows).await?;
        let at_hand = rows.iter().filter_map(|row| {
            let payload = payloads.iter().find(|(of, _)| *of == row.first_offset);
            let cached = self.cache.get(lane, row.first_offset);
            cached.or_else(|| Some(Arc::new(decode_block(row, payload?.1.clone()).ok()?)))
        });
        Ok(at_hand.collect())
    }

    /// Adds blocks from the cache up to the first gap; returns the offset at which the rest begins.
    fn cached(&self, lane: LaneId, offsets: Range<Offset>, taken: &mut Blocks) -> Offset {
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

    /// Reads the first blocks of `offsets` that are in the same kind of storage, and some blocks after them.
    async fn read(
        &self,
        tenant: TenantId,
        lane: LaneId,
        offsets: Range<Offset>,
    ) -> Result<ReadOutcome, Error> {
        let epoch = self.cache.epoch();
        let lane_lock = self.hot.lane(lane).lock().await;
        // Another reader of this lane may have read it meanwhile.
        if let Some(block) = self.cache.get(lane, offsets.start) {
            return Ok(ReadOutcome::Blocks(vec![block]));
        }
        let permit = self.hot.reads.enter(tenant.get()).await;
        let mut session = self.store.session().await?;
        let ahead = offsets.end.plus(READ_AHEAD_MESSAGES);
        let rows =
            store::block::covering(&mut session, lane, offsets.start, ahead, BLOCKS_MAX).await?;
        let rows = bounded(rows, offsets.end, self.cache.ahead_bytes());
        let Some(first) = rows.first() else {
            return Ok(ReadOutcome::Nothing);
        };
        let is_hot = first.slot.is_some();
        let alike = rows.partition_point(|row| row.slot.is_some() == is_hot);
        let rows = &rows[..alike];
        if is_hot {
            let payloads = hot_payloads(&mut session, lane, rows).await?;
            let blocks = decode(rows, offsets.end, |row| {
                let payload = payloads.iter().find(|(of, _)| *of == row.first_offset);
                payload.map(|(_, data)| data.clone())
            })?;
            return Ok(self.insert(blocks, epoch));
        }
        let mut objects: Vec<i64> = rows.iter().filter_map(|row| row.object_id).collect();
        objects.dedup();
        let keys = store::object::keys(&mut session, &objects).await?;
        let keys = keys
            .into_iter()
            .map(|object| (object.object_id, object.key));
        let keys: HashMap<i64, String> = keys.collect();
        drop((session, permit, lane_lock));
        let _lane_lock = self.cold.lane(lane).lock().await;
        if let Some(block) = self.cache.get(lane, offsets.start) {
            return Ok(ReadOutcome::Blocks(vec![block]));
        }
        let blocks = self.in_objects(tenant, rows, &keys, offsets.end).await?;
        Ok(self.insert(blocks, epoch))
    }

    /// Adds blocks to the cache. No block at all means that the first payload was moved.
    fn insert(&self, blocks: Vec<Block>, epoch: u64) -> ReadOutcome {
        if blocks.is_empty() {
            return ReadOutcome::Moved;
        }
        let blocks: Vec<Arc<Block>> = blocks.into_iter().map(Arc::new).collect();
        for block in &blocks {
            self.cache.insert(block.clone(), Origin::Read, epoch);
        }
        ReadOutcome::Blocks(blocks)
    }

    /// Reads the blocks of rows that are in object storage, given the keys of the objects. Adjacent blocks share one
    /// request. A failure ends the list without an error when other blocks were read before it, or when it concerns
    /// only blocks from `until` on, which are read ahead.
    async fn in_objects(
        &self,
        tenant: TenantId,
        rows: &[BlockRow],
        keys: &HashMap<i64, String>,
        until: Offset,
    ) -> Result<Vec<Block>, Error> {
        let runs: Vec<&[BlockRow]> = rows.chunk_by(is_adjacent).collect();
        let reads: Vec<_> = runs
            .iter()
            .map(|run| self.in_object(tenant, run, keys, until))
            .collect();
        let mut reads = stream::iter(reads).buffered(COLD_READS_OF_ONE);
        let mut blocks = Vec::with_capacity(rows.len());
        for run in &runs {
            match reads.next().await.unwrap_or(Ok(Vec::new())) {
                Ok(more) => {
                    let is_whole = more.len() == run.len();
                    blocks.extend(more);
                    if !is_whole {
                        break;
                    }
                }
                Err(_) if !blocks.is_empty() => break,
                Err(_) if run.first().is_some_and(|row| row.first_offset >= until) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }

    /// Reads the blocks of rows that are adjacent in one object, with one request.
    async fn in_object(
        &self,
        tenant: TenantId,
        run: &[BlockRow],
        keys: &HashMap<i64, String>,
        until: Offset,
    ) -> Result<Vec<Block>, Error> {
        let start_of = |row: &BlockRow| row.object_offset.map(i64::unsigned_abs);
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(Vec::new());
        };
        let key = first.object_id.and_then(|object| keys.get(&object));
        let (Some(key), Some(start), Some(end)) = (key, start_of(first), start_of(last)) else {
            return Ok(Vec::new());
        };
        let end = end + read_bytes(last).unsigned_abs();
        let permit = self.cold.reads.enter(tenant.get()).await;
        let data = self.blob.range(tenant.get(), key, start..end).await?;
        drop(permit);
        decode(run, until, |row| {
            let at = usize::try_from(start_of(row)? - start).ok()?;
            let bytes = usize::try_from(read_bytes(row)).ok()?;
            // Copied, because a slice would keep the whole response in memory while one of its blocks is in the cache.
            match run {
                [_] => Some(data.clone()),
                _ => data.get(at..at + bytes).map(Bytes::copy_from_slice),
            }
        })
    }
}

/// Limits rows to what one read may take: rows that hold offsets below `until`, and rows after them that take at most
/// `ahead_bytes` in the cache.
fn bounded(mut rows: Vec<BlockRow>, until: Offset, ahead_bytes: usize) -> Vec<BlockRow> {
    let (mut bytes, mut ahead) = (0, 0);
    let fits = |row: &&BlockRow| {
        let is_first = bytes == 0;
        bytes += read_bytes(row);
        if row.first_offset < until {
            return is_first || bytes <= READ_BYTES_MAX;
        }
        let messages = usize::try_from(row.count).unwrap_or(0);
        let message_bytes = usize::try_from(row.message_bytes).unwrap_or(0);
        ahead += Payload::memory_bytes_of(messages, message_bytes);
        bytes <= READ_AHEAD_BYTES && ahead <= ahead_bytes
    };
    let count = rows.iter().take_while(fits).count();
    rows.truncate(count);
    rows
}

/// Bytes (as stored) to read of a block: all of it, or the head when it is one large message in object storage.
fn read_bytes(row: &BlockRow) -> i64 {
    // A compressed payload can only be unpacked as a whole.
    if row.count == 1 && !row.compressed && row.object_id.is_some() {
        row.bytes.min(HEAD_BYTES)
    } else {
        row.bytes
    }
}

/// Whether the bytes to read of two blocks are adjacent in one object.
fn is_adjacent(one: &BlockRow, next: &BlockRow) -> bool {
    let end = one.object_offset.map(|start| start + read_bytes(one));
    one.object_id == next.object_id && end == next.object_offset
}

/// Decodes the blocks of rows, up to the first row without a payload. A block from `until` on that does not parse ends
/// the list without an error.
fn decode(
    rows: &[BlockRow],
    until: Offset,
    payload: impl Fn(&BlockRow) -> Option<Bytes>,
) -> Result<Vec<Block>, Error> {
    let mut blocks = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(data) = payload(row) else { break };
        match decode_block(row, data) {
            Ok(block) => blocks.push(block),
            Err(_) if row.first_offset >= until => break,
            Err(error) => return Err(error),
        }
    }
    Ok(blocks)
}

/// Reads the payloads of rows that are in hot slots, with their first offsets.
async fn hot_payloads(
    session: &mut Session,
    lane: LaneId,
    rows: &[BlockRow],
) -> Result<Vec<(Offset, Bytes)>, Error> {
    let mut slots: Vec<i16> = rows.iter().filter_map(|row| row.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    let mut payloads = Vec::with_capacity(rows.len());
    for slot in slots {
        let of_slot = rows.iter().filter(|row| row.slot == Some(slot));
        let firsts: Vec<Offset> = of_slot.map(|row| row.first_offset).collect();
        let read = store::hot_payload::read(session, slot, lane, &firsts).await?;
        payloads.extend(
            read.into_iter()
                .map(|(first, data)| (first, Bytes::from(data))),
        );
    }
    Ok(payloads)
}

/// Decodes the block of a row from its stored payload.
fn decode_block(row: &BlockRow, data: Bytes) -> Result<Block, Error> {
    let corrupt = || {
        let row = format!("({}, {})", row.lane_id, row.first_offset);
        Error::from(store::Error::Corrupt {
            table: "block",
            column: "payload",
            row,
        })
    };
    let (data, total) = if row.compressed {
        let raw = unpack(&data, PAYLOAD_BYTES_MAX).ok_or_else(corrupt)?;
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
        is_cold: row.slot.is_none(),
        payload,
    })
}

/// Bytes of cached blocks, read when metrics are collected.
#[derive(Debug)]
struct CacheBytes(Arc<Reader>);

impl Collector for CacheBytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bytes = u32::try_from(self.0.cache.bytes()).unwrap_or(u32::MAX);
        let bytes = ConstGauge::new(bytes);
        let help = "Blocks kept in memory";
        bytes.encode(encoder.encode_descriptor("cache_bytes", help, None, bytes.metric_type())?)
    }
}
