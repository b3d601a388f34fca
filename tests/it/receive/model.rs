//! Random requests to two nodes, compared with a model of the state of each message (I2, I3). The seed is printed;
//! `CURSUS_TEST_SEED` runs a seed again.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, text};

const STEPS: usize = 250;

/// The expected state of a message.
#[derive(Debug, Clone)]
struct Message {
    done: bool,
    /// It is not handed out before this second.
    hidden_until: u64,
    attempt: u64,
    /// The number of the delivery whose receipt settles it; `None` after a nack.
    current: Option<u64>,
}

/// A receipt, with the number of its delivery and the id of its message.
struct Receipt {
    token: Value,
    delivery: u64,
    id: String,
}

struct World {
    fleet: Fleet,
    nodes: [Node; 2],
    random: StdRng,
    now: u64,
    deliveries: u64,
    messages: BTreeMap<String, Message>,
    receipts: Vec<Receipt>,
}

impl World {
    async fn new(seed: u64, settings: Value) -> Self {
        let fleet = Fleet::new().await;
        let nodes = [fleet.node().await, fleet.node().await];
        nodes[0].topic_and_subscription(settings).await;
        let random = StdRng::seed_from_u64(seed);
        let (messages, receipts) = (BTreeMap::new(), Vec::new());
        Self {
            fleet,
            nodes,
            random,
            now: 0,
            deliveries: 0,
            messages,
            receipts,
        }
    }

    fn node(&mut self) -> usize {
        self.random.random_range(0..2)
    }

    async fn publish(&mut self) {
        let count = self.random.random_range(1..=40);
        let batch: Vec<Value> = (0..count)
            .map(|n| match self.random.random_range(0..4) {
                0 => json!({"body": n.to_string()}),
                customer => {
                    let attributes = json!({"fairness_key": customer.to_string()});
                    json!({"body": n.to_string(), "attributes": attributes})
                }
            })
            .collect();
        let node = self.node();
        let (status, answer) = self.nodes[node]
            .post("/v1/topics/t/messages/batch", json!({"messages": batch}))
            .await;
        assert_eq!(status, 200, "{answer}");
        for result in answer["results"].as_array().unwrap() {
            let message = Message {
                done: false,
                hidden_until: 0,
                attempt: 0,
                current: None,
            };
            assert!(self.messages.insert(text(&result["id"]), message).is_none());
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

    /// Settles some receipts, mostly recent ones, with one action each.
    async fn settle(&mut self) {
        if self.receipts.is_empty() {
            return;
        }
        let action = ["ack", "ack", "nack", "extend"][self.random.random_range(0..4)];
        let count = self.random.random_range(1..=30);
        let recent = self.receipts.len().saturating_sub(200);
        let picked: Vec<usize> = (0..count)
            .map(|_| self.random.random_range(recent..self.receipts.len()))
            .collect();
        let seconds = self.random.random_range(0..=60_u64);
        let items: Vec<Value> = picked
            .iter()
            .map(|at| {
                let mut item = json!({"receipt": self.receipts[*at].token, "action": action});
                match action {
                    "nack" => item["delay_seconds"] = json!(seconds),
                    "extend" => item["visibility_timeout_seconds"] = json!(seconds),
                    _ => {}
                }
                item
            })
            .collect();
        let node = self.node();
        let results = self.nodes[node].settle(json!(items)).await;
        // The same receipt twice in one call: the first item succeeds. Acks of one call are one set, but each has a
        // result.
        for (at, result) in picked.into_iter().zip(results) {
            let Receipt { delivery, id, .. } = &self.receipts[at];
            let message = self.messages.get_mut(id).unwrap();
            let good = !message.done && message.current == Some(*delivery);
            assert_eq!(
                result.get("error").is_none(),
                good,
                "{action} of {id}, {message:?}: {result}"
            );
            if !good {
                assert_eq!(result["error"]["code"], "lease_lost");
                continue;
            }
            match action {
                "ack" => message.done = true,
                "nack" => (message.current, message.hidden_until) = (None, self.now + seconds),
                _ => message.hidden_until = self.now + seconds,
            }
        }
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
            0 => world.publish().await,
            1..=3 => world.receive().await,
            4..=7 => world.settle().await,
            _ => world.pass(),
        }
    }
    world.finish().await;
}
