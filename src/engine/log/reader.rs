//! Reading messages: from memory, from the ring of hot payloads, from object storage. A read is bounded in number and
//! bytes, reads ahead, and is done once for all that wait for the same lane; it never touches the connections of turns.
//! Hot and cold reads have bounds of their own: object storage that hangs holds up those who need it, and nobody else.
//! Within each, tenants take turns.

use std::collections::HashMap;
use std::io::Read as _;
use std::ops::Range;
use std::sync::Arc;

use api::Timestamp;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;

use crate::blob::Blob;
use crate::store::block::BlockRow;
use crate::store::{self, Session, Store};
use crate::turnstile::Turnstile;
use crate::engine::error::Error;
use crate::engine::log::block::Block;
use crate::engine::log::cache::{Cache, Origin};
use crate::engine::log::payload::Payload;
use crate::engine::meter::deliveries::{Payer, Tally};

/// Reads of the database at once in one node: each holds a connection of the pool.
const HOT_READS_MAX: usize = 4;
/// Requests to object storage at once in one node.
const COLD_READS_MAX: usize = 8;
/// Of those, for one read.
const COLD_READS_OF_ONE: usize = 4;
/// Lanes are spread over so many locks, each of which lets one read through.
const LANE_LOCKS: usize = 64;
/// Blocks of one read, those read ahead included.
const BLOCKS_MAX: i64 = 64;
/// Bytes (as stored) of one read, and so of one request to object storage, unless its first block alone has more.
const READ_BYTES_MAX: i64 = 8 << 20;
/// A read goes beyond what was asked for up to so many bytes (as stored) in all.
const READ_AHEAD_BYTES: i64 = 512 << 10;
/// Messages looked ahead.
const READ_AHEAD_MESSAGES: i64 = 4_096;
/// A block of one message with more bytes is read only so far: its body is given as an address.
const HEAD_BYTES: i64 = 320 << 10;
/// Bytes of a payload uncompressed; a turn's block is far below, a batch in an object near.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
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

    /// Takes the blocks of a read, from `offsets.start` on; answers where the rest begins.
    fn extend(&mut self, read: Vec<Arc<Block>>, offsets: Range<i64>) -> i64 {
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
    tally: Arc<Tally>,
    hot: Tier,
    cold: Tier,
}

/// How many read from one kind of place at once.
#[derive(Debug)]
struct Tier {
    reads: Turnstile,
    lanes: Vec<Mutex<()>>,
}

impl Tier {
    fn new(reads_max: usize) -> Self {
        let lanes = std::iter::repeat_with(|| Mutex::new(()));
        Self {
            reads: Turnstile::new(reads_max, reads_max),
            lanes: lanes.take(LANE_LOCKS).collect(),
        }
    }

    /// Lets one reader of a lane through; the others then find in memory what it brought.
    fn lane(&self, lane: i64) -> &Mutex<()> {
        &self.lanes[usize::try_from(lane).unwrap_or(0) % LANE_LOCKS]
    }
}

/// What a read found.
enum Found {
    /// Blocks from the wanted offset on, at least one; there may be more behind them.
    Blocks(Vec<Arc<Block>>),
    /// The payload is no longer where its block said.
    Moved,
    /// No such block (any more).
    Nothing,
}

impl Reader {
    /// Bytes of blocks in memory.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// A reader over all places of payloads.
    #[must_use]
    pub fn new(store: Store, (blob, tally): (Arc<Blob>, Arc<Tally>), cache: Arc<Cache>) -> Self {
        Self {
            store,
            blob,
            cache,
            tally,
            hot: Tier::new(HOT_READS_MAX),
            cold: Tier::new(COLD_READS_MAX),
        }
    }

    /// The block that holds `offset` of `lane`; `None` when there is none (any more).
    ///
    /// # Errors
    /// When a place of payloads does not answer.
    pub async fn block(
        &self,
        payer: Payer<'_>,
        lane: i64,
        offset: i64,
    ) -> Result<Option<Arc<Block>>, Error> {
        let offsets = offset..offset + 1;
        let mut found = self.blocks(payer, lane, offsets, usize::MAX).await?;
        Ok(found.blocks.pop())
    }

    /// The blocks that hold `offsets` of `lane`, in order, as many of them as still exist; no more of them than hold about
    /// `bytes_max` in memory, but always the first.
    ///
    /// # Errors
    /// When a place of payloads does not answer.
    pub async fn blocks(
        &self,
        payer: Payer<'_>,
        lane: i64,
        offsets: Range<i64>,
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
            match Box::pin(self.read(payer, lane, at..offsets.end)).await? {
                Found::Blocks(read) => {
                    at = taken.extend(read, at..offsets.end);
                    moves = 0;
                }
                Found::Moved if moves < MOVES_MAX => moves += 1,
                Found::Moved => {
                    tracing::error!(lane, offset = at, "payload not found where its block says");
                    return Err(Error::Internal);
                }
                Found::Nothing => at = offsets.end,
            }
        }
        taken.cut = at < offsets.end;
        Ok(taken)
    }

    /// Those of the blocks that hold `offsets` which need no object storage, for when it does not answer.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn at_hand(&self, lane: i64, offsets: Range<i64>) -> Result<Vec<Arc<Block>>, Error> {
        let (from, until) = (offsets.start, offsets.end);
        let mut session = self.store.session().await?;
        let rows = store::block::covering(&mut session, lane, from, until, BLOCKS_MAX).await?;
        let rows = bounded(rows, until);
        let payloads = hot(&mut session, lane, &rows).await?;
        let at_hand = rows.iter().filter_map(|row| {
            let payload = payloads.iter().find(|(of, _)| *of == row.first_offset);
            let known = self.cache.get(lane, row.first_offset);
            known.or_else(|| Some(Arc::new(block(row, payload?.1.clone()).ok()?)))
        });
        Ok(at_hand.collect())
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

    /// Reads the first blocks of `offsets` that are in the same kind of place, and a little ahead.
    async fn read(&self, payer: Payer<'_>, lane: i64, offsets: Range<i64>) -> Result<Found, Error> {
        let turn = self.hot.lane(lane).lock().await;
        // Another reader of this lane may just have brought it.
        if let Some(block) = self.cache.get(lane, offsets.start) {
            return Ok(Found::Blocks(vec![block]));
        }
        let entered = self.hot.reads.enter(payer.tenant).await;
        let mut session = self.store.session().await?;
        let ahead = offsets.end.saturating_add(READ_AHEAD_MESSAGES);
        let rows =
            store::block::covering(&mut session, lane, offsets.start, ahead, BLOCKS_MAX).await?;
        let rows = bounded(rows, offsets.end);
        let Some(first) = rows.first() else {
            return Ok(Found::Nothing);
        };
        let is_hot = first.slot.is_some();
        let alike = rows.partition_point(|row| row.slot.is_some() == is_hot);
        let rows = &rows[..alike];
        if is_hot {
            let payloads = hot(&mut session, lane, rows).await?;
            let blocks = found(rows, offsets.end, |row| {
                let payload = payloads.iter().find(|(of, _)| *of == row.first_offset);
                payload.map(|(_, data)| data.clone())
            })?;
            return Ok(self.keep(blocks));
        }
        let mut objects: Vec<i64> = rows.iter().filter_map(|row| row.object_id).collect();
        objects.dedup();
        let keys = store::object::keys(&mut session, &objects).await?;
        let keys: HashMap<i64, String> = keys.into_iter().collect();
        drop((session, entered, turn));
        let _turn = self.cold.lane(lane).lock().await;
        if let Some(block) = self.cache.get(lane, offsets.start) {
            return Ok(Found::Blocks(vec![block]));
        }
        Ok(self.keep(self.in_objects(payer, (rows, &keys), offsets.end).await?))
    }

    fn keep(&self, blocks: Vec<Block>) -> Found {
        if blocks.is_empty() {
            return Found::Moved;
        }
        let blocks = blocks.into_iter().map(Arc::new);
        let blocks: Vec<Arc<Block>> = blocks.collect();
        for block in &blocks {
            self.cache.insert(block.clone(), Origin::Read);
        }
        Found::Blocks(blocks)
    }

    /// The blocks of rows that are in object storage, given the keys of the objects, with one request for those that lie side
    /// by side. What fails after others, or beyond `until`, where it was only read ahead, ends the list.
    async fn in_objects(
        &self,
        payer: Payer<'_>,
        (rows, keys): (&[BlockRow], &HashMap<i64, String>),
        until: i64,
    ) -> Result<Vec<Block>, Error> {
        let runs: Vec<&[BlockRow]> = rows.chunk_by(is_next_to).collect();
        let reads = runs
            .iter()
            .map(|run| self.in_object(payer, (run, keys), until));
        let reads: Vec<_> = reads.collect();
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

    /// The blocks of rows that lie side by side in one object.
    async fn in_object(
        &self,
        payer: Payer<'_>,
        (run, keys): (&[BlockRow], &HashMap<i64, String>),
        until: i64,
    ) -> Result<Vec<Block>, Error> {
        let place = |row: &BlockRow| row.object_offset.map(i64::unsigned_abs);
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(Vec::new());
        };
        let key = first.object_id.and_then(|object| keys.get(&object));
        let (Some(key), Some(start), Some(end)) = (key, place(first), place(last)) else {
            return Ok(Vec::new());
        };
        let end = end + read_bytes(last).unsigned_abs();
        let entered = self.cold.reads.enter(payer.tenant).await;
        let data = self.blob.range(payer.tenant, key, start..end).await?;
        self.tally.read_cold(payer, data.len() as u64);
        drop(entered);
        found(run, until, |row| {
            let at = usize::try_from(place(row)? - start).ok()?;
            let bytes = usize::try_from(read_bytes(row)).ok()?;
            // A slice would keep all of the answer in memory for as long as one block of it.
            match run {
                [_] => Some(data.clone()),
                _ => data.get(at..at + bytes).map(Bytes::copy_from_slice),
            }
        })
    }
}

/// The first rows that one read may take: those that hold offsets below `until`, and a little more.
fn bounded(mut rows: Vec<BlockRow>, until: i64) -> Vec<BlockRow> {
    let mut bytes = 0;
    let fit = rows.iter().take_while(|row| {
        let is_first = bytes == 0;
        let is_wanted = row.first_offset < until;
        bytes += read_bytes(row);
        is_first
            || bytes
                <= if is_wanted {
                    READ_BYTES_MAX
                } else {
                    READ_AHEAD_BYTES
                }
    });
    let fit = fit.count();
    rows.truncate(fit);
    rows
}

/// Bytes (as stored) that are read of a block: of a large message in object storage the head.
fn read_bytes(row: &BlockRow) -> i64 {
    // A compressed payload has no head of its own: it is unpacked as a whole.
    if row.count == 1 && !row.compressed && row.object_id.is_some() {
        row.bytes.min(HEAD_BYTES)
    } else {
        row.bytes
    }
}

/// Whether what is read of two blocks lies side by side in one object.
fn is_next_to(one: &BlockRow, next: &BlockRow) -> bool {
    let end = one.object_offset.map(|start| start + read_bytes(one));
    one.object_id == next.object_id && end == next.object_offset
}

/// The blocks of rows, up to the first whose payload is not at hand. One beyond `until` that does not parse ends the list.
fn found(
    rows: &[BlockRow],
    until: i64,
    payload: impl Fn(&BlockRow) -> Option<Bytes>,
) -> Result<Vec<Block>, Error> {
    let mut blocks = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(data) = payload(row) else { break };
        match block(row, data) {
            Ok(block) => blocks.push(block),
            Err(_) if row.first_offset >= until => break,
            Err(error) => return Err(error),
        }
    }
    Ok(blocks)
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
        let mut raw = Vec::new();
        let frame = zstd::stream::read::Decoder::new(&data[..]).map_err(|_| corrupt())?;
        let unpacked = frame.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut raw);
        let total = unpacked.map_err(|_| corrupt())? as u64;
        if total > PAYLOAD_BYTES_MAX {
            return Err(corrupt());
        }
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
