//! `cursus bench`: a load that anyone can put on a service, and what came of it. It publishes to a topic of its own, receives
//! and acknowledges at the same time, and deletes both at the end. Closed loop: each connection sends its next request when it
//! has the answer to the one before, so the latencies are those at the greatest rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use api::message::{PublishMessage, ReceiveRequest};
use api::settle::{SettleAction, SettleItem};
use api::subscription::SubscriptionSettings;
use api::topic::TopicSettings;
use clap::Args;
use cursus_sdk::{Client, Error};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::output::{Column, grouped, note, progress};
use super::{Common, Context, Failure};
use crate::config::{Period, Service};

const COLUMNS: &[Column] = &[
    ("VERB", "/verb"),
    ("MESSAGES", "/messages"),
    ("MESSAGES/S", "/messages_per_second"),
    ("REQUESTS/S", "/requests_per_second"),
    ("P50 (MS)", "/p50_ms"),
    ("P99 (MS)", "/p99_ms"),
    ("MAX (MS)", "/max_ms"),
];
/// Latencies that a task remembers; of more, every other one is forgotten.
const SAMPLES_MAX: usize = 100_000;
/// How long receivers go on once nothing is published any more.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// `cursus bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  cursus bench --duration 10s --publishers 16 --receivers 16 --batch 10 --size 200"
)]
pub(super) struct Bench {
    /// How long to publish
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Period,
    /// Connections that publish
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=1000))]
    publishers: u32,
    /// Connections that receive and acknowledge; 0 for none
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u32).range(0..=1000))]
    receivers: u32,
    /// Messages of a request
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
    batch: u32,
    /// Bytes of a body
    #[arg(long, value_name = "BYTES", default_value = "200", value_parser = clap::value_parser!(u32).range(0..=65_536))]
    size: u32,
    #[command(flatten)]
    common: Common,
}

/// What one kind of request did.
#[derive(Default)]
struct Counter {
    messages: AtomicU64,
    requests: AtomicU64,
}

/// A load that runs.
struct Load {
    client: Client,
    name: String,
    batch: u32,
    body: String,
    published: Counter,
    received: Counter,
    is_over: AtomicBool,
}

impl Bench {
    pub(super) async fn run(self, used: &mut Option<Service>) -> Result<(), Failure> {
        let context = Context::of(&self.common, used)?;
        let name = format!("bench-{:08x}", rand::random::<u32>());
        let (topic, subscription) = (
            format!("/v1/topics/{name}"),
            format!("/v1/subscriptions/{name}"),
        );
        let _: Value = context
            .client
            .put(&*topic, &TopicSettings::default())
            .await?;
        let ran = tokio::select! {
            ran = self.load(&context, &name) => ran,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted(format!("topic {name} is deleted"))),
        };
        // The subscription first: a topic that is read is not deleted.
        let unsubscribed = context.client.delete(&*subscription).await;
        let deleted = context.client.delete(&*topic).await;
        let rows = ran?;
        context.output.list(&rows, COLUMNS)?;
        unsubscribed.and(deleted).map_err(Failure::from)
    }

    async fn load(&self, context: &Context, name: &str) -> Result<Vec<Value>, Failure> {
        let settings = SubscriptionSettings {
            topic: name.parse().ok(),
            ..SubscriptionSettings::default()
        };
        let path = format!("/v1/subscriptions/{name}");
        let _: Value = context.client.put(path, &settings).await?;
        let load = Arc::new(Load {
            client: context.client.clone(),
            name: name.to_owned(),
            batch: self.batch,
            body: "x".repeat(self.size as usize),
            published: Counter::default(),
            received: Counter::default(),
            is_over: AtomicBool::new(false),
        });
        let (mut publishers, mut receivers) = (JoinSet::new(), JoinSet::new());
        for _ in 0..self.publishers {
            publishers.spawn(load.clone().publish());
        }
        for _ in 0..self.receivers {
            receivers.spawn(load.clone().receive());
        }
        let began = Instant::now();
        let duration = self.duration.duration();
        let bar = progress(Some(duration.as_millis().try_into().unwrap_or(u64::MAX)));
        while began.elapsed() < duration {
            let (published, received) = (&load.published.messages, &load.received.messages);
            bar.set_position(began.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
            bar.set_message(format!(
                "{} published, {} received",
                grouped(published.load(Relaxed)),
                grouped(received.load(Relaxed))
            ));
            tokio::time::sleep(Duration::from_millis(200).min(duration)).await;
        }
        load.is_over.store(true, Relaxed);
        let published = joined(publishers).await?;
        let publish_time = began.elapsed();
        let mut rows = vec![row("publish", &load.published, published, publish_time)];
        let received = tokio::time::timeout(DRAIN_WITHIN, joined(receivers)).await;
        bar.finish_and_clear();
        let received = received.unwrap_or_else(|_| {
            note("not all messages were received in time");
            Ok(Vec::new())
        })?;
        if self.receivers > 0 {
            rows.push(row(
                "receive, ack",
                &load.received,
                received,
                began.elapsed(),
            ));
        }
        Ok(rows)
    }
}

impl Load {
    async fn publish(self: Arc<Self>) -> Result<Vec<u32>, Error> {
        let mut times = Times::default();
        while !self.is_over.load(Relaxed) {
            let message = PublishMessage {
                body: Some(self.body.as_str().into()),
                ..PublishMessage::default()
            };
            let began = Instant::now();
            let results = self
                .client
                .publish_batch(&self.name, vec![message; self.batch as usize])
                .await?;
            times.add(began.elapsed());
            if let Some(problem) = results.iter().find_map(|result| result.error.clone()) {
                return Err(problem.into());
            }
            self.published.count(results.len());
        }
        Ok(times.micros)
    }

    /// Receives and acknowledges until there is nothing more to come.
    async fn receive(self: Arc<Self>) -> Result<Vec<u32>, Error> {
        let mut times = Times::default();
        loop {
            let is_over = self.is_over.load(Relaxed);
            let began = Instant::now();
            let asked = ReceiveRequest {
                max_messages: Some(self.batch),
                wait_seconds: Some(1),
                visibility_timeout_seconds: None,
            };
            let messages = self.client.receive(&self.name, asked).await?;
            let all = self.published.messages.load(Relaxed);
            if messages.is_empty() {
                if is_over
                    || (self.is_over.load(Relaxed) && self.received.messages.load(Relaxed) >= all)
                {
                    return Ok(times.micros);
                }
                continue;
            }
            let count = messages.len();
            let receipts = messages.into_iter().map(|message| message.receipt);
            let items = receipts.map(|receipt| SettleItem::new(receipt, SettleAction::Ack));
            self.client.settle(&self.name, items.collect()).await?;
            times.add(began.elapsed());
            self.received.count(count);
        }
    }
}

impl Counter {
    fn count(&self, messages: usize) {
        self.messages.fetch_add(messages as u64, Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }
}

/// Latencies in microseconds.
struct Times {
    micros: Vec<u32>,
    /// Each so many is remembered.
    each: usize,
    seen: usize,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            micros: Vec::new(),
            each: 1,
            seen: 0,
        }
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        self.seen += 1;
        if !self.seen.is_multiple_of(self.each) {
            return;
        }
        self.micros
            .push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        if self.micros.len() == SAMPLES_MAX {
            let mut keep = false;
            self.micros.retain(|_| {
                keep = !keep;
                keep
            });
            self.each *= 2;
        }
    }
}

/// The latencies of all tasks; the first failure, if one failed.
async fn joined(mut tasks: JoinSet<Result<Vec<u32>, Error>>) -> Result<Vec<u32>, Failure> {
    let mut all = Vec::new();
    while let Some(task) = tasks.join_next().await {
        let times = task.map_err(|error| Failure::Other(error.to_string()))?;
        all.extend(times?);
    }
    Ok(all)
}

fn row(verb: &str, counter: &Counter, mut micros: Vec<u32>, time: Duration) -> Value {
    micros.sort_unstable();
    let at = |share: usize| {
        let index = (micros.len().saturating_sub(1)) * share / 100;
        micros.get(index).map(|micros| f64::from(*micros) / 1000.0)
    };
    let messages = counter.messages.load(Relaxed);
    let requests = counter.requests.load(Relaxed);
    let millis = time.as_millis().max(1);
    let rate = |count: u64| u64::try_from(u128::from(count) * 1000 / millis).unwrap_or(u64::MAX);
    json!({"verb": verb, "messages": messages, "messages_per_second": rate(messages),
        "requests_per_second": rate(requests), "p50_ms": at(50), "p99_ms": at(99), "max_ms": at(100)})
}
