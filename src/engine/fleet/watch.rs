//! Notices what other nodes changed: the hot slot, the catalog, quotas, who is let in. A small loop of one statement a second and
//! nothing beside it, so that a revoked key is refused by every node within two.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store;
use crate::store::installation::Installation;

use crate::engine::Engine;
use crate::engine::error::Error;

/// Between two looks.
const ROUND: Duration = Duration::from_secs(1);
/// A look that takes longer is given up: the next one may find another connection.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// The version of access that this node has looked at.
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
    /// Looks once a second until `stop`.
    pub(in crate::engine) async fn watch(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match tokio::time::timeout(LOOK_TIMEOUT, self.look()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "could not look for changes"),
                Err(_) => tracing::debug!("the database did not say in time what changed"),
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Looks after a change that this node made: it knows of it at once, the others within a second.
    pub(in crate::engine) async fn look_now(&self) {
        if let Err(error) = self.look().await {
            tracing::debug!(%error, "this node knows of its own change a second later");
        }
    }

    /// Takes note of all that has changed.
    pub(in crate::engine) async fn look(&self) -> Result<(), Error> {
        let mut session = self.store().session().await?;
        let installation = store::installation::get(&mut session).await?;
        let Some(installation) = installation else {
            return Ok(());
        };
        self.clock().hear(installation.at);
        // First of all: what goes into a slot that was left keeps it from being emptied.
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
        self.gate().is_current();
        Ok(())
    }
}
