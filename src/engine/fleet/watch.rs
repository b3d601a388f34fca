//! Polls for changes by other nodes: of the hot slot, the catalog, quotas and access. It is a loop of its own with one
//! statement per second, so that every node refuses a revoked key within two seconds.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::repeat::every;
use crate::store;
use crate::store::installation::Installation;

/// Time between two polls.
const PERIOD: Duration = Duration::from_secs(1);
/// A poll that takes longer is cancelled; the next one may use another connection.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// The version of access that this node has read.
#[derive(Debug)]
pub(in crate::engine) struct Watched {
    access_version: AtomicI64,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            access_version: AtomicI64::new(-1),
        }
    }
}

impl Engine {
    /// Polls once a second until `stop`.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let mut rounds = every(PERIOD, &stop);
        while rounds.next().await {
            match tokio::time::timeout(POLL_TIMEOUT, self.poll()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "could not poll for changes"),
                Err(_) => tracing::debug!("the database did not report changes in time"),
            }
        }
    }

    /// Polls after a change on this node. This node learns of the change at once, other nodes within a second.
    pub(in crate::engine) async fn poll_now(&self) {
        if let Err(error) = self.poll().await {
            tracing::debug!(%error, "this node learns of its own change a second later");
        }
    }

    /// Applies all changes.
    pub(in crate::engine) async fn poll(&self) -> Result<(), Error> {
        let mut session = self.store().session().await?;
        let installation = store::installation::get(&mut session).await?;
        let Some(installation) = installation else {
            return Ok(());
        };
        self.clock().hear(installation.at);
        // First, because a payload in a slot that is no longer current delays the truncation of that slot.
        self.turns().move_to(installation.hot_slot);
        self.catalog().observe(installation.catalog_version);
        self.quotas()
            .observe(&mut session, installation.quota_version)
            .await?;
        drop(session);
        self.observe_access(&installation).await
    }

    async fn observe_access(&self, installation: &Installation) -> Result<(), Error> {
        let watched = &self.inner.watched.access_version;
        if watched.load(Ordering::Acquire) != installation.access_version {
            self.gate().read_again().await?;
            watched.store(installation.access_version, Ordering::Release);
        }
        self.gate().confirm_current();
        Ok(())
    }
}
