//! Folds the changes of leases of all requests of a turn into one masked change per lease and action. Masks of one lease
//! are disjoint, so the order of changes within the turn does not matter; a request that changes a message that another
//! request of the turn changes otherwise waits for the next turn.

use std::collections::hash_map::Entry;

use foldhash::HashMap;

use crate::engine::turn::gather::{Changed, Settle, SettleEntry};
use crate::store::turn::TurnOutput;
use crate::store::turn::{LeaseAction, LeaseChange};
use crate::store::{LaneId, LeaseId, SubscriptionId};

/// The changes of a turn, and the requests that wait for them.
#[derive(Default)]
pub(super) struct Folded {
    /// Sorted by lane, subscription, lease and action.
    pub(super) changes: Vec<LeaseChange>,
    /// The requests in it.
    pub(super) settles: Vec<Settle>,
    /// Requests for the next turn.
    pub(super) left_over: Vec<Settle>,
}

/// Folds the changes of requests.
pub(super) fn fold(settles: Vec<Settle>) -> Folded {
    let mut folded = Folded::default();
    let settles_only = settles
        .iter()
        .flat_map(|settle| &settle.entries)
        .all(|entry| entry.action == LeaseAction::Settle);
    if settles_only {
        folded.settles = settles;
    } else {
        let mut masks = Masks::default();
        for settle in settles {
            if masks.take(&settle) {
                folded.settles.push(settle);
            } else {
                folded.left_over.push(settle);
            }
        }
    }
    let entries = |settle: &Settle| -> Vec<LeaseChange> {
        let subscription = settle.subscriber.id;
        let max_attempts = if settles_only {
            None
        } else {
            settle.subscriber.settings().attempts_max()
        };
        let entries = settle.entries.iter();
        entries
            .map(|entry| LeaseChange {
                max_attempts,
                ..change(subscription, entry)
            })
            .collect()
    };
    folded.changes = folded.settles.iter().flat_map(entries).collect();
    folded.changes.sort_unstable();
    folded.changes.dedup_by(|next, first| {
        let same = place(next) == place(first);
        if same {
            first.mask |= next.mask;
        }
        same
    });
    folded
}

fn change(subscription: SubscriptionId, entry: &SettleEntry) -> LeaseChange {
    LeaseChange {
        lane: entry.lane,
        subscription,
        lease: entry.lease,
        action: entry.action,
        mask: entry.mask,
        max_attempts: None,
    }
}

/// What changes are sorted and folded by.
fn place(change: &LeaseChange) -> (LaneId, SubscriptionId, LeaseId, LeaseAction) {
    let LeaseChange {
        lane,
        subscription,
        lease,
        action,
        ..
    } = *change;
    (lane, subscription, lease, action)
}

/// The masks of each lease that the requests taken so far change, by action.
#[derive(Default)]
struct Masks {
    leases: HashMap<(LaneId, SubscriptionId, LeaseId), Vec<(LeaseAction, u64)>>,
}

impl Masks {
    /// Takes a request, unless it changes a message that an earlier one changes otherwise.
    fn take(&mut self, settle: &Settle) -> bool {
        let subscription = settle.subscriber.id;
        let fits = settle.entries.iter().all(|entry| {
            let key = (entry.lane, subscription, entry.lease);
            let taken = self.leases.get(&key).into_iter().flatten();
            let mut conflicts = taken.filter(|(action, mask)| {
                if *action == entry.action {
                    // Two requests must not move the same new lease to the dead-letter topic.
                    matches!(action, LeaseAction::SetAside(_))
                } else {
                    mask & entry.mask != 0
                }
            });
            conflicts.next().is_none()
        });
        if fits {
            for entry in &settle.entries {
                let key = (entry.lane, subscription, entry.lease);
                let masks = match self.leases.entry(key) {
                    Entry::Occupied(masks) => masks.into_mut(),
                    Entry::Vacant(masks) => masks.insert(Vec::new()),
                };
                masks.push((entry.action, entry.mask));
            }
        }
        fits
    }
}

/// The messages that changes of a committed turn have changed and that no request has got as its own yet.
pub(super) struct Unshared<'a> {
    changes: &'a [LeaseChange],
    output: &'a TurnOutput,
    bits: Vec<u64>,
}

impl<'a> Unshared<'a> {
    /// All messages that the turn has changed.
    pub(super) fn of(changes: &'a [LeaseChange], output: &'a TurnOutput) -> Self {
        Self {
            changes,
            output,
            bits: output.changed.clone(),
        }
    }

    /// The result of a request. When two requests end a message in one turn, the first one gets it; when both hide it,
    /// both get it.
    pub(super) fn take(&mut self, settle: &Settle) -> Changed {
        let mut changed = Changed {
            at: self.output.at,
            bits: Vec::with_capacity(settle.entries.len()),
            aside: Vec::new(),
        };
        for entry in &settle.entries {
            let wanted = place(&change(settle.subscriber.id, entry));
            let Ok(index) = self.changes.binary_search_by_key(&wanted, place) else {
                changed.bits.push(0);
                continue;
            };
            let mine = self.bits[index] & entry.mask;
            match entry.action {
                LeaseAction::Hide(_) => {}
                LeaseAction::SetAside(_) => {
                    let aside = self.output.aside.iter();
                    let mine = aside.filter(|(change, _)| *change == index);
                    changed.aside.extend(mine.map(|(_, lease)| *lease));
                    self.bits[index] = 0;
                }
                LeaseAction::Settle | LeaseAction::Return(_) | LeaseAction::GiveBack(_) => {
                    self.bits[index] &= !mine;
                }
            }
            changed.bits.push(mine);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::TopicName;
    use tokio::sync::oneshot;

    use super::*;
    use crate::engine::subscriber::Subscriber;
    use crate::store::subscription::SubscriptionRow;

    fn settle(entries: &[(LeaseAction, u64)]) -> Settle {
        let topic: TopicName = "t".parse().unwrap();
        let lane = LaneId::new(1);
        let row = SubscriptionRow::sample();
        Settle {
            subscriber: Arc::new(Subscriber::new(row, Arc::new(topic), vec![lane])),
            entries: entries
                .iter()
                .map(|(action, mask)| SettleEntry {
                    lane,
                    lease: LeaseId::new(5),
                    action: *action,
                    mask: *mask,
                })
                .collect(),
            held_up: 0,
            reply: oneshot::channel().0,
        }
    }

    fn folded(settles: &[&[(LeaseAction, u64)]]) -> (Vec<(LeaseAction, u64)>, usize) {
        let folded = fold(settles.iter().map(|entries| settle(entries)).collect());
        let changes = folded.changes.iter().map(|one| (one.action, one.mask));
        (changes.collect(), folded.left_over.len())
    }

    #[test]
    fn one_lease_has_one_change_per_action() {
        use LeaseAction::{Hide, Settle};
        let settles: [&[_]; 3] = [
            &[(Settle, 0b0001), (Hide(9), 0b0010)],
            &[(Hide(9), 0b0110)],
            &[(Settle, 0b1001)],
        ];
        let changes = vec![(Settle, 0b1001), (Hide(9), 0b0110)];
        assert_eq!(folded(&settles), (changes, 0));
    }

    #[test]
    fn a_message_that_is_changed_in_two_ways_waits_for_the_next_turn() {
        use LeaseAction::{Hide, Return, SetAside, Settle};
        let settles: [&[_]; 2] = [&[(Hide(9), 0b01)], &[(Settle, 0b01)]];
        assert_eq!(folded(&settles), (vec![(Hide(9), 0b01)], 1));
        let settles: [&[_]; 2] = [&[(Return(0), 0b01)], &[(Return(1), 0b11)]];
        assert_eq!(folded(&settles), (vec![(Return(0), 0b01)], 1));
        let settles: [&[_]; 2] = [&[(SetAside(60), 0b01)], &[(SetAside(60), 0b10)]];
        assert_eq!(folded(&settles), (vec![(SetAside(60), 0b01)], 1));
    }
}
