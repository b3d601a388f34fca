//! Leases off the turn: `plan` decides in pure functions what becomes of locked leases, `redeliver` hands out what is due
//! again, `reshape` changes single messages, `set_aside` keeps what goes to a dead-letter topic, `receipt` signs the names of
//! messages in leases. Only the current lease settles (I3).

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
