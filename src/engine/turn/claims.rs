//! Claims of a turn: for each subscription whose receivers wait, how many messages to claim in which lane, and whether
//! to look for messages that are due again. After the commit, the messages go to the receivers.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::engine::error::Error;
use crate::engine::mask::lowest;
use crate::engine::subscriber::{Grant, Group, Subscriber};
use crate::engine::turn::Turns;
use crate::engine::turn::gather::Queue;
use crate::store::lease::Lease;
use crate::store::turn::{Claim, DUE_LEASES_MAX, Leased, Scan, TurnOutput};
use crate::store::{LaneId, SubscriptionId};

/// Messages claimed for one subscription in one turn. Receivers are served as a whole: one that does not fit waits for
/// the next turn, because it must not get fewer messages than there are.
const CLAIM_MESSAGES_MAX: u32 = 8_192;

/// A claim of the turn.
pub(super) struct PendingClaim {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) lane: LaneId,
    group: Group,
    wanted: u32,
    fresh: u32,
    /// The bound of the scan for messages that are due again; `None`: no scan.
    low: Option<Option<OffsetDateTime>>,
    /// Whether it tries the lane for fresh messages. A scan also covers all other lanes.
    tries: bool,
}

/// Outcome of a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The turn locked the cursor and claimed what there was.
    Tried,
    /// Another transaction had the cursor locked.
    Busy,
    /// There is no cursor any more, because the subscription was deleted, usually by another node.
    Gone,
}

/// Appends the claims for the first group of a subscription's receivers. None when they want nothing, when the
/// subscription may hand out nothing more, or when there is no lane to try.
pub(super) fn claim(subscriber: &Arc<Subscriber>, claims: &mut Vec<PendingClaim>) {
    loop {
        let mut wanted = 0_u32;
        let sum = |one: u32| {
            let fits = wanted == 0 || wanted.saturating_add(one) <= CLAIM_MESSAGES_MAX;
            wanted += if fits { one } else { 0 };
            fits
        };
        let Some(group) = subscriber.ask_group(sum) else {
            return;
        };
        let low = subscriber.due.begin_scan();
        if group.due_only && low.is_none() {
            subscriber.dismiss_due_only();
            continue;
        }
        let fresh = if group.due_only {
            0
        } else {
            wanted.min(subscriber.headroom())
        };
        if fresh == 0 && !group.due_only {
            subscriber.in_flight.hold_back();
            if low.is_none() || wanted == 0 {
                subscriber.dismiss();
                return;
            }
        }
        let to_try = subscriber.lanes.to_try();
        for lane in subscriber.lanes.all().iter().copied() {
            let tries = Some(lane) == to_try;
            if tries || low.is_some() {
                claims.push(PendingClaim {
                    subscriber: subscriber.clone(),
                    lane,
                    group,
                    wanted,
                    fresh: if tries { fresh } else { 0 },
                    low,
                    tries,
                });
            }
        }
        return;
    }
}

impl PendingClaim {
    /// Whether it looks for messages of this subscription that are due again.
    pub(super) fn scans_for(&self, subscriber: &Subscriber) -> bool {
        self.low.is_some() && self.subscriber.id == subscriber.id
    }

    /// The claim for the statement.
    pub(super) fn to_claim(&self) -> Claim {
        Claim {
            lane: self.lane,
            subscription: self.subscriber.id,
            wanted: self.wanted,
            fresh: self.fresh,
            visibility_seconds: self.group.visibility_seconds,
            max_attempts: self.subscriber.settings().attempts_max(),
            scan: self.low.map(|low| Scan { low }),
        }
    }
}

/// Gives the messages of all claims to the waiting receivers.
pub(super) fn serve(turns: &Turns, queue: &Queue, claims: &[PendingClaim], output: &TurnOutput) {
    let mut outcomes = vec![Outcome::Busy; claims.len()];
    for index in &output.tried {
        outcomes[*index] = Outcome::Tried;
    }
    for index in &output.gone {
        outcomes[*index] = Outcome::Gone;
    }
    let mut scans: HashMap<SubscriptionId, Found> = HashMap::default();
    let due = claims.iter().enumerate().map(|(index, claim)| {
        let is_gone = outcomes[index] == Outcome::Gone;
        match claim.low.filter(|_| !is_gone) {
            Some(_) => claim.take_due(turns, index, output, scans.entry(claim.subscriber.id)),
            None => Vec::new(),
        }
    });
    let due: Vec<Vec<Grant>> = due.collect();
    let mut ends = Vec::new();
    for ((claim, outcome), due) in claims.iter().zip(outcomes).zip(due) {
        if outcome == Outcome::Gone {
            turns.catalog.invalidate();
            let name = &claim.subscriber.name;
            claim
                .subscriber
                .fail(&Error::not_found("subscription", name));
            continue;
        }
        let got = claim.hand_out(turns, due, output);
        if claim.tries {
            ends.push((claim, got, outcome == Outcome::Tried));
        }
    }
    // After all lanes, because receivers that one lane has nothing for may get messages of another.
    for (claim, got, tried) in ends {
        let subscriber = &claim.subscriber;
        match scans.get(&subscriber.id) {
            // There may be more than the claims have taken: leases whose attempts are used up were in front of others.
            Some(Found::Some) => {
                subscriber.due.expect(Duration::ZERO);
                if subscriber.has_waiters() {
                    queue.want(subscriber);
                }
                continue;
            }
            Some(Found::All) => subscriber.due.none_below(output.at),
            // Other transactions have locked what is due. They may roll back, so a later scan tries again.
            Some(Found::Locked) => subscriber.due.scan_later(),
            None => {}
        }
        claim.end(queue, got, tried);
    }
}

/// How much of what is due again the claims of a subscription have taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// All of it, which may be nothing.
    All,
    /// Nothing, because other transactions have it.
    Locked,
    /// Some of it.
    Some,
}

/// How many messages a claim has got.
#[derive(Clone, Copy)]
struct Got {
    due: u32,
    fresh: u32,
}

impl PendingClaim {
    /// The messages that are due again. Sets leases aside whose attempts are used up.
    fn take_due(
        &self,
        turns: &Turns,
        index: usize,
        output: &TurnOutput,
        found: Entry<'_, SubscriptionId, Found>,
    ) -> Vec<Grant> {
        let start = output.due.partition_point(|(claim, _)| *claim < index);
        let mine = output.due[start..]
            .iter()
            .take_while(|(claim, _)| *claim == index);
        let (spent, due): (Vec<Lease>, Vec<Lease>) = mine
            .map(|(_, lease)| *lease)
            .partition(|lease| lease.delayed);
        let seen = output.seen.get(index).copied().unwrap_or(0);
        let taken = u32::try_from(spent.len() + due.len()).unwrap_or(u32::MAX);
        let messages: u32 = due.iter().map(|lease| lease.pending.count_ones()).sum();
        let here = if seen < self.wanted.min(DUE_LEASES_MAX)
            && seen == taken
            && (seen == 0 || messages < self.wanted)
        {
            Found::All
        } else if taken == 0 {
            Found::Locked
        } else {
            Found::Some
        };
        let found = found.or_insert(here);
        *found = here.max(*found);
        turns.set_aside.add(&self.subscriber, spent);
        due.iter().map(Grant::of).collect()
    }

    /// Gives the messages to the receivers, first come, first served.
    fn hand_out(&self, turns: &Turns, due: Vec<Grant>, output: &TurnOutput) -> Got {
        let (subscriber, group) = (&self.subscriber, self.group);
        let leased = leased(output, self);
        let got = Got {
            due: due.iter().map(Grant::messages).sum(),
            fresh: leased.iter().map(|leased| leased.count).sum(),
        };
        subscriber.in_flight.moved(i64::from(got.fresh));
        turns.metrics.claimed.inc_by(u64::from(got.fresh));
        if got.fresh + got.due > 0 {
            let seconds = u64::from(group.visibility_seconds);
            subscriber.due.expect(Duration::from_secs(seconds));
        }
        let deadline = output.at + time::Duration::seconds(i64::from(group.visibility_seconds));
        let mut grants: Vec<Grant> = leased
            .iter()
            .rev()
            .map(|one| grant(one, deadline))
            .collect();
        grants.extend(due.into_iter().rev());
        let unwanted = subscriber.give(group, grants);
        turns.give_back_later(subscriber, &unwanted);
        got
    }

    /// Dismisses the receivers for which there is nothing, and asks for another claim if there may be more for others.
    fn end(&self, queue: &Queue, got: Got, tried: bool) {
        let subscriber = &self.subscriber;
        if self.group.due_only {
            subscriber.dismiss_due_only();
        }
        let room = self.fresh.min(self.wanted.saturating_sub(got.due));
        let tried = tried || room == 0;
        if got.fresh < room && tried {
            subscriber.lanes.was_empty();
            subscriber.dismiss();
        }
        let may_have_more = !tried || got.fresh == room || subscriber.lanes.has_untried();
        if subscriber.has_waiters() && may_have_more {
            queue.want(subscriber);
        }
    }
}

/// The fresh leases of a claim. `output.leased` is sorted by lane, subscription and base.
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

fn grant(leased: &Leased, deadline: OffsetDateTime) -> Grant {
    Grant {
        lane: leased.lane,
        lease: leased.lease,
        base: leased.base,
        bits: lowest(u64::MAX, leased.count),
        attempt: 1,
        deadline,
        since: Instant::now(),
    }
}
