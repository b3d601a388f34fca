//! The queue of leases that this node has set aside because their attempts are used up. They are hidden from receivers
//! until tasks of `receive` have moved their messages to the dead-letter topic, so no receiver waits for the move.
//! Bounded (I9): a lease beyond the limit is not queued, falls due again when its time is over, and a later redelivery
//! finds it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::inbox::Inbox;
use crate::engine::subscriber::Subscriber;
use crate::store::lease::Lease;

/// How long a lease is set aside. Messages not moved by then are due again.
pub const SET_ASIDE_SECONDS: u32 = 60;
/// Leases queued on one node at most.
const WAITING_MAX: usize = 1_024;

/// A lease that was set aside.
#[derive(Debug)]
pub struct Spent {
    /// The subscription.
    pub subscriber: Arc<Subscriber>,
    /// The lease.
    pub lease: Lease,
    since: Instant,
}

impl Spent {
    /// Whether its time is over, so that it may be due again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.since.elapsed() >= Duration::from_secs(u64::from(SET_ASIDE_SECONDS))
    }
}

/// The queue of leases that were set aside.
#[derive(Debug, Default)]
pub struct SetAside {
    inbox: Inbox<VecDeque<Spent>>,
}

impl SetAside {
    /// Adds leases that were just set aside.
    pub fn add(&self, subscriber: &Arc<Subscriber>, leases: Vec<Lease>) {
        if leases.is_empty() {
            return;
        }
        self.inbox.put(|waiting| {
            let room = WAITING_MAX.saturating_sub(waiting.len());
            waiting.extend(leases.into_iter().take(room).map(|lease| Spent {
                subscriber: subscriber.clone(),
                lease,
                since: Instant::now(),
            }));
        });
    }

    /// Takes the next lease; waits until there is one.
    pub async fn next(&self) -> Spent {
        self.inbox.take_one(VecDeque::pop_front).await
    }
}
