//! The cache of blocks in memory, bounded by bytes (I9). Blocks never change, so no entry can be out of date. A block
//! that retention has deleted meanwhile may still be served to a lease that was made before. Blocks that this node
//! wrote and blocks that it read have one half of the cache each, so that a consumer of old messages does not evict the
//! newest ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

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
        }
    }

    /// The block that holds `offset` of `lane`, if it is in the cache.
    #[must_use]
    pub fn get(&self, lane: LaneId, offset: Offset) -> Option<Arc<Block>> {
        let written = self.written.lock().get(lane, offset);
        written.or_else(|| self.read.lock().get(lane, offset))
    }

    /// Adds a block, unless it is so large that it would evict many others.
    pub fn insert(&self, block: Arc<Block>, origin: Origin) {
        if block.payload.memory_bytes() > self.half_bytes / 4 {
            return;
        }
        let half = match origin {
            Origin::Written => &self.written,
            Origin::Read => &self.read,
        };
        half.lock().insert(block, self.half_bytes);
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

    fn block(lane: i64, first_offset: i64, messages: usize) -> Arc<Block> {
        let mut records = Records::default();
        for _ in 0..messages {
            records.push(&Meta::default(), &[b'x'; 1_000]);
        }
        let bytes = bytes::Bytes::from(records.to_payload());
        let total = bytes.len() as u64;
        let payload = Payload::parse(bytes, total).unwrap();
        Arc::new(Block {
            lane: LaneId::new(lane),
            first_offset: Offset::new(first_offset),
            published_at: api::Timestamp(0),
            payload,
        })
    }

    fn get(cache: &Cache, lane: i64, offset: i64) -> Option<Arc<Block>> {
        cache.get(LaneId::new(lane), Offset::new(offset))
    }

    #[test]
    fn a_block_is_found_by_any_of_its_offsets_and_no_other() {
        let cache = Cache::new(1 << 20);
        cache.insert(block(1, 10, 5), Origin::Written);
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
            cache.insert(block(1, first, 1), Origin::Read);
            assert!(cache.bytes() <= 100_000);
        }
        assert!(get(&cache, 1, 0).is_none() && get(&cache, 1, 999).is_some());
    }
}
