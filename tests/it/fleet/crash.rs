//! kill -9 in the middle of everything: of the node, and of its Postgres. Whatever was answered holds afterwards (I1): no
//! answered publish is lost, no answered ack comes back.

use std::collections::BTreeSet;
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
use crate::harness::{client, text};

/// Seconds that a received message stays hidden.
const VISIBILITY: u32 = 3;

/// What the service has answered for, by body.
#[derive(Default)]
struct Answered {
    published: BTreeSet<String>,
    acked: BTreeSet<String>,
    /// Acks that were sent: one whose answer was lost may have been done.
    asked: BTreeSet<String>,
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
        let response = self
            .http
            .post(format!("{}{path}", self.base))
            .json(&body)
            .send()
            .await
            .ok()?;
        if response.status() != 200 {
            return None;
        }
        response.json().await.ok()
    }

    async fn put(&self, path: &str, body: Value) {
        let response = self
            .http
            .put(format!("{}{path}", self.base))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert!(response.status().is_success());
    }

    async fn receive(&self, wait_seconds: u32) -> Option<Vec<Value>> {
        let ask = json!({"max_messages": 10, "wait_seconds": wait_seconds, "visibility_timeout_seconds": VISIBILITY});
        let answer = self.post("/v1/subscriptions/s/receive", ask).await?;
        Some(answer["messages"].as_array().unwrap().clone())
    }

    async fn ack(&self, messages: &[Value]) -> Option<()> {
        let receipts: Vec<&Value> = messages.iter().map(|message| &message["receipt"]).collect();
        self.answered
            .lock()
            .asked
            .extend(messages.iter().map(|message| text(&message["body"])));
        let answer = self
            .post("/v1/subscriptions/s/ack", json!({"receipts": receipts}))
            .await?;
        for (message, result) in messages.iter().zip(answer["results"].as_array().unwrap()) {
            if *result == json!({}) {
                self.answered.lock().acked.insert(text(&message["body"]));
            }
        }
        Some(())
    }

    async fn publish(self, who: String, until: Instant) {
        for n in 0.. {
            if Instant::now() > until {
                return;
            }
            let body = format!("{who} {n}");
            let sent = self
                .post(
                    "/v1/topics/t/messages/batch",
                    json!({"messages": [{"body": body, "attributes": {"fairness_key": who}}]}),
                )
                .await;
            match sent {
                Some(answer) if answer["results"][0].get("id").is_some() => {
                    self.answered.lock().published.insert(body);
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn consume(self, until: Instant) {
        while Instant::now() < until {
            match self.receive(0).await {
                Some(messages) if !messages.is_empty() => {
                    // Half of them, so that there are leases to lose.
                    self.ack(&messages[..messages.len().div_ceil(2)]).await;
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
            tasks.spawn(self.clone().publish(format!("{round} {n}"), until));
        }
        for _ in 0..3 {
            tasks.spawn(self.clone().consume(until));
        }
        tokio::time::sleep(time.mul_f64(rand::random_range(0.3..0.7))).await;
        harm();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Takes all that is left, and compares it with what was answered.
    async fn settle_accounts(&self) {
        let (acked, asked) = {
            let answered = self.answered.lock();
            (answered.acked.clone(), answered.asked.clone())
        };
        let mut left = BTreeSet::new();
        let mut quiet = 0;
        while quiet < 2 {
            // Longer than a message stays hidden.
            let messages = self
                .receive(VISIBILITY + 1)
                .await
                .expect("the service has recovered");
            quiet = if messages.is_empty() { quiet + 1 } else { 0 };
            left.extend(messages.iter().map(|message| text(&message["body"])));
            if !messages.is_empty() {
                self.ack(&messages)
                    .await
                    .expect("the service has recovered");
            }
        }
        let back: Vec<_> = left.intersection(&acked).collect();
        assert!(back.is_empty(), "acked, and came back: {back:?}");
        let published = self.answered.lock().published.clone();
        let lost: Vec<_> = published
            .iter()
            .filter(|body| !left.contains(*body) && !asked.contains(*body))
            .collect();
        assert!(lost.is_empty(), "published, and lost: {lost:?}");
        println!(
            "{} published, {} acked under load, {} left",
            published.len(),
            acked.len(),
            left.len()
        );
        assert!(!published.is_empty() && !acked.is_empty(), "there was load");
    }
}

async fn prepare(client: &Client, fairness: Value) {
    client.put("/v1/topics/t", json!({})).await;
    let settings = json!({"topic": "t", "fairness": fairness});
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
    Client::new(&place, &answered).settle_accounts().await;
    let mut sql = place.options().connect().await.unwrap();
    audit(&place, &mut sql, &answered).await;
    check_invariants(&mut sql).await;
    assert!(node.end(Signal::TERM).success(), "{}", place.log());
}

/// What is billed is what was stored, to the unit: each message costs one (I8).
async fn audit(place: &Place, sql: &mut PgConnection, answered: &Mutex<Answered>) {
    // Beside the node, which counts too.
    let context = Context {
        store: Store::new(place.options(), 2),
        clock: Clock::default(),
    };
    let (mut meter, stop) = (Meter::without_pauses(), CancellationToken::new());
    meter.run(&context, &stop).await.unwrap();
    context.store.close().await;
    let bill = "SELECT sum(units)::bigint, sum(messages)::bigint, (SELECT max(first_offset + count) FROM block)
                FROM usage_minute WHERE meter = 'publish'";
    let (units, messages, stored): (i64, i64, i64) =
        sqlx::query_as(bill).fetch_one(sql).await.unwrap();
    assert_eq!((units, messages), (stored, stored));
    let published = answered.lock().published.len();
    assert!(published <= usize::try_from(stored).unwrap());
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
                .publish(format!("after {round} {:?}", began.elapsed()), until)
                .await;
        }
    }
    client.settle_accounts().await;
    let mut sql = place.options().connect().await.unwrap();
    audit(&place, &mut sql, &answered).await;
    check_invariants(&mut sql).await;
    assert!(node.end(Signal::TERM).success(), "{}", place.log());
}
