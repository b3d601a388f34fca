//! What a node does for itself while it runs: it shows that it is alive, notices what other nodes changed, counts what is
//! in flight where a limit is near, and gives back messages whose receivers went away. One small loop; nothing here is
//! needed for a message to be safe.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store;
use crate::store::installation::Installation;

use super::error::Error;
use super::{Engine, Parts, Readiness, Tenant};

/// Pause between two rounds: how long a change on another node goes unnoticed.
const ROUND: Duration = Duration::from_secs(1);
/// A node that has not been seen for so long is not there.
const ALIVE: Duration = Duration::from_secs(10);
/// Readiness gives a part so long to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys whose window is over, cleared away in one round.
const EXPIRED_KEYS_MAX: i64 = 1_000;
/// Rounds between two counts of what is in flight, when no limit is near.
const COUNT_ROUNDS: u32 = 10;

/// What all nodes share, made at the first start.
pub(super) async fn installation(parts: &Parts) -> Result<(Installation, Tenant), Error> {
    let mut session = parts.store.session().await?;
    let key: [u8; 32] = rand::random();
    store::installation::ensure(&mut session, &key, parts.clock.now()).await?;
    let installation = store::installation::get(&mut session)
        .await?
        .ok_or(Error::Internal)?;
    let tenant = store::api_key::default_tenant(&mut session).await?;
    Ok((installation, Tenant(tenant)))
}

impl Engine {
    /// Keeps the node up with the others until `stop`.
    pub(super) async fn keep_up(&self, stop: CancellationToken) {
        let mut round = 0_u32;
        loop {
            if let Err(error) = self.round(round.is_multiple_of(COUNT_ROUNDS)).await {
                tracing::debug!(%error, "upkeep failed; it goes on in the next round");
            }
            round = round.wrapping_add(1);
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = stop.cancelled() => break,
            }
        }
        if let Ok(mut session) = self.store().session().await {
            // Best effort: the row would be taken for dead in a while anyway.
            let _ = store::node::delete(&mut session, self.inner.node).await;
        }
    }

    async fn round(&self, count_all: bool) -> Result<(), Error> {
        let mut session = self.store().session().await?;
        let version = env!("CARGO_PKG_VERSION");
        store::node::heartbeat(&mut session, self.inner.node, version, None).await?;
        let alive = store::node::count_alive(&mut session, ALIVE, None).await?;
        self.hints().want(alive > 1);
        self.catalog()
            .observe(store::installation::catalog_version(&mut session).await?);
        if let Some(installation) = store::installation::get(&mut session).await? {
            self.inner
                .turns
                .slot
                .store(installation.hot_slot, Ordering::Relaxed);
        }
        store::dedup::expire(&mut session, self.clock().now(), EXPIRED_KEYS_MAX).await?;
        for subscriber in self.catalog().waited_on() {
            if count_all || subscriber.headroom() == 0 {
                let counted =
                    store::lease::in_flight(&mut session, subscriber.id, &subscriber.lanes())
                        .await?;
                subscriber.counted(counted);
            }
        }
        Ok(())
    }

    /// Gives back messages whose receivers went away, until `stop`.
    pub(super) async fn return_unwanted(&self, stop: CancellationToken) {
        loop {
            let unwanted = tokio::select! {
                unwanted = self.inner.turns.returns.take() => unwanted,
                () = stop.cancelled() => return,
            };
            for (subscriber, grants) in unwanted {
                self.give_back(&subscriber, &grants).await;
            }
        }
    }

    /// Whether all parts answer.
    pub async fn readiness(&self) -> Vec<Readiness> {
        let database = tokio::time::timeout(READY_TIMEOUT, async {
            let mut session = self.store().session().await?;
            store::installation::catalog_version(&mut session).await
        });
        let storage = tokio::time::timeout(READY_TIMEOUT, self.blob().check());
        let (database, storage) = tokio::join!(database, storage);
        let missing =
            |answered: bool, what: &str| (!answered).then(|| format!("{what} does not answer"));
        let node = self
            .draining()
            .is_cancelled()
            .then(|| "the node is stopping".to_owned());
        vec![
            Readiness {
                part: "database",
                missing: missing(matches!(database, Ok(Ok(_))), "the database"),
            },
            Readiness {
                part: "object_storage",
                missing: missing(matches!(storage, Ok(Ok(()))), "object storage"),
            },
            Readiness {
                part: "node",
                missing: node,
            },
        ]
    }
}
