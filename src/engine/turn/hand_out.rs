//! Sends the results of a turn to the requests that wait for it. The loop calls it after the commit, so everything it
//! hands out is committed (I1, I2). Messages of a receiver that has gone away meanwhile are given back through
//! `Returns`.

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
use crate::engine::turn::Turns;
use crate::engine::turn::assemble::{Pending, PendingBlock, PendingClaim};
use crate::engine::turn::gather::{Placed, Queue, Settle};
use crate::store::turn::{Leased, TurnOutput};
use crate::store::{LeaseId, Offset};

/// Sends the results of a committed turn.
pub(super) fn hand_out(turns: &Turns, queue: &Queue, pending: Pending, output: &TurnOutput) {
    queue.put_back(pending.left_over);
    for (block, first_offset) in pending.blocks.into_iter().zip(&output.first_offsets) {
        reply_publishes(turns, block, *first_offset, output.at);
    }
    if !pending.settles.is_empty() {
        let settled = output.settled.iter();
        let mut bits: HashMap<LeaseId, u64> = settled.map(|of| (of.lease, of.bits)).collect();
        for settle in pending.settles {
            reply_settle(turns, queue, settle, &mut bits);
        }
    }
    let mut outcomes = vec![ClaimOutcome::Busy; pending.claims.len()];
    for index in &output.tried {
        outcomes[*index] = ClaimOutcome::Tried;
    }
    for index in &output.gone {
        outcomes[*index] = ClaimOutcome::Gone;
    }
    for (claim, outcome) in pending.claims.iter().zip(outcomes) {
        serve_receivers(turns, queue, claim, outcome, output);
    }
}

/// Outcome of a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClaimOutcome {
    /// The turn locked the cursor and claimed what there was.
    Tried,
    /// Another transaction had the cursor locked.
    Busy,
    /// There is no cursor any more, because the subscription was deleted, usually by another node.
    Gone,
}

/// The leases of a claim. `output.leased` is sorted by lane, subscription and base.
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

/// Sends the error of a failed turn to all requests in it. Publishes that were left over go into the next turn.
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

fn reply_publishes(
    turns: &Turns,
    block: PendingBlock,
    first_offset: Option<Offset>,
    at: OffsetDateTime,
) {
    if let Some(first_offset) = first_offset {
        cache(turns, &block, first_offset, at);
        turns.metrics.published.inc_by(u64::from(block.count));
        turns.metrics.flush_messages.observe(f64::from(block.count));
        turns.hints.published(block.topic_id);
    }
    for (index, reply) in block.replies {
        let first_offset = first_offset.map(|first| first.plus(i64::from(index)));
        let _ = reply.send(Ok(Placed { first_offset }));
    }
}

/// Puts a block into the cache, because a block that was just written is read soon.
fn cache(turns: &Turns, block: &PendingBlock, first_offset: Offset, at: OffsetDateTime) {
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

/// Sends the result of the acks of one request. Each bit counts once: when two requests of a turn ack the same message,
/// the first one gets it.
fn reply_settle(turns: &Turns, queue: &Queue, settle: Settle, bits: &mut HashMap<LeaseId, u64>) {
    let mut messages = 0;
    let settled = settle
        .entries
        .iter()
        .map(|entry| {
            let Some(left) = bits.get_mut(&entry.lease) else {
                return 0;
            };
            let mine = *left & entry.mask;
            *left &= !mine;
            messages += mine.count_ones();
            mine
        })
        .collect();
    let _ = settle.reply.send(Ok(settled));
    turns.metrics.settled.inc_by(u64::from(messages));
    settle.subscriber.in_flight.moved(-i64::from(messages));
    if messages > 0 && settle.subscriber.in_flight.release() && settle.subscriber.has_waiters() {
        settle.subscriber.lanes.expect_fresh();
        queue.want(&settle.subscriber);
    }
}

/// Gives the leases of a claim to the waiting receivers, first come, first served.
fn serve_receivers(
    turns: &Turns,
    queue: &Queue,
    claim: &PendingClaim,
    outcome: ClaimOutcome,
    output: &TurnOutput,
) {
    let subscriber = &claim.subscriber;
    if outcome == ClaimOutcome::Gone {
        turns.catalog.invalidate();
        let name = &subscriber.name;
        return subscriber.fail(&Error::not_found("subscription", name));
    }
    let tried = outcome == ClaimOutcome::Tried;
    let leased = leased(output, claim);
    let got: u32 = leased.iter().map(|leased| leased.count).sum();
    subscriber.in_flight.moved(i64::from(got));
    turns.metrics.claimed.inc_by(u64::from(got));
    let visible = time::Duration::seconds(i64::from(claim.visibility_seconds));
    let deadline = output.at + visible;
    let grants: Vec<Grant> = leased
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
    let unwanted = subscriber.give(claim.visibility_seconds, grants);
    turns.returns.add(subscriber, unwanted);
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
