//! Who is next when it is not the order of the log.
//!
//! A plain subscription hands out messages in the order of the log, by the turn. A subscription with an order of its own is
//! served off the turn, by one mechanism in three steps:
//!
//! 1. **Read ahead** (`ahead`): the blocks in front of the cursor are read, before any transaction.
//! 2. **Line** (`claim`): in one transaction under the lock of the cursor the messages that were read join a line, the cursor
//!    moves past them, and the line says whose messages are next.
//! 3. **Claim** (`dispense`): these go into new leases; what of the others stays behind the cursor becomes waiting leases.
//!
//! `serve` runs the steps for the receivers that wait on this node, lane by lane, together with what is due again. What
//! differs between orders is the line alone. `fair` is the first: customers share by weight.
//!
//! **Waiting leases.** A message behind the cursor that was not handed out yet is in a lease like any other (I2), told apart
//! by two columns: `waiting` is set, and `order_key` says with what it stands in line. It has attempt 0, is due at once and
//! has no receipt. An index of waiting leases alone, by order key and offset, finds the next ones of a key; leases of plain
//! subscriptions never enter it. An order key is a hash of 63 bits, so the number of keys is not bounded: two keys with the
//! same hash share one place in line, which is still an order. A line that cannot keep all of its keys in memory can find
//! the heads of the others by that index.
//!
//! Redelivery (`lease`) passes waiting leases over in a subscription with an order of its own. In a plain one it hands them
//! out like all that is due: so a node that has not noticed the setting yet, or an order that was switched off, loses nothing.

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
    /// Hands out what is due again.
    pub leases: Arc<Leases>,
    /// The queue of what to serve, and what counts and wakes.
    pub turns: Arc<Turns>,
}
