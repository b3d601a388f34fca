//! The cache of blocks in memory, bounded by bytes (I9). Blocks never change, so no entry can be out of date, unless the
//! database loses what was committed (`store::history`): then all are dropped, and a new epoch begins. A block
//! that retention has deleted meanwhile may still be served to a lease that was made before. Blocks that this node
//! wrote and blocks that it read have one half of the cache each, so that a consumer of old messages does not evict the
//! newest ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::HashMap;
use parking_lot::Mutex;

use crate::engine::log::block::Block;
use crate::store::{LaneId, Offset};

/// How a block got into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Published by this node just now.
    Written,
    /// Read from the database or object storage.
    Read,
}

/// The block cache of a node.
#[derive(Debug)]
pub struct Cache {
    written: Mutex<Half>,
    read: Mutex<Half>,
    half_bytes: usize,
    /// Raised when all blocks are dropped.
    epoch: AtomicU64,
}

/// One half of the cache. It evicts the oldest entry first: a log is read in the order of writing, so least recently
/// used would not do better.
#[derive(Debug, Default)]
struct Half {
    lanes: HashMap<LaneId, BTreeMap<Offset, Arc<Block>>>,
    order: VecDeque<(LaneId, Offset)>,
    bytes: usize,
}

impl Half {
    fn get(&self, lane: LaneId, offset: Offset) -> Option<Arc<Block>> {
        let (_, block) = self.lanes.get(&lane)?.range(..=offset).next_back()?;
        (offset < block.end()).then(|| block.clone())
    }

    fn insert(&mut self, block: Arc<Block>, limit: usize) {
        let (lane, first) = (block.lane, block.first_offset);
        self.bytes += block.payload.memory_bytes();
        if let Some(old) = self.lanes.entry(lane).or_default().insert(first, block) {
            self.bytes -= old.payload.memory_bytes();
        } else {
            self.order.push_back((lane, first));
        }
        while self.bytes > limit {
            let Some((lane, first)) = self.order.pop_front() else {
                break;
            };
            let Some(blocks) = self.lanes.get_mut(&lane) else {
                continue;
            };
            if let Some(old) = blocks.remove(&first) {
                self.bytes -= old.payload.memory_bytes();
            }
            if blocks.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }
}

impl Cache {
    /// A cache of at most `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            written: Mutex::default(),
            read: Mutex::default(),
            half_bytes: bytes / 2,
            epoch: AtomicU64::new(0),
        }
    }

    /// The block that holds `offset` of `lane`, if it is in the cache.
    #[must_use]
    pub fn get(&self, lane: LaneId, offset: Offset) -> Option<Arc<Block>> {
        let written = self.written.lock().get(lane, offset);
        written.or_else(|| self.read.lock().get(lane, offset))
    }

    /// The present epoch. Pass it to [`Cache::insert`] with what a connection has read or written that was opened later,
    /// or found to be of the present history later.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Drops all blocks, and refuses those of earlier epochs from now on.
    pub fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for half in [&self.written, &self.read] {
            *half.lock() = Half::default();
        }
    }

    /// Adds a block of this epoch, unless it is so large that it would evict many others.
    pub fn insert(&self, block: Arc<Block>, origin: Origin, epoch: u64) {
        if block.payload.memory_bytes() > self.half_bytes / 4 {
            return;
        }
        let half = match origin {
            Origin::Written => &self.written,
            Origin::Read => &self.read,
        };
        let mut half = half.lock();
        // Under the lock: what is added before a new epoch begins is dropped with it.
        if epoch == self.epoch() {
            half.insert(block, self.half_bytes);
        }
    }

    /// Bytes that one read may add for later reads of its lane: so many that what is read ahead for all lanes in the cache
    /// takes half of the room for it, and is used before it is evicted.
    #[must_use]
    pub fn ahead_bytes(&self) -> usize {
        let lanes = self.read.lock().lanes.len();
        self.half_bytes / 2 / lanes.max(1)
    }

    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.written.lock().bytes + self.read.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::log::payload::{Meta, Payload, Records};
    use crate::store::Era;

    fn block(lane: i64, first_offset: i64, messages: usize) -> Arc<Block> {
        let mut records = Records::default();
        for _ in 0..messages {
            records.push(&Meta::default(), &[b'x'; 1_000]);
        }
        let bytes = bytes::Bytes::from(records.to_payload(Era::FIRST));
        let total = bytes.len() as u64;
        let payload = Payload::parse(bytes, total).unwrap();
        Arc::new(Block {
            lane: LaneId::new(lane),
            first_offset: Offset::new(first_offset),
            published_at: api::Timestamp(0),
            is_cold: false,
            payload,
        })
    }

    fn get(cache: &Cache, lane: i64, offset: i64) -> Option<Arc<Block>> {
        cache.get(LaneId::new(lane), Offset::new(offset))
    }

    #[test]
    fn a_block_is_found_by_any_of_its_offsets_and_no_other() {
        let cache = Cache::new(1 << 20);
        cache.insert(block(1, 10, 5), Origin::Written, 0);
        for (lane, offset) in [(1, 9), (1, 15), (2, 10)] {
            assert!(get(&cache, lane, offset).is_none());
        }
        for offset in 10..15 {
            let found = get(&cache, 1, offset).unwrap();
            assert_eq!(found.first_offset, Offset::new(10));
        }
    }

    #[test]
    fn the_oldest_blocks_are_evicted_when_the_limit_is_reached() {
        let cache = Cache::new(200_000);
        for first in 0..1_000 {
            cache.insert(block(1, first, 1), Origin::Read, 0);
            assert!(cache.bytes() <= 100_000);
        }
        assert!(get(&cache, 1, 0).is_none() && get(&cache, 1, 999).is_some());
    }

    #[test]
    fn what_is_read_ahead_for_all_lanes_takes_half_of_the_room_for_reads() {
        let cache = Cache::new(400_000);
        assert_eq!(cache.ahead_bytes(), 100_000);
        for lane in 0..10 {
            cache.insert(block(lane, 0, 1), Origin::Read, 0);
            cache.insert(block(lane, 0, 1), Origin::Written, 0);
        }
        assert_eq!(cache.ahead_bytes(), 10_000);
    }

    #[test]
    fn what_was_read_before_all_is_forgotten_is_not_remembered_after_it() {
        let cache = Cache::new(1 << 20);
        let epoch = cache.epoch();
        for origin in [Origin::Read, Origin::Written] {
            cache.insert(block(1, 0, 1), origin, epoch);
        }
        cache.forget();
        assert!(get(&cache, 1, 0).is_none() && cache.bytes() == 0);
        cache.insert(block(1, 0, 1), Origin::Read, epoch);
        assert!(get(&cache, 1, 0).is_none());
        cache.insert(block(1, 0, 1), Origin::Read, cache.epoch());
        assert!(get(&cache, 1, 0).is_some());
    }
}
