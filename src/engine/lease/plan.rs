//! Plans of lease changes, as pure functions: locked rows go in, and the rows to write come out. Nothing here awaits,
//! reads a clock or knows SQL, so that property tests can try every order of events against I2 and I3.

use time::OffsetDateTime;

use crate::engine::mask::lowest;
use crate::store::LeaseId;
use crate::store::lease::{Lease, LeaseKey};

/// Rows to write. An inserted row with lease id 0 gets a new id.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Rows without any bit left, and rows that were handed out again as a whole.
    pub delete: Vec<LeaseKey>,
    /// Rows with fewer bits or another deadline.
    pub update: Vec<Lease>,
    /// Rows to insert.
    pub insert: Vec<Lease>,
    /// Messages whose receipts are void from now on, by lease.
    pub lost: Vec<(LeaseKey, u64)>,
}

impl Changes {
    /// Adds the rows of another plan.
    pub fn absorb(&mut self, more: Self) {
        self.delete.extend(more.delete);
        self.update.extend(more.update);
        self.insert.extend(more.insert);
        self.lost.extend(more.lost);
    }

    /// Records that a lease loses these messages, if there are receipts for them.
    fn lose(&mut self, row: &Lease, bits: u64) {
        if !row.delayed && !row.waiting {
            self.lost.push((row.key, bits));
        }
    }
}

/// The time that lies `seconds` after `at`.
#[must_use]
pub fn after(at: OffsetDateTime, seconds: u32) -> OffsetDateTime {
    at + time::Duration::seconds(i64::from(seconds))
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
        changes.lose(row, taken);
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
        changes.lose(row, row.pending);
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
    use crate::store::LaneId;
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
