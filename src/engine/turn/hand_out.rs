//! Sends the results of a turn to the requests that wait for it. The loop calls it after the commit, so everything it
//! hands out is committed (I1, I2).

use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use foldhash::HashMap;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::engine::error::Error;
use crate::engine::log::block::Block;
use crate::engine::log::cache::Origin;
use crate::engine::log::payload::Payload;
use crate::engine::turn::Turns;
use crate::engine::turn::assemble::{Pending, is_due_at_once};
use crate::engine::turn::blocks::PendingBlock;
use crate::engine::turn::claims;
use crate::engine::turn::fold::Unshared;
use crate::engine::turn::gather::{Publish, Queue, Settle};
use crate::store::Offset;
use crate::store::dedup::KnownKey;
use crate::store::turn::{LeaseAction, TurnInput, TurnOutput};

/// Turns in a row that others may hold up until what settles in them fails. Each has waited 200 ms for a lock, and all that
/// is in the turn waits with it.
const HELD_UP_MAX: u32 = 3;

/// When a turn was committed: in the database's time, and in the epoch of the cache.
#[derive(Clone, Copy)]
struct Committed {
    at: OffsetDateTime,
    epoch: u64,
}

/// Sends the results of a committed turn.
pub(super) fn hand_out(
    turns: &Turns,
    queue: &Queue,
    pending: Pending,
    input: &TurnInput,
    output: &TurnOutput,
) {
    let known = output.known.iter().map(|key| (key.key, key.clone()));
    let known: HashMap<Uuid, KnownKey> = known.collect();
    let committed = Committed {
        at: output.at,
        epoch: pending.epoch,
    };
    let mut again = Vec::new();
    for (block, first_offset) in pending.blocks.into_iter().zip(&output.first_offsets) {
        again.extend(reply_publishes(
            turns,
            block,
            *first_offset,
            committed,
            &known,
        ));
    }
    again.extend(pending.left_over);
    queue.put_back(again, pending.settle_later);
    claims::serve(turns, queue, &pending.claims, output);
    let mut unshared = Unshared::of(&input.changes, output);
    for settle in pending.settles {
        let has_scanned = || {
            let mut claims = pending.claims.iter();
            claims.any(|claim| claim.scans_for(&settle.subscriber))
        };
        let due_now = is_due_at_once(&settle) && !has_scanned();
        reply_settle(turns, queue, settle, &mut unshared, due_now);
    }
}

/// Sends the error of a failed turn to all requests in it. What was left over goes into the next turn.
pub(super) fn fail(queue: &Queue, pending: Pending, error: &Error) {
    queue.put_back(pending.left_over, pending.settle_later);
    for (_, publish) in pending.blocks.into_iter().flat_map(|block| block.publishes) {
        let _ = publish.reply.send(Err(error.clone()));
    }
    for settle in pending.settles {
        let _ = settle.reply.send(Err(error.clone()));
    }
    for claim in pending.claims {
        claim.subscriber.fail(error);
    }
}

/// Puts all requests of a turn that has done nothing into the next one. `held_up`: others hold the leases of those that
/// settle, which fail when that has happened to them too often.
pub(super) fn put_back(queue: &Queue, pending: Pending, held_up: Option<&Error>) {
    let blocks = pending.blocks.into_iter();
    let mut publishes: Vec<Publish> = blocks.flat_map(PendingBlock::take_apart).collect();
    publishes.extend(pending.left_over);
    let mut again = Vec::with_capacity(pending.settles.len() + pending.settle_later.len());
    for mut settle in pending.settles {
        settle.held_up += u32::from(held_up.is_some());
        match held_up {
            Some(error) if settle.held_up >= HELD_UP_MAX => {
                let _ = settle.reply.send(Err(error.clone()));
            }
            _ => again.push(settle),
        }
    }
    again.extend(pending.settle_later);
    queue.put_back(publishes, again);
    for claim in pending.claims {
        claim.subscriber.due.expect(Duration::ZERO);
        queue.want(&claim.subscriber);
    }
}

/// Sends the results of the publishes of a block. Returns those that have to be tried again.
fn reply_publishes(
    turns: &Turns,
    block: PendingBlock,
    first_offset: Option<Offset>,
    committed: Committed,
    known: &HashMap<Uuid, KnownKey>,
) -> Vec<Publish> {
    if let Some(first_offset) = first_offset
        && block.count > 0
    {
        cache(turns, &block, first_offset, committed);
        turns.metrics.published.inc_by(u64::from(block.count));
        turns.metrics.flush_messages.observe(f64::from(block.count));
        turns.hints.published(block.topic_id);
    }
    block.reply(first_offset, known)
}

/// Puts a block into the cache, because a block that was just written is read soon.
fn cache(turns: &Turns, block: &PendingBlock, first_offset: Offset, committed: Committed) {
    let Some(raw) = &block.payload else { return };
    if let Ok(payload) = Payload::parse(raw.clone(), raw.len() as u64) {
        let block = Block {
            lane: block.lane,
            first_offset,
            published_at: Timestamp::from(committed.at),
            is_cold: false,
            payload,
        };
        turns
            .cache
            .insert(Arc::new(block), Origin::Written, committed.epoch);
    }
}

/// Sends the result of the changes of one request, and wakes receivers that can now get messages. `due_now`: it has made
/// messages due again, and no claim of this turn has looked for them.
fn reply_settle(
    turns: &Turns,
    queue: &Queue,
    settle: Settle,
    unshared: &mut Unshared<'_>,
    due_now: bool,
) {
    let subscriber = &settle.subscriber;
    let changed = unshared.take(&settle);
    let mut settled = 0;
    for (entry, bits) in settle.entries.iter().zip(&changed.bits) {
        if entry.action == LeaseAction::Settle {
            settled += bits.count_ones();
        } else if *bits != 0 && (due_now || entry.action.seconds() > 0) {
            let seconds = u64::from(entry.action.seconds());
            subscriber.due.expect(Duration::from_secs(seconds));
        }
    }
    let _ = settle.reply.send(Ok(changed));
    turns.metrics.settled.inc_by(u64::from(settled));
    subscriber.in_flight.moved(-i64::from(settled));
    if due_now && subscriber.is_fair() {
        subscriber.due.wake();
    }
    if !subscriber.has_waiters() {
        return;
    }
    if settled > 0 && subscriber.in_flight.release() {
        subscriber.lanes.expect_fresh();
        queue.want(subscriber);
    } else if due_now {
        queue.want(subscriber);
    }
}
