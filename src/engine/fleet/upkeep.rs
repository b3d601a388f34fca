//! What a node does for itself while it runs: it shows that it is alive, counts what is in flight where a limit is near,
//! notes which keys are in use, and gives back messages whose receivers went away. One small loop; nothing here is needed
//! for a message to be safe. What other nodes changed is noticed by `watch`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use api::Permission;
use api::list::Page;
use api::node::Node;
use tokio_util::sync::CancellationToken;

use crate::store::installation::Installation;
use crate::store::{self, Session};

use crate::engine::access::{Access, audit};
use crate::engine::error::Error;
use crate::engine::lease::plan::Step;
use crate::engine::subscriber::Subscriber;
use crate::engine::{Engine, Parts, Tenant};

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(1);
/// A node that has not been seen for so long is not there.
const ALIVE: Duration = Duration::from_secs(10);
/// Readiness gives a part so long to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys whose window is over, cleared away by one statement.
const EXPIRED_KEYS: i64 = 1_000;
/// Time for clearing keys away in one round.
const EXPIRE_TIME: Duration = Duration::from_millis(300);
/// Nodes shown to an operator: more than a fleet has.
const NODES_SHOWN: i64 = 10_000;
/// Subscriptions looked for by one statement.
const SUBSCRIPTIONS: usize = 10_000;
/// Rounds between two counts of what is in flight, when no limit is near, and between two notes of the keys in use.
const COUNT_ROUNDS: u32 = 10;
/// Rounds between two looks for what is too old in the audit log.
const AUDIT_ROUNDS: u32 = 600;

/// A part of the service and why it is not ready, if it is not.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// `database`, `object_storage`, …
    pub part: &'static str,
    /// What is missing.
    pub missing: Option<String>,
}

/// What goes from one round to the next.
#[derive(Debug, Default)]
struct Rounds {
    number: u32,
    /// The version of the catalog when deleted subscriptions were last looked for.
    catalog_version: i64,
}

/// What all nodes share, made at the first start.
pub(in crate::engine) async fn installation(
    parts: &Parts,
) -> Result<(Installation, Tenant), Error> {
    let mut session = parts.store.session().await?;
    let key: [u8; 32] = rand::random();
    store::installation::ensure(&mut session, &key, parts.clock.now()).await?;
    let installation = store::installation::get(&mut session)
        .await?
        .ok_or(Error::Internal)?;
    let tenant = store::tenant::default(&mut session).await?;
    Ok((installation, Tenant(tenant)))
}

impl Engine {
    /// Keeps the node up with the others until `stop`.
    pub(in crate::engine) async fn keep_up(&self, stop: CancellationToken) {
        let mut rounds = Rounds::default();
        loop {
            if let Err(error) = self.round(&mut rounds).await {
                tracing::debug!(%error, "upkeep failed; it goes on in the next round");
            }
            rounds.number = rounds.number.wrapping_add(1);
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = stop.cancelled() => break,
            }
        }
        if let Ok(mut session) = self.store().session().await {
            let _ = self.gate().note_used(&mut session).await;
            // Best effort: the row would be taken for dead in a while anyway.
            let _ = store::node::delete(&mut session, self.inner.node).await;
        }
    }

    async fn round(&self, rounds: &mut Rounds) -> Result<(), Error> {
        let mut session = self.store().session().await?;
        let version = env!("CARGO_PKG_VERSION");
        store::node::heartbeat(&mut session, self.inner.node, version, None).await?;
        let alive = store::node::count_alive(&mut session, ALIVE, None).await?;
        self.turns().hints.want(alive > 1);
        self.quotas().observe_nodes(alive);
        let catalog_version = self.catalog().version();
        if rounds.catalog_version != catalog_version {
            self.forget_deleted(&mut session).await?;
            rounds.catalog_version = catalog_version;
        }
        let is_turn = rounds.number.is_multiple_of(COUNT_ROUNDS);
        self.count_in_flight(&mut session, is_turn).await?;
        if is_turn {
            self.gate().note_used(&mut session).await?;
        }
        if rounds.number.is_multiple_of(AUDIT_ROUNDS) {
            audit::expire(&mut session, self.clock().now()).await?;
        }
        let (now, began) = (self.clock().now(), Instant::now());
        while store::dedup::expire(&mut session, now, EXPIRED_KEYS).await?
            == EXPIRED_KEYS.unsigned_abs()
            && began.elapsed() < EXPIRE_TIME
        {}
        Ok(())
    }

    /// Lets go of subscriptions that other nodes deleted; nobody may ever ask for them by name again.
    async fn forget_deleted(&self, session: &mut Session) -> Result<(), Error> {
        let known = self.catalog().subscribers_where(|_| true);
        for some in known.chunks(SUBSCRIPTIONS) {
            let ids: Vec<i64> = some.iter().map(|known| known.id).collect();
            let existing = store::subscription::existing(session, &ids).await?;
            let existing: HashSet<i64> = existing.into_iter().collect();
            for gone in some.iter().filter(|known| !existing.contains(&known.id)) {
                self.catalog().retire(gone);
            }
        }
        Ok(())
    }

    /// Counts what is in flight where a limit may be near.
    async fn count_in_flight(&self, session: &mut Session, is_turn: bool) -> Result<(), Error> {
        let near = |known: &Subscriber| known.wants_count(is_turn);
        for subscriber in self.catalog().subscribers_where(near) {
            let began = Instant::now();
            let lanes = subscriber.lanes.all();
            let counted = store::lease::in_flight(session, subscriber.id, &lanes).await?;
            let is_free = subscriber.counted(counted, began.elapsed());
            if is_free && subscriber.has_waiters() {
                subscriber.lanes.expect_fresh();
                self.turns().queue(subscriber.topic_id).want(&subscriber);
            }
        }
        Ok(())
    }

    /// Gives back messages whose receivers went away, until `stop`.
    pub(in crate::engine) async fn return_unwanted(&self, stop: CancellationToken) {
        loop {
            let unwanted = tokio::select! {
                unwanted = self.turns().returns.take() => unwanted,
                () = stop.cancelled() => return,
            };
            for (subscriber, grants) in unwanted {
                self.leases()
                    .give_back(&subscriber, &grants, Step::GiveBack(0))
                    .await;
            }
        }
    }

    /// The nodes of the fleet.
    ///
    /// # Errors
    /// When the caller does not operate all tenants, or the database does not answer.
    pub async fn nodes(&self, by: &Access) -> Result<Page<Node>, Error> {
        by.check_all(Permission::Admin)?;
        let mut session = self.store().session().await?;
        let rows = store::node::list(&mut session, NODES_SHOWN).await?;
        let shown = rows.into_iter().map(|row| Node {
            id: row.node_id.to_string(),
            version: row.version,
            started_at: row.started_at.into(),
            seen_at: row.seen_at.into(),
        });
        Ok(Page {
            items: shown.collect(),
            next: None,
        })
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
