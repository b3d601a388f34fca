//! Pure functions: given whose messages are next, which messages of the waiting leases that were locked, and of those that
//! were just read ahead, go into new leases, and which stay waiting (I2).

use std::collections::{BTreeMap, VecDeque};

use time::OffsetDateTime;

use crate::engine::lease::plan::Changes;
use crate::engine::mask::lowest;
use crate::store::lease::{Lease, LeaseKey};
use crate::store::lease_waiting::WaitingRange;

use crate::engine::order::fair::line::Line;

/// Messages of one customer, at most 64 offsets apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Offset of bit 0.
    pub base: i64,
    /// Which of the offsets.
    pub bits: u64,
}

/// Messages that were ahead of the cursor and have joined the line, not written yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fresh {
    by_slot: BTreeMap<i16, VecDeque<Run>>,
    runs: i64,
}

impl Fresh {
    /// Adds a message; their offsets rise.
    pub fn push(&mut self, slot: i16, offset: i64) {
        let runs = self.by_slot.entry(slot).or_default();
        match runs.back_mut() {
            Some(run) if offset - run.base < 64 => run.bits |= 1 << (offset - run.base),
            _ => {
                runs.push_back(Run {
                    base: offset,
                    bits: 1,
                });
                self.runs += 1;
            }
        }
    }

    /// Runs in all.
    #[must_use]
    pub fn runs(&self) -> i64 {
        self.runs
    }

    fn messages(&self, slot: i16) -> i64 {
        let runs = self.by_slot.get(&slot).into_iter().flatten();
        runs.map(|run| i64::from(run.bits.count_ones())).sum()
    }
}

/// The waiting leases that turns need: of each customer so many messages, and no lease is empty.
#[must_use]
pub fn needed(line: &Line, fresh: &Fresh, turns: &[i16]) -> Vec<(i16, WaitingRange)> {
    let needed = count(turns).into_iter().filter_map(|(slot, turns)| {
        let customer = line.get(slot)?;
        let stored = customer.waiting - fresh.messages(slot);
        let limit = i64::from(turns).min(stored);
        let range = WaitingRange {
            order_key: customer.order_key,
            base: customer.head,
            limit,
        };
        (limit > 0).then_some((slot, range))
    });
    needed.collect()
}

/// Of what was needed, the customers whose leases do not have as many messages.
#[must_use]
pub fn missing(needed: &[(i16, WaitingRange)], stored: &[Lease]) -> Vec<i16> {
    let mut found: BTreeMap<i64, i64> = BTreeMap::new();
    for row in stored {
        let messages = found.entry(row.order_key.unwrap_or_default()).or_default();
        *messages += i64::from(row.pending.count_ones());
    }
    let is_short = |range: &WaitingRange| {
        found.get(&range.order_key).copied().unwrap_or_default() < range.limit
    };
    let short = needed.iter().filter(|(_, range)| is_short(range));
    short.map(|(slot, _)| *slot).collect()
}

/// Takes note of what really waits of a customer in waiting leases.
pub fn correct(line: &mut Line, fresh: &Fresh, slot: i16, (messages, runs): (i64, i64)) {
    if let Some(customer) = line.get_mut(slot) {
        customer.waiting = messages + fresh.messages(slot);
        customer.runs = runs;
        customer.head = 0;
    }
}

fn count(turns: &[i16]) -> BTreeMap<i16, u32> {
    let mut count = BTreeMap::new();
    for slot in turns {
        *count.entry(*slot).or_default() += 1;
    }
    count
}

/// Messages of one waiting lease, or of a run that would become one.
struct Supply {
    stored: Option<Lease>,
    run: Run,
}

/// Who is served, from when until when.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The lane.
    pub lane: i64,
    /// The subscription.
    pub subscription: i64,
    /// When messages began to wait that wait on.
    pub at: OffsetDateTime,
    /// Until when what is handed out is hidden from others.
    pub deadline: OffsetDateTime,
}

impl Service {
    /// A waiting lease that has no id yet.
    fn waiting(&self, run: Run, order_key: i64) -> Lease {
        Lease {
            key: LeaseKey {
                lane: self.lane,
                subscription: self.subscription,
                lease: 0,
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

/// Hands out messages as the turns of each receiver say, oldest first of each customer. Answers what to write, the leases
/// that are handed out first among the inserted rows, and how many these are. The line learns what becomes of its leases.
#[must_use]
pub fn hand_out(
    line: &mut Line,
    (stored, fresh): (Vec<Lease>, Fresh),
    turns: &[&[i16]],
    service: &Service,
) -> (Changes, usize) {
    let mut supplies = supplies(line, stored, fresh);
    let mut changes = Changes::default();
    for (slot, mut wanted) in turns.iter().flat_map(|turns| count(turns)) {
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
        wait_on(line, (slot, supply), service, &mut changes);
    }
    (changes, given)
}

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

/// What is left of a customer's messages waits on.
fn wait_on(
    line: &mut Line,
    (slot, supply): (i16, VecDeque<Supply>),
    service: &Service,
    changes: &mut Changes,
) {
    let Some(customer) = line.get_mut(slot) else {
        return;
    };
    // Stored leases come before fresh runs, and beyond those that were locked there may be others.
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
