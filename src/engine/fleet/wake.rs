//! Wakes receivers after a publish. On the same node they are served in the turn itself, or woken in memory if the
//! publish did not use a turn. Other nodes get a hint. Topics with publishes are collected for a few milliseconds and
//! sent in one notification, in a transaction of its own that does not wait for the disk. A hint is never part of a
//! publish, because it would serialise all commits of the database. No receiver depends on hints: each polls by itself
//! every second.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::subscriber::Subscriber;
use crate::repeat::every;
use crate::store::{self, TopicId};

/// Time between two hints of a node.
const HINT_PAUSE: Duration = Duration::from_millis(5);
/// Time before the node listens again after the connection broke.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);
/// Most topics named in one hint. A hint for more topics names none and wakes the receivers of all.
const TOPICS_MAX: usize = 500;

impl Engine {
    /// Sends hints until `stop`.
    pub(super) async fn send_hints(self, stop: CancellationToken) {
        let hints = &self.turns().hints;
        while let Some(topics) = stop.run_until_cancelled(hints.take()).await {
            let text = if topics.len() > TOPICS_MAX {
                "*".to_owned()
            } else {
                topics
                    .iter()
                    .map(TopicId::to_string)
                    .collect::<Vec<_>>()
                    .join(",")
            };
            if let Err(error) = self.send_hint(&text).await {
                tracing::debug!(%error, "a hint was not sent");
            }
            tokio::time::sleep(HINT_PAUSE).await;
        }
    }

    async fn send_hint(&self, text: &str) -> Result<(), store::Error> {
        let mut tx = self.store().tx("hint").await?;
        store::node::hint(&mut tx, text).await?;
        tx.commit().await
    }

    /// Receives hints until `stop`.
    pub(super) async fn receive_hints(self, stop: CancellationToken) {
        let mut rounds = every(LISTEN_PAUSE, &stop);
        while rounds.next().await {
            stop.run_until_cancelled(self.receive_hints_once()).await;
        }
    }

    /// Receives hints until the connection breaks.
    async fn receive_hints_once(&self) {
        let Ok(mut hints) = self.store().listen(store::node::HINTS).await else {
            return;
        };
        while let Some(hint) = hints.next().await {
            if hint == "*" {
                for subscriber in self.catalog().subscribers_where(Subscriber::has_waiters) {
                    self.turns().wake_here(subscriber.topic_id);
                }
            }
            if hint == store::node::PUSH_HINT {
                self.push().assign_now();
            }
            for topic in hint.split(',').filter_map(|topic| topic.parse().ok()) {
                self.turns().wake_here(TopicId::new(topic));
            }
        }
    }
}
