//! Changes of leases off the turn. `plan` computes in pure functions what to write for locked leases, `redeliver` hands
//! out messages that are due again, `reshape` changes single messages of a lease, `set_aside` queues leases for the
//! dead-letter topic, `receipt` signs receipts, `ask` is the request of a receiver. Only the current lease of a message
//! can settle it (I3).

pub mod ask;
pub mod plan;
pub mod receipt;
mod redeliver;
mod reshape;
mod set_aside;

use crate::clock::Clock;
use crate::store::Store;

pub use reshape::{expect, write};
pub use set_aside::{SET_ASIDE_SECONDS, SetAside, Spent};

/// Changes leases off the turn.
#[derive(Debug)]
pub struct Leases {
    store: Store,
    clock: Clock,
    /// Leases whose attempts are used up.
    pub set_aside: SetAside,
}

impl Leases {
    /// Changes leases in this database.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            set_aside: SetAside::default(),
        }
    }
}
