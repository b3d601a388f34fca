//! Time from the start of a publish until a waiting receiver has the message, at 100 messages per second in an open
//! loop. Each publish has a scheduled time; one that begins late because an earlier one was slow counts from its
//! scheduled time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use tokio::sync::mpsc;

use crate::Result;
use crate::client::Client;
use crate::flow;
use crate::histogram::Histogram;
use crate::node::{DataDir, Node};
use crate::requests::{Pool, Server};
use crate::row::Row;
use crate::run::Tally;
use crate::scenario::{Context, prepare};
use crate::wire;

const INTERVAL: Duration = Duration::from_millis(10);
/// Publishes that can be under way before one has to start late.
const PUBLISHERS: u32 = 16;
/// A message that is not received within this time after the last publish is lost.
const RECEIVED_WITHIN: Duration = Duration::from_secs(5);
/// Limits in milliseconds on the node of the publish: median and 99th percentile.
const SAME_NODE: (f64, f64) = (5.0, 15.0);

/// Message ids with the time of an event.
pub(crate) type Times = Vec<(String, Instant)>;

/// Publishes: id of the message, start and duration.
type Publishes = Vec<(String, Instant, Duration)>;

/// A node and the credentials for requests to it.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) server: &'a Server,
}

impl<'a> From<&'a Node> for Side<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            address: node.address,
            server: &node.server,
        }
    }
}

/// Measurements.
#[derive(Default)]
pub(crate) struct Observed {
    /// Duration of publishes.
    pub(crate) publish: Histogram,
    /// Time from the start of a publish until the receiver has the message.
    pub(crate) receive: Histogram,
    /// Number of messages that were not received.
    pub(crate) lost: u64,
    /// Errors of acks.
    pub(crate) acks: Tally,
}

pub(crate) async fn run(context: &Context, name: &str) -> Result<Row> {
    let data_dir = DataDir::new(&context.args, name)?;
    let node = Node::start(&context.args, &data_dir).await?;
    context.note_settings(&node).await;
    prepare(&node, name).await?;
    let mut row = measure(context, name, (&node, &node), SAME_NODE).await?;
    row.memory(node.probe.peak_node_bytes());
    node.stop().await?;
    Ok(row)
}

/// Publishes to one node while a receiver waits on the other node, or on the same one.
pub(crate) async fn measure(
    context: &Context,
    name: &str,
    (from, to): (&Node, &Node),
    most: (f64, f64),
) -> Result<Row> {
    let lasting = context.args.measured() * 3;
    let observed = observe(name, (from.into(), to.into()), lasting).await?;
    let mut row = judge(name, &observed.receive, most);
    if observed.lost > 0 {
        let lost = observed.lost;
        row.fail(format!("{lost} messages were published and not received"));
    }
    row.count_errors(&observed.acks);
    Ok(row)
}

/// Publishes on one side while a receiver waits on the other; the first second warms up and is not counted.
pub(crate) async fn observe(
    name: &str,
    (from, to): (Side<'_>, Side<'_>),
    lasting: Duration,
) -> Result<Observed> {
    // The receiver waits before the first message is published.
    let start = Instant::now() + Duration::from_millis(300);
    let count = u32::try_from(lasting.as_millis() / INTERVAL.as_millis())?;
    let (acks, receipts) = mpsc::unbounded_channel();
    let path = format!("/v1/subscriptions/{name}/ack");
    let client = Client::connect(to.address).await?;
    let acker = tokio::spawn(ack_all(client, to.server.clone(), path, receipts));
    let client = Client::connect(to.address).await?;
    let last = start + INTERVAL * count + RECEIVED_WITHIN;
    let request = to.server.receive(name, 10, 10);
    let receiver = tokio::spawn(receive_all(client, acks, request, count as usize, last));
    let mut publishers = tokio::task::JoinSet::new();
    for at in 0..PUBLISHERS {
        let client = Client::connect(from.address).await?;
        let pool = Pool::publish(from.server, name, 1);
        publishers.spawn(publish_in_time(
            client,
            pool,
            start,
            (at..count).step_by(PUBLISHERS as usize),
        ));
    }
    let mut published = Publishes::new();
    while let Some(finished) = publishers.join_next().await {
        published.extend(finished??);
    }
    let received: HashMap<String, Instant> = receiver.await??.into_iter().collect();
    let mut observed = times(&published, &received, start + Duration::from_secs(1));
    observed.acks = acker.await?;
    Ok(observed)
}

/// Counts lost messages, and records the times of those published after `from`.
fn times(published: &Publishes, received: &HashMap<String, Instant>, from: Instant) -> Observed {
    let mut observed = Observed::default();
    for (id, started, took) in published {
        let Some(at) = received.get(id) else {
            observed.lost += 1;
            continue;
        };
        if *started >= from {
            observed.publish.record(*took);
            let latency = at.saturating_duration_since(*started);
            observed.receive.record(latency);
        }
    }
    observed
}

fn judge(name: &str, latency: &Histogram, (p50_max, p99_max): (f64, f64)) -> Row {
    let mut row = Row::new(name, &[]);
    let (p50, p99) = (latency.quantile_ms(0.5), latency.quantile_ms(0.99));
    if let (Some(p50), Some(p99)) = (p50, p99) {
        row.latency(p50, p99);
        if p50 > p50_max || p99 > p99_max {
            row.fail(format!(
                "p50 {p50:.2} ms, p99 {p99:.2} ms; at most {p50_max} and {p99_max}"
            ));
        }
    } else {
        row.fail("no message was timed".to_owned());
    }
    row
}

/// Publishes at the scheduled times of `numbers`.
async fn publish_in_time(
    mut client: Client,
    pool: Pool,
    start: Instant,
    numbers: impl Iterator<Item = u32>,
) -> Result<Publishes> {
    let mut publishes = Publishes::new();
    for number in numbers {
        let due = start + INTERVAL * number;
        // The timer of the client fires up to a millisecond late, which must not count for the node.
        let late = Instant::now() > due;
        tokio::time::sleep_until(due.into()).await;
        let started = if late { due } else { Instant::now() };
        let answer = client.must(pool.get(number as usize)).await?;
        let took = started.elapsed();
        let id = strings(&answer, br#""id":""#)
            .pop()
            .ok_or("a publish without an id")?;
        publishes.push((id, started, took));
    }
    Ok(publishes)
}

/// Waits for messages all the time. Another task acks them, so that the next receive begins before the next message.
async fn receive_all(
    mut client: Client,
    acks: mpsc::UnboundedSender<Vec<String>>,
    request: Vec<u8>,
    count: usize,
    until: Instant,
) -> Result<Times> {
    let mut times = Times::new();
    while times.len() < count && Instant::now() < until {
        let answer = client.must(&request).await?;
        let now = Instant::now();
        let ids = strings(&answer, br#""id":""#);
        times.extend(ids.into_iter().map(|id| (id, now)));
        acks.send(strings(&answer, br#""receipt":""#))?;
    }
    Ok(times)
}

/// Acks the receipts that it is sent until the receiver ends, and returns the errors.
async fn ack_all(
    mut client: Client,
    server: Server,
    path: String,
    mut receipts: mpsc::UnboundedReceiver<Vec<String>>,
) -> Tally {
    let mut tally = Tally::default();
    while let Some(receipts) = receipts.recv().await {
        if receipts.is_empty() {
            continue;
        }
        let body = serde_json::json!({ "receipts": receipts }).to_string();
        match client.send(&server.request("POST", &path, &body)).await {
            Ok(answer) => {
                let acked = flow::acked(&answer, receipts.len());
                tally.check(acked, || answer.describe());
            }
            Err(error) => tally.error(error.to_string()),
        }
    }
    tally
}

/// The values of a field, at any depth.
pub(crate) fn strings(json: &[u8], name: &[u8]) -> Vec<String> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    wire::strings_of(json, &Finder::new(name))
        .map(text)
        .collect()
}
