//! From what gathered to the statement's arrays: publishes are joined into one block per lane and compressed, settles are
//! folded into one mask per lease, receivers become one claim per subscription. Everything is sorted in the order of the
//! locks (see `store/turn.sql`). Pure but for the queues of receivers; the loop calls it.

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
use crate::store::turn::{Claim, Clear, NewBlock, TurnInput};
use crate::engine::turn::gather::{Content, Gathered, Placed, Publish, Settle};
use crate::engine::turn::{Turns, tenants};

/// Messages of one block.
const BLOCK_MESSAGES_MAX: usize = 4_096;
/// Bytes of one block before compression; what a cold read of one message costs at most.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Bytes of all blocks of a turn: the statement is held in memory on both sides.
const TURN_BYTES_MAX: usize = 8 << 20;
/// Messages claimed for one subscription in one turn.
const CLAIM_MESSAGES_MAX: u32 = 1_024;
/// Those who wait for a turn.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) blocks: Vec<PendingBlock>,
    pub(super) settles: Vec<Settle>,
    pub(super) claims: Vec<PendingClaim>,
    /// Subscriptions with an order of their own whose receivers wait.
    pub(super) off_turn: Vec<Arc<Subscriber>>,
    /// Publishes for the next turn.
    pub(super) left_over: Vec<Publish>,
}

/// A block of the turn and those who wait for it.
pub(super) struct PendingBlock {
    pub(super) lane: i64,
    pub(super) topic_id: i64,
    pub(super) count: u32,
    /// The payload uncompressed, for the cache; not of objects.
    pub(super) payload: Option<Bytes>,
    /// Index in the block of the first message of each publish.
    pub(super) replies: Vec<(u32, oneshot::Sender<Result<Placed, Error>>)>,
}

/// A claim of the turn.
pub(super) struct PendingClaim {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) lane: i64,
    pub(super) wanted: u32,
    pub(super) visibility_seconds: u32,
}

impl Pending {
    /// Whether the turn would do nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.blocks.is_empty() && self.settles.is_empty() && self.claims.is_empty()
    }
}

/// A block that is being joined.
struct Joined {
    topic_id: i64,
    content: Content,
    measure: Measure,
    replies: Vec<(u32, oneshot::Sender<Result<Placed, Error>>)>,
    /// Nothing more goes in: a later publish had to wait, and those after it must not overtake it.
    full: bool,
}

/// Makes the turn's input.
pub(super) fn assemble(gathered: Gathered, turns: &Turns) -> (TurnInput, Pending) {
    let mut input = TurnInput {
        slot: turns.slot(),
        ..TurnInput::default()
    };
    let mut pending = Pending {
        settles: gathered.settles,
        ..Pending::default()
    };
    // When all fit into the turn their order is that of arrival, and nothing is spent on another one.
    let publishes = match gathered.bytes > TURN_BYTES_MAX {
        true => tenants::in_turns(gathered.publishes),
        false => gathered.publishes,
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
    input.clears = fold(&pending.settles);
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

/// One block per lane, in order of lane; what does not fit is left over, in order.
fn join(publishes: Vec<Publish>, left_over: &mut Vec<Publish>) -> Vec<(i64, Joined)> {
    let mut lanes: HashMap<i64, Joined> = HashMap::default();
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
                lane.insert(Joined {
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

/// The block as the statement takes it, and the requests that wait for it.
fn close(lane: i64, joined: Joined) -> (NewBlock, PendingBlock) {
    let (block, payload) = match joined.content {
        Content::Records(records) => {
            let (block, raw) = hot_block(lane, &records, joined.measure);
            (block, Some(raw))
        }
        Content::Object(object) => (object.block(lane, joined.measure), None),
    };
    let waiting = PendingBlock {
        lane,
        topic_id: joined.topic_id,
        count: block.count.cast_unsigned(),
        payload,
        replies: joined.replies,
    };
    (block, waiting)
}

/// One clear per lease, in the order of the locks.
fn fold(settles: &[Settle]) -> Vec<Clear> {
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

/// What a subscription's receivers want: the first ones that agree on a visibility timeout.
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
