//! A burst of one customer, and another customer that publishes single messages, both in one subscription. Compares a
//! fair subscription with a plain one: how long the messages of the other customer wait while the burst is consumed,
//! and how fast the burst is consumed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::latency::{Times, strings};
use crate::Result;
use crate::client::Client;
use crate::flow;
use crate::histogram::Histogram;
use crate::node::{DataDir, Node};
use crate::requests::{Pool, Server};
use crate::row::{Row, median};
use crate::run::Tally;
use crate::scenario::{Context, fill, prepare_with};

/// Number of consumers.
const CONNECTIONS: usize = 16;
const BATCH: usize = 10;
/// Time between two messages of the other customer.
const INTERVAL: Duration = Duration::from_millis(10);
/// Limit of the other customer's p99, relative to its p99 in a plain subscription.
const WAITS_MAX: f64 = 0.1;

/// Measurements of one burst.
#[derive(Default)]
struct Observed {
    messages_per_second: f64,
    /// Time from the start of a publish of the other customer until a consumer has the message.
    waited: Histogram,
    acks: Tally,
    lost: u64,
}

/// Shared by the consumers and the other customer.
struct Progress {
    /// Messages of the burst not received yet, minus received messages of the other customer.
    left: AtomicI64,
    /// Set when publishing has ended.
    is_over: AtomicBool,
}

pub(crate) async fn run(context: &Context, name: &str) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    let count = context.args.burst();
    let (mut plain, mut fair) = (Vec::new(), Vec::new());
    for round in 0..context.args.rounds() {
        let topic = format!("plain-{round}");
        plain.push(observe(&node, &topic, &Value::Null, count).await?);
        let topic = format!("fair-{round}");
        fair.push(observe(&node, &topic, &json!({}), count).await?);
    }
    let mut row = judge(name, &plain, &fair);
    row.memory(node.probe.peak_node_bytes());
    node.stop().await?;
    Ok(row)
}

/// Publishes a burst, then consumes it while another customer publishes.
async fn observe(node: &Node, topic: &str, fairness: &Value, count: u64) -> Result<Observed> {
    prepare_with(node, topic, json!({ "fairness": fairness })).await?;
    let burst = Pool::of_customer(&node.server, topic, 100, "bursting");
    let count = fill(node, &burst, count).await?;

    let progress = Arc::new(Progress {
        left: AtomicI64::new(i64::try_from(count)?),
        is_over: AtomicBool::new(false),
    });
    let start = Instant::now();
    let mut consumers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (server, progress) = (node.server.clone(), progress.clone());
        consumers.spawn(consume(node.address, server, topic.to_owned(), progress));
    }
    let other = Pool::of_customer(&node.server, topic, 1, "other");
    let published = publish(node.address, &other, &progress).await;
    // Set even after an error, because the consumers must end.
    progress.is_over.store(true, Ordering::Relaxed);
    let published = published?;
    let (mut received, mut observed) = (HashMap::new(), Observed::default());
    while let Some(finished) = consumers.join_next().await {
        let (times, tally) = finished??;
        received.extend(times);
        observed.acks.merge(&tally);
    }
    let all = count + published.len() as u64;
    observed.lost = all.saturating_sub(received.len() as u64);
    let end = received.values().max().copied().unwrap_or(start);
    observed.messages_per_second = received.len() as f64 / (end - start).as_secs_f64();
    for (id, began) in published {
        if let Some(at) = received.get(&id) {
            observed.waited.record(*at - began);
        }
    }
    Ok(observed)
}

/// Publishes a message at each interval until the burst is consumed.
async fn publish(address: SocketAddr, pool: &Pool, progress: &Progress) -> Result<Times> {
    let mut client = Client::connect(address).await?;
    let mut times = Times::new();
    while progress.left.load(Ordering::Relaxed) > 0 {
        let began = Instant::now();
        let answer = client.must(pool.get(times.len())).await?;
        let id = strings(&answer, br#""id":""#).pop();
        times.push((id.ok_or("a publish without an id")?, began));
        tokio::time::sleep_until((began + INTERVAL).into()).await;
    }
    Ok(times)
}

/// Receives and acks until publishing has ended and nothing is left.
async fn consume(
    address: SocketAddr,
    server: Server,
    topic: String,
    progress: Arc<Progress>,
) -> Result<(Times, Tally)> {
    let mut client = Client::connect(address).await?;
    let receive = server.receive(&topic, BATCH, 1);
    let path = format!("/v1/subscriptions/{topic}/ack");
    let (mut times, mut tally) = (Times::new(), Tally::default());
    loop {
        let answer = client.must(&receive).await?;
        let now = Instant::now();
        let ids = strings(&answer, br#""id":""#);
        if ids.is_empty() {
            if progress.is_over.load(Ordering::Relaxed) {
                return Ok((times, tally));
            }
            continue;
        }
        progress
            .left
            .fetch_sub(i64::try_from(ids.len())?, Ordering::Relaxed);
        times.extend(ids.into_iter().map(|id| (id, now)));
        let receipts = strings(&answer, br#""receipt":""#);
        let body = json!({ "receipts": receipts }).to_string();
        let answer = client.send(&server.request("POST", &path, &body)).await?;
        let acked = flow::acked(&answer, receipts.len());
        tally.check(acked, || answer.describe());
    }
}

fn judge(name: &str, plain: &[Observed], fair: &[Observed]) -> Row {
    let rate = |of: &[Observed]| median(of.iter().map(|seen| seen.messages_per_second));
    let rates = plain.iter().map(|seen| seen.messages_per_second);
    let ratios = fair.iter().map(|seen| seen.messages_per_second).zip(rates);
    let ratios = ratios.map(|(fair, plain)| fair / plain).collect();
    let mut row = Row::new(name, &[]).relative_to("plain", &[], ratios, None);
    for seen in plain.iter().chain(fair) {
        row.count_errors(&seen.acks);
        if seen.lost > 0 {
            row.fail(format!("{} messages were lost", seen.lost));
        }
    }
    let waited = |of: &[Observed]| {
        let mut all = Histogram::default();
        of.iter().for_each(|seen| all.merge(&seen.waited));
        Some((all.quantile_ms(0.5)?, all.quantile_ms(0.99)?))
    };
    let (Some((plain_p50, plain_p99)), Some((p50, p99))) = (waited(plain), waited(fair)) else {
        row.fail("no message was timed".to_owned());
        return row;
    };
    row.latency(p50, p99);
    if p99 > plain_p99 * WAITS_MAX {
        row.fail(format!(
            "the other customer's p99 is {p99:.1} ms, {plain_p99:.1} ms in a plain subscription"
        ));
    }
    row.more = json!({
        "plain_p50_ms": plain_p50,
        "plain_p99_ms": plain_p99,
        "messages_per_second": rate(fair),
        "plain_messages_per_second": rate(plain),
    });
    row
}
