//! Builds the arrays of the turn's statement from the gathered requests. Publishes are joined into one compressed block
//! a lane, settles are merged into one mask a lease, and receivers become one claim a subscription. The arrays are
//! sorted in the order in which the statement takes locks (see `store/turn.sql`). The loop calls it.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use tokio::sync::oneshot;

use crate::engine::error::Error;
use crate::engine::log::pack::hot_block;
use crate::engine::log::payload::Records;
use crate::engine::meter::measure::Measure;
use crate::engine::subscriber::Subscriber;
use crate::engine::turn::gather::{Content, Gathered, Placed, Publish, Settle};
use crate::engine::turn::{Turns, tenants};
use crate::store::turn::{Claim, Clear, NewBlock, TurnInput};
use crate::store::{LaneId, TopicId};

/// Messages of one block.
const BLOCK_MESSAGES_MAX: usize = 4_096;
/// Bytes of one block before compression. A cold read of one message reads the whole block.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Bytes of all blocks of a turn. Node and database each hold the whole statement in memory.
const TURN_BYTES_MAX: usize = 8 << 20;
/// Messages claimed for one subscription in one turn.
const CLAIM_MESSAGES_MAX: u32 = 1_024;

/// The requests that wait for a turn.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) blocks: Vec<PendingBlock>,
    pub(super) settles: Vec<Settle>,
    pub(super) claims: Vec<PendingClaim>,
    /// Subscriptions with an order of their own whose receivers wait.
    pub(super) off_turn: Vec<Arc<Subscriber>>,
    /// Publishes that did not fit, for the next turn.
    pub(super) left_over: Vec<Publish>,
}

/// A block of the turn, and the publishes that wait for it.
pub(super) struct PendingBlock {
    pub(super) lane: LaneId,
    pub(super) topic_id: TopicId,
    pub(super) count: u32,
    /// The uncompressed payload, for the cache; `None` when the payload is an object.
    pub(super) payload: Option<Bytes>,
    /// For each publish, the index of its first message in the block, and where its result goes.
    pub(super) replies: Vec<(u32, oneshot::Sender<Result<Placed, Error>>)>,
}

/// A claim of the turn.
pub(super) struct PendingClaim {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) lane: LaneId,
    pub(super) wanted: u32,
    pub(super) visibility_seconds: u32,
}

impl Pending {
    /// Whether the turn would do nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.blocks.is_empty() && self.settles.is_empty() && self.claims.is_empty()
    }
}

/// A block that publishes are joined into.
struct OpenBlock {
    topic_id: TopicId,
    content: Content,
    measure: Measure,
    replies: Vec<(u32, oneshot::Sender<Result<Placed, Error>>)>,
    /// Whether the block is closed: a publish to the lane has to wait, and later ones must not overtake it.
    full: bool,
}

/// Builds the input of the turn's statement, and the list of requests that wait for its result.
pub(super) fn assemble(gathered: Gathered, turns: &Turns) -> (TurnInput, Pending) {
    let mut input = TurnInput {
        slot: turns.slot(),
        ..TurnInput::default()
    };
    let mut pending = Pending {
        settles: gathered.settles,
        ..Pending::default()
    };
    // When all publishes fit into the turn, they stay in the order of arrival.
    let publishes = if gathered.bytes > TURN_BYTES_MAX {
        tenants::alternate(gathered.publishes)
    } else {
        gathered.publishes
    };
    let joined = join(publishes, &mut pending.left_over);
    let mut subscribers = gathered.subscribers;
    for subscriber in &subscribers {
        subscriber.unmark_queued();
    }
    for (lane, block) in &joined {
        turns.catalog.of_topic(block.topic_id, |subscriber| {
            if subscriber.has_waiters() {
                subscriber.lanes.prefer(*lane);
                subscribers.push(subscriber.clone());
            }
        });
    }
    for (lane, block) in joined {
        let (new, waiting) = close(lane, block);
        input.blocks.push(new);
        pending.blocks.push(waiting);
    }
    input.clears = merge(&pending.settles);
    subscribers.sort_unstable_by_key(|subscriber| subscriber.id);
    subscribers.dedup_by_key(|subscriber| subscriber.id);
    let off_turn = subscribers.extract_if(.., |subscriber| subscriber.is_fair());
    pending.off_turn = off_turn.collect();
    pending.claims = subscribers.into_iter().filter_map(claim).collect();
    pending
        .claims
        .sort_unstable_by_key(|claim| (claim.lane, claim.subscriber.id));
    input.claims = pending
        .claims
        .iter()
        .map(|claim| Claim {
            lane: claim.lane,
            subscription: claim.subscriber.id,
            wanted: claim.wanted.cast_signed(),
            visibility_seconds: claim.visibility_seconds.cast_signed(),
        })
        .collect();
    (input, pending)
}

/// Joins publishes into one block a lane, in order of lane. Publishes that do not fit are left over, in their order.
fn join(publishes: Vec<Publish>, left_over: &mut Vec<Publish>) -> Vec<(LaneId, OpenBlock)> {
    let mut lanes: HashMap<LaneId, OpenBlock> = HashMap::default();
    let mut bytes = 0;
    for publish in publishes {
        let size = publish.content.queued_bytes();
        let measure = publish.measure.under(publish.capacity);
        match lanes.entry(publish.lane) {
            Entry::Vacant(_) if bytes > 0 && bytes + size > TURN_BYTES_MAX => {
                left_over.push(publish)
            }
            Entry::Vacant(lane) => {
                bytes += size;
                lane.insert(OpenBlock {
                    topic_id: publish.topic_id,
                    content: publish.content,
                    measure,
                    replies: vec![(0, publish.reply)],
                    full: false,
                });
            }
            Entry::Occupied(mut lane) => {
                let block = lane.get_mut();
                match (&mut block.content, publish.content) {
                    (Content::Records(all), Content::Records(more))
                        if !block.full && fits(all, &more) && bytes + size <= TURN_BYTES_MAX =>
                    {
                        bytes += size;
                        block.replies.push((count(all), publish.reply));
                        all.append(&more);
                        block.measure.add(measure);
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
    joined
}

fn fits(all: &Records, more: &Records) -> bool {
    all.len() + more.len() <= BLOCK_MESSAGES_MAX && all.bytes() + more.bytes() <= BLOCK_BYTES_MAX
}

fn count(records: &Records) -> u32 {
    u32::try_from(records.len()).unwrap_or(u32::MAX)
}

/// The block for the statement, and the publishes that wait for it.
fn close(lane: LaneId, open: OpenBlock) -> (NewBlock, PendingBlock) {
    let (block, payload) = match open.content {
        Content::Records(records) => {
            let (block, raw) = hot_block(lane, &records, open.measure);
            (block, Some(raw))
        }
        Content::Object(object) => (object.block(lane, open.measure), None),
    };
    let waiting = PendingBlock {
        lane,
        topic_id: open.topic_id,
        count: block.count.cast_unsigned(),
        payload,
        replies: open.replies,
    };
    (block, waiting)
}

/// Merges the acks into one mask a lease, in the order of the locks.
fn merge(settles: &[Settle]) -> Vec<Clear> {
    let mut clears: Vec<Clear> = Vec::new();
    for settle in settles {
        clears.extend(settle.entries.iter().map(|entry| Clear {
            lane: entry.lane,
            subscription: settle.subscriber.id,
            lease: entry.lease,
            mask: entry.mask,
        }));
    }
    clears.sort_unstable_by_key(|clear| (clear.lane, clear.subscription, clear.lease));
    clears.dedup_by(|next, first| {
        let same = (next.lane, next.subscription, next.lease)
            == (first.lane, first.subscription, first.lease);
        if same {
            first.mask |= next.mask;
        }
        same
    });
    clears
}

/// The claim for a subscription's receivers: for the first ones that have the same visibility timeout. `None` when they
/// want nothing, when the subscription may hand out nothing more, or when there is no lane to try.
fn claim(subscriber: Arc<Subscriber>) -> Option<PendingClaim> {
    let headroom = subscriber.headroom().min(CLAIM_MESSAGES_MAX);
    let mut wanted = 0_u32;
    let visibility_seconds = subscriber.ask_alike(|one| wanted = wanted.saturating_add(one))?;
    let wanted = wanted.min(headroom);
    if wanted == 0 {
        subscriber.in_flight.hold_back();
        subscriber.dismiss();
        return None;
    }
    let lane = subscriber.lanes.to_try()?;
    Some(PendingClaim {
        subscriber,
        lane,
        wanted,
        visibility_seconds,
    })
}
