//! An upgrade as infra/operate/upgrade.md says: a new node migrates the schema and serves beside the old ones, which end one
//! after the other, and an old node can come back. `.ci/upgrade` names the program of the last schema version before in
//! CURSUS_OLD_BIN; without it the old nodes are of this version, and the test is that of a rolling restart.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::Executor;

use crate::harness::installation::{Installation, Server};
use crate::harness::invariants::check_invariants;
use crate::harness::{client, text};

/// Time for which nodes of two versions serve side by side, in each step.
const STEP: Duration = Duration::from_secs(2);
const SERVE: [&str; 2] = ["serve", "--listen=127.0.0.1:0"];

/// What clients of a fleet have seen. They go on with another node when one is gone or asks them to.
struct Load {
    client: Client,
    key: String,
    nodes: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    is_publishing: AtomicBool,
    is_over: AtomicBool,
    published: Mutex<BTreeSet<String>>,
    acked: Mutex<BTreeSet<String>>,
}

impl Load {
    /// Asks one node after the other until one answers; any other failure than that of a node that ends fails the test.
    async fn ask(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
        loop {
            let nodes = self.nodes.lock().clone();
            let node = nodes[self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len()];
            let mut request = self.client.post(format!("http://{node}{path}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let sent = request.bearer_auth(&self.key).body(body.to_owned()).send();
            if let Ok(answer) = sent.await {
                let status = answer.status().as_u16();
                if let Ok(text) = answer.text().await
                    && status != 503
                {
                    assert_eq!(status, 200, "{path}: {text}");
                    return serde_json::from_str(&text).unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn publish(self: Arc<Self>, publisher: u32) {
        for number in 0.. {
            if !self.is_publishing.load(Ordering::Relaxed) {
                return;
            }
            let (key, body) = (
                format!("\"{publisher}-{number}\""),
                format!("{publisher}-{number}"),
            );
            let headers = [
                ("idempotency-key", key.as_str()),
                ("content-type", "text/plain"),
            ];
            self.ask("/v1/topics/t/messages", &headers, &body).await;
            assert!(self.published.lock().insert(body));
        }
    }

    /// Receives and acks until the publishers have ended and nothing is left.
    async fn consume(self: Arc<Self>) {
        let json_body = [("content-type", "application/json")];
        loop {
            let ends = self.is_over.load(Ordering::Relaxed);
            let ask = json!({"max_messages": 10, "wait_seconds": 1}).to_string();
            let path = "/v1/subscriptions/s/receive";
            let answer = self.ask(path, &json_body, &ask).await;
            let messages = answer["messages"].as_array().unwrap();
            if messages.is_empty() && ends {
                return;
            }
            for message in messages {
                let body = text(&message["body"]);
                assert!(
                    !self.acked.lock().contains(&body),
                    "{body} was acked before"
                );
            }
            if messages.is_empty() {
                continue;
            }
            let receipts: Vec<&Value> =
                messages.iter().map(|message| &message["receipt"]).collect();
            let ack = json!({"receipts": receipts}).to_string();
            let answer = self.ask("/v1/subscriptions/s/ack", &json_body, &ack).await;
            for (message, result) in messages.iter().zip(answer["results"].as_array().unwrap()) {
                assert_eq!(result, &json!({}), "{message}");
                self.acked.lock().insert(text(&message["body"]));
            }
        }
    }

    /// Clients ask these nodes from now on, for the time of a step; each step serves requests.
    async fn serve_by(&self, nodes: &[&Server]) {
        *self.nodes.lock() = nodes.iter().map(|node| node.address).collect();
        let before = self.acked.lock().len();
        tokio::time::sleep(STEP).await;
        assert!(
            self.acked.lock().len() > before,
            "nothing was acked in a step"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_upgraded_node_by_node_under_load_and_rolled_back() {
    let named = std::env::var_os("CURSUS_OLD_BIN").filter(|name| !name.is_empty());
    let old = named.map_or_else(|| env!("CARGO_BIN_EXE_cursus").into(), PathBuf::from);
    let fleet = Installation::new().await;
    let mut sql = fleet.database.connect().await;
    sql.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await
        .unwrap();
    let create = fleet
        .command_of(&old, &["key", "create", "--tenant", "shop"])
        .output()
        .unwrap();
    let key = String::from_utf8(create.stdout).unwrap().trim().to_owned();
    let node_of_old = async || fleet.node_by(fleet.command_of(&old, &SERVE), &key).await;
    let (first, second) = (node_of_old().await, node_of_old().await);
    first.topic_and_subscription().await;
    let load = Arc::new(Load {
        client: client(),
        key: key.clone(),
        nodes: Mutex::new(vec![first.address]),
        turn: AtomicUsize::new(0),
        is_publishing: AtomicBool::new(true),
        is_over: AtomicBool::new(false),
        published: Mutex::default(),
        acked: Mutex::default(),
    });
    let publishers = (0..4).map(|number| tokio::spawn(load.clone().publish(number)));
    let consumers = (0..2).map(|_| tokio::spawn(load.clone().consume()));
    let (publishers, consumers): (Vec<_>, Vec<_>) = (publishers.collect(), consumers.collect());

    load.serve_by(&[&first, &second]).await;
    // It migrates the schema under the load.
    let third = fleet.node(&key).await;
    load.serve_by(&[&first, &second, &third]).await;
    *load.nodes.lock() = vec![second.address, third.address];
    first.end().await;
    let fourth = fleet.node(&key).await;
    load.serve_by(&[&second, &third, &fourth]).await;
    *load.nodes.lock() = vec![third.address, fourth.address];
    second.end().await;
    // A node that is rolled back.
    let back = node_of_old().await;
    load.serve_by(&[&third, &fourth, &back]).await;
    load.is_publishing.store(false, Ordering::Relaxed);
    for task in publishers {
        task.await.unwrap();
    }
    load.is_over.store(true, Ordering::Relaxed);
    for task in consumers {
        task.await.unwrap();
    }

    let (published, acked) = (load.published.lock().clone(), load.acked.lock().clone());
    assert!(
        published == acked,
        "{} published, {} acked",
        published.len(),
        acked.len()
    );
    for node in [third, fourth, back] {
        node.end().await;
    }
    check_invariants(&mut sql).await;
}
