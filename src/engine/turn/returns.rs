//! Messages whose receivers went away between the claim and the response. A task of `fleet` gives them back, outside
//! the turn. Bounded by the waiting receivers, because each gets one response.

use std::sync::Arc;

use crate::engine::inbox::Inbox;
use crate::engine::subscriber::{Grant, Subscriber};

type Unwanted = Vec<(Arc<Subscriber>, Vec<Grant>)>;

/// Messages to give back.
#[derive(Debug, Default)]
pub struct Returns {
    inbox: Inbox<Unwanted>,
}

impl Returns {
    /// Adds messages to give back; `grants` may be empty.
    pub fn add(&self, subscriber: &Arc<Subscriber>, grants: Vec<Grant>) {
        if !grants.is_empty() {
            self.inbox
                .put(|unwanted| unwanted.push((subscriber.clone(), grants)));
        }
    }

    /// Waits until there are messages to give back, and takes all of them.
    pub async fn take(&self) -> Unwanted {
        let all = |held: &mut Unwanted| (!held.is_empty()).then(|| std::mem::take(held));
        self.inbox.take(all).await
    }
}
