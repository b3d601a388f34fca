//! The plans of leases under random orders of events. A model holds the expected state of each message, the plans
//! change the rows, and the two are compared after every event (I2: each message in one place; I3: only the current
//! lease settles).

use std::collections::BTreeMap;

use cursus::engine::lease::plan::{self, Changes, MessageStep, Step, Taker};
use cursus::store::lease::{Lease, LeaseKey};
use cursus::store::{LaneId, LeaseId, Offset, SubscriptionId};
use proptest::collection::vec;
use proptest::prelude::*;
use time::{Duration, OffsetDateTime};

const LANE: LaneId = LaneId::new(1);
const SUBSCRIPTION: SubscriptionId = SubscriptionId::new(1);
const VISIBILITY: i64 = 30;
const T0: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// What happens next. Numbers are indexes, taken modulo the number of things that exist.
#[derive(Debug, Clone)]
enum Event {
    /// Fresh messages are handed out.
    Claim(u8),
    /// Receipts are settled together, also old ones.
    Settle(Vec<(usize, Kind, u32)>),
    /// Messages that are due are handed out again.
    Redeliver(u32),
    /// Leases past their deadline are set aside: hidden from all receivers.
    SetAside(i64),
    /// Time passes.
    Pass(i64),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Ack,
    Nack,
    Hide,
    GiveBack,
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![
        Just(Kind::Ack),
        Just(Kind::Nack),
        Just(Kind::Hide),
        Just(Kind::GiveBack)
    ];
    prop_oneof![
        2 => (1..=64_u8).prop_map(Event::Claim),
        4 => vec((any::<prop::sample::Index>(), kind, 0..90_u32), 1..12)
            .prop_map(|items| Event::Settle(items.into_iter().map(|(at, kind, s)| (at.index(1 << 20), kind, s)).collect())),
        3 => (1..=100_u32).prop_map(Event::Redeliver),
        1 => (1..120_i64).prop_map(Event::SetAside),
        2 => (1..60_i64).prop_map(Event::Pass),
    ]
}

/// A receipt that a receiver was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Receipt {
    lease: LeaseId,
    bit: u8,
    offset: Offset,
}

/// The expected state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a lease. `current` is the receipt that settles it, if one was given.
    Leased {
        current: Option<Receipt>,
        attempt: i32,
        deadline: OffsetDateTime,
    },
    Done,
}

struct World {
    rows: BTreeMap<LeaseKey, Lease>,
    places: BTreeMap<Offset, Place>,
    receipts: Vec<Receipt>,
    now: OffsetDateTime,
    next_lease: i64,
    next_offset: Offset,
}

impl World {
    fn new() -> Self {
        let (rows, places) = (BTreeMap::new(), BTreeMap::new());
        Self {
            rows,
            places,
            receipts: Vec::new(),
            now: T0,
            next_lease: 1,
            next_offset: Offset::START,
        }
    }

    /// Does what the store does: checks that the rows to change exist, and gives new leases new ids. Returns the
    /// inserted rows.
    fn write(&mut self, changes: Changes) -> Vec<Lease> {
        for key in changes.delete {
            assert!(
                self.rows.remove(&key).is_some(),
                "{key:?} is deleted but does not exist"
            );
        }
        for row in changes.update {
            assert!(
                self.rows.insert(row.key, row).is_some(),
                "{row:?} is updated but does not exist"
            );
        }
        let mut inserted = changes.insert;
        for row in &mut inserted {
            if row.key.lease == LeaseId::UNASSIGNED {
                row.key.lease = LeaseId::new(self.next_lease);
                self.next_lease += 1;
            }
            assert!(
                self.rows.insert(row.key, *row).is_none(),
                "{row:?} exists already"
            );
        }
        inserted
    }

    /// The receipts that a receiver of the row gets.
    fn messages(row: &Lease) -> Vec<Receipt> {
        let bits = (0..64_u8).filter(|bit| row.pending >> bit & 1 == 1);
        bits.map(|bit| Receipt {
            lease: row.key.lease,
            bit,
            offset: row.base.plus(i64::from(bit)),
        })
        .collect()
    }

    /// A receiver gets a row.
    fn give(&mut self, row: &Lease) {
        for receipt in Self::messages(row) {
            let place = Place::Leased {
                current: Some(receipt),
                attempt: row.attempt,
                deadline: row.deadline,
            };
            self.places.insert(receipt.offset, place);
            self.receipts.push(receipt);
        }
    }

    fn claim(&mut self, count: u8) {
        let row = Lease {
            key: LeaseKey {
                lane: LANE,
                subscription: SUBSCRIPTION,
                lease: LeaseId::UNASSIGNED,
                part: 0,
            },
            base: self.next_offset,
            pending: u64::MAX >> (64 - count),
            deadline: self.now + Duration::seconds(VISIBILITY),
            attempt: 1,
            delayed: false,
            first_failed_at: None,
            last_failed_at: None,
            order_key: None,
            waiting: false,
        };
        self.next_offset = self.next_offset.plus(i64::from(count));
        let row = self.write(Changes {
            insert: vec![row],
            ..Changes::default()
        })[0];
        self.give(&row);
    }

    fn settle(&mut self, picks: &[(usize, Kind, u32)]) {
        if self.receipts.is_empty() {
            return;
        }
        let picked: Vec<(Receipt, Step)> = picks
            .iter()
            .map(|(at, kind, seconds)| {
                let step = match kind {
                    Kind::Ack => Step::Done,
                    Kind::Nack => Step::Return(*seconds),
                    Kind::Hide => Step::Hide(*seconds),
                    Kind::GiveBack => Step::GiveBack(0),
                };
                (self.receipts[at % self.receipts.len()], step)
            })
            .collect();
        let items: Vec<MessageStep> = picked
            .iter()
            .map(|(r, step)| MessageStep {
                lane: LANE,
                lease: r.lease,
                bit: r.bit,
                step: *step,
            })
            .collect();
        // The store locks only the rows of these leases.
        let rows: Vec<Lease> = self
            .rows
            .values()
            .filter(|row| items.iter().any(|i| i.lease == row.key.lease))
            .copied()
            .collect();
        let (current, changes) = plan::settle(&rows, &items, self.now);
        for ((receipt, step), was_current) in picked.iter().zip(current) {
            let now = self.now;
            let place = self.places.get_mut(&receipt.offset).unwrap();
            let Place::Leased {
                current,
                attempt,
                deadline,
            } = place
            else {
                assert!(!was_current, "{receipt:?} settled a message that is done");
                continue;
            };
            assert_eq!(
                was_current,
                *current == Some(*receipt),
                "{receipt:?} against {current:?}"
            );
            match step {
                _ if !was_current => {}
                Step::Done => *place = Place::Done,
                Step::Hide(seconds) => *deadline = plan::after(now, *seconds),
                Step::Return(seconds) => (*current, *deadline) = (None, plan::after(now, *seconds)),
                Step::GiveBack(_) => {
                    (*current, *deadline, *attempt) = (None, now, (*attempt - 1).max(0))
                }
            }
        }
        self.write(changes);
    }

    fn due(&self) -> Vec<Lease> {
        self.rows
            .values()
            .filter(|row| row.deadline <= self.now)
            .copied()
            .collect()
    }

    fn redeliver(&mut self, wanted: u32) {
        let due = self.due();
        let deadline = self.now + Duration::seconds(VISIBILITY);
        let ready: u32 = due.iter().map(|row| row.pending.count_ones()).sum();
        let before: BTreeMap<Offset, Place> = self.places.clone();
        let given = self.write(plan::redeliver(&due, Taker { wanted, deadline }));
        let got: u32 = given.iter().map(|row| row.pending.count_ones()).sum();
        assert_eq!(
            got,
            wanted.min(ready),
            "as much as there is, and no more than is wanted"
        );
        for row in &given {
            for receipt in Self::messages(row) {
                let Place::Leased {
                    attempt, deadline, ..
                } = before[&receipt.offset]
                else {
                    panic!("{receipt:?} is handed out again but was done");
                };
                assert!(deadline <= self.now, "{receipt:?} was still hidden");
                assert_eq!(row.attempt, attempt + 1);
            }
            self.give(row);
        }
    }

    fn set_aside(&mut self, seconds: i64) {
        let until = self.now + Duration::seconds(seconds);
        let aside = self.write(plan::set_aside(&self.due(), until));
        for receipt in aside.iter().flat_map(Self::messages) {
            let Some(Place::Leased {
                current, deadline, ..
            }) = self.places.get_mut(&receipt.offset)
            else {
                panic!("{receipt:?} is set aside but was done");
            };
            (*current, *deadline) = (None, until);
        }
    }

    /// I2: the rows hold exactly the messages that are not done, each once, in the state of the model.
    fn check(&self) {
        let mut held = BTreeMap::new();
        for row in self.rows.values() {
            assert_ne!(row.pending, 0, "{row:?} holds nothing");
            for receipt in Self::messages(row) {
                let twice = held.insert(receipt.offset, (row.attempt, row.deadline));
                assert!(twice.is_none(), "{receipt:?} is in two leases");
            }
        }
        let expected: BTreeMap<Offset, (i32, OffsetDateTime)> = self
            .places
            .iter()
            .filter_map(|(offset, place)| match place {
                Place::Leased {
                    attempt, deadline, ..
                } => Some((*offset, (*attempt, *deadline))),
                Place::Done => None,
            })
            .collect();
        assert_eq!(held, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_puts_a_message_in_two_places_or_lets_an_old_receipt_settle(events in vec(event(), 1..60)) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Claim(count) => world.claim(count),
                Event::Settle(picks) => world.settle(&picks),
                Event::Redeliver(wanted) => world.redeliver(wanted),
                Event::SetAside(seconds) => world.set_aside(seconds),
                Event::Pass(seconds) => world.now += Duration::seconds(seconds),
            }
            world.check();
        }
    }
}
