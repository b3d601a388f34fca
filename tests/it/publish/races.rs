//! The same keys at once, from many clients of one node and of two: each key is one message, its publishes agree on it,
//! and exactly one of them is not a duplicate. Also publishes whose node died before it answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use tokio::task::JoinSet;

use crate::harness::{Fleet, Node, all, client, send, text, until};

const BATCH: &str = "/v1/topics/t/messages/batch";
const RAW: &str = "/v1/topics/t/messages";
const CLIENTS: u64 = 12;
const REQUESTS: usize = 25;
/// Different `dedup_id`s of one run.
const IDS: usize = 150;
/// Different `Idempotency-Key`s of one run. Their requests are the same, whoever sends them.
const KEYS: usize = 30;

/// Results by `dedup_id` and by request.
#[derive(Default)]
struct Ledger {
    /// Ids of messages, each with the number of results that are no duplicate.
    ids: BTreeMap<String, BTreeMap<String, usize>>,
    /// Bodies of answers.
    answers: BTreeMap<String, BTreeSet<String>>,
}

impl Ledger {
    fn add(&mut self, messages: &[Value], answer: &Value) {
        for (message, result) in messages.iter().zip(answer["results"].as_array().unwrap()) {
            let Some(dedup_id) = message["dedup_id"].as_str() else {
                assert_eq!(result.get("duplicate"), None, "{message}");
                continue;
            };
            let ids = self.ids.entry(dedup_id.to_owned()).or_default();
            let first = usize::from(result.get("duplicate").is_none());
            *ids.entry(text(&result["id"])).or_default() += first;
        }
    }
}

/// Posts a batch, under a key if there is one.
async fn post(
    http: &reqwest::Client,
    at: SocketAddr,
    key: Option<&str>,
    body: &Value,
) -> (u16, Value) {
    let mut request = http
        .request(Method::POST, format!("http://{at}{BATCH}"))
        .json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", format!("\"{key}\""));
    }
    send(request).await
}

/// Messages with `dedup_id`s that others publish too, and some without.
fn batch(random: &mut StdRng) -> Vec<Value> {
    let count = random.random_range(1..8);
    let message = |_| match random.random_range(0..IDS + IDS / 8) {
        id if id < IDS => json!({"body": format!("d{id}"), "dedup_id": format!("d{id}")}),
        _ => json!({"body": "plain"}),
    };
    (0..count).map(message).collect()
}

/// One client: batches of its own, and requests that others send too.
async fn publish(at: SocketAddr, seed: u64, ledger: Arc<Mutex<Ledger>>) {
    let (http, mut random) = (client(), StdRng::seed_from_u64(seed));
    for _ in 0..REQUESTS {
        if random.random_bool(0.7) {
            let messages = batch(&mut random);
            let (status, answer) = post(&http, at, None, &json!({"messages": messages})).await;
            assert_eq!(status, 200, "{answer}");
            ledger.lock().add(&messages, &answer);
            continue;
        }
        let number = random.random_range(0..KEYS);
        let (key, body) = shared(number);
        let (status, answer) = post(&http, at, Some(&key), &body).await;
        if status == 409 {
            assert_eq!(answer["code"], "idempotency_key_in_use");
            continue;
        }
        assert_eq!(status, 200, "{answer}");
        ledger
            .lock()
            .answers
            .entry(key)
            .or_default()
            .insert(answer.to_string());
    }
}

/// A request that several clients send.
fn shared(number: usize) -> (String, Value) {
    let mut random = StdRng::seed_from_u64(number as u64);
    let mut messages = batch(&mut random);
    messages.push(json!({"body": format!("k{number}")}));
    (format!("k{number}"), json!({"messages": messages}))
}

/// All bodies that the subscription has, sorted, with the ids of their messages.
async fn received(node: &Node) -> BTreeMap<String, BTreeSet<String>> {
    let mut received: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    loop {
        let messages = node.receive(100).await;
        if messages.is_empty() {
            return received;
        }
        for message in &messages {
            let ids = received.entry(text(&message["body"])).or_default();
            assert!(ids.insert(text(&message["id"])));
        }
    }
}

async fn publish_at_once(fleet: Fleet, nodes: Vec<Node>) {
    nodes[0].topic_and_subscription(json!({})).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut tasks = JoinSet::new();
    for (number, node) in (0..CLIENTS).zip(nodes.iter().cycle()) {
        tasks.spawn(publish(
            node.address,
            seed.wrapping_add(number),
            ledger.clone(),
        ));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }

    let mut ledger = std::mem::take(&mut *ledger.lock());
    for (key, answers) in &ledger.answers {
        assert_eq!(answers.len(), 1, "{key}: {answers:?}");
        let answer: Value = serde_json::from_str(answers.first().unwrap()).unwrap();
        let number: usize = key[1..].parse().unwrap();
        let (_, body) = shared(number);
        for node in &nodes {
            let again = post(&node.client, node.address, Some(key), &body).await;
            assert_eq!(again, (200, answer.clone()), "{key}");
        }
    }
    // Each request under a key took effect once, whoever got its answer.
    for (key, answers) in ledger.answers.clone() {
        let (_, body) = shared(key[1..].parse().unwrap());
        let answer: Value = serde_json::from_str(answers.first().unwrap()).unwrap();
        ledger.add(body["messages"].as_array().unwrap(), &answer);
    }
    let mut received = received(&nodes[0]).await;
    assert!(received.remove("plain").is_some());
    for (dedup_id, ids) in &ledger.ids {
        let (id, firsts) = ids.first_key_value().unwrap();
        assert_eq!((ids.len(), firsts), (1, &1), "{dedup_id}: {ids:?}");
        assert_eq!(received[dedup_id], BTreeSet::from([id.clone()]));
    }
    for (body, ids) in &received {
        assert_eq!(ids.len(), 1, "{body}: {ids:?}");
    }
    fleet.finish(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_used_at_once_on_one_node_are_one_message_each() {
    let fleet = Fleet::new().await;
    let nodes = vec![fleet.node().await];
    publish_at_once(fleet, nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_used_at_once_on_two_nodes_are_one_message_each() {
    let fleet = Fleet::new().await;
    let nodes = vec![fleet.node().await, fleet.node().await];
    publish_at_once(fleet, nodes).await;
}

/// Publishes with one kind of key.
async fn publish_kind(node: &Node, kind: usize) -> (u16, Value) {
    let keyed = |path: &str| {
        node.request(Method::POST, path)
            .header("idempotency-key", "\"k\"")
    };
    match kind {
        0 => {
            let messages = json!([{"body": "a", "dedup_id": "a"}, {"body": "b", "dedup_id": "b"}]);
            node.post(BATCH, json!({"messages": messages})).await
        }
        1 => send(keyed(RAW).header("content-type", "text/plain").body("raw")).await,
        _ => {
            let messages = json!([{"body": "c"}, {"body": "d"}]);
            send(keyed(BATCH).json(&json!({"messages": messages}))).await
        }
    }
}

/// Publishes with all kinds of keys at once.
async fn publish_all_kinds(node: &Node) -> [(u16, Value); 3] {
    tokio::join!(
        publish_kind(node, 0),
        publish_kind(node, 1),
        publish_kind(node, 2)
    )
    .into()
}

/// Waits until a turn waits for a lock. Ends its session if so asked, as the server does when its node dies.
async fn turn_waits(fleet: &Fleet, ends: bool) {
    let mut sql = fleet.database.connect().await;
    until("a turn waits", async || {
        let waiting = "SELECT count(*) FILTER (WHERE NOT $1 OR pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '-- turn.%'";
        let waiting: i64 = sqlx::query_scalar(waiting).bind(ends).fetch_one(&mut sql).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
}

/// Locks all lanes.
async fn hold(sql: &mut PgConnection) -> Transaction<'_, Postgres> {
    let mut holder = sql.begin().await.unwrap();
    sqlx::query("SELECT FROM lane FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_whose_node_died_in_the_turn_takes_effect_once_on_another_node() {
    let fleet = Fleet::new().await;
    let (dying, other) = (fleet.node().await, fleet.node().await);
    dying.topic_and_subscription(json!({})).await;
    dying.publish("before").await;
    let mut sql = fleet.database.connect().await;
    let holder = hold(&mut sql).await;

    // Nothing of the turn that waits for the lane is stored.
    let (unanswered, ()) = tokio::join!(publish_all_kinds(&dying), async {
        turn_waits(&fleet, true).await;
        holder.rollback().await.unwrap();
    });
    let answers = publish_all_kinds(&other).await;
    let again = publish_all_kinds(&other).await;

    assert!(
        unanswered.iter().any(|answer| answer.0 == 503),
        "{unanswered:?}"
    );
    for (answer, again) in answers.iter().zip(&again) {
        assert_eq!((answer.0, again.0), (200, 200), "{answer:?}");
    }
    assert_eq!(
        all(again[0].1["results"].as_array().unwrap(), "duplicate"),
        [true, true]
    );
    assert_eq!(answers[1..], again[1..]);
    let bodies = received(&dying).await;
    let counts: Vec<(&str, usize)> = bodies
        .iter()
        .map(|(body, ids)| (body.as_str(), ids.len()))
        .collect();
    assert_eq!(
        counts,
        ["a", "b", "before", "c", "d", "raw"].map(|body| (body, 1))
    );
    fleet.finish([dying, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_committed_and_was_not_answered_is_a_duplicate_on_another_node() {
    let fleet = Fleet::new().await;
    let (dying, other) = (fleet.node().await, fleet.node().await);
    dying.topic_and_subscription(json!({})).await;
    dying.publish("before").await;
    let mut sql = fleet.database.connect().await;

    for kind in 0..3 {
        let holder = hold(&mut sql).await;
        tokio::select! {
            answer = publish_kind(&dying, kind) => panic!("{answer:?}"),
            // The client goes away while the turn waits for the lane.
            () = turn_waits(&fleet, false) => {}
        }
        holder.rollback().await.unwrap();
    }
    until("the turns commit", async || {
        let stored = "SELECT sum(count)::bigint FROM block";
        let stored: i64 = sqlx::query_scalar(stored)
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (stored == 6).then_some(())
    })
    .await;
    let answers = publish_all_kinds(&other).await;

    assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
    assert_eq!(
        all(answers[0].1["results"].as_array().unwrap(), "duplicate"),
        [true, true]
    );
    let bodies = received(&other).await;
    for (body, ids) in &bodies {
        assert_eq!(ids.len(), 1, "{body}: {ids:?}");
    }
    let id = |body: &str| json!(bodies[body].first().unwrap());
    assert_eq!(bodies.len(), 6);
    assert_eq!(
        all(answers[0].1["results"].as_array().unwrap(), "id"),
        [&id("a"), &id("b")]
    );
    assert_eq!(answers[1].1["id"], id("raw"));
    assert_eq!(
        all(answers[2].1["results"].as_array().unwrap(), "id"),
        [&id("c"), &id("d")]
    );
    fleet.finish([dying, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_another_transaction_holds_delays_no_other_lane() {
    let fleet = Fleet::new().await;
    let node = Arc::new(fleet.node().await);
    node.topic_and_subscription(json!({})).await;
    // Some of them belong to the same turn loop as `t`.
    for name in ["a", "b", "c"] {
        node.topic(name).await;
        let settings = json!({"topic": name});
        node.put(&format!("/v1/subscriptions/{name}"), settings)
            .await;
    }
    let first = node.receive_with(json!({})).await;
    assert_eq!(first, [] as [Value; 0]);
    let mut other = fleet.database.connect().await;
    let mut held = other.begin().await.unwrap();
    let lane = "SELECT FROM lane WHERE topic_id = (SELECT topic_id FROM topic WHERE name = 't') FOR UPDATE";
    sqlx::query(lane).execute(&mut *held).await.unwrap();
    let publish = |topic: &str, key: Option<&str>| {
        let path = format!("/v1/topics/{topic}/messages");
        let request = node.request(Method::POST, &path).body("m");
        send(match key {
            Some(key) => request.header("idempotency-key", format!("\"{key}\"")),
            None => request,
        })
    };
    let stuck: Vec<_> = (0..4)
        .map(|n| tokio::spawn(publish("t", (n == 0).then_some("k"))))
        .collect();

    for round in 0..5 {
        for name in ["a", "b", "c"] {
            let began = Instant::now();
            for key in [None, Some(&*format!("{round}"))] {
                let (status, answer) = publish(name, key).await;
                assert_eq!(status, 200, "{answer}");
            }
            let (status, answer) = node
                .post(&format!("/v1/subscriptions/{name}/receive"), json!({}))
                .await;
            assert_eq!(status, 200, "{answer}");
            assert!(
                began.elapsed() < Duration::from_secs(2),
                "{round} {name}: {:?}",
                began.elapsed()
            );
        }
        assert!(stuck.iter().all(|one| !one.is_finished()));
    }
    held.commit().await.unwrap();

    let mut ids = Vec::new();
    for one in stuck {
        let (status, answer) = one.await.unwrap();
        assert_eq!(status, 200, "{answer}");
        ids.push(text(&answer["id"]));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert_eq!(node.receive(10).await.len(), 4);
    let node = Arc::into_inner(node).expect("all requests have ended");
    fleet.finish([node]).await;
}
