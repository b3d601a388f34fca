//! The topics that this node has published to, for the hints that wake receivers on other nodes. A turn only adds a
//! topic id here, and `fleet::wake` sends the hints. Bounded by the number of topics published to between two hints.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::inbox::Inbox;
use crate::store::TopicId;

/// Topics published to since the last hint.
#[derive(Debug, Default)]
pub struct Hints {
    /// Whether there are other nodes, which need hints.
    wanted: AtomicBool,
    topics: Inbox<HashSet<TopicId>>,
}

impl Hints {
    /// Records a publish to a topic.
    pub fn published(&self, topic: TopicId) {
        if self.wanted.load(Ordering::Relaxed) {
            self.topics.put_if(|topics| topics.insert(topic));
        }
    }

    /// Sets whether there are other nodes, which need hints.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Waits until there is a topic, and takes all topics since the last call.
    pub async fn take(&self) -> HashSet<TopicId> {
        let all = |held: &mut HashSet<TopicId>| (!held.is_empty()).then(|| std::mem::take(held));
        self.topics.take(all).await
    }
}
