//! Nodes inside the test: the whole service over a database of its own and real object storage, on a loopback port, with
//! a clock that the test moves. Everything a test does goes through HTTP; `finish` ends it with the invariants.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::key::KeySettings;
use api::quota::Quota;
use bytes::Bytes;
use cursus::blob::Blob;
use cursus::clock::Clock;
use cursus::engine::bill::spend::Spend;
use cursus::engine::duty::{Context, Duty};
use cursus::engine::lifecycle::expire::Expire;
use cursus::engine::lifecycle::offload::Offload;
use cursus::engine::lifecycle::rotate::Rotate;
use cursus::engine::meter::blocks::Meter;
use cursus::engine::operate::keys;
use cursus::engine::operate::quotas::put_quota;
use cursus::engine::{Access, Engine, Error, Parts};
use cursus::http::{self, HttpSettings, RequestMetrics};
use cursus::listen;
use cursus::outbound::Outbound;
use cursus::shutdown::Shutdown;
use cursus::store::Store;
use cursus::telemetry::{self, Telemetry};
use cursus::worker;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::Connection;
use time::macros::datetime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::invariants::check_invariants;
use super::log::{AT_ONCE, EXPIRE_AT_ONCE, PROMPT, folder};
use super::postgres::Database;
use super::scratch::Scratch;

const DRAIN: Duration = Duration::from_secs(10);
/// For what happens in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the nodes of one installation share, and how they are started.
pub(crate) struct Fleet {
    pub(crate) database: Database,
    pub(crate) blob: Arc<Blob>,
    pub(crate) clock: Clock,
    /// Requests without a key belong to the default tenant.
    pub(crate) open: bool,
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

    /// The same, but nobody is let in without a key.
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
            open: true,
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
        let set = put_quota(&store, &by, (&tenant, quota), self.clock.now()).await;
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
        let second_lane = "INSERT INTO lane (topic_id, number, start_offset)
                           SELECT topic_id, 1, 0 FROM topic WHERE name = 't'";
        sqlx::query(second_lane).execute(&mut sql).await.unwrap();
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
        self.blob.drain().await;
    }
}

/// One node and a client that speaks to it.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) engine: Engine,
    key: Option<String>,
    store: Store,
    shutdown: Shutdown,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Node {
    async fn start(fleet: &Fleet) -> Self {
        // What a node complains of is shown with the test that fails.
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .with_test_writer()
            .try_init()
            .ok();
        let (shutdown, stop) = (Shutdown::default(), CancellationToken::new());
        let store = fleet.database.store();
        let parts = Parts {
            store: store.clone(),
            blob: fleet.blob.clone(),
            outbound: Outbound::new().unwrap(),
            clock: fleet.clock.clone(),
            open: fleet.open,
            cache_bytes: fleet.cache_bytes,
            hot_limit_bytes: fleet.hot_limit_bytes,
            turn_loops: 2,
        };
        let engine = Engine::start(
            parts,
            &shutdown.tracker,
            shutdown.token.clone(),
            stop.clone(),
        )
        .await
        .unwrap();
        let mut registry = telemetry::registry();
        telemetry::register(&mut registry, &engine);
        let background = (&shutdown.tracker, &stop);
        worker::start(
            &engine,
            worker::Settings::default(),
            &mut registry,
            background,
        );
        let metrics = RequestMetrics::register(&mut registry);
        let settings = HttpSettings {
            request_timeout: Duration::from_secs(30),
            metrics,
            telemetry: Telemetry::of(registry),
        };
        let listener = listen::bind(listen::Options {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            max_connections: 1_000,
            header_timeout: Duration::from_secs(30),
            drain_timeout: DRAIN,
            tls: None,
        })
        .unwrap();
        let address = listener.address().unwrap();
        let router = http::router(engine.clone(), settings);
        let ending = shutdown.clone();
        let serving = tokio::spawn(async move { listener.serve(router, &ending).await });
        Self {
            address,
            client: client(),
            engine,
            key: None,
            store,
            shutdown,
            stop,
            serving,
        }
    }

    /// Requests from now on come with this key.
    pub(crate) fn with_key(&mut self, key: &str) {
        self.key = Some(key.to_owned());
    }

    /// Asks the node to end, as SIGTERM does; `stop` waits for it.
    pub(crate) fn drain(&self) {
        self.shutdown.token.cancel();
    }

    /// Its loops end, as if it had died: it says nothing any more and does no duty. Requests are still answered.
    pub(crate) fn fall_silent(&self) {
        self.stop.cancel();
    }

    /// Ends it in the order of `app`.
    pub(crate) async fn stop(self) {
        self.drain();
        drop(self.client);
        self.serving.await.unwrap();
        self.stop.cancel();
        assert!(self.shutdown.drain(DRAIN).await, "the node drains");
        self.store.close().await;
    }

    /// Any request.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        request(
            &self.client,
            self.key.as_deref(),
            method,
            self.address,
            path,
        )
    }

    /// A request with another key than the node's, and a JSON body if there is one.
    pub(crate) async fn ask(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let request = request(&self.client, Some(key), method, self.address, path);
        send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        send(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        send(self.request(Method::DELETE, path)).await
    }

    /// A topic with default settings.
    pub(crate) async fn topic(&self, name: &str) {
        let (status, answer) = self.put(&format!("/v1/topics/{name}"), json!({})).await;
        assert_eq!(status, 201, "{answer}");
    }

    /// A topic `t` and its subscription `s`, with these settings beside.
    pub(crate) async fn topic_and_subscription(&self, settings: Value) {
        self.topic("t").await;
        let mut all = json!({"topic": "t"});
        all.as_object_mut()
            .unwrap()
            .extend(settings.as_object().unwrap().clone());
        let (status, answer) = self.put("/v1/subscriptions/s", all).await;
        assert_eq!(status, 201, "{answer}");
    }

    /// Publishes one text to `t`; returns its id.
    pub(crate) async fn publish(&self, body: &str) -> String {
        let request = self.request(Method::POST, "/v1/topics/t/messages");
        let (status, answer) = send(
            request
                .header("content-type", "text/plain")
                .body(body.to_owned()),
        )
        .await;
        assert_eq!(status, 200, "{answer}");
        text(&answer["id"])
    }

    /// Receives from `s` without waiting.
    pub(crate) async fn receive(&self, most: u32) -> Vec<Value> {
        self.receive_with(json!({"max_messages": most})).await
    }

    pub(crate) async fn receive_with(&self, ask: Value) -> Vec<Value> {
        let (status, answer) = self.post("/v1/subscriptions/s/receive", ask).await;
        assert_eq!(status, 200, "{answer}");
        answer["messages"].as_array().unwrap().clone()
    }

    /// Acks receipts at `s`; returns one result for each.
    pub(crate) async fn ack(&self, receipts: &[&Value]) -> Vec<Value> {
        self.results("ack", json!({"receipts": receipts})).await
    }

    /// Settles items at `s`; returns one result for each.
    pub(crate) async fn settle(&self, items: Value) -> Vec<Value> {
        self.results("settle", json!({"items": items})).await
    }

    pub(crate) async fn results(&self, verb: &str, body: Value) -> Vec<Value> {
        let (status, answer) = self
            .post(&format!("/v1/subscriptions/s/{verb}"), body)
            .await;
        assert_eq!(status, 200, "{answer}");
        answer["results"].as_array().unwrap().clone()
    }
}

/// Looks again and again until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn client() -> reqwest::Client {
    // The client wants to know who would do TLS, also where there is none.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn request(
    client: &reqwest::Client,
    key: Option<&str>,
    method: Method,
    at: SocketAddr,
    path: &str,
) -> RequestBuilder {
    let request = client.request(method, format!("http://{at}{path}"));
    match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

/// Status and JSON; null when the answer has no body.
pub(crate) async fn send(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Bytes = response.bytes().await.unwrap();
    let value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    (status, value)
}

/// A JSON text as a string.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text, not {value}"))
        .to_owned()
}

/// The code of an item's error.
pub(crate) fn code(result: &Value) -> &str {
    result["error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("an error, not {result}"))
}

/// One field of many.
pub(crate) fn all<'a>(messages: &'a [Value], field: &str) -> Vec<&'a Value> {
    messages.iter().map(|message| &message[field]).collect()
}
