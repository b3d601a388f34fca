//! Fairness inside a subscription: customers share the messages that it hands out by weight, so that a burst of one
//! customer does not delay the others. The customer of a message is its attribute `fairness_key`.
//!
//! In a plain subscription a burst of one customer comes before all later messages. A fair subscription reads ahead: in
//! each service up to 4,096 messages ahead of the cursor join the line, in runs. A run has up to 64 messages of one
//! customer. Runs that are not handed out at once become waiting leases. The line (`line`) picks the next customer by
//! virtual time. So a burst of N messages delays the first message of another customer by at most N / 4,096 receives,
//! not by N messages, while the line has room. If the burst is of one customer, it fills its runs with 64 messages
//! each, so 20,000 runs hold 1,280,000.
//!
//! Bounded (I9): the line keeps up to 1,000 customers apart, 20,000 runs wait in each lane, a claim reads 4,096
//! messages or 8 MiB. Each lane has its own line. In a topic with several lanes the shares hold in each lane, and
//! claims begin with another lane each time.
//!
//! The line may count more waiting messages than exist: retention deletes some, and nodes that do not know the setting
//! yet redeliver others. The line is corrected when a claim finds fewer.

pub mod line;
mod stats;

use sha2::{Digest, Sha256};

pub use stats::stats;

/// The order key of a customer's leases. With a name it does not depend on the slot, so it stays the same when the
/// customer leaves the line and joins again. Two names with the same hash share a place in the line.
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
