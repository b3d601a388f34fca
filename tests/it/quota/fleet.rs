//! A quota is the fleet's: three nodes admit what one would, wherever the load is and wherever it goes. In real time,
//! because that is what is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cursus::clock::Clock;
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Fleet, Node, until};

/// Requests a second that the tenant may make.
const QUOTA: f64 = 250.0;
/// The windows in which it is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// Three nodes that know of each other, a subscription, and a quota.
async fn fleet() -> (Fleet, [Node; 3]) {
    let mut fleet = Fleet::new().await;
    // The clock of the database: rates are real, and so is the time after which a node is forgotten.
    fleet.clock = Clock::default();
    let nodes = [fleet.node().await, fleet.node().await, fleet.node().await];
    nodes[0].topic_and_subscription(json!({})).await;
    fleet
        .quota("default", json!({"requests_per_second": {"ceiling": 250}}))
        .await;
    tokio::time::sleep(Duration::from_millis(2_600)).await;
    (fleet, nodes)
}

fn ask(node: &Node) -> RequestBuilder {
    let request = node.request(Method::POST, "/v1/subscriptions/s/ack");
    request.json(&json!({"receipts": ["none"]}))
}

/// What was admitted, by time.
#[derive(Clone)]
struct Record {
    began: Instant,
    admitted: Arc<Mutex<Vec<Duration>>>,
}

impl Record {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            admitted: Arc::default(),
        }
    }

    /// Sends requests to each node at these rates a second for a while, whatever becomes of them.
    async fn load(&self, nodes: &[Node; 3], rates: [u32; 3], span: Duration) {
        let mut requests = JoinSet::new();
        let until = Instant::now() + span;
        let each = nodes.iter().zip(rates).filter(|(_, rate)| *rate > 0);
        let senders = each.map(|(node, rate)| {
            let pause = Duration::from_secs(1) / rate;
            (Instant::now(), pause, node)
        });
        let mut senders: Vec<_> = senders.collect();
        while let Some((at, pause, node)) = senders.iter_mut().min_by_key(|(at, ..)| *at)
            && *at < until
        {
            tokio::time::sleep_until((*at).into()).await;
            *at += *pause;
            let (record, request) = (self.clone(), ask(node).send());
            requests.spawn(async move {
                let status = request.await.unwrap().status().as_u16();
                assert!(status == 200 || status == 429, "{status}");
                if status == 200 {
                    record.admitted.lock().push(record.began.elapsed());
                }
            });
            while requests.try_join_next().is_some_and(|ended| ended.is_ok()) {}
        }
        while let Some(ended) = requests.join_next().await {
            ended.unwrap();
        }
    }

    /// Everything admitted in any window is within a tenth of the quota.
    fn assert_exact(&self, what: &str) {
        let end = self.began.elapsed();
        let admitted = self.admitted.lock();
        let (mut least, mut most) = (f64::MAX, 0.0_f64);
        let mut from = Duration::ZERO;
        while from + WINDOW <= end {
            let inside = |at: &&Duration| **at >= from && **at < from + WINDOW;
            let count = u32::try_from(admitted.iter().filter(inside).count()).unwrap();
            let part = f64::from(count) / (QUOTA * WINDOW.as_secs_f64());
            (least, most) = (least.min(part), most.max(part));
            from += Duration::from_millis(100);
        }
        println!("{what}: {least:.3} to {most:.3} of the quota");
        assert!(
            least >= 0.9 && most <= 1.1,
            "{what}: {least} to {most} of the quota"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_on_one_node_that_moves_to_another_gets_the_quota_all_the_time() {
    let (fleet, nodes) = fleet().await;
    let record = Record::new();
    record
        .load(&nodes, [450, 0, 0], Duration::from_secs(9))
        .await;
    record
        .load(&nodes, [0, 450, 0], Duration::from_secs(9))
        .await;
    record.assert_exact("moved");
    fleet.finish(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_begins_everywhere_and_is_then_spread_unevenly_gets_the_quota() {
    let (fleet, nodes) = fleet().await;
    let record = Record::new();
    record
        .load(&nodes, [150, 150, 150], Duration::from_secs(6))
        .await;
    record
        .load(&nodes, [405, 40, 5], Duration::from_secs(11))
        .await;
    record.assert_exact("90/9/1");
    fleet.finish(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_gives_its_share_to_the_others_within_five_seconds() {
    let (fleet, nodes) = fleet().await;
    Record::new()
        .load(&nodes, [225, 225, 0], Duration::from_secs(3))
        .await;
    nodes[0].fall_silent();
    Record::new()
        .load(&nodes, [0, 450, 0], Duration::from_secs(5))
        .await;
    let record = Record::new();
    record
        .load(&nodes, [0, 450, 0], Duration::from_millis(10_200))
        .await;
    record.assert_exact("after a death");
    fleet.finish(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_quota_acts_on_all_nodes_within_two_seconds() {
    let (fleet, nodes) = fleet().await;
    fleet
        .quota("default", json!({"requests_per_second": {"ceiling": 60}}))
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for node in &nodes {
        let response = ask(node).send().await.unwrap();
        let policy = response.headers()["ratelimit-policy"].to_str().unwrap();
        assert_eq!(policy, r#""requests";q=60;w=1"#);
    }
    let record = Record::new();
    record
        .load(&nodes, [100, 50, 10], Duration::from_secs(4))
        .await;
    let admitted = record.admitted.lock().len();
    assert!(
        (200..=290).contains(&admitted),
        "{admitted} in four seconds"
    );
    let status: Value = until("there is room to ask", async || {
        let (status, answer) = nodes[0].get("/v1/quota").await;
        (status == 200).then_some(answer)
    })
    .await;
    assert_eq!(
        status["limits"],
        json!({"requests_per_second": {"ceiling": 60}})
    );
    fleet.finish(nodes).await;
}
