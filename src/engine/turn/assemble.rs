//! Builds the arrays of the turn's statement from the gathered requests: `blocks` joins publishes, `fold` folds changes of
//! leases, `claims` makes one claim a subscription. The arrays are sorted in the order in which the statement takes locks
//! (see `store/turn.sql`). The loop calls it.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::subscriber::Subscriber;
use crate::engine::turn::blocks::{self, PendingBlock, TURN_BYTES_MAX};
use crate::engine::turn::claims::{self, PendingClaim};
use crate::engine::turn::fold;
use crate::engine::turn::gather::{Gathered, Publish, Settle};
use crate::engine::turn::{Turns, tenants};
use crate::store::Era;
use crate::store::turn::{LeaseAction, TurnInput};

/// The requests that wait for a turn.
#[derive(Default)]
pub(super) struct Pending {
    /// The epoch of the cache in which the connection of the turn was opened, or a later one.
    pub(super) epoch: u64,
    pub(super) blocks: Vec<PendingBlock>,
    pub(super) settles: Vec<Settle>,
    pub(super) claims: Vec<PendingClaim>,
    /// Subscriptions with an order of their own whose receivers wait.
    pub(super) off_turn: Vec<Arc<Subscriber>>,
    /// Publishes that did not fit, for the next turn.
    pub(super) left_over: Vec<Publish>,
    /// Changes of leases for the next turn.
    pub(super) settle_later: Vec<Settle>,
}

impl Pending {
    /// Whether the turn would do nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.blocks.is_empty() && self.settles.is_empty() && self.claims.is_empty()
    }
}

/// Builds the input of the turn's statement for a database of this era, and the list of requests that wait for its
/// result.
pub(super) fn assemble(gathered: Gathered, turns: &Turns, era: Era) -> (TurnInput, Pending) {
    let mut pending = Pending::default();
    // When all publishes fit into the turn, they stay in the order of arrival.
    let publishes = if gathered.bytes > TURN_BYTES_MAX {
        tenants::alternate(gathered.publishes)
    } else {
        gathered.publishes
    };
    let joined = blocks::join(publishes, era, &mut pending.left_over);
    let folded = fold::fold(gathered.settles);
    let mut subscribers = gathered.subscribers;
    for subscriber in &subscribers {
        subscriber.unmark_queued();
    }
    for block in &joined.pending {
        turns.catalog.of_topic(block.topic_id, |subscriber| {
            if subscriber.has_waiters() {
                subscriber.lanes.prefer(block.lane);
                subscribers.push(subscriber.clone());
            }
        });
    }
    for settle in folded
        .settles
        .iter()
        .filter(|settle| is_due_at_once(settle))
    {
        // The claim of this turn takes these messages.
        settle.subscriber.due.expect(Duration::ZERO);
    }
    subscribers.sort_unstable_by_key(|subscriber| subscriber.id);
    subscribers.dedup_by_key(|subscriber| subscriber.id);
    let off_turn = subscribers.extract_if(.., |subscriber| subscriber.is_fair());
    pending.off_turn = off_turn.collect();
    for subscriber in &subscribers {
        claims::claim(subscriber, &mut pending.claims);
    }
    pending
        .claims
        .sort_unstable_by_key(|claim| (claim.lane, claim.subscriber.id));
    pending.blocks = joined.pending;
    pending.settles = folded.settles;
    pending.settle_later = folded.left_over;
    let input = TurnInput {
        blocks: joined.new,
        keys: joined.keys,
        changes: folded.changes,
        claims: pending.claims.iter().map(PendingClaim::to_claim).collect(),
        slot: turns.slot(),
        strict: false,
    };
    (input, pending)
}

/// Whether it makes messages due again at once.
pub(super) fn is_due_at_once(settle: &Settle) -> bool {
    let mut entries = settle.entries.iter();
    entries.any(|entry| entry.action != LeaseAction::Settle && entry.action.seconds() == 0)
}
