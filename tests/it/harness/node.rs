//! One node inside the test: the whole service over the database and object storage of a fleet, on a loopback port, and a
//! client that speaks to it. Everything a test does goes through HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cursus::app;
use cursus::engine::{Engine, Parts};
use cursus::listen;
use cursus::shutdown::Shutdown;
use cursus::store::Store;
use cursus::worker;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::authority::outbound;
use super::client::{client, request, send};
use super::fleet::Fleet;
use super::wire::text;

const DRAIN: Duration = Duration::from_secs(10);

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

/// More than any test opens.
const CONNECTIONS_MAX: u32 = 1_000;

impl Node {
    pub(crate) async fn start(fleet: &Fleet) -> Self {
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
            outbound: outbound(),
            clock: fleet.clock.clone(),
            room: fleet.room.clone(),
            open: fleet.open,
            trusted_proxies: fleet.trusted_proxies.clone(),
            cache_bytes: fleet.cache_bytes,
            hot_limit_bytes: fleet.hot_limit_bytes,
            turn_loops: 2,
        };
        let settings = app::Settings {
            duties: worker::Settings::default(),
            request_timeout: Duration::from_secs(30),
            max_connections: CONNECTIONS_MAX,
        };
        let (engine, routers) = app::assemble(parts, settings, &shutdown, &stop)
            .await
            .unwrap();
        let listener = listen::bind(listen::Options {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            max_connections: CONNECTIONS_MAX,
            header_timeout: Duration::from_secs(30),
            pause_max: Duration::from_secs(30),
            drain_timeout: DRAIN,
            tls: None,
        });
        let listener = listener.unwrap().listen().unwrap();
        let address = listener.address().unwrap();
        let ending = shutdown.clone();
        let serving = tokio::spawn(async move { listener.serve(routers, &ending).await });
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

    /// Ends its loops, as if it had died: it sends no heartbeat and does no duty. It still serves requests.
    pub(crate) fn fall_silent(&self) {
        self.stop.cancel();
    }

    /// Ends it in the order of `app`.
    pub(crate) async fn stop(self) {
        self.drain();
        drop(self.client);
        self.serving.await.unwrap();
        self.engine.end_push().await;
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

    /// A topic `t` and its subscription `s` with these settings.
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
