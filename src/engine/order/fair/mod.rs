//! Fairness inside a subscription: customers take turns, so that what one of them publishes at once does not delay the
//! others. A message says whose it is by its attribute `fairness_key`.
//!
//! A plain subscription hands out messages in the order of the log, and a burst of one customer is in front of everybody
//! who comes later. A fair one looks ahead: each time that something is handed out, up to 4,096 messages from ahead of the
//! cursor join the line (`look`), in runs of up to 64 messages of one customer, and the cursor moves past them. Runs that
//! are not handed out at once become waiting leases: rows of `lease` with attempt 0, whose id below 0 says whose they are
//! and where they stand (`line::waiting_id`). Whose turn it is says the virtual time of the line (`line`); which messages
//! that makes says `dispense`; `claim` does it in one transaction under the lock of the cursor, off the turn. So a burst
//! of N messages delays the first message of another customer by N / 4,096 receives at most, not by N messages, as long as
//! the line has room: a customer that is alone takes 64 messages a run, and 20,000 runs are 1,280,000 of them.
//!
//! Receivers wait in the same queue as those of plain subscriptions, the turn passes fair subscriptions on after its
//! commit (`queue`), and a few loops serve them (`serve`).
//!
//! Bounded (I9): 1,000 customers are told apart, 20,000 runs wait in each lane, a claim looks at 4,096 messages or 8 MiB.
//! The line is one per lane: in a topic with several lanes shares hold in each of them, and the lanes take turns.
//!
//! Nodes that have not noticed the setting yet, or whose version does not know it, claim from the cursor and redeliver
//! waiting leases, which are due, in their own order: nothing is lost or doubled, only the order is not fair meanwhile.
//! For the same reason waiting leases need no care when fairness is switched off. The line believes a little too much to
//! wait then; it is corrected when it finds less.

pub mod line;
mod stats;

use sha2::{Digest, Sha256};

pub use stats::stats;

/// Names a customer in leases, whatever its slot is then.
#[must_use]
pub fn fairness_id(slot: i16, name: Option<&str>) -> i64 {
    match name {
        None => i64::from(slot),
        Some(name) => {
            let hash = Sha256::digest(name);
            let first = hash.first_chunk().copied().unwrap_or_default();
            i64::from_be_bytes(first) & i64::MAX
        }
    }
}
