//! Leases off the turn, for subscriptions with an order of their own: `redeliver` hands out messages that are due again,
//! `plan` computes in pure functions what to write for locked leases, `write` writes it. `receipt` signs the receipts of
//! all leases, `ask` is the request of a receiver, `patience` is how long it waits for what must be read. Only the current lease of a message can settle it (I3).

pub mod ask;
pub mod expire_lost;
pub mod patience;
pub mod plan;
pub mod receipt;
mod redeliver;
mod write;

use std::sync::Arc;

use crate::engine::duty::Context;
use crate::engine::turn::Turns;

pub use write::{expect, write};

/// Changes leases off the turn.
#[derive(Debug)]
pub struct Leases {
    context: Context,
    turns: Arc<Turns>,
}

impl Leases {
    /// Changes leases in this database. Leases whose attempts are used up go to the queue of `turns`.
    #[must_use]
    pub fn new(context: Context, turns: Arc<Turns>) -> Self {
        Self { context, turns }
    }
}
