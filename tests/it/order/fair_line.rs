//! The fair order as a pure structure under random orders of events: shares follow the weights, no customer waits
//! longer than by its share, and each message is handed out once (I2), also when messages are taken without the line.

use std::collections::{BTreeMap, BTreeSet};

use api::limits::FAIRNESS_KEYS_MAX;
use cursus::engine::lease::plan::Changes;
use cursus::engine::mask::lowest;
use cursus::engine::order::dispense::{self, Fresh, Service};
use cursus::engine::order::fair::line::{Line, NO_KEY, OTHERS, SCALE, Weights};
use cursus::store::lease::{Lease, LeaseKey};
use cursus::store::lease_waiting::{WaitingCount, WaitingRange};
use cursus::store::{CursorKey, LaneId, LeaseId, Offset, SubscriptionId};
use proptest::collection::vec;
use proptest::prelude::*;
use time::{Duration, OffsetDateTime};

const T0: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn name(customer: usize) -> String {
    format!("c{customer}")
}

fn weights(of: &[i16]) -> Weights {
    let named: Vec<(String, i16)> = of.iter().enumerate().map(|(n, w)| (name(n), *w)).collect();
    Weights::of(named.iter().map(|(name, weight)| (name, weight)))
}

/// A line with this many messages of each customer, added one customer after the other, and their slots.
fn line(of: &[usize]) -> (Line, Vec<i16>) {
    let mut line = Line::default();
    let slots = of.iter().enumerate().map(|(customer, messages)| {
        let joined = (0..*messages).map(|_| line.join(Some(&name(customer)), T0));
        joined.last().unwrap_or(NO_KEY)
    });
    let slots = slots.collect();
    (line, slots)
}

fn cost(weight: i16) -> i64 {
    SCALE / i64::from(weight)
}

#[test]
fn customers_with_the_same_weight_take_turns_within_one_receive() {
    let (line, slots) = line(&[1_000, 1, 1, 5]);
    let turns = line.pick(8, &Weights::default());
    let [a, b, c, d] = slots[..] else {
        unreachable!("four customers")
    };
    assert_eq!(turns, [a, b, c, d, a, d, a, d]);
}

#[test]
fn a_weight_of_three_gets_three_of_four() {
    let (mut line, slots) = line(&[400, 400]);
    let weights = weights(&[3, 1]);
    for _ in 0..100 {
        let turns = line.pick(4, &weights);
        assert_eq!(turns.iter().filter(|slot| **slot == slots[0]).count(), 3);
        line.served(&turns, &weights, T0);
    }
}

#[test]
fn a_customer_that_was_served_alone_owes_nothing_to_one_that_comes_later() {
    let (mut line, slots) = line(&[10_000]);
    let weights = Weights::default();
    for _ in 0..90 {
        let turns = line.pick(100, &weights);
        line.served(&turns, &weights, T0);
    }
    let late = line.join(Some("late"), T0);
    for _ in 0..20 {
        line.join(Some("late"), T0);
    }
    let turns = line.pick(10, &weights);
    assert_eq!(turns.iter().filter(|slot| **slot == late).count(), 5);
    assert_eq!(turns.iter().filter(|slot| **slot == slots[0]).count(), 5);
}

#[test]
fn customers_beyond_the_limit_share_one_place() {
    let mut line = Line::default();
    let slots: BTreeSet<i16> = (0..FAIRNESS_KEYS_MAX)
        .map(|n| line.join(Some(&name(n)), T0))
        .collect();
    assert_eq!(slots.len(), FAIRNESS_KEYS_MAX);
    assert_eq!(line.join(Some("beyond"), T0), OTHERS);
    assert_eq!(line.join(Some("beyond too"), T0), OTHERS);
    assert_eq!(line.join(None, T0), NO_KEY);
    assert_eq!(line.join(Some(&name(7)), T0), *slots.iter().nth(7).unwrap());
    assert_eq!(line.get(OTHERS).map(|one| one.waiting), Some(2));
    // When they have left the line there is room again.
    let turns = line.pick(u32::MAX, &Weights::default());
    line.served(&turns, &Weights::default(), T0);
    line.served(&[], &Weights::default(), T0 + Duration::HOUR);
    assert_eq!(line, Line::of(line.to_row()));
    assert_ne!(line.join(Some("beyond"), T0), OTHERS);
}

#[test]
fn leases_have_the_key_of_their_customer_whatever_its_slot_is() {
    let keys = |names: &[&str]| {
        let mut line = Line::default();
        let slots = names.iter().map(|name| line.join(Some(name), T0));
        let slots: Vec<i16> = slots.collect();
        slots
            .into_iter()
            .map(move |slot| {
                let key = line.get(slot).unwrap().order_key;
                assert_eq!(line.slot_of(key), Some(slot));
                key
            })
            .collect::<Vec<_>>()
    };
    let (one, other) = (keys(&["a", "b"]), keys(&["b", "a"]));
    assert_eq!([one[0], one[1]], [other[1], other[0]]);
    assert!(one[0] != one[1] && one.iter().all(|key| *key > i64::from(OTHERS)));
    let mut line = Line::default();
    line.join(None, T0);
    assert_eq!(line.get(NO_KEY).unwrap().order_key, i64::from(NO_KEY));
}

/// Waiting leases, a line over them, and a record of the messages that were handed out or taken.
struct World {
    line: Line,
    weights: Weights,
    /// Waiting leases by order key and base.
    rows: BTreeMap<(i64, Offset), Lease>,
    next_id: i64,
    published: Vec<(i64, Option<String>)>,
    cursor: usize,
    given: Vec<i64>,
    /// Messages taken without the line: by retention, or by nodes that do not know the setting.
    taken: BTreeSet<i64>,
}

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    Publish(Vec<u8>),
    Claim(Vec<u32>, usize),
    /// A node that does not know the setting takes messages from the lowest waiting leases.
    Steal(u32),
    /// Retention deletes messages: this many offsets from the lowest waiting lease on.
    Trim(usize),
    Weigh(Vec<i16>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => vec(0..6_u8, 1..200).prop_map(Event::Publish),
        6 => (vec(0..40_u32, 1..4), 0..150_usize).prop_map(|(asks, ahead)| Event::Claim(asks, ahead)),
        1 => (1..100_u32).prop_map(Event::Steal),
        1 => (0..120_usize).prop_map(Event::Trim),
        1 => vec(1..=100_i16, 5).prop_map(Event::Weigh),
    ]
}

fn offsets(row: &Lease) -> impl Iterator<Item = i64> {
    let (base, pending) = (row.base.get(), row.pending);
    (0..64).filter_map(move |bit| (pending >> bit & 1 == 1).then_some(base + bit))
}

impl World {
    fn new() -> Self {
        Self {
            line: Line::default(),
            weights: Weights::default(),
            rows: BTreeMap::new(),
            next_id: 1,
            published: Vec::new(),
            cursor: 0,
            given: Vec::new(),
            taken: BTreeSet::new(),
        }
    }

    fn publish(&mut self, customers: &[u8]) {
        for customer in customers {
            let name = (*customer < 5).then(|| name(usize::from(*customer)));
            let offset = i64::try_from(self.published.len()).unwrap();
            self.published.push((offset, name));
        }
    }

    fn stored(&self, ranges: &[(i16, WaitingRange)]) -> Vec<Lease> {
        let of_range = |range: &WaitingRange| -> Vec<Lease> {
            let (key, base) = (range.order_key, range.base);
            let rows = self.rows.range((key, base)..=(key, Offset::MAX));
            let limit = usize::try_from(range.limit).unwrap();
            rows.map(|(_, row)| *row).take(limit).collect()
        };
        ranges
            .iter()
            .flat_map(|(_, range)| of_range(range))
            .collect()
    }

    /// Does what a claim does, with the leases in memory.
    fn claim(&mut self, asks: &[u32], ahead: usize) -> usize {
        let mut fresh = Fresh::default();
        let end = (self.cursor + ahead).min(self.published.len());
        for (offset, name) in &self.published[self.cursor..end] {
            let slot = self.line.join(name.as_deref(), T0);
            fresh.push(slot, Offset::new(*offset));
        }
        self.cursor = end;
        let wanted = asks.iter().sum();
        let (turns, stored) = loop {
            let turns = self.line.pick(wanted, &self.weights);
            let needed = dispense::needed(&self.line, &fresh, &turns);
            let stored = self.stored(&needed);
            let missing = dispense::missing(&needed, &stored);
            if missing.is_empty() {
                break (turns, stored);
            }
            for slot in missing {
                let key = self.line.get(slot).unwrap().order_key;
                let all = self.rows.range((key, Offset::START)..=(key, Offset::MAX));
                let all: Vec<&Lease> = all.map(|(_, row)| row).collect();
                let messages: i64 = all
                    .iter()
                    .map(|row| i64::from(row.pending.count_ones()))
                    .sum();
                let counted = WaitingCount {
                    messages,
                    leases: i64::try_from(all.len()).unwrap(),
                };
                dispense::correct(&mut self.line, &fresh, slot, counted);
            }
        };
        let mut rest = &turns[..];
        let of_each: Vec<&[i16]> = asks
            .iter()
            .map(|ask| {
                let (own, others) = rest.split_at((*ask as usize).min(rest.len()));
                rest = others;
                own
            })
            .collect();
        let service = Service {
            key: CursorKey {
                lane: LaneId::new(1),
                subscription: SubscriptionId::new(1),
            },
            at: T0,
            deadline: T0 + Duration::MINUTE,
        };
        let (changes, given) =
            dispense::hand_out(&mut self.line, stored, fresh, &of_each, &service);
        self.line.served(&turns, &self.weights, T0);
        self.line = Line::of(self.line.to_row());
        self.write(changes, given);
        turns.len()
    }

    fn write(&mut self, changes: Changes, given: usize) {
        let key = |row: &Lease| (row.order_key.unwrap(), row.base);
        for LeaseKey { lease, .. } in changes.delete {
            let before = self.rows.len();
            self.rows.retain(|_, row| row.key.lease != lease);
            assert_eq!(self.rows.len(), before - 1, "{lease} was not there");
        }
        for row in changes.update {
            assert!(self.rows.insert(key(&row), row).is_some(), "{row:?}");
        }
        let (handed_out, waiting) = changes.insert.split_at(given);
        for row in handed_out {
            assert_eq!(row.key.lease, LeaseId::UNASSIGNED);
            assert_eq!((row.attempt, row.waiting), (1, false));
            assert_eq!(row.deadline, T0 + Duration::MINUTE);
            self.given.extend(offsets(row));
        }
        for row in waiting {
            assert_eq!((row.attempt, row.deadline, row.waiting), (0, T0, true));
            let mut stored = *row;
            stored.key.lease = LeaseId::new(self.next_id);
            self.next_id += 1;
            assert!(self.rows.insert(key(row), stored).is_none(), "{row:?}");
        }
    }

    fn steal(&mut self, mut messages: u32) {
        let ids: Vec<(i64, Offset)> = self.rows.keys().copied().collect();
        for id in ids {
            let row = self.rows.get_mut(&id).unwrap();
            let bits = lowest(row.pending, messages);
            let gone = Lease {
                pending: bits,
                ..*row
            };
            self.taken.extend(offsets(&gone));
            messages -= bits.count_ones();
            row.pending &= !bits;
            if row.pending == 0 {
                self.rows.remove(&id);
            }
        }
    }

    fn trim(&mut self, by: usize) {
        let lowest = self.rows.values().map(|row| row.base.get()).min();
        let cut = lowest.unwrap_or(0) + i64::try_from(by).unwrap();
        for row in self.rows.values_mut() {
            let below = offsets(row).filter(|offset| *offset < cut);
            let below: Vec<i64> = below.collect();
            for offset in below {
                row.pending &= !(1 << (offset - row.base.get()));
                self.taken.insert(offset);
            }
        }
        self.rows.retain(|_, row| row.pending != 0);
        let cut = usize::try_from(cut).unwrap().min(self.published.len());
        let passed = self.cursor.max(cut);
        self.taken.extend(
            self.published[self.cursor..passed]
                .iter()
                .map(|(at, _)| *at),
        );
        self.cursor = passed;
    }

    /// Each message is in one place: ahead of the cursor, waiting, handed out, or taken. The line counts all waiting
    /// messages, and none has an offset below the head of its customer.
    fn check(&self) {
        let mut all: Vec<i64> = self.published[self.cursor..]
            .iter()
            .map(|(at, _)| *at)
            .collect();
        all.extend(self.rows.values().flat_map(offsets));
        all.extend(&self.given);
        all.extend(&self.taken);
        all.sort_unstable();
        let expected: Vec<i64> = self.published.iter().map(|(at, _)| *at).collect();
        assert_eq!(all, expected);
        let mut waiting: BTreeMap<i16, (i64, i64)> = BTreeMap::new();
        for ((order_key, _), row) in &self.rows {
            let slot = self.line.slot_of(*order_key).unwrap();
            let customer = self.line.get(slot).unwrap();
            assert!(customer.head <= row.base, "{customer:?} {row:?}");
            let of_slot = waiting.entry(slot).or_default();
            of_slot.0 += i64::from(row.pending.count_ones());
            of_slot.1 += 1;
            for offset in offsets(row) {
                let (_, name) = &self.published[usize::try_from(offset).unwrap()];
                assert_eq!(&customer.name, name, "{offset}");
            }
        }
        for (slot, (messages, runs)) in waiting {
            let customer = self.line.get(slot).unwrap();
            assert!(
                customer.waiting >= messages && customer.runs >= runs,
                "{customer:?} has {messages} in {runs}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goyal, Vin and Cheng, theorem 1: while two customers wait, the difference of what they got by weight is at most
    /// one message of each.
    #[test]
    fn shares_follow_the_weights(of in vec(1..=100_i16, 2..6), asks in vec(1..60_u32, 1..60)) {
        let (mut line, slots) = line(&vec![10_000; of.len()]);
        let weights = weights(&of);
        let mut served = vec![0; of.len()];
        for ask in asks {
            let turns = line.pick(ask, &weights);
            prop_assert_eq!(turns.len(), ask as usize);
            for slot in &turns {
                let customer = slots.iter().position(|own| own == slot).unwrap();
                served[customer] += cost(of[customer]);
                for (other, cost_of) in of.iter().map(|weight| cost(*weight)).enumerate() {
                    let apart = (served[customer] - served[other]).abs();
                    prop_assert!(apart <= cost(of[customer]) + cost_of, "{served:?} with {of:?}");
                }
            }
            line.served(&turns, &weights, T0);
        }
    }

    /// The k-th message of a new customer comes after the messages that the others get by their weights meanwhile, and
    /// at most one more of each.
    #[test]
    fn no_customer_waits_longer_than_by_its_share(
        of in vec(1..=100_i16, 2..6), before in 0..500_u32, messages in 1..20_usize, own in 1..=100_i16,
    ) {
        let (mut line, _) = line(&vec![50_000; of.len()]);
        let all: Vec<i16> = of.iter().copied().chain([own]).collect();
        let weights = weights(&all);
        let turns = line.pick(before, &weights);
        line.served(&turns, &weights, T0);
        let late = name(of.len());
        let slots: Vec<i16> = (0..messages).map(|_| line.join(Some(&late), T0)).collect();
        let next_in = line.next_in(slots[0], &weights).unwrap();
        let turns = line.pick(100_000, &weights);
        let at = turns.iter().enumerate().filter(|(_, slot)| **slot == slots[0]);
        let at: Vec<usize> = at.map(|(at, _)| at).collect();
        prop_assert_eq!(at.len(), messages);
        prop_assert_eq!(at[0] as u64, next_in);
        for (k, at) in at.into_iter().enumerate() {
            let own_start = cost(own) * i64::try_from(k).unwrap();
            let others = of.iter().map(|weight| own_start / cost(*weight) + 1);
            let bound = usize::try_from(others.sum::<i64>()).unwrap() + k;
            prop_assert!(at <= bound, "message {k} at {at}, not {bound}");
        }
    }

    #[test]
    fn each_message_is_handed_out_once_whatever_is_taken_from_under_the_line(events in vec(event(), 1..60)) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Publish(customers) => world.publish(&customers),
                Event::Claim(asks, ahead) => {
                    let there = world.rows.values().map(|row| row.pending.count_ones()).sum::<u32>() as usize
                        + ahead.min(world.published.len() - world.cursor);
                    let wanted = asks.iter().sum::<u32>() as usize;
                    prop_assert_eq!(world.claim(&asks, ahead), wanted.min(there));
                }
                Event::Steal(messages) => world.steal(messages),
                Event::Trim(by) => world.trim(by),
                Event::Weigh(of) => world.weights = weights(&of),
            }
            world.check();
        }
        while world.claim(&[50], 1_000) > 0 {
            world.check();
        }
        prop_assert_eq!(world.given.len() + world.taken.len(), world.published.len());
        prop_assert!(world.rows.is_empty());
    }
}
