//! Random requests to two nodes, compared with a model of the state of each message (I2, I3) and of the keys of
//! publishes. The seed is printed; `CURSUS_TEST_SEED` runs a seed again.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, send, text};

const STEPS: usize = 250;
/// Seconds for which a key is known.
const WINDOW: u64 = 600;

/// The expected state of a message.
#[derive(Debug, Clone)]
struct Message {
    done: bool,
    /// It is not handed out before this second.
    hidden_until: u64,
    attempt: u64,
    /// The number of the delivery whose receipt settles it; `None` after a nack.
    current: Option<u64>,
    /// Whether that delivery's receipt has acked it.
    acked: bool,
}

/// Until then nothing is old enough to be forgotten of leases, so that every repeated ack is known as such.
const KNOWN_SECONDS: u64 = 600;

/// A receipt, with the number of its delivery and the id of its message.
struct Receipt {
    token: Value,
    delivery: u64,
    id: String,
}

/// A batch, and the `Idempotency-Key` that it is sent with, if there is one.
#[derive(Debug, Clone)]
struct Batch {
    key: Option<String>,
    messages: Vec<Value>,
}

/// Items of a settle, each with the index of its receipt.
type Items = Vec<(usize, Value)>;

struct World {
    fleet: Fleet,
    nodes: [Node; 2],
    random: StdRng,
    now: u64,
    deliveries: u64,
    messages: BTreeMap<String, Message>,
    receipts: Vec<Receipt>,
    /// The message of each `dedup_id`, and until when it is known.
    dedup_ids: BTreeMap<String, (String, u64)>,
    /// Batches that were sent with a key, with their results, and until when these come again.
    keyed: Vec<(Batch, Value, u64)>,
    /// Messages in the dead-letter topic.
    dead: BTreeSet<String>,
}

impl World {
    async fn new(seed: u64, mut settings: Value) -> Self {
        let fleet = Fleet::new().await;
        let nodes = [fleet.node().await, fleet.node().await];
        nodes[0].topic("dead").await;
        nodes[0]
            .put("/v1/subscriptions/d", json!({"topic": "dead"}))
            .await;
        settings["dead_letter_topic"] = json!("dead");
        settings["max_attempts"] = json!(1_000);
        nodes[0].topic_and_subscription(settings).await;
        Self {
            fleet,
            nodes,
            random: StdRng::seed_from_u64(seed),
            now: 0,
            deliveries: 0,
            messages: BTreeMap::new(),
            receipts: Vec::new(),
            dedup_ids: BTreeMap::new(),
            keyed: Vec::new(),
            dead: BTreeSet::new(),
        }
    }

    fn node(&mut self) -> usize {
        self.random.random_range(0..2)
    }

    /// A new batch, some of its messages with a `dedup_id`, or one that was sent before with its key.
    fn next_batch(&mut self) -> Batch {
        if !self.keyed.is_empty() && self.random.random_bool(0.2) {
            let at = self.random.random_range(0..self.keyed.len());
            return self.keyed[at].0.clone();
        }
        let mut message = |n: i32| {
            let mut message = json!({"body": n.to_string()});
            match self.random.random_range(0..4) {
                0 => {}
                customer => message["attributes"] = json!({"fairness_key": customer.to_string()}),
            }
            if self.random.random_bool(0.3) {
                message["dedup_id"] = json!(self.random.random_range(0..60).to_string());
            }
            message
        };
        let messages = (0..40).map(&mut message).collect::<Vec<_>>();
        let count = self.random.random_range(1..=messages.len());
        let key = self.random.random_bool(0.3);
        let key = key.then(|| format!("{} {}", self.keyed.len(), self.now));
        Batch {
            key,
            messages: messages[..count].to_vec(),
        }
    }

    async fn send(&self, node: usize, batch: &Batch) -> Value {
        let mut request = self.nodes[node].request(Method::POST, "/v1/topics/t/messages/batch");
        if let Some(key) = &batch.key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        let body = json!({"messages": batch.messages});
        let (status, answer) = send(request.json(&body)).await;
        assert_eq!(status, 200, "{answer}");
        answer["results"].clone()
    }

    fn published(&mut self, batch: Batch, results: Value) {
        let (now, until) = (self.now, self.now + WINDOW);
        let before = self
            .keyed
            .iter_mut()
            .find(|(of, ..)| of.key.is_some() && of.key == batch.key);
        if let Some((_, first, known_until)) = before {
            if now < *known_until {
                assert_eq!(results, *first, "{:?} comes again", batch.key);
                return;
            }
            (*first, *known_until) = (results.clone(), until);
        } else if batch.key.is_some() {
            self.keyed.push((batch.clone(), results.clone(), until));
        }
        for (message, result) in batch.messages.iter().zip(results.as_array().unwrap()) {
            let id = text(&result["id"]);
            let dedup_id = message.get("dedup_id").map(text);
            let known = dedup_id
                .as_ref()
                .and_then(|dedup_id| self.dedup_ids.get(dedup_id));
            if let Some((first, _)) = known.filter(|(_, until)| now < *until) {
                assert_eq!(
                    *result,
                    json!({"id": first, "duplicate": true}),
                    "{message}"
                );
                continue;
            }
            assert_eq!(*result, json!({"id": id}), "{message}");
            self.dedup_ids
                .extend(dedup_id.map(|dedup_id| (dedup_id, (id.clone(), until))));
            let message = Message {
                done: false,
                acked: false,
                hidden_until: 0,
                attempt: 0,
                current: None,
            };
            assert!(self.messages.insert(id, message).is_none());
        }
    }

    async fn receive(&mut self) {
        let most = self.random.random_range(1..=100);
        let seconds = self.random.random_range(0..=60);
        let node = self.node();
        let ask = json!({"max_messages": most, "visibility_timeout_seconds": seconds});
        let received = self.nodes[node].receive_with(ask).await;
        let visible = self
            .messages
            .values()
            .filter(|m| !m.done && m.hidden_until <= self.now)
            .count();
        assert!(
            received.len() <= most && received.len() <= visible,
            "{} of {visible}",
            received.len()
        );
        assert_eq!(received.is_empty(), visible == 0, "{visible} are visible");
        self.deliveries += 1;
        for got in received {
            let id = text(&got["id"]);
            let message = self.messages.get_mut(&id).unwrap();
            assert!(
                !message.done && message.hidden_until <= self.now,
                "{id} {message:?} at {}",
                self.now
            );
            message.attempt += 1;
            assert_eq!(got["attempt"], message.attempt, "{id}");
            (message.current, message.hidden_until) = (Some(self.deliveries), self.now + seconds);
            self.receipts.push(Receipt {
                token: got["receipt"].clone(),
                delivery: self.deliveries,
                id,
            });
        }
    }

    /// Some receipts, mostly recent ones, each with an action of its own. A receipt may come twice.
    fn next_settle(&mut self) -> Items {
        if self.receipts.is_empty() {
            return Vec::new();
        }
        let count = self.random.random_range(1..=30);
        let recent = self.receipts.len().saturating_sub(200);
        let has_one_action = self.random.random_bool(0.5);
        let mut action = "ack";
        let items = (0..count).map(|n| {
            if n == 0 || !has_one_action {
                let actions = [
                    "ack",
                    "ack",
                    "ack",
                    "nack",
                    "nack",
                    "extend",
                    "extend",
                    "dead_letter",
                ];
                action = actions[self.random.random_range(0..actions.len())];
            }
            let at = self.random.random_range(recent..self.receipts.len());
            let seconds =
                [0, 20, self.random.random_range(0..=60_u64)][self.random.random_range(0..3)];
            let mut item = json!({"receipt": self.receipts[at].token, "action": action});
            match action {
                "nack" => item["delay_seconds"] = json!(seconds),
                "extend" => item["visibility_timeout_seconds"] = json!(seconds),
                _ => {}
            }
            (at, item)
        });
        items.collect()
    }

    async fn settle(&self, node: usize, items: &Items) -> Vec<Value> {
        if items.is_empty() {
            return Vec::new();
        }
        let items: Vec<&Value> = items.iter().map(|(_, item)| item).collect();
        self.nodes[node].settle(json!(items)).await
    }

    /// The items of one call take effect in their order.
    fn settled(&mut self, items: Items, results: Vec<Value>) {
        for ((at, item), result) in items.into_iter().zip(results) {
            let Receipt { delivery, id, .. } = &self.receipts[at];
            let message = self.messages.get_mut(id).unwrap();
            let repeated = message.acked && item["action"] == "ack";
            if repeated && self.now >= KNOWN_SECONDS && result.get("error").is_some() {
                assert_eq!(result["error"]["code"], "lease_lost");
                continue;
            }
            let good = (!message.done || repeated) && message.current == Some(*delivery);
            assert_eq!(
                result.get("error").is_none(),
                good,
                "{item} of {id}, {message:?}: {result}"
            );
            if !good {
                assert_eq!(result["error"]["code"], "lease_lost");
                continue;
            }
            let later = |seconds: &Value| self.now + seconds.as_u64().unwrap();
            match item["action"].as_str().unwrap() {
                "ack" => (message.done, message.acked) = (true, true),
                "dead_letter" => {
                    message.done = true;
                    assert!(self.dead.insert(id.clone()));
                }
                "nack" => {
                    message.current = None;
                    message.hidden_until = later(&item["delay_seconds"]);
                }
                _ => message.hidden_until = later(&item["visibility_timeout_seconds"]),
            }
        }
    }

    /// A publish and a settle of the same moment, often in one turn of one node.
    async fn publish_and_settle(&mut self) {
        let (batch, items) = (self.next_batch(), self.next_settle());
        let (one, two) = (self.node(), self.node());
        let (published, settled) = tokio::join!(self.send(one, &batch), self.settle(two, &items));
        self.published(batch, published);
        self.settled(items, settled);
    }

    /// Each message that was given up is in the dead-letter topic once.
    async fn check_dead_letters(&self) {
        let mut dead = BTreeSet::new();
        loop {
            let ask = json!({"max_messages": 100});
            let (_, answer) = self.nodes[0].post("/v1/subscriptions/d/receive", ask).await;
            let letters = answer["messages"].as_array().unwrap();
            if letters.is_empty() {
                break;
            }
            for letter in letters {
                let id = text(&letter["attributes"]["cursus-dead-letter-id"]);
                assert!(dead.insert(id), "{letter} is there twice");
            }
        }
        assert_eq!(dead, self.dead);
    }

    fn pass(&mut self) {
        let seconds = self.random.random_range(1..=40);
        self.now += seconds;
        self.fleet.advance(seconds);
    }

    /// After a long time all messages that are not done are handed out again, each once.
    async fn finish(mut self) {
        self.now += 1_000;
        self.fleet.advance(1_000);
        loop {
            let received = self.nodes[0]
                .receive_with(json!({"max_messages": 100}))
                .await;
            if received.is_empty() {
                break;
            }
            for got in &received {
                let message = self.messages.get_mut(got["id"].as_str().unwrap()).unwrap();
                assert!(!message.done, "{got} comes back");
                message.done = true;
            }
            let receipts: Vec<&Value> = received.iter().map(|got| &got["receipt"]).collect();
            assert!(
                self.nodes[1]
                    .ack(&receipts)
                    .await
                    .iter()
                    .all(|result| *result == json!({}))
            );
        }
        let lost: Vec<_> = self
            .messages
            .iter()
            .filter(|(_, message)| !message.done)
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
        self.check_dead_letters().await;
        self.fleet.finish(self.nodes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_used_at_random_behave_as_the_model_does() {
    use_at_random(json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_they_do_when_customers_take_turns() {
    use_at_random(json!({"fairness": {"weights": {"1": 3}}})).await;
}

async fn use_at_random(settings: Value) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's seed is no configuration"
    )]
    let given = std::env::var("CURSUS_TEST_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(rand::random);
    println!("CURSUS_TEST_SEED={seed}");
    let mut world = World::new(seed, settings).await;
    for _ in 0..STEPS {
        match world.random.random_range(0..10) {
            0 | 1 => world.publish_and_settle().await,
            2..=4 => world.receive().await,
            5..=7 => {
                let (items, node) = (world.next_settle(), world.node());
                let results = world.settle(node, &items).await;
                world.settled(items, results);
            }
            _ => world.pass(),
        }
    }
    world.finish().await;
}
