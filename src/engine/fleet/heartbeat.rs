//! Reports this node as running and counts the running nodes. A node that is alone sends no hints and has all of each
//! quota.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::repeat::every;
use crate::store;

/// Time between two heartbeats.
const PERIOD: Duration = Duration::from_secs(1);
/// A node without a heartbeat for this long is not counted.
const ALIVE: Duration = Duration::from_secs(10);

impl Engine {
    /// Sends heartbeats until `stop`, and then deletes the node's row.
    pub(super) async fn keep_heartbeat(self, stop: CancellationToken) {
        let mut rounds = every(PERIOD, &stop);
        while rounds.next().await {
            if let Err(error) = self.heartbeat().await {
                tracing::debug!(%error, "a heartbeat failed; the next one follows");
            }
        }
        if let Ok(mut session) = self.store().session().await {
            // If this fails, other nodes stop counting the node after a while, and the duty `expire_nodes` deletes its
            // row.
            self.store().confirm_heartbeat(&session, None);
            let _ = store::node::delete(&mut session, self.node()).await;
        }
    }

    async fn heartbeat(&self) -> Result<(), Error> {
        let mut session = self.store().session().await?;
        let version = env!("CARGO_PKG_VERSION");
        let at = store::node::heartbeat(&mut session, self.node(), version, None).await?;
        self.store()
            .confirm_heartbeat(&session, Some((self.node(), at)));
        let alive = store::node::count_alive(&mut session, ALIVE, None).await?;
        self.turns().hints.want(alive > 1);
        self.quotas().observe_nodes(alive);
        Ok(())
    }
}
