//! Messages whose receivers went away between the claim and the answer: a task gives them back, off the turn. Bounded by the
//! receivers that wait: each has one answer.

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
    /// Adds messages to give back; none is fine.
    pub fn add(&self, subscriber: &Arc<Subscriber>, grants: Vec<Grant>) {
        if !grants.is_empty() {
            self.inbox
                .put(|unwanted| unwanted.push((subscriber.clone(), grants)));
        }
    }

    /// All that gathered, as soon as there is something.
    pub async fn take(&self) -> Unwanted {
        let all = |held: &mut Unwanted| (!held.is_empty()).then(|| std::mem::take(held));
        self.inbox.take(all).await
    }
}
