//! Topics that this node published to, for the hints that wake receivers on other nodes. A turn only adds a number here;
//! `fleet` sends. Bounded by the topics that are published to between two hints.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::inbox::Inbox;

/// Topics published to since the last hint.
#[derive(Debug, Default)]
pub struct Hints {
    /// Whether there is another node.
    wanted: AtomicBool,
    topics: Inbox<HashSet<i64>>,
}

impl Hints {
    /// A topic was published to.
    pub fn published(&self, topic: i64) {
        if self.wanted.load(Ordering::Relaxed) {
            self.topics.put_if(|topics| topics.insert(topic));
        }
    }

    /// Whether there are other nodes.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// The topics since the last time, as soon as there is one.
    pub async fn take(&self) -> HashSet<i64> {
        let all = |held: &mut HashSet<i64>| (!held.is_empty()).then(|| std::mem::take(held));
        self.topics.take(all).await
    }
}
