//! Orders of delivery other than the order of the log.
//!
//! A plain subscription hands out messages in the order of the log, by the turn. A subscription with an order of its
//! own is served off the turn, in three steps:
//!
//! 1. **Read ahead** (`ahead`): reads the blocks ahead of the cursor, before any transaction.
//! 2. **Line** (`claim`): one transaction locks the cursor. The messages that were read join a line, the cursor moves
//!    past them, and the line picks the next messages.
//! 3. **Hand out** (`dispense`): the picked messages go into new leases. The others that the cursor has passed go into
//!    waiting leases.
//!
//! `serve` runs the steps lane by lane for the receivers that wait on this node, and hands out messages that are due
//! again. Orders differ in the line alone. `fair` is the first order: customers share by weight.
//!
//! **Waiting leases.** A message that the cursor has passed and that was not handed out yet is in a lease (I2). Two
//! columns mark such a lease: `waiting` is set, and `order_key` is its key in the line. It has attempt 0, is due at
//! once and has no receipt. An index of waiting leases, by order key and offset, finds the next ones of a key; leases
//! of plain subscriptions never enter it. An order key is a hash of 63 bits, so the number of keys is not bounded. Two
//! keys with the same hash share one place in the line, which is still an order. A line that cannot hold all of its
//! keys in memory can find the oldest messages of the others by that index.
//!
//! Redelivery (`lease`) passes over waiting leases in a subscription with an order of its own. In a plain one it hands
//! them out like all leases that are due. So no message is lost when an order is switched off, or while a node does not
//! know the setting yet.

mod ahead;
mod claim;
pub mod dispense;
pub mod fair;
mod serve;
mod want;

use std::sync::Arc;

use crate::clock::Clock;
use crate::engine::lease::Leases;
use crate::engine::log::reader::Reader;
use crate::engine::turn::Turns;
use crate::store::Store;

/// Serves the receivers of subscriptions that have an order of their own.
#[derive(Debug)]
pub struct Dispenser {
    /// The database.
    pub store: Store,
    /// Source of `$now`.
    pub clock: Clock,
    /// Reads blocks.
    pub reader: Arc<Reader>,
    /// Hands out messages that are due again.
    pub leases: Arc<Leases>,
    /// The turn loops: the queue of subscriptions to serve, metrics and wake-ups.
    pub turns: Arc<Turns>,
}
