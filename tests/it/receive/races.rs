//! Many clients at once on two nodes: publishers, and receivers that ack, nack and extend. The clock stands still, so
//! no lease ends, and a message that one receiver holds is held by no other (I2).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, send, text};

const PUBLISHERS: usize = 4;
const REQUESTS: usize = 30;
const RECEIVERS: usize = 8;
/// Usually takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// The messages that receivers hold.
#[derive(Default)]
struct Ledger {
    published: HashSet<String>,
    held: HashSet<String>,
    acked: HashSet<String>,
}

/// A client of one node that can be moved into a task.
#[derive(Clone)]
struct Client {
    post: Arc<dyn Fn(&str) -> RequestBuilder + Send + Sync>,
}

impl Client {
    fn of(node: &Node) -> Self {
        let (client, at) = (node.client.clone(), node.address);
        Self {
            post: Arc::new(move |path| client.request(Method::POST, format!("http://{at}{path}"))),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = send((self.post)(path).json(&body)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

async fn publish(client: Client, ledger: Arc<Mutex<Ledger>>) {
    for n in 0..REQUESTS {
        let messages: Vec<Value> = (0..1 + n % 9)
            .map(|m| json!({"body": m.to_string(), "attributes": {"fairness_key": (m % 3).to_string()}}))
            .collect();
        let answer = client
            .post("/v1/topics/t/messages/batch", json!({"messages": messages}))
            .await;
        let ids = answer["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| text(&result["id"]));
        for id in ids.collect::<Vec<_>>() {
            assert!(ledger.lock().published.insert(id), "an id is given once");
        }
    }
}

/// Receives until all messages are acked. Nacks every seventh message, and extends every fifth before it acks it.
async fn consume(client: Client, ledger: Arc<Mutex<Ledger>>, total: usize) {
    let (mut count, began) = (0, Instant::now());
    while ledger.lock().acked.len() < total {
        if began.elapsed() > PATIENCE {
            let ledger = ledger.lock();
            let missing: Vec<_> = ledger.published.difference(&ledger.acked).collect();
            panic!(
                "{} of {total} are published, never acked: {missing:?}, of those held: {:?}",
                ledger.published.len(),
                ledger.held
            );
        }
        let ask = json!({"max_messages": 1 + count % 13, "wait_seconds": 1});
        let answer = client.post("/v1/subscriptions/s/receive", ask).await;
        let mut items = Vec::new();
        for message in answer["messages"].as_array().unwrap() {
            count += 1;
            let id = text(&message["id"]);
            let mut ledger = ledger.lock();
            assert!(!ledger.acked.contains(&id), "{id} comes back after its ack");
            assert!(ledger.held.insert(id.clone()), "{id} is handed out to two");
            if count % 7 == 0 {
                ledger.held.remove(&id);
                items.push((id, json!({"receipt": message["receipt"], "action": "nack"})));
            } else if count % 5 == 0 {
                items.push((
                    id.clone(),
                    json!({"receipt": message["receipt"], "action": "extend"}),
                ));
                items.push((id, json!({"receipt": message["receipt"], "action": "ack"})));
            } else {
                items.push((id, json!({"receipt": message["receipt"], "action": "ack"})));
            }
        }
        // Each call has one action, so no message is in a call twice.
        for action in ["nack", "extend", "ack"] {
            let (ids, items): (Vec<String>, Vec<Value>) = items
                .iter()
                .filter(|(_, item)| item["action"] == action)
                .cloned()
                .unzip();
            if items.is_empty() {
                continue;
            }
            let answer = client
                .post("/v1/subscriptions/s/settle", json!({"items": items}))
                .await;
            for (id, result) in ids.into_iter().zip(answer["results"].as_array().unwrap()) {
                assert!(result.get("error").is_none(), "{action} of {id}: {result}");
                if action == "ack" {
                    let mut ledger = ledger.lock();
                    ledger.held.remove(&id);
                    assert!(ledger.acked.insert(id));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_receivers_on_two_nodes_never_share_a_message_and_miss_none() {
    receive_at_once(json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_when_customers_take_turns() {
    receive_at_once(json!({"fairness": {"weights": {"1": 5}}})).await;
}

async fn receive_at_once(settings: Value) {
    let fleet = Fleet::new().await;
    let nodes = [fleet.node().await, fleet.node().await];
    nodes[0].topic_and_subscription(settings).await;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let total = PUBLISHERS * (0..REQUESTS).map(|n| 1 + n % 9).sum::<usize>();

    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..PUBLISHERS {
        tasks.spawn(publish(Client::of(&nodes[n % 2]), ledger.clone()));
    }
    for n in 0..RECEIVERS {
        tasks.spawn(consume(Client::of(&nodes[n % 2]), ledger.clone(), total));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }

    {
        let ledger = ledger.lock();
        assert_eq!((ledger.published.len(), ledger.held.len()), (total, 0));
        assert_eq!(ledger.published, ledger.acked);
    }
    fleet.advance(3_600);
    assert_eq!(nodes[1].receive(100).await, [] as [Value; 0]);
    fleet.finish(nodes).await;
}

/// Both nodes receive the same due messages at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_falls_due_is_redelivered_to_one_of_two_nodes() {
    let fleet = Fleet::new().await;
    let nodes = [fleet.node().await, fleet.node().await];
    nodes[0].topic_and_subscription(json!({})).await;
    for round in 1..=5 {
        let messages: Vec<Value> = (0..60)
            .map(|n| json!({"body": format!("{round} {n}")}))
            .collect();
        nodes[0]
            .post("/v1/topics/t/messages/batch", json!({"messages": messages}))
            .await;
        let first = nodes[0].receive(100).await;
        assert_eq!(first.len(), 60);
        fleet.advance(31);
        let mut again = Vec::new();
        while again.len() < 60 {
            let (a, b) = tokio::join!(nodes[0].receive(25), nodes[1].receive(25));
            assert!(
                !(a.is_empty() && b.is_empty()),
                "{} of 60 came back",
                again.len()
            );
            again.extend(a.into_iter().chain(b));
        }
        let ids: HashSet<&str> = again
            .iter()
            .map(|message| message["id"].as_str().unwrap())
            .collect();
        assert_eq!((ids.len(), again.len()), (60, 60), "round {round}");
        assert!(again.iter().all(|message| message["attempt"] == 2));
        let receipts: Vec<&Value> = again.iter().map(|message| &message["receipt"]).collect();
        assert!(
            nodes[1]
                .ack(&receipts)
                .await
                .iter()
                .all(|result| *result == json!({}))
        );
    }
    fleet.finish(nodes).await;
}

/// Both nodes change messages of the same leases at the same moment, each its own ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_a_lease_that_many_change_at_once_keep_their_receipts() {
    let fleet = Fleet::new().await;
    let nodes = [fleet.node().await, fleet.node().await];
    nodes[0].topic_and_subscription(json!({})).await;
    let messages: Vec<Value> = (0..100).map(|n| json!({"body": n.to_string()})).collect();
    nodes[0]
        .post("/v1/topics/t/messages/batch", json!({"messages": messages}))
        .await;
    let received = nodes[0].receive(100).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10 {
        let client = Client::of(&nodes[n % 2]);
        let mine: Vec<Value> = received.iter().skip(n).step_by(10).cloned().collect();
        tasks.spawn(async move {
            for round in 1..=20 {
                let some = mine.iter().skip(round % 3).step_by(1 + round % 4);
                let seconds = 60 + (n * round) % 7;
                let items = some.map(|message| json!({"receipt": message["receipt"], "action": "extend", "visibility_timeout_seconds": seconds}));
                let items: Vec<Value> = items.collect();
                let answer = client
                    .post("/v1/subscriptions/s/settle", json!({"items": items}))
                    .await;
                for result in answer["results"].as_array().unwrap() {
                    assert!(result.get("error").is_none(), "{result}");
                }
            }
            let items = mine.iter().map(|message| json!({"receipt": message["receipt"], "action": "nack"}));
            let answer = client
                .post("/v1/subscriptions/s/settle", json!({"items": items.collect::<Vec<_>>()}))
                .await;
            assert_eq!(answer["results"], json!(vec![json!({}); 10]));
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let again = nodes[1].receive(100).await;
    assert_eq!(again.len(), 100);
    assert!(again.iter().all(|message| message["attempt"] == 2));
    fleet.finish(nodes).await;
}
