//! Plans of lease changes, as pure functions: locked rows go in, and the rows to write come out. Nothing here awaits,
//! reads a clock or knows SQL, so that property tests can try every order of events against I2 and I3.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::engine::mask::lowest;
use crate::store::lease::{Lease, LeaseKey};
use crate::store::{LaneId, LeaseId};

/// Rows to write. An inserted row with lease id 0 gets a new id.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Rows without any bit left, and rows that were handed out again as a whole.
    pub delete: Vec<LeaseKey>,
    /// Rows with fewer bits or another deadline.
    pub update: Vec<Lease>,
    /// Rows to insert.
    pub insert: Vec<Lease>,
}

impl Changes {
    /// Adds the rows of another plan.
    pub fn absorb(&mut self, more: Self) {
        self.delete.extend(more.delete);
        self.update.extend(more.update);
        self.insert.extend(more.insert);
    }
}

/// A step for one message of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageStep {
    /// Lane.
    pub lane: LaneId,
    /// Lease.
    pub lease: LeaseId,
    /// Its bit.
    pub bit: u8,
    /// What to do with it.
    pub step: Step,
}

/// What can be done with a message of a current lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is done.
    Done,
    /// It is hidden for this many seconds, and its receipt stays valid.
    Hide(u32),
    /// It failed: it is due again after this many seconds, in a new lease, so its receipt is void.
    Return(u32),
    /// It was not handed out after all: it is due again after this many seconds, and this does not count as an attempt.
    GiveBack(u32),
}

/// The time that lies `seconds` after `at`.
#[must_use]
pub fn after(at: OffsetDateTime, seconds: u32) -> OffsetDateTime {
    at + time::Duration::seconds(i64::from(seconds))
}

/// Applies items in order to the locked rows. Returns for each item whether its lease was current (I3), and what to
/// write. `now` must be read after the rows were locked, because retention relies on deadlines that are computed from a
/// recent time.
#[must_use]
pub fn settle(rows: &[Lease], items: &[MessageStep], now: OffsetDateTime) -> (Vec<bool>, Changes) {
    let mut table: BTreeMap<LeaseKey, Lease> = rows.iter().map(|row| (row.key, *row)).collect();
    let mut returned = Vec::new();
    let current = items
        .iter()
        .map(|item| apply(&mut table, &mut returned, item, now))
        .collect();
    (current, difference(rows, table, returned))
}

/// Applies one item; false when its lease is not current. A message is in part 0 of its lease, or in a part of its own
/// that an earlier `Hide` split off.
fn apply(
    table: &mut BTreeMap<LeaseKey, Lease>,
    returned: &mut Vec<Lease>,
    item: &MessageStep,
    now: OffsetDateTime,
) -> bool {
    let mask = 1_u64 << item.bit;
    let split = i16::from(item.bit) + 1;
    let found = table
        .values()
        .find(|row| {
            (row.key.lane, row.key.lease) == (item.lane, item.lease)
                && (row.key.part == 0 || row.key.part == split)
                && row.pending & mask != 0
        })
        .copied();
    let Some(row) = found else { return false };
    match item.step {
        Step::Hide(seconds) if row.pending == mask => {
            table.insert(
                row.key,
                Lease {
                    deadline: after(now, seconds),
                    ..row
                },
            );
            return true;
        }
        Step::Hide(seconds) => {
            let key = LeaseKey {
                part: split,
                ..row.key
            };
            table.insert(
                key,
                Lease {
                    key,
                    pending: mask,
                    deadline: after(now, seconds),
                    ..row
                },
            );
        }
        Step::Return(seconds) => {
            let failed = Lease {
                first_failed_at: row.first_failed_at.or(Some(now)),
                last_failed_at: Some(now),
                ..row
            };
            merge(returned, &detached(failed, mask, after(now, seconds)));
        }
        Step::GiveBack(seconds) => {
            let untried = Lease {
                attempt: row.attempt.saturating_sub(1).max(0),
                ..row
            };
            merge(returned, &detached(untried, mask, after(now, seconds)));
        }
        Step::Done => {}
    }
    table.insert(
        row.key,
        Lease {
            pending: row.pending & !mask,
            ..row
        },
    );
    true
}

/// These messages as a new lease, for which no receipt exists.
fn detached(row: Lease, mask: u64, until: OffsetDateTime) -> Lease {
    Lease {
        key: LeaseKey {
            lease: LeaseId::UNASSIGNED,
            part: 0,
            ..row.key
        },
        pending: mask,
        deadline: until,
        delayed: true,
        ..row
    }
}

/// Adds a returned lease. Messages returned from one lease with the same deadline stay in one row.
fn merge(returned: &mut Vec<Lease>, new: &Lease) {
    let same = returned.iter_mut().find(|old| {
        Lease {
            pending: new.pending,
            ..**old
        } == *new
    });
    match same {
        Some(old) => old.pending |= new.pending,
        None => returned.push(*new),
    }
}

/// What to write so that the locked rows become those of `table`, and `returned` is inserted.
fn difference(rows: &[Lease], table: BTreeMap<LeaseKey, Lease>, returned: Vec<Lease>) -> Changes {
    let mut changes = Changes {
        insert: returned,
        ..Changes::default()
    };
    for (key, row) in table {
        match rows.iter().find(|old| old.key == key) {
            Some(_) if row.pending == 0 => changes.delete.push(key),
            Some(old) if *old != row => changes.update.push(row),
            None if row.pending != 0 => changes.insert.push(row),
            Some(_) | None => {}
        }
    }
    changes
}

/// The receivers of one redelivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taker {
    /// Messages they take at most.
    pub wanted: u32,
    /// Until when they are hidden from others.
    pub deadline: OffsetDateTime,
}

/// Hands out messages of leases past their deadline again, each in a new lease with one more attempt. A row that is
/// handed out in part keeps its other bits and its id, so the receipts of those stay valid. The rows to insert are the
/// leases that the taker gets.
#[must_use]
pub fn redeliver(due: &[Lease], taker: Taker) -> Changes {
    let mut changes = Changes::default();
    let mut wanted = taker.wanted;
    for row in due.iter().filter(|row| row.pending != 0) {
        if wanted == 0 {
            break;
        }
        let taken = lowest(row.pending, wanted);
        wanted -= taken.count_ones();
        let failed_at = if row.delayed {
            row.last_failed_at
        } else {
            Some(row.deadline)
        };
        changes.insert.push(Lease {
            key: LeaseKey {
                lease: LeaseId::UNASSIGNED,
                part: 0,
                ..row.key
            },
            pending: taken,
            deadline: taker.deadline,
            attempt: row.attempt.saturating_add(1),
            delayed: false,
            waiting: false,
            first_failed_at: row.first_failed_at.or(failed_at),
            last_failed_at: failed_at,
            ..*row
        });
        if taken == row.pending {
            changes.delete.push(row.key);
        } else {
            changes.update.push(Lease {
                pending: row.pending & !taken,
                ..*row
            });
        }
    }
    changes
}

/// Shares `wanted` messages among the customers of leases that are due: one message each, round after round. The
/// customer with the earliest deadline comes first; `due` is in order of deadlines. Returns the leases of each customer
/// and its share.
#[must_use]
pub fn share(due: Vec<Lease>, wanted: u32) -> Vec<(Vec<Lease>, u32)> {
    let mut shares: Vec<(Vec<Lease>, u32)> = Vec::new();
    for row in due {
        let same = shares
            .iter_mut()
            .find(|(rows, _)| rows.first().map(|first| first.order_key) == Some(row.order_key));
        match same {
            Some((rows, _)) => rows.push(row),
            None => shares.push((vec![row], 0)),
        }
    }
    let mut unshared: Vec<u32> = shares
        .iter()
        .map(|(rows, _)| rows.iter().map(|row| row.pending.count_ones()).sum())
        .collect();
    let mut wanted = wanted.min(unshared.iter().sum());
    while wanted > 0 {
        for ((_, share), unshared) in shares.iter_mut().zip(&mut unshared) {
            if wanted > 0 && *unshared > 0 {
                *share += 1;
                *unshared -= 1;
                wanted -= 1;
            }
        }
    }
    shares
}

/// Hides leases whose attempts are used up from all receivers until `until`, each as a whole with a new id.
#[must_use]
pub fn set_aside(spent: &[Lease], until: OffsetDateTime) -> Changes {
    let mut changes = Changes::default();
    for row in spent {
        let failed_at = if row.delayed {
            row.last_failed_at
        } else {
            Some(row.deadline)
        };
        changes.delete.push(row.key);
        changes.insert.push(Lease {
            first_failed_at: row.first_failed_at.or(failed_at),
            last_failed_at: failed_at,
            ..detached(*row, row.pending, until)
        });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Offset, SubscriptionId};

    const T0: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn lease(id: i64, base: i64, pending: u64) -> Lease {
        Lease {
            key: LeaseKey {
                lane: LaneId::new(1),
                subscription: SubscriptionId::new(1),
                lease: LeaseId::new(id),
                part: 0,
            },
            base: Offset::new(base),
            pending,
            deadline: T0,
            attempt: 1,
            delayed: false,
            first_failed_at: None,
            last_failed_at: None,
            order_key: None,
            waiting: false,
        }
    }

    fn item(lease: i64, bit: u8, step: Step) -> MessageStep {
        MessageStep {
            lane: LaneId::new(1),
            lease: LeaseId::new(lease),
            bit,
            step,
        }
    }

    #[test]
    fn hiding_one_message_splits_it_off_and_keeps_its_receipt() {
        let hidden = [item(5, 1, Step::Hide(3_600))];
        let (current, changes) = settle(&[lease(5, 100, 0b111)], &hidden, T0);
        assert_eq!(current, [true]);
        assert_eq!(changes.update[0].pending, 0b101);
        let split = changes.insert[0];
        assert_eq!(
            (split.key.lease, split.key.part, split.base, split.pending),
            (LeaseId::new(5), 2, Offset::new(100), 0b010)
        );
        assert_eq!(split.deadline, T0 + time::Duration::HOUR);
        let rows = [changes.update[0], split];
        let (current, changes) =
            settle(&rows, &[item(5, 1, Step::Done), item(5, 1, Step::Done)], T0);
        assert_eq!(current, [true, false]);
        assert_eq!(changes.delete, [split.key]);
    }

    #[test]
    fn messages_returned_together_stay_in_one_lease_without_receipts() {
        let items = [0, 2].map(|bit| item(5, bit, Step::Return(0)));
        let (current, changes) = settle(&[lease(5, 100, 0b111)], &items, T0);
        assert_eq!(current, [true, true]);
        assert_eq!(changes.insert.len(), 1);
        assert_eq!(
            (changes.insert[0].pending, changes.insert[0].key.lease),
            (0b101, LeaseId::UNASSIGNED)
        );
        assert_eq!(changes.update[0].pending, 0b010);
    }

    #[test]
    fn a_lease_handed_out_in_part_keeps_the_rest() {
        let changes = redeliver(
            &[lease(5, 100, 0b1110)],
            Taker {
                wanted: 2,
                deadline: T0,
            },
        );
        assert_eq!(
            (changes.insert[0].pending, changes.insert[0].attempt),
            (0b0110, 2)
        );
        assert_eq!(
            (changes.update[0].pending, changes.update[0].key.lease),
            (0b1000, LeaseId::new(5))
        );
        assert!(changes.delete.is_empty());
    }

    #[test]
    fn customers_of_what_is_due_get_one_message_each_in_turn() {
        let of = |id: i64, customer: i64, pending: u64| Lease {
            order_key: Some(customer),
            ..lease(id, 100 * id, pending)
        };
        let due = vec![of(1, 7, u64::MAX), of(2, 8, 0b11), of(3, 7, 0b1)];
        let shares = |wanted| -> Vec<(usize, u32)> {
            let shares = share(due.clone(), wanted).into_iter();
            shares.map(|(rows, share)| (rows.len(), share)).collect()
        };
        assert_eq!(shares(0), [(2, 0), (1, 0)]);
        assert_eq!(shares(1), [(2, 1), (1, 0)]);
        assert_eq!(shares(3), [(2, 2), (1, 1)]);
        assert_eq!(shares(10), [(2, 8), (1, 2)]);
        assert_eq!(shares(1_000), [(2, 65), (1, 2)]);
    }
}
