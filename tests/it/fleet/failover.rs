//! After a failover everything is back within five seconds of the new primary, however the old one ends.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::replica::Replicas;
use crate::harness::{Fleet, Node, send, until};

/// From the promotion until all kinds of requests succeed.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// One request of each kind; those that fail.
async fn failures(node: &Node) -> Vec<(&'static str, u16, Value)> {
    let publish = || {
        let request = node.request(Method::POST, "/v1/topics/t/messages");
        request.header("content-type", "text/plain").body("x")
    };
    let key = format!("\"{:016x}\"", rand::random::<u64>());
    let receive = json!({"max_messages": 1, "visibility_timeout_seconds": 1});
    let get = |path: &str| node.request(Method::GET, path);
    let answers = [
        ("publish", publish()),
        (
            "publish with a key",
            publish().header("idempotency-key", key),
        ),
        (
            "receive",
            node.request(Method::POST, "/v1/subscriptions/s/receive")
                .json(&receive),
        ),
        (
            "put",
            node.request(Method::PUT, "/v1/topics/u").json(&json!({})),
        ),
        ("stats", get("/v1/topics/t/stats")),
        ("readyz", get("/readyz")),
    ];
    let mut failed = Vec::new();
    for (kind, request) in answers {
        let (status, answer) = send(request).await;
        if status >= 300 {
            failed.push((kind, status, answer));
        }
    }
    failed
}

async fn begin() -> (Replicas, Fleet, Node) {
    let replicas = Replicas::start().await;
    let mut fleet = Fleet::new().await;
    fleet.database = replicas.database();
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    // Connections of all kinds are open.
    assert_eq!(failures(&node).await, []);
    // The standby has all of it: what is published later, the old primary may keep to itself.
    replicas.caught_up().await;
    (replicas, fleet, node)
}

async fn is_back(node: &Node, promoted: Instant) {
    until("everything is back", async || {
        failures(node).await.is_empty().then_some(())
    })
    .await;
    let took = promoted.elapsed();
    assert!(took < BACK_WITHIN, "back after {took:?}");
    // For good: no connection to the old primary is left.
    for _ in 0..20 {
        assert_eq!(failures(node).await, []);
    }
}

#[tokio::test]
async fn a_node_leaves_an_old_primary_that_takes_no_writes() {
    let (replicas, fleet, node) = begin().await;
    replicas.demote().await;
    replicas.promote().await;
    is_back(&node, Instant::now()).await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_node_leaves_an_old_primary_that_says_nothing_any_more() {
    let (replicas, fleet, node) = begin().await;
    replicas.freeze();
    replicas.promote().await;
    is_back(&node, Instant::now()).await;
    fleet.finish([node]).await;
}
