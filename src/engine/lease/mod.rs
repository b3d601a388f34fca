//! Leases off the turn: `plan` decides in pure functions what becomes of locked leases, `redeliver` locks, writes and hands
//! out what is due again, `receipt` signs the names of messages in leases. Only the current lease settles (I3).

pub mod plan;
pub mod receipt;
pub mod redeliver;
