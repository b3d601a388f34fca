//! Joins the publishes of a turn into one block a lane, and takes a block apart again when one of its keys was used
//! before: the publish with that key learns it, and the others go into the next turn.

use std::collections::hash_map::Entry;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use uuid::Uuid;

use crate::engine::log::block::message_id;
use crate::engine::log::pack::hot_block;
use crate::engine::log::payload::Records;
use crate::engine::log::upload::Uploaded;
use crate::engine::meter::measure::Measure;
use crate::engine::turn::gather::{Content, Placed, Publish};
use crate::store::dedup::{KnownKey, NewKey};
use crate::store::turn::NewBlock;
use crate::store::{self, Era, LaneId, Offset, TopicId};

/// Messages of one block.
const BLOCK_MESSAGES_MAX: usize = 4_096;
/// Bytes of one block before compression. A cold read of one message reads the whole block.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Bytes of all blocks of a turn. Node and database each hold the whole statement in memory.
pub(super) const TURN_BYTES_MAX: usize = 8 << 20;

/// A block of the turn, and the publishes that wait for it.
pub(super) struct PendingBlock {
    pub(super) lane: LaneId,
    era: Era,
    pub(super) topic_id: TopicId,
    pub(super) count: u32,
    /// The uncompressed payload, for the cache; `None` when the payload is an object.
    pub(super) payload: Option<Bytes>,
    /// The publishes without their content, each with the index of its first message in the block.
    pub(super) publishes: Vec<(u32, Publish)>,
    /// What it stores: the block may have to be taken apart again.
    stored: Stored,
}

/// What a block stores.
enum Stored {
    Records(Records),
    Object(Uploaded),
}

/// A block that publishes are joined into.
struct OpenBlock {
    content: Content,
    measure: Measure,
    publishes: Vec<(u32, Publish)>,
    /// The keys of the publishes.
    keys: HashSet<Uuid>,
    /// Whether the block is closed: a publish to the lane has to wait, and later ones must not overtake it.
    full: bool,
}

/// Blocks of a turn, in order of lane.
#[derive(Default)]
pub(super) struct Blocks {
    /// The blocks for the statement …
    pub(super) new: Vec<NewBlock>,
    /// … and the publishes that wait for each.
    pub(super) pending: Vec<PendingBlock>,
    /// The keys of all publishes, with the index of the block.
    pub(super) keys: Vec<(usize, NewKey)>,
}

/// Joins publishes into one block a lane, for a database of this era. Publishes that do not fit are left over, in their
/// order.
pub(super) fn join(publishes: Vec<Publish>, era: Era, left_over: &mut Vec<Publish>) -> Blocks {
    let mut lanes: HashMap<LaneId, OpenBlock> = HashMap::default();
    let mut bytes = 0;
    for mut publish in publishes {
        if let Content::Object(object) = &publish.content
            && !object.is_of(era)
        {
            // Its row may be lost.
            let _ = publish.reply.send(Err(store::Error::OtherHistory.into()));
            continue;
        }
        let size = publish.content.queued_bytes();
        match lanes.entry(publish.lane) {
            Entry::Vacant(_) if bytes > 0 && bytes + size > TURN_BYTES_MAX => {
                left_over.push(publish);
            }
            Entry::Vacant(lane) => {
                bytes += size;
                lane.insert(OpenBlock::of(publish));
            }
            Entry::Occupied(mut lane) => {
                let block = lane.get_mut();
                if block.has_key_of(&publish) {
                    // The next turn finds it among the known keys.
                    left_over.push(publish);
                    continue;
                }
                block.full |= block.is_free() && !publish.is_free && !publish.keys.is_empty();
                match (&mut block.content, std::mem::take(&mut publish.content)) {
                    (Content::Records(all), Content::Records(more))
                        if !block.full && fits(all, &more) && bytes + size <= TURN_BYTES_MAX =>
                    {
                        bytes += size;
                        let start = count(all);
                        all.append(&more);
                        block.add(start, publish);
                    }
                    (_, content) => {
                        block.full = true;
                        left_over.push(Publish { content, ..publish });
                    }
                }
            }
        }
    }
    let mut joined: Vec<_> = lanes.into_iter().collect();
    joined.sort_unstable_by_key(|(lane, _)| *lane);
    let mut blocks = Blocks::default();
    for (lane, block) in joined {
        block.close(lane, era, &mut blocks);
    }
    blocks
}

fn fits(all: &Records, more: &Records) -> bool {
    all.len() + more.len() <= BLOCK_MESSAGES_MAX && all.bytes() + more.bytes() <= BLOCK_BYTES_MAX
}

fn count(records: &Records) -> u32 {
    u32::try_from(records.len()).unwrap_or(u32::MAX)
}

impl OpenBlock {
    fn of(mut publish: Publish) -> Self {
        let mut block = Self {
            content: std::mem::take(&mut publish.content),
            measure: Measure::default(),
            publishes: Vec::new(),
            keys: HashSet::default(),
            full: false,
        };
        block.add(0, publish);
        block
    }

    fn add(&mut self, start: u32, publish: Publish) {
        self.measure.add(publish.measure.under(publish.capacity));
        self.keys.extend(publish.keys.iter().map(|key| key.key));
        self.publishes.push((start, publish));
    }

    fn has_key_of(&self, publish: &Publish) -> bool {
        !self.keys.is_empty() && publish.keys.iter().any(|key| self.keys.contains(&key.key))
    }

    /// Whether an earlier turn has found its keys free. Such a block takes no other keys, so that it is stored now.
    fn is_free(&self) -> bool {
        self.publishes.iter().any(|(_, publish)| publish.is_free)
    }

    fn close(self, lane: LaneId, era: Era, blocks: &mut Blocks) {
        let Some((_, first)) = self.publishes.first() else {
            return;
        };
        let topic_id = first.topic_id;
        let (block, payload, stored) = match self.content {
            Content::Records(records) => {
                let (block, raw) = hot_block(lane, era, &records, self.measure);
                (block, Some(raw), Stored::Records(records))
            }
            Content::Object(object) => {
                let block = object.block(lane, self.measure);
                (block, None, Stored::Object(object))
            }
        };
        for (start, publish) in &self.publishes {
            blocks.keys.extend(publish.keys.iter().map(|key| {
                let index = key.index + start;
                let key = NewKey {
                    index,
                    ..key.clone()
                };
                (blocks.new.len(), key)
            }));
        }
        blocks.pending.push(PendingBlock {
            lane,
            era,
            topic_id,
            count: block.count.cast_unsigned(),
            payload,
            publishes: self.publishes,
            stored,
        });
        blocks.new.push(block);
    }
}

impl PendingBlock {
    /// Sends each publish its result. If a key was used before, nothing was stored: publishes with such a key learn it,
    /// and the others are returned, for the next turn.
    pub(super) fn reply(
        self,
        first_offset: Option<Offset>,
        known: &HashMap<Uuid, KnownKey>,
    ) -> Vec<Publish> {
        let of = |publish: &Publish| -> Vec<KnownKey> {
            let keys = publish.keys.iter();
            keys.filter_map(|key| known.get(&key.key).cloned())
                .collect()
        };
        let is_held = !known.is_empty()
            && first_offset.is_none()
            && self.publishes.iter().any(|(_, one)| !of(one).is_empty());
        if !is_held {
            for (start, publish) in self.publishes {
                let placed = first_offset.map_or(Placed::Gone, |first| {
                    let offset = first.plus(i64::from(start));
                    Placed::At(message_id(self.lane, self.era, offset))
                });
                let _ = publish.reply.send(Ok(placed));
            }
            return Vec::new();
        }
        let mut again = Vec::new();
        for mut publish in self.take_apart() {
            let known = of(&publish);
            if known.is_empty() {
                publish.is_free = true;
                again.push(publish);
            } else {
                let _ = publish.reply.send(Ok(Placed::Known(known)));
            }
        }
        again
    }

    /// The publishes with their content, as they were before they were joined.
    pub(super) fn take_apart(self) -> Vec<Publish> {
        let starts = self.publishes.iter().map(|(start, _)| *start as usize);
        let ends: Vec<usize> = starts.skip(1).chain([self.count as usize]).collect();
        let parts = self.publishes.into_iter().zip(ends);
        let whole = parts.map(|((start, publish), end)| {
            let content = match &self.stored {
                Stored::Records(records) => Content::Records(records.part(start as usize..end)),
                // An object is of a single publish.
                Stored::Object(object) => Content::Object(*object),
            };
            Publish { content, ..publish }
        });
        whole.collect()
    }
}
