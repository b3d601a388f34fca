//! From the statement's answer to everybody who waits for it. Only hands out what is committed (I1, I2): the loop calls it
//! after the commit, and a receiver that has gone away meanwhile gives its messages back.

use std::collections::HashMap;
use std::sync::Arc;

use api::Timestamp;
use time::OffsetDateTime;

use crate::engine::error::Error;
use crate::engine::log::block::Block;
use crate::engine::log::cache::Origin;
use crate::engine::log::payload::Payload;
use crate::engine::mask::lowest;
use crate::engine::subscriber::Grant;
use crate::store::turn::{Leased, TurnOutput};
use crate::engine::turn::Turns;
use crate::engine::turn::assemble::{Pending, PendingBlock, PendingClaim};
use crate::engine::turn::gather::{Placed, Queue, Settle};

/// Hands out the answer of a turn.
pub(super) fn hand_out(turns: &Turns, queue: &Queue, pending: Pending, output: &TurnOutput) {
    queue.put_back(pending.left_over);
    for (block, first_offset) in pending.blocks.into_iter().zip(&output.first_offsets) {
        place(turns, block, *first_offset, output.at);
    }
    if !pending.settles.is_empty() {
        let mut bits: HashMap<i64, u64> = output.settled.iter().copied().collect();
        for settle in pending.settles {
            settled(turns, queue, settle, &mut bits);
        }
    }
    let mut outcomes = vec![Claimed::Busy; pending.claims.len()];
    for index in &output.tried {
        outcomes[*index] = Claimed::Tried;
    }
    for index in &output.gone {
        outcomes[*index] = Claimed::Gone;
    }
    for (claim, outcome) in pending.claims.iter().zip(outcomes) {
        let served = (outcome, output.at);
        serve(turns, queue, claim, leased(output, claim), served);
    }
}

/// What became of a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claimed {
    /// The cursor was free.
    Tried,
    /// Another transaction had the cursor.
    Busy,
    /// There is no cursor any more: the subscription was deleted, on another node as a rule.
    Gone,
}

/// The leases of a claim: they are sorted by lane, subscription and base.
fn leased<'a>(output: &'a TurnOutput, claim: &PendingClaim) -> &'a [Leased] {
    let key = (claim.lane, claim.subscriber.id);
    let start = output
        .leased
        .partition_point(|leased| (leased.lane, leased.subscription) < key);
    let end = output
        .leased
        .partition_point(|leased| (leased.lane, leased.subscription) <= key);
    &output.leased[start..end]
}

/// Tells everybody that the turn failed; what was not in it is tried in the next one.
pub(super) fn fail(queue: &Queue, pending: Pending, error: &Error) {
    queue.put_back(pending.left_over);
    for (_, reply) in pending.blocks.into_iter().flat_map(|block| block.replies) {
        let _ = reply.send(Err(error.clone()));
    }
    for settle in pending.settles {
        let _ = settle.reply.send(Err(error.clone()));
    }
    for claim in pending.claims {
        claim.subscriber.fail(error);
    }
}

fn place(turns: &Turns, block: PendingBlock, first_offset: Option<i64>, at: OffsetDateTime) {
    if let Some(first_offset) = first_offset {
        remember(turns, &block, first_offset, at);
        turns.metrics.published.inc_by(u64::from(block.count));
        turns.metrics.flush_messages.observe(f64::from(block.count));
        turns.hints.published(block.topic_id);
    }
    for (index, reply) in block.replies {
        let first_offset = first_offset.map(|first| first + i64::from(index));
        let _ = reply.send(Ok(Placed { first_offset }));
    }
}

/// A block that was just written is read soon.
fn remember(turns: &Turns, block: &PendingBlock, first_offset: i64, at: OffsetDateTime) {
    let Some(raw) = &block.payload else { return };
    if let Ok(payload) = Payload::parse(raw.clone(), raw.len() as u64) {
        let block = Block {
            lane: block.lane,
            first_offset,
            published_at: Timestamp::from(at),
            payload,
        };
        turns.cache.insert(Arc::new(block), Origin::Written);
    }
}

/// Each bit is settled once: of two requests that ack the same message in one turn the first has done it.
fn settled(turns: &Turns, queue: &Queue, settle: Settle, bits: &mut HashMap<i64, u64>) {
    let mut messages = 0;
    let answer = settle.entries.iter().map(|entry| {
        let Some(left) = bits.get_mut(&entry.lease) else {
            return 0;
        };
        let mine = *left & entry.mask;
        *left &= !mine;
        messages += mine.count_ones();
        mine
    });
    let answer = answer.collect();
    let _ = settle.reply.send(Ok(answer));
    turns.metrics.settled.inc_by(u64::from(messages));
    settle.subscriber.in_flight.moved(-i64::from(messages));
    if messages > 0 && settle.subscriber.in_flight.release() && settle.subscriber.has_waiters() {
        settle.subscriber.lanes.expect_fresh();
        queue.want(&settle.subscriber);
    }
}

/// Gives a claim's leases to its receivers, first come first served.
fn serve(
    turns: &Turns,
    queue: &Queue,
    claim: &PendingClaim,
    leased: &[Leased],
    (outcome, at): (Claimed, OffsetDateTime),
) {
    let subscriber = &claim.subscriber;
    if outcome == Claimed::Gone {
        turns.catalog.invalidate();
        let name = &subscriber.name;
        return subscriber.fail(&Error::not_found("subscription", name));
    }
    let tried = outcome == Claimed::Tried;
    let got: u32 = leased.iter().map(|leased| leased.count).sum();
    subscriber.in_flight.moved(i64::from(got));
    turns.metrics.claimed.inc_by(u64::from(got));
    let deadline = at + time::Duration::seconds(i64::from(claim.visibility_seconds));
    let rest: Vec<Grant> = leased
        .iter()
        .rev()
        .map(|leased| grant(leased, deadline))
        .collect();
    if got > 0 {
        subscriber
            .due
            .expect(std::time::Duration::from_secs(u64::from(
                claim.visibility_seconds,
            )));
    }
    let rest = subscriber.give(claim.visibility_seconds, rest);
    turns.returns.add(subscriber, rest);
    if tried && got < claim.wanted {
        subscriber.lanes.was_empty();
        subscriber.dismiss();
    }
    if subscriber.has_waiters() && (!tried || got == claim.wanted || subscriber.lanes.has_untried())
    {
        queue.want(subscriber);
    }
}

fn grant(leased: &Leased, deadline: OffsetDateTime) -> Grant {
    Grant {
        lane: leased.lane,
        lease: leased.lease,
        base: leased.base,
        bits: lowest(u64::MAX, leased.count),
        attempt: 1,
        deadline,
    }
}
