//! Retires subscriptions that were deleted on other nodes. A receiver that waits on such a subscription gets its
//! response here, because there may be no other request that names the subscription.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::repeat::every;
use crate::store::{self, SubscriptionId};

/// Time between two checks.
const PERIOD: Duration = Duration::from_secs(1);
/// Subscriptions per statement.
const SUBSCRIPTIONS: usize = 10_000;

impl Engine {
    /// Retires deleted subscriptions after each change of the catalog, until `stop`.
    pub(super) async fn retire_deleted(self, stop: CancellationToken) {
        let mut checked = 0;
        let mut rounds = every(PERIOD, &stop);
        while rounds.next().await {
            let version = self.catalog().version();
            if version == checked {
                continue;
            }
            match self.retire_missing().await {
                Ok(()) => checked = version,
                Err(error) => {
                    tracing::debug!(%error, "deleted subscriptions were not looked up; it is tried again");
                }
            }
        }
    }

    async fn retire_missing(&self) -> Result<(), Error> {
        let known = self.catalog().subscribers_where(|_| true);
        let mut session = self.store().session().await?;
        for some in known.chunks(SUBSCRIPTIONS) {
            let ids: Vec<SubscriptionId> = some.iter().map(|known| known.id).collect();
            let existing: HashSet<SubscriptionId> =
                store::subscription::existing(&mut session, &ids)
                    .await?
                    .into_iter()
                    .collect();
            for gone in some.iter().filter(|known| !existing.contains(&known.id)) {
                self.catalog().retire(gone);
            }
        }
        Ok(())
    }
}
