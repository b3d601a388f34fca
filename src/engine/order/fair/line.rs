//! The fair order of one lane and subscription, as a pure data structure: the customers that wait, and which is next.
//! It is weighted fair queueing by virtual time, as in P. Goyal, H. M. Vin and H. Cheng, "Start-time Fair Queueing: A
//! Scheduling Algorithm for Integrated Services Packet Switching Networks", SIGCOMM 1996, where the packet is a message
//! and the flow a customer:
//!
//! - A message starts when its customer began to wait, or when the message before it of the same customer finished,
//!   whichever is later. It finishes `SCALE / weight` after its start.
//! - The message with the earliest start is handed out next. The virtual time is the earliest start of all messages
//!   that wait.
//!
//! The line keeps only the start of each customer's next message, as its distance from the virtual time (`lead`). So a
//! new weight holds from the next message on, messages that vanish need no correction of others, and no number grows
//! with the age of a subscription.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use api::limits::FAIRNESS_KEYS_MAX;
use time::OffsetDateTime;

use crate::engine::order::fair::order_key;
use crate::engine::subscriber::Subscriber;
use crate::store::Offset;
use crate::store::fairness::FairnessRow;

/// Cost of a message in virtual time for a customer of weight 1.
pub const SCALE: i64 = 1_000_000;
/// Slot of messages without a key.
pub const NO_KEY: i16 = 0;
/// Slot of all customers beyond the limit, which share it.
pub const OTHERS: i16 = 1;
/// First slot of a customer with a name.
const FIRST: i16 = 2;
/// Customers without waiting messages that stay in the line at most.
const IDLE_MAX: usize = 64;
/// A customer without waiting messages leaves the line after this time.
const IDLE: time::Duration = time::Duration::minutes(10);

/// One customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// Its fairness key; `None` in the slots 0 and 1.
    pub name: Option<String>,
    /// The order key of its leases.
    pub order_key: i64,
    /// How far the start of its next message is ahead of the virtual time.
    pub lead: i64,
    /// Offset from which its waiting leases are searched. A lease that another transaction had locked may lie below it;
    /// a claim that finds too few messages resets it to 0.
    pub head: Offset,
    /// Messages that wait. There may be fewer in the database.
    pub waiting: i64,
    /// Waiting leases. There may be fewer in the database.
    pub runs: i64,
    /// Messages handed out since it joined the line.
    pub handed_out: i64,
    /// When a message of it was last handed out, or else when it joined.
    pub served_at: OffsetDateTime,
}

/// The weights of a subscription.
#[derive(Debug, Clone, Default)]
pub struct Weights(HashMap<String, i64>);

impl Weights {
    /// Weights by fairness key.
    pub fn of<'a>(weights: impl IntoIterator<Item = (&'a String, &'a i16)>) -> Self {
        Self(
            weights
                .into_iter()
                .map(|(name, weight)| (name.clone(), i64::from(*weight).max(1)))
                .collect(),
        )
    }

    /// The weights in a subscription's settings.
    #[must_use]
    pub fn of_subscriber(subscriber: &Subscriber) -> Self {
        let settings = subscriber.settings();
        let names = settings.fairness_names.iter().flatten();
        Self::of(names.zip(settings.fairness_weights.iter().flatten()))
    }

    /// The weight of a customer; 1 unless it is set.
    #[must_use]
    pub fn get(&self, name: Option<&str>) -> i64 {
        name.and_then(|name| self.0.get(name)).copied().unwrap_or(1)
    }

    /// Cost of a message of a customer in virtual time.
    fn cost(&self, customer: &Customer) -> i64 {
        SCALE / self.get(customer.name.as_deref())
    }
}

/// The customers of a lane and subscription, by slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    customers: BTreeMap<i16, Customer>,
    names: HashMap<String, i16>,
    /// Slots by order key.
    slots: HashMap<i64, i16>,
    /// No slot below this one is free.
    free: i16,
}

impl Line {
    /// The line of a stored row.
    #[must_use]
    pub fn of(row: FairnessRow) -> Self {
        let mut line = Self::default();
        let columns = row
            .leads
            .into_iter()
            .zip(row.heads)
            .zip(row.waiting.into_iter().zip(row.runs))
            .zip(row.handed_out.into_iter().zip(row.served_at));
        let customers = row.slots.into_iter().zip(row.names).zip(columns);
        for ((slot, name), (((lead, head), (waiting, runs)), (handed_out, served_at))) in customers
        {
            if let Some(name) = &name {
                line.names.insert(name.clone(), slot);
            }
            let order_key = order_key(slot, name.as_deref());
            line.slots.insert(order_key, slot);
            let customer = Customer {
                name,
                order_key,
                lead,
                head,
                waiting,
                runs,
                handed_out,
                served_at,
            };
            line.customers.insert(slot, customer);
        }
        line
    }

    /// The row to store.
    #[must_use]
    pub fn to_row(&self) -> FairnessRow {
        let mut row = FairnessRow::default();
        for (slot, customer) in &self.customers {
            row.slots.push(*slot);
            row.names.push(customer.name.clone());
            row.leads.push(customer.lead);
            row.heads.push(customer.head);
            row.waiting.push(customer.waiting);
            row.runs.push(customer.runs);
            row.handed_out.push(customer.handed_out);
            row.served_at.push(customer.served_at);
        }
        row
    }

    /// The customers with their slots.
    pub fn customers(&self) -> impl Iterator<Item = (i16, &Customer)> {
        self.customers
            .iter()
            .map(|(slot, customer)| (*slot, customer))
    }

    /// The slot of the customer with this order key.
    #[must_use]
    pub fn slot_of(&self, order_key: i64) -> Option<i16> {
        self.slots.get(&order_key).copied()
    }

    /// The customer in a slot.
    #[must_use]
    pub fn get(&self, slot: i16) -> Option<&Customer> {
        self.customers.get(&slot)
    }

    /// The customer in a slot, to change it.
    pub fn get_mut(&mut self, slot: i16) -> Option<&mut Customer> {
        self.customers.get_mut(&slot)
    }

    /// Waiting leases of all customers. There may be fewer in the database.
    #[must_use]
    pub fn runs(&self) -> i64 {
        self.customers.values().map(|customer| customer.runs).sum()
    }

    /// Waiting messages of all customers. There may be fewer in the database.
    #[must_use]
    pub fn waiting(&self) -> i64 {
        self.customers
            .values()
            .map(|customer| customer.waiting)
            .sum()
    }

    /// Adds one waiting message of a customer. Returns the slot.
    pub fn join(&mut self, name: Option<&str>, at: OffsetDateTime) -> i16 {
        let slot = match name {
            None => NO_KEY,
            Some(name) => match self.names.get(name) {
                Some(slot) => *slot,
                None if self.names.len() >= FAIRNESS_KEYS_MAX => OTHERS,
                None => {
                    let slot = self.free_slot();
                    self.names.insert(name.to_owned(), slot);
                    slot
                }
            },
        };
        let name = name.filter(|_| slot >= FIRST);
        let slots = &mut self.slots;
        let new = || {
            let order_key = order_key(slot, name);
            slots.insert(order_key, slot);
            Customer {
                name: name.map(str::to_owned),
                order_key,
                lead: 0,
                head: Offset::START,
                waiting: 0,
                runs: 0,
                handed_out: 0,
                served_at: at,
            }
        };
        self.customers.entry(slot).or_insert_with(new).waiting += 1;
        slot
    }

    fn free_slot(&mut self) -> i16 {
        self.free = self.free.max(FIRST);
        while self.customers.contains_key(&self.free) {
            self.free += 1;
        }
        self.free
    }

    /// Picks the next `wanted` messages and returns the slot of each: always the customer with the earliest start, and
    /// of several the one with the lowest slot. Changes nothing.
    #[must_use]
    pub fn pick(&self, wanted: u32, weights: &Weights) -> Vec<i16> {
        let mut heap: BinaryHeap<_> = self
            .customers()
            .filter(|(_, customer)| customer.waiting > 0)
            .map(|(slot, customer)| {
                Reverse((
                    customer.lead,
                    slot,
                    customer.waiting,
                    weights.cost(customer),
                ))
            })
            .collect();
        let mut slots = Vec::new();
        while slots.len() < wanted as usize
            && let Some(Reverse((lead, slot, waiting, cost))) = heap.pop()
        {
            slots.push(slot);
            if waiting > 1 {
                heap.push(Reverse((lead + cost, slot, waiting - 1, cost)));
            }
        }
        slots
    }

    /// Records that picked messages were handed out.
    pub fn served(&mut self, slots: &[i16], weights: &Weights, at: OffsetDateTime) {
        for slot in slots {
            if let Some(customer) = self.customers.get_mut(slot) {
                customer.lead += weights.cost(customer);
                customer.waiting -= 1;
                customer.handed_out += 1;
                customer.served_at = at;
            }
        }
        self.tidy(at);
    }

    /// Moves leads to the new virtual time, and removes customers that have had no waiting messages for long.
    fn tidy(&mut self, at: OffsetDateTime) {
        let virtual_time = self
            .customers
            .values()
            .filter(|customer| customer.waiting > 0)
            .map(|customer| customer.lead)
            .min()
            .unwrap_or(i64::MAX);
        let mut idle = Vec::new();
        for (slot, customer) in &mut self.customers {
            customer.lead = customer.lead.saturating_sub(virtual_time).max(0);
            if customer.waiting == 0 {
                // It has no waiting lease, so its slot may be given to another customer.
                (customer.head, customer.runs) = (Offset::START, 0);
                idle.push((Reverse(customer.served_at), *slot));
            }
        }
        idle.sort_unstable();
        for (rank, (Reverse(served_at), slot)) in idle.into_iter().enumerate() {
            if (rank >= IDLE_MAX || served_at < at - IDLE)
                && let Some(gone) = self.customers.remove(&slot)
            {
                self.slots.remove(&gone.order_key);
                if let Some(name) = gone.name {
                    self.names.remove(&name);
                }
            }
        }
        self.free = 0;
    }

    /// Messages of other customers that come before the next message of this one; `None` when it has no waiting
    /// messages.
    #[must_use]
    pub fn next_in(&self, slot: i16, weights: &Weights) -> Option<u64> {
        let own = self.get(slot).filter(|customer| customer.waiting > 0)?;
        let others = self.customers().filter(|(other, _)| *other != slot);
        let before = others.map(|(other, customer)| {
            // The other customer's messages start at lead, lead + cost, …. Those before its own start count, and those
            // at the same start if the slot is lower.
            let ahead = own.lead - customer.lead + i64::from(other < slot);
            let starts = (ahead.max(0) + weights.cost(customer) - 1) / weights.cost(customer);
            starts.min(customer.waiting).max(0).unsigned_abs()
        });
        Some(before.sum())
    }
}
