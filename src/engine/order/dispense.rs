//! Pure functions of a claim: given the slots that the line has picked, which messages go into new leases, and which
//! stay in waiting leases (I2). The messages come from waiting leases that were locked and from blocks that were read
//! ahead.

use std::collections::{BTreeMap, VecDeque};

use time::OffsetDateTime;

use crate::engine::lease::plan::Changes;
use crate::engine::mask::lowest;
use crate::engine::order::fair::line::Line;
use crate::store::lease::{Lease, LeaseKey};
use crate::store::lease_waiting::{WaitingCount, WaitingRange};
use crate::store::{CursorKey, LeaseId, Offset};

/// Messages of one customer, at most 64 offsets apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Offset of bit 0.
    pub base: Offset,
    /// The messages: bit n is the offset `base + n`.
    pub bits: u64,
}

/// Messages that were read ahead of the cursor and have joined the line, but are in no lease yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fresh {
    by_slot: BTreeMap<i16, VecDeque<Run>>,
    runs: i64,
}

impl Fresh {
    /// Adds a message. Offsets must rise from call to call.
    pub fn push(&mut self, slot: i16, offset: Offset) {
        let runs = self.by_slot.entry(slot).or_default();
        match runs.back_mut() {
            Some(run) if offset.since(run.base) < 64 => run.bits |= 1 << offset.since(run.base),
            _ => {
                runs.push_back(Run {
                    base: offset,
                    bits: 1,
                });
                self.runs += 1;
            }
        }
    }

    /// Runs of all slots together.
    #[must_use]
    pub fn runs(&self) -> i64 {
        self.runs
    }

    fn messages(&self, slot: i16) -> i64 {
        self.by_slot
            .get(&slot)
            .into_iter()
            .flatten()
            .map(|run| i64::from(run.bits.count_ones()))
            .sum()
    }
}

/// The waiting leases that hold the picked messages, as a range for each slot. A range may contain more leases than
/// needed: its limit counts leases, and each has at least one message.
#[must_use]
pub fn needed(line: &Line, fresh: &Fresh, slots: &[i16]) -> Vec<(i16, WaitingRange)> {
    let needed = count(slots).into_iter().filter_map(|(slot, messages)| {
        let customer = line.get(slot)?;
        let stored = customer.waiting - fresh.messages(slot);
        let limit = i64::from(messages).min(stored);
        let range = WaitingRange {
            order_key: customer.order_key,
            base: customer.head,
            limit,
        };
        (limit > 0).then_some((slot, range))
    });
    needed.collect()
}

/// The slots whose locked leases have fewer messages than were needed.
#[must_use]
pub fn missing(needed: &[(i16, WaitingRange)], stored: &[Lease]) -> Vec<i16> {
    let mut locked: BTreeMap<i64, i64> = BTreeMap::new();
    for row in stored {
        let messages = locked.entry(row.order_key.unwrap_or_default()).or_default();
        *messages += i64::from(row.pending.count_ones());
    }
    let is_short = |range: &WaitingRange| {
        locked.get(&range.order_key).copied().unwrap_or_default() < range.limit
    };
    needed
        .iter()
        .filter(|(_, range)| is_short(range))
        .map(|(slot, _)| *slot)
        .collect()
}

/// Corrects the line: `stored` is what a customer really has in the database.
pub fn correct(line: &mut Line, fresh: &Fresh, slot: i16, stored: WaitingCount) {
    if let Some(customer) = line.get_mut(slot) {
        customer.waiting = stored.messages + fresh.messages(slot);
        customer.runs = stored.leases;
        customer.head = Offset::START;
    }
}

/// How often each slot occurs.
fn count(slots: &[i16]) -> BTreeMap<i16, u32> {
    let mut count = BTreeMap::new();
    for slot in slots {
        *count.entry(*slot).or_default() += 1;
    }
    count
}

/// Messages to hand out: those left of one waiting lease, or of one fresh run.
struct Supply {
    /// The waiting lease as it is stored; `None` for a fresh run.
    stored: Option<Lease>,
    /// The messages not handed out yet.
    run: Run,
}

/// The lane and subscription of a claim, and its times.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The lane and subscription.
    pub key: CursorKey,
    /// Deadline of new waiting leases: the time of the claim.
    pub at: OffsetDateTime,
    /// Deadline of new leases that are handed out.
    pub deadline: OffsetDateTime,
}

impl Service {
    /// A waiting lease that has no id yet.
    fn waiting(&self, run: Run, order_key: i64) -> Lease {
        Lease {
            key: LeaseKey {
                lane: self.key.lane,
                subscription: self.key.subscription,
                lease: LeaseId::UNASSIGNED,
                part: 0,
            },
            base: run.base,
            pending: run.bits,
            deadline: self.at,
            attempt: 0,
            delayed: false,
            first_failed_at: None,
            last_failed_at: None,
            order_key: Some(order_key),
            waiting: true,
        }
    }
}

/// Hands out the picked messages of each receiver, the oldest of each customer first. Returns what to write, and how
/// many of the inserted rows are handed out: these come first. Updates heads and runs of the line.
#[must_use]
pub fn hand_out(
    line: &mut Line,
    stored: Vec<Lease>,
    fresh: Fresh,
    picks: &[&[i16]],
    service: &Service,
) -> (Changes, usize) {
    let mut supplies = supplies(line, stored, fresh);
    let mut changes = Changes::default();
    for (slot, mut wanted) in picks.iter().flat_map(|slots| count(slots)) {
        let (Some(supply), Some(customer)) = (supplies.get_mut(&slot), line.get_mut(slot)) else {
            continue;
        };
        while wanted > 0
            && let Some(first) = supply.front_mut()
        {
            let bits = lowest(first.run.bits, wanted);
            wanted -= bits.count_ones();
            first.run.bits &= !bits;
            let run = Run { bits, ..first.run };
            changes.insert.push(Lease {
                deadline: service.deadline,
                attempt: 1,
                waiting: false,
                ..service.waiting(run, customer.order_key)
            });
            if first.run.bits == 0 {
                if let Some(row) = &first.stored {
                    changes.delete.push(row.key);
                    customer.runs -= 1;
                    customer.head = row.base;
                }
                supply.pop_front();
            }
        }
    }
    let given = changes.insert.len();
    for (slot, supply) in supplies {
        keep_waiting(line, slot, supply, service, &mut changes);
    }
    (changes, given)
}

/// What there is to hand out by slot: first waiting leases, then fresh runs.
fn supplies(line: &Line, stored: Vec<Lease>, fresh: Fresh) -> BTreeMap<i16, VecDeque<Supply>> {
    let mut supplies: BTreeMap<i16, VecDeque<Supply>> = BTreeMap::new();
    for row in stored {
        let Some(slot) = row.order_key.and_then(|key| line.slot_of(key)) else {
            continue;
        };
        let run = Run {
            base: row.base,
            bits: row.pending,
        };
        let supply = supplies.entry(slot).or_default();
        supply.push_back(Supply {
            stored: Some(row),
            run,
        });
    }
    for (slot, runs) in fresh.by_slot {
        let new = runs.into_iter().map(|run| Supply { stored: None, run });
        supplies.entry(slot).or_default().extend(new);
    }
    supplies
}

/// Writes the messages of a customer that were not handed out as waiting leases.
fn keep_waiting(
    line: &mut Line,
    slot: i16,
    supply: VecDeque<Supply>,
    service: &Service,
    changes: &mut Changes,
) {
    let Some(customer) = line.get_mut(slot) else {
        return;
    };
    // The first run left is the new head, unless it is fresh and waiting leases that were not locked come before it.
    match supply.front() {
        Some(first) if first.stored.is_some() || customer.runs <= 0 => {
            customer.head = first.run.base;
        }
        _ => {}
    }
    for Supply { stored, run } in supply {
        match stored {
            Some(row) if row.pending == run.bits => {}
            Some(row) => changes.update.push(Lease {
                pending: run.bits,
                ..row
            }),
            None => {
                customer.runs += 1;
                let waiting = service.waiting(run, customer.order_key);
                changes.insert.push(waiting);
            }
        }
    }
}
