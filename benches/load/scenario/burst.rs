//! A bounded number of messages in one topic, for scenarios that time one step of their life. All steps use the same
//! connections and 100 messages a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::Result;
use crate::client::Client;
use crate::flow::{Action, Subscription, Worker, acked};
use crate::node::Node;
use crate::requests::Pool;
use crate::run::{Outcome, Tally};
use crate::scenario::{fill, prepare_with};

const CONNECTIONS: usize = 16;
const BATCH: usize = 100;
/// A step that takes longer is stuck.
const WITHIN: Duration = Duration::from_secs(120);

/// The messages, with a subscription of the same name.
pub(crate) struct Burst<'a> {
    node: &'a Node,
    topic: &'a str,
    messages: u64,
}

/// Requests that settle received messages, with the number of messages.
pub(crate) type Settles = Vec<(Vec<u8>, usize)>;

impl<'a> Burst<'a> {
    /// Creates the topic and publishes about `messages` to it.
    pub(crate) async fn publish(
        node: &'a Node,
        topic: &'a str,
        settings: Value,
        messages: u64,
    ) -> Result<Self> {
        prepare_with(node, topic, settings).await?;
        let pool = Pool::publish(&node.server, topic, BATCH);
        Ok(Self {
            node,
            topic,
            messages: fill(node, &pool, messages).await?,
        })
    }

    /// Receives every message and settles none.
    pub(crate) async fn deliver(&self, action: Action) -> Result<Settles> {
        let (outcome, settles) = self.receive_all(Some(action)).await?;
        match outcome.tally.first_error {
            Some(error) => Err(format!("while receiving: {error}").into()),
            None => Ok(settles),
        }
    }

    /// Receives and acks every message. The time ends with the last ack.
    pub(crate) async fn drain(&self) -> Result<Outcome> {
        let (mut outcome, _) = self.receive_all(None).await?;
        let tally = &mut outcome.tally;
        tally.messages = tally.acked;
        let (messages, acked) = (self.messages, tally.acked);
        tally.check(acked == messages, || {
            format!("published {messages}, acked {acked}")
        });
        Ok(outcome)
    }

    /// Sends prepared requests. What is left after this time stays in flight.
    pub(crate) async fn settle(&self, mut settles: Settles, at_most: Duration) -> Result<Outcome> {
        let parts = settles.len().div_ceil(CONNECTIONS).max(1);
        let mut clients = Vec::new();
        while !settles.is_empty() {
            let part = settles.split_off(settles.len().saturating_sub(parts));
            clients.push((Client::connect(self.node.address).await?, part));
        }
        let start = Instant::now();
        let mut connections = JoinSet::new();
        for (client, part) in clients {
            connections.spawn(send_until(client, part, start, start + at_most));
        }
        let mut tally = Tally::default();
        while let Some(finished) = connections.join_next().await {
            tally.merge(&finished??);
        }
        tally.messages = tally.acked;
        Ok(Outcome {
            tally,
            seconds: start.elapsed().as_secs_f64(),
            usage: None,
        })
    }

    /// Without an action it acks.
    async fn receive_all(&self, action: Option<Action>) -> Result<(Outcome, Settles)> {
        let subscription = Subscription::new(&self.node.server, self.topic, BATCH);
        let subscription = Arc::new(subscription);
        let left = Arc::new(AtomicU64::new(self.messages));
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Client::connect(self.node.address).await?);
        }
        let start = Instant::now();
        let mut receivers = JoinSet::new();
        for client in clients {
            let receiver = Receiver {
                worker: Worker::new(client, Tally::within(start, start + WITHIN), 0, 0),
                subscription: subscription.clone(),
                left: left.clone(),
                settles: Settles::new(),
                last: start,
            };
            receivers.spawn(receiver.run(action));
        }
        let (mut tally, mut settles, mut end) = (Tally::default(), Settles::new(), start);
        while let Some(finished) = receivers.join_next().await {
            let receiver = finished??;
            tally.merge(&receiver.worker.tally);
            settles.extend(receiver.settles);
            end = end.max(receiver.last);
        }
        let (messages, received) = (self.messages, tally.received);
        tally.check(received == messages, || {
            format!("published {messages}, received {received}")
        });
        let outcome = Outcome {
            tally,
            seconds: (end - start).as_secs_f64(),
            usage: None,
        };
        Ok((outcome, settles))
    }
}

/// One connection that receives.
struct Receiver {
    worker: Worker,
    subscription: Arc<Subscription>,
    /// Messages that no connection has received.
    left: Arc<AtomicU64>,
    settles: Settles,
    /// Time at which the last message was received or acked.
    last: Instant,
}

impl Receiver {
    async fn run(mut self, action: Option<Action>) -> Result<Self> {
        let deadline = self.last + WITHIN;
        while self.left.load(Ordering::Relaxed) > 0 {
            let count = self.receive(action).await?;
            if count == 0 {
                if Instant::now() >= deadline {
                    return Err("messages are left, and none is received".into());
                }
                continue;
            }
            if action.is_none() {
                self.worker.ack(&self.subscription, count).await?;
            }
            self.last = Instant::now();
        }
        Ok(self)
    }

    async fn receive(&mut self, action: Option<Action>) -> Result<usize> {
        let (worker, subscription) = (&mut self.worker, &self.subscription);
        let count = match action {
            None => worker.receive(subscription, BATCH).await?,
            Some(action) => {
                let (request, count) = worker.receive_then(subscription, BATCH, action).await?;
                if count > 0 {
                    self.settles.push((request, count));
                }
                count
            }
        };
        let subtract = |left: u64| Some(left.saturating_sub(count as u64));
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        Ok(count)
    }
}

async fn send_until(
    mut client: Client,
    settles: Settles,
    start: Instant,
    until: Instant,
) -> Result<Tally> {
    let mut tally = Tally::within(start, until + WITHIN);
    for (request, count) in settles {
        let started = Instant::now();
        if started >= until {
            break;
        }
        let answer = client.send(&request).await?;
        let settled = acked(&answer, count);
        tally.check(settled, || answer.describe());
        tally.request(started, 0);
        tally.acked += if settled { count as u64 } else { 0 };
    }
    Ok(tally)
}
