//! kill -9 in the middle of everything: of the node, and of its Postgres. Whatever was answered holds afterwards (I1): no
//! answered publish is lost, no answered ack or dead letter comes back. A publish with a key that was not answered is
//! sent again, and is one message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cursus::clock::Clock;
use cursus::engine::duty::{Context, Duty};
use cursus::engine::meter::blocks::Meter;
use cursus::store::Store;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgConnection};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::invariants::check_invariants;
use crate::harness::process::{Place, kill};
use crate::harness::{client, text, until};

/// Seconds that a received message stays hidden.
const VISIBILITY: u32 = 3;

/// What the service has answered for, by body.
#[derive(Default)]
struct Answered {
    /// Each with the id of its message.
    published: BTreeMap<String, String>,
    /// The ids under which each was received: one.
    received: BTreeMap<String, BTreeSet<String>>,
    acked: BTreeSet<String>,
    /// Moved to the dead-letter topic.
    dead: BTreeSet<String>,
    /// Acks that were sent: one whose answer was lost may have been done.
    asked: BTreeSet<String>,
    /// Publishes with keys: without an answer …
    unanswered: Vec<Publish>,
    /// … and with one.
    keyed: Vec<Publish>,
}

/// A publish of one batch or one raw message. Its messages are told apart by their bodies.
#[derive(Debug, Clone)]
struct Publish {
    key: Option<String>,
    /// `None`: the body is published raw.
    dedup_ids: Option<Vec<Option<String>>>,
    bodies: Vec<String>,
    customer: String,
}

impl Publish {
    /// One of all kinds, by number.
    fn new(customer: &str, number: usize) -> Self {
        let name = |part: &str| format!("{customer} {number}{part}");
        let (id, key) = (Some(name("")), Some(name("")));
        let twins = || vec![name(""), name(""), name("b")];
        let (key, dedup_ids, bodies) = match number % 5 {
            0 => (None, Some(vec![None]), vec![name("")]),
            1 => (None, Some(vec![id.clone(), id, Some(name("b"))]), twins()),
            2 => (key, Some(vec![None]), vec![name("")]),
            3 => (key, Some(vec![id.clone(), id, None]), twins()),
            _ => (key, None, vec![name("")]),
        };
        Self {
            key,
            dedup_ids,
            bodies,
            customer: customer.to_owned(),
        }
    }

    /// Whether it is the same messages when it is sent again.
    fn may_repeat(&self) -> bool {
        let mut ids = self.dedup_ids.iter().flatten();
        self.key.is_some() || ids.all(Option::is_some)
    }
}

/// A client of the node, whichever process that is at the moment.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    base: String,
    answered: Arc<Mutex<Answered>>,
}

impl Client {
    fn new(place: &Place, answered: &Arc<Mutex<Answered>>) -> Self {
        Self {
            http: client(),
            base: format!("http://{}", place.address()),
            answered: answered.clone(),
        }
    }

    /// The answer, if it is one of success.
    async fn post(&self, path: &str, body: Value) -> Option<Value> {
        let request = self.http.post(format!("{}{path}", self.base)).json(&body);
        Self::send(request).await
    }

    async fn send(request: reqwest::RequestBuilder) -> Option<Value> {
        let response = request.send().await.ok()?;
        if response.status() != 200 {
            return None;
        }
        response.json().await.ok()
    }

    async fn put(&self, path: &str, body: Value) {
        let request = self.http.put(format!("{}{path}", self.base)).json(&body);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success());
    }

    async fn receive(&self, subscription: &str, wait_seconds: u32) -> Option<Vec<Value>> {
        let ask = json!({"max_messages": 10, "wait_seconds": wait_seconds, "visibility_timeout_seconds": VISIBILITY});
        let path = format!("/v1/subscriptions/{subscription}/receive");
        let answer = self.post(&path, ask).await?;
        let messages = answer["messages"].as_array().unwrap().clone();
        if subscription == "s" {
            let mut answered = self.answered.lock();
            for message in &messages {
                let ids = answered.received.entry(text(&message["body"])).or_default();
                ids.insert(text(&message["id"]));
            }
        }
        Some(messages)
    }

    /// Settles each message with the action beside it.
    async fn settle(&self, messages: &[Value], actions: &[&str]) -> Option<()> {
        let items = messages.iter().zip(actions.iter().cycle());
        let body = |message: &Value| text(&message["body"]);
        {
            let asked = &mut self.answered.lock().asked;
            let ends = items.clone().filter(|(_, action)| **action == "ack");
            asked.extend(ends.map(|(message, _)| body(message)));
        }
        let items: Vec<Value> = items
            .map(|(message, action)| json!({"receipt": message["receipt"], "action": action}))
            .collect();
        let answer = self
            .post("/v1/subscriptions/s/settle", json!({"items": items}))
            .await?;
        let mut answered = self.answered.lock();
        let results = answer["results"].as_array().unwrap();
        for ((message, result), action) in messages.iter().zip(results).zip(actions.iter().cycle())
        {
            match *action {
                "ack" if *result == json!({}) => answered.acked.insert(body(message)),
                "dead_letter" if *result == json!({}) => answered.dead.insert(body(message)),
                _ => false,
            };
        }
        Some(())
    }

    /// Publishes, and compares the answer with an earlier one; whether there was an answer.
    async fn publish(&self, publish: &Publish) -> bool {
        let Publish {
            key,
            dedup_ids,
            bodies,
            customer,
        } = publish;
        let mut request = match dedup_ids {
            Some(ids) => {
                let messages = ids.iter().zip(bodies).map(|(id, body)| {
                    json!({"body": body, "dedup_id": id, "attributes": {"fairness_key": customer}})
                });
                let messages: Vec<Value> = messages.collect();
                let request = self
                    .http
                    .post(format!("{}/v1/topics/t/messages/batch", self.base));
                request.json(&json!({"messages": messages}))
            }
            None => {
                let request = self
                    .http
                    .post(format!("{}/v1/topics/t/messages", self.base));
                request
                    .header("content-type", "text/plain")
                    .body(bodies[0].clone())
            }
        };
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        let Some(answer) = Self::send(request).await else {
            return false;
        };
        let results = answer["results"]
            .as_array()
            .cloned()
            .unwrap_or(vec![answer]);
        let published = &mut self.answered.lock().published;
        for (body, result) in bodies.iter().zip(&results) {
            let id = text(&result["id"]);
            let first = published.entry(body.clone()).or_insert_with(|| id.clone());
            assert_eq!(*first, id, "{body} of {publish:?} is two messages");
        }
        true
    }

    /// Publishes until then; sends keyed ones again that were not answered, and some that were.
    async fn publish_until(self, who: String, until: Instant) {
        for number in 0.. {
            if Instant::now() > until {
                return;
            }
            let again = (number % 3 == 0)
                .then(|| self.answered.lock().unanswered.pop())
                .flatten();
            let new = again.unwrap_or_else(|| Publish::new(&who, number));
            let is_answered = self.publish(&new).await;
            if new.may_repeat() {
                let mut answered = self.answered.lock();
                let list = if is_answered {
                    &mut answered.keyed
                } else {
                    &mut answered.unanswered
                };
                list.push(new);
            }
            if !is_answered {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    async fn consume_until(self, until: Instant) {
        let actions = ["ack", "nack", "ack", "extend", "dead_letter", "ack"];
        let mut first = 0;
        while Instant::now() < until {
            match self.receive("s", 0).await {
                Some(messages) if !messages.is_empty() => {
                    // Some of them, so that there are leases to lose.
                    let some = messages.len().div_ceil(2);
                    first = (first + 1) % actions.len();
                    self.settle(&messages[..some], &actions[first..]).await;
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Publishers and consumers for this time, together with what is done to them.
    async fn under_load(&self, round: &str, time: Duration, mut harm: impl FnMut()) {
        let until = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for n in 0..4 {
            tasks.spawn(self.clone().publish_until(format!("{round} {n}"), until));
        }
        for _ in 0..3 {
            tasks.spawn(self.clone().consume_until(until));
        }
        tokio::time::sleep(time.mul_f64(rand::random_range(0.3..0.7))).await;
        harm();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Sends again what was not answered, and some of what was: a repeat is the same message.
    async fn repeat(&self) {
        let (unanswered, keyed) = {
            let mut answered = self.answered.lock();
            let unanswered = std::mem::take(&mut answered.unanswered);
            let some = answered.keyed.len().saturating_sub(100);
            (unanswered, answered.keyed.split_off(some))
        };
        println!("{} were not answered", unanswered.len());
        for publish in unanswered.iter().chain(&keyed).chain(&unanswered) {
            until("it is answered", async || {
                self.publish(publish).await.then_some(())
            })
            .await;
        }
    }

    /// Receives from a subscription until nothing is left.
    async fn drain(&self, subscription: &str) -> Vec<Value> {
        let (mut left, mut quiet) = (Vec::new(), 0);
        while quiet < 2 {
            // Longer than a message stays hidden.
            let messages = self.receive(subscription, VISIBILITY + 1).await;
            let messages = messages.expect("the service has recovered");
            quiet = if messages.is_empty() { quiet + 1 } else { 0 };
            let receipts: Vec<&Value> =
                messages.iter().map(|message| &message["receipt"]).collect();
            if !receipts.is_empty() {
                let path = format!("/v1/subscriptions/{subscription}/ack");
                let acked = self.post(&path, json!({"receipts": receipts})).await;
                acked.expect("the service has recovered");
            }
            left.extend(messages);
        }
        left
    }

    /// Takes all that is left, and compares it with what was answered.
    async fn settle_accounts(&self, sql: &mut PgConnection) {
        self.repeat().await;
        // A lease that was set aside for a dead letter when its node died is hidden for a minute.
        let no_wait = "UPDATE lease SET deadline = now() WHERE deadline > now()";
        sqlx::query(no_wait).execute(sql).await.unwrap();
        let left = self.drain("s").await;
        let left: BTreeSet<String> = left.iter().map(|message| text(&message["body"])).collect();
        let letters = self.drain("d").await;
        let answered = self.answered.lock();
        let mut dead: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for letter in &letters {
            let (body, id) = (text(&letter["body"]), text(&letter["id"]));
            let origin = text(&letter["attributes"]["cursus-dead-letter-id"]);
            assert!(answered.received[&body].contains(&origin), "{letter}");
            dead.entry(body).or_default().insert(id);
        }
        for (body, ids) in &dead {
            assert_eq!(ids.len(), 1, "{body} is two dead letters: {ids:?}");
        }
        let dead: BTreeSet<String> = dead.into_keys().collect();
        let ends: BTreeSet<&String> = left.union(&dead).collect();
        let back: Vec<_> = ends
            .iter()
            .filter(|body| answered.acked.contains(**body))
            .collect();
        assert!(back.is_empty(), "acked, and came back: {back:?}");
        let twice: Vec<_> = left.intersection(&dead).collect();
        assert!(twice.is_empty(), "dead letters that came back: {twice:?}");
        let lost: Vec<_> = answered.dead.difference(&dead).collect();
        assert!(
            lost.is_empty(),
            "dead letters that were answered, and lost: {lost:?}"
        );
        let published = answered.published.keys();
        let lost: Vec<_> = published
            .filter(|body| !ends.contains(body) && !answered.asked.contains(*body))
            .collect();
        assert!(lost.is_empty(), "published, and lost: {lost:?}");
        for (body, ids) in &answered.received {
            assert_eq!(ids.len(), 1, "{body} is two messages: {ids:?}");
            let first = answered.published.get(body);
            assert!(
                first.is_none_or(|id| ids.contains(id)),
                "{body}: {first:?} {ids:?}"
            );
        }
        println!(
            "{} published, {} acked under load, {} dead letters, {} left",
            answered.published.len(),
            answered.acked.len(),
            dead.len(),
            left.len()
        );
        let was_there = [
            answered.published.len(),
            answered.acked.len(),
            answered.dead.len(),
        ];
        assert!(!was_there.contains(&0), "there was load: {was_there:?}");
    }
}

async fn prepare(client: &Client, fairness: Value) {
    for topic in ["t", "dead"] {
        client.put(&format!("/v1/topics/{topic}"), json!({})).await;
    }
    client
        .put("/v1/subscriptions/d", json!({"topic": "dead"}))
        .await;
    let settings = json!({"topic": "t", "fairness": fairness, "dead_letter_topic": "dead", "max_attempts": 1_000});
    client.put("/v1/subscriptions/s", settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_keeps_all_that_it_acknowledged() {
    kill_a_node("crash", Value::Null).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_keeps_what_waits_for_its_turn() {
    kill_a_node("crash-fair", json!({"weights": {"0 1": 3}})).await;
}

async fn kill_a_node(place: &str, fairness: Value) {
    let place = Place::new(place);
    let answered = Arc::default();
    let mut node = place.start();
    prepare(&Client::new(&place, &answered), fairness).await;
    for round in 0..3 {
        let client = Client::new(&place, &answered);
        let pid = node.pid();
        client
            .under_load(&round.to_string(), Duration::from_millis(900), || {
                kill(pid, Signal::KILL)
            })
            .await;
        node.end(Signal::KILL);
        node = place.start();
    }
    let mut sql = place.options().connect().await.unwrap();
    let client = Client::new(&place, &answered);
    client.settle_accounts(&mut sql).await;
    audit(&place, &mut sql, &answered).await;
    check_invariants(&mut sql).await;
    assert!(node.end(Signal::TERM).success(), "{}", place.log());
}

/// What is billed is what was stored, to the unit: each message costs one (I8). All that was stored was received.
async fn audit(place: &Place, sql: &mut PgConnection, answered: &Mutex<Answered>) {
    // Beside the node, which counts too.
    let context = Context {
        store: Store::new(place.options(), 2),
        clock: Clock::default(),
    };
    let (mut meter, stop) = (Meter::without_pauses(), CancellationToken::new());
    meter.run(&context, &stop).await.unwrap();
    context.store.close().await;
    let bill = "SELECT sum(units)::bigint, sum(messages)::bigint, (SELECT max(first_offset + count) FROM block JOIN lane USING (lane_id) JOIN topic USING (topic_id)
                                                            WHERE name = 't')
                FROM usage_minute WHERE meter = 'publish'";
    let (units, messages, stored): (i64, i64, i64) =
        sqlx::query_as(bill).fetch_one(sql).await.unwrap();
    assert_eq!((units, messages), (stored, stored));
    let received = answered.lock().received.len();
    assert_eq!(received, usize::try_from(stored).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_when_its_postgres_is_killed_under_it() {
    let place = Place::new("crash-postgres");
    let answered = Arc::default();
    let node = place.start();
    let client = Client::new(&place, &answered);
    prepare(&client, Value::Null).await;
    for round in 0..2 {
        let postgres = place.postgres().unwrap();
        client
            .under_load(&round.to_string(), Duration::from_millis(900), || {
                kill(postgres, Signal::KILL)
            })
            .await;
        let before = answered.lock().published.len();
        let began = Instant::now();
        while answered.lock().published.len() == before {
            assert!(began.elapsed() < Duration::from_secs(30), "{}", place.log());
            let until = Instant::now() + Duration::from_millis(100);
            client
                .clone()
                .publish_until(
                    format!("after {round} {}", began.elapsed().as_micros()),
                    until,
                )
                .await;
        }
    }
    let mut sql = place.options().connect().await.unwrap();
    client.settle_accounts(&mut sql).await;
    audit(&place, &mut sql, &answered).await;
    check_invariants(&mut sql).await;
    assert!(node.end(Signal::TERM).success(), "{}", place.log());
}
