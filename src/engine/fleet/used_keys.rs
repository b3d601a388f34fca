//! Records which API keys were used on this node, so that operators see when a key was last used.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::repeat::every;

/// Time between two records.
const PERIOD: Duration = Duration::from_secs(10);

impl Engine {
    /// Records used keys until `stop`, and then once more.
    pub(super) async fn record_used_keys(self, stop: CancellationToken) {
        let mut rounds = every(PERIOD, &stop);
        while rounds.next().await {
            self.record_used_now().await;
        }
        self.record_used_now().await;
    }

    async fn record_used_now(&self) {
        let recorded = async {
            let mut session = self.store().session().await?;
            self.gate().note_used(&mut session).await
        };
        let recorded: Result<(), Error> = recorded.await;
        if let Err(error) = recorded {
            tracing::debug!(%error, "used keys were not noted");
        }
    }
}
