//! The nodes of one installation inside the test: what they share, how they are started, and the rounds of background
//! duties that a test asks for at once. `finish` ends a test with the invariants.

use std::sync::Arc;
use std::time::Duration;

use api::key::KeySettings;
use api::quota::Quota;
use cursus::blob::Blob;
use cursus::clock::Clock;
use cursus::disk::Room;
use cursus::engine::bill::spend::Spend;
use cursus::engine::duty::{Context, Duty};
use cursus::engine::lifecycle::expire::Expire;
use cursus::engine::lifecycle::offload::Offload;
use cursus::engine::lifecycle::rotate::Rotate;
use cursus::engine::meter::blocks::Meter;
use cursus::engine::operate::keys;
use cursus::engine::operate::quotas::put_quota;
use cursus::engine::{Access, Error};
use cursus::network::Network;
use serde_json::Value;
use sqlx::Connection;
use time::macros::datetime;
use tokio_util::sync::CancellationToken;

use super::invariants::check_invariants;
use super::log::{AT_ONCE, EXPIRE_AT_ONCE, PROMPT, SECOND_LANE, folder};
use super::node::Node;
use super::postgres::Database;
use super::scratch::Scratch;

/// What the nodes of one installation share, and how they are started.
pub(crate) struct Fleet {
    pub(crate) database: Database,
    pub(crate) blob: Arc<Blob>,
    pub(crate) clock: Clock,
    /// Of the disk, as the embedded mode finds it.
    pub(crate) room: Room,
    /// Requests without a key belong to the default tenant.
    pub(crate) open: bool,
    /// Proxies of each node started from now on.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Block cache of each node started from now on.
    pub(crate) cache_bytes: usize,
    /// Largest body in the database of each node started from now on.
    pub(crate) hot_limit_bytes: usize,
    _folder: Option<Scratch>,
}

impl Fleet {
    /// Objects in a folder, a clock that stands still.
    pub(crate) async fn new() -> Self {
        let scratch = Scratch::new("objects");
        let blob = folder(&scratch).await;
        Self {
            _folder: Some(scratch),
            ..Self::over(blob).await
        }
    }

    /// The same on a database of the test's own.
    pub(crate) async fn on(database: Database) -> Self {
        Self {
            database,
            ..Self::new().await
        }
    }

    /// The same, but requests without a key are refused.
    pub(crate) async fn closed() -> Self {
        Self {
            open: false,
            ..Self::new().await
        }
    }

    /// A node that is asked with the key for everything in a tenant.
    pub(crate) async fn node_of(&self, tenant: &str) -> Node {
        let mut node = self.node().await;
        node.with_key(&self.key(tenant).await);
        node
    }

    /// The same over other object storage.
    pub(crate) async fn over(blob: Arc<Blob>) -> Self {
        Self {
            database: Database::new().await,
            blob,
            clock: Clock::manual(datetime!(2030-01-01 00:00 UTC)),
            room: Room::default(),
            open: true,
            trusted_proxies: Vec::new(),
            cache_bytes: 16 << 20,
            hot_limit_bytes: 256 << 10,
            _folder: None,
        }
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) async fn node(&self) -> Node {
        Node::start(self).await
    }

    /// A key for everything in a tenant.
    pub(crate) async fn key(&self, tenant: &str) -> String {
        self.key_for(tenant, &["publish", "receive", "manage", "usage"])
            .await
    }

    /// A key for some things in a tenant.
    pub(crate) async fn key_for(&self, tenant: &str, scopes: &[&str]) -> String {
        let store = self.database.store();
        let settings = KeySettings {
            scopes: Some(scopes.iter().map(|scope| scope.parse().unwrap()).collect()),
            ..KeySettings::default()
        };
        let tenant = tenant.parse().unwrap();
        let made = keys::create_key(&store, &tenant, &settings).await.unwrap();
        store.close().await;
        made.secret
    }

    /// Sets the quota of a tenant; nodes notice within a second.
    pub(crate) async fn quota(&self, tenant: &str, quota: Value) {
        let quota = serde_json::from_value(quota).unwrap();
        self.try_quota(tenant, &quota).await.unwrap();
    }

    /// The same, when it may be refused.
    pub(crate) async fn try_quota(&self, tenant: &str, quota: &Quota) -> Result<Quota, Error> {
        let store = self.database.store();
        let (by, tenant) = (Access::of_command_line(), tenant.parse().unwrap());
        let set = put_quota(&store, &by, &tenant, quota, self.clock.now()).await;
        store.close().await;
        set
    }

    /// Runs a duty once, on no node; returns what it counts.
    pub(crate) async fn run(&self, mut duty: impl Duty) -> u64 {
        let context = Context {
            store: self.database.store(),
            clock: self.clock.clone(),
        };
        let done = duty.run(&context, &CancellationToken::new()).await;
        context.store.close().await;
        done.unwrap().count
    }

    /// Moves all payloads of the current slot to object storage; returns how many blocks.
    pub(crate) async fn offload(&self) -> u64 {
        self.run(Rotate::new(AT_ONCE)).await;
        self.run(Offload::new(self.blob.clone(), PROMPT)).await
    }

    /// One round of retention, which keeps nothing that was consumed; returns how many blocks it deleted.
    pub(crate) async fn expire(&self) -> u64 {
        self.run(Expire::new(EXPIRE_AT_ONCE)).await
    }

    /// A topic `t` of two lanes, each with messages `old`: a node that may publish to either, and one for each lane that
    /// publishes there.
    pub(crate) async fn two_lanes(&self) -> (Node, Vec<Node>) {
        let first = self.node().await;
        first.topic("t").await;
        let mut sql = self.database.connect().await;
        sqlx::query(SECOND_LANE).execute(&mut sql).await.unwrap();
        sql.close().await.unwrap();
        // Each node has a lane that it publishes to, by chance: start some until both are covered.
        let (mut nodes, mut lanes) = (Vec::new(), Vec::new());
        while lanes.len() < 2 {
            assert!(nodes.len() < 30, "30 nodes publish to one lane of two");
            let node = self.node().await;
            let id: api::MessageId = node.publish("old").await.parse().unwrap();
            if lanes.contains(&id.lane) {
                node.stop().await;
            } else {
                lanes.push(id.lane);
                nodes.push(node);
            }
        }
        (first, nodes)
    }

    /// Counts all that was published; returns how many blocks were not counted before.
    pub(crate) async fn meter(&self) -> u64 {
        self.run(Meter::without_pauses()).await
    }

    /// Compares what tenants spend with their budgets; returns how many alerts were sent.
    pub(crate) async fn compare_budgets(&self) -> u64 {
        self.run(Spend).await
    }

    /// Stops the nodes in order and checks the invariants.
    pub(crate) async fn finish(self, nodes: impl IntoIterator<Item = Node>) {
        for node in nodes {
            node.stop().await;
        }
        check_invariants(&mut self.database.connect().await).await;
        self.database.check_log();
        self.blob.drain().await;
    }
}
