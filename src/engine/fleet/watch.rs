//! Polls for changes by other nodes: of the hot slot, the catalog, quotas and access. It is a loop of its own, so that
//! every node refuses a revoked key within two seconds. It has a connection of its own, and notices first when the database
//! was replaced, takes no writes or does not respond: then no connection that was made before is used again.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::repeat::every;
use crate::store;
use crate::store::Session;
use crate::store::installation::Installation;

/// Time between two polls.
const PERIOD: Duration = Duration::from_secs(1);
/// A poll that takes longer is cancelled; the next one uses another connection.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);
/// The next poll after one that failed.
const AGAIN: Duration = Duration::from_millis(100);

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

impl Watched {
    /// Makes the next poll read again who may come in.
    pub(in crate::engine) fn forget(&self) {
        self.access_version.store(-1, Ordering::Release);
    }
}

impl Engine {
    /// Polls once a second until `stop`.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let mut session = None;
        let mut rounds = every(PERIOD, &stop);
        while rounds.next().await {
            while self.poll_in_time(&mut session).await.is_err() {
                let pause = tokio::time::sleep(AGAIN);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
        }
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// One poll. Fails if another one, on another connection, may succeed.
    async fn poll_in_time(&self, session: &mut Option<Session>) -> Result<(), store::Error> {
        let open = session.take().filter(Session::is_trusted);
        let was_open = open.is_some();
        let polled = tokio::time::timeout(POLL_TIMEOUT, self.poll_on(open)).await;
        match polled.unwrap_or_else(|_| Err(store::Error::timed_out())) {
            Ok(open) => *session = open,
            Err(error) => {
                tracing::debug!(%error, "could not poll for changes");
                if was_open {
                    self.store().distrust();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Polls on a connection, and returns it if it can be used again.
    async fn poll_on(&self, open: Option<Session>) -> Result<Option<Session>, store::Error> {
        let mut open = match open {
            Some(open) => open,
            None => match self.store().watch_session().await {
                Ok(open) => open,
                // The server may have no connection left, and the pool one.
                Err(_) => self.store().session().await?,
            },
        };
        store::session::check_writable(&mut open).await?;
        // What failed was logged, and need not be the fault of the connection.
        Ok(self.poll(&mut open).await.is_ok().then_some(open))
    }

    /// Polls after a change on this node. This node learns of the change at once, other nodes within a second.
    pub(in crate::engine) async fn poll_now(&self) {
        if let Err(error) = self.poll_once().await {
            tracing::debug!(%error, "this node learns of its own change a second later");
        }
    }

    /// Applies all changes, at the start of a node.
    pub(in crate::engine) async fn poll_once(&self) -> Result<(), Error> {
        let mut session = self.store().session().await?;
        self.poll(&mut session).await
    }

    async fn poll(&self, session: &mut Session) -> Result<(), Error> {
        let installation = store::installation::get(session).await?;
        let Some(installation) = installation else {
            return Ok(());
        };
        self.clock().hear(installation.at);
        // Before all else: what follows is of this era.
        self.store().observe_era(installation.era);
        // First, because a payload in a slot that is no longer current delays the truncation of that slot.
        self.turns().move_to(installation.hot_slot);
        self.catalog().observe(installation.catalog_version);
        self.quotas()
            .observe(session, installation.quota_version)
            .await?;
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
