//! Fairness inside a subscription: customers share what it hands out by weight, so that a burst of one customer does not delay
//! the others. The customer of a message is its attribute `fairness_key`.
//!
//! In a plain subscription a burst of one customer is in front of all messages that come later. A fair one reads ahead: with
//! every service up to 4,096 messages from ahead of the cursor join the line, in runs of up to 64 messages of one customer.
//! Runs that are not handed out at once become waiting leases. The virtual time of the line (`line`) says which customer is
//! next. So a burst of N messages delays the first message of another customer by N / 4,096 receives at most, not by N
//! messages, as long as the line has room: a customer that is alone takes 64 messages a run, and 20,000 runs are 1,280,000 of
//! them.
//!
//! Bounded (I9): 1,000 customers are told apart, 20,000 runs wait in each lane, a claim reads 4,096 messages or 8 MiB. The
//! line is one per lane: in a topic with several lanes shares hold in each of them, and the lanes are claimed from in
//! rotation.
//!
//! The line may count more messages as waiting than there are: retention deletes some, and nodes that have not noticed the
//! setting yet redeliver others. It is corrected when a claim finds fewer.

pub mod line;
mod stats;

use sha2::{Digest, Sha256};

pub use stats::stats;

/// The key of the leases of a customer, whatever its slot is then. Two names with the same hash share a place in line.
#[must_use]
pub fn order_key(slot: i16, name: Option<&str>) -> i64 {
    match name {
        None => i64::from(slot),
        Some(name) => {
            let hash = Sha256::digest(name);
            let first = hash.first_chunk().copied().unwrap_or_default();
            i64::from_be_bytes(first) & i64::MAX
        }
    }
}
