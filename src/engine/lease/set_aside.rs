//! Leases whose attempts are used up, set aside by this node: hidden from receivers until their messages are in the
//! dead-letter topic. A receiver never waits for that; tasks of the receive room take them from here. Bounded: a lease
//! beyond the limit falls due again when its time is over, and is found again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::inbox::Inbox;
use crate::engine::subscriber::Subscriber;
use crate::store::lease::Lease;

/// How long a lease is set aside; what has not moved by then is due again.
pub const SET_ASIDE_SECONDS: u32 = 60;
/// Leases that wait on this node.
const WAITING_MAX: usize = 1_024;

/// A lease that was set aside.
#[derive(Debug)]
pub struct Spent {
    /// Its subscription.
    pub subscriber: Arc<Subscriber>,
    /// The lease.
    pub lease: Lease,
    since: Instant,
}

impl Spent {
    /// Whether it may be due again already.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.since.elapsed() >= Duration::from_secs(u64::from(SET_ASIDE_SECONDS))
    }
}

/// The leases that wait.
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

    /// The next one, as soon as there is one.
    pub async fn next(&self) -> Spent {
        self.inbox.take_one(VecDeque::pop_front).await
    }
}
