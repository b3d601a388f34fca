//! Counts the messages in flight of subscriptions that may be near their limit. The node's own count drifts, because
//! other nodes settle messages that this node handed out.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::subscriber::Subscriber;
use crate::repeat::every;
use crate::store;

/// Time between two rounds.
const PERIOD: Duration = Duration::from_secs(1);
/// Every tenth round also counts subscriptions that are not near their limit, if receivers wait on them.
const FULL_ROUND: u32 = 10;

impl Engine {
    /// Counts messages in flight until `stop`.
    pub(super) async fn count_in_flight(self, stop: CancellationToken) {
        let mut round: u32 = 0;
        let mut rounds = every(PERIOD, &stop);
        while rounds.next().await {
            let is_full = round.is_multiple_of(FULL_ROUND);
            if let Err(error) = self.count_near_limits(is_full).await {
                tracing::debug!(%error, "messages in flight were not counted; the next round follows");
            }
            round = round.wrapping_add(1);
        }
    }

    async fn count_near_limits(&self, is_full: bool) -> Result<(), Error> {
        let near = |known: &Subscriber| known.wants_count(is_full);
        let near = self.catalog().subscribers_where(near);
        if near.is_empty() {
            return Ok(());
        }
        let mut session = self.store().session().await?;
        for subscriber in near {
            let began = Instant::now();
            let lanes = subscriber.lanes.all();
            let counted = store::lease::in_flight(&mut session, subscriber.id, &lanes).await?;
            let is_free = subscriber.counted(counted, began.elapsed());
            if is_free && subscriber.has_waiters() {
                subscriber.lanes.expect_fresh();
                self.turns().queue(subscriber.topic_id).want(&subscriber);
            }
        }
        Ok(())
    }
}
