//! The consumer loop: receives batches, runs a handler for each message, and settles what the handler did. While a handler
//! runs its message is kept hidden; when it returns the message is acked, and when it fails the message is nacked for a time
//! that doubles with each attempt. Delivery is at-least-once: a handler may see a message again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::MessageId;
use api::limits::{BATCH_MESSAGES_MAX, NACK_DELAY_SECONDS, REASON_CHARS_MAX, RECEIVE_MESSAGES};
use api::message::{ReceiveRequest, ReceivedMessage};
use api::settle::{SettleAction, SettleItem, SettleResult};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::error::Error;

/// The longest pause after receives that failed.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a handler did not process its message.
#[derive(Debug)]
pub enum Failure {
    /// It wants the message again after this time.
    Retry(Duration),
    /// The message will never succeed; the text is the reason.
    DeadLetter(String),
    /// It failed: the message comes again after a time that doubles with each attempt.
    Error(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(Box::new(error))
    }
}

/// Settings of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// Handlers that run at a time.
    pub concurrency: u32,
    /// Messages of a receive, 1 to 100.
    pub batch: u32,
    /// Receives at a time; at most `receivers * batch` messages wait here for a handler.
    pub receivers: u32,
    /// Seconds of a long poll.
    pub wait_seconds: u32,
    /// Seconds for which a message is hidden until it is renewed, 2 or more.
    pub visibility_timeout_seconds: u32,
    /// The longest time after which a failed message comes again.
    pub max_backoff: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            concurrency: 10,
            batch: 10,
            receivers: 2,
            wait_seconds: 10,
            visibility_timeout_seconds: 30,
            max_backoff: Duration::from_secs(600),
        }
    }
}

/// Runs a handler for the messages of a subscription.
#[derive(Debug)]
pub struct Consumer<H> {
    client: Client,
    subscription: String,
    handler: H,
    options: ConsumerOptions,
}

/// A message of a handler that has not ended.
struct Held {
    receipt: String,
    renew_at: Instant,
}

/// What a handler did.
struct Done {
    id: MessageId,
    /// Of the receive: it stays valid when a renewal gives another one.
    receipt: String,
    action: SettleAction,
    delay: Option<Duration>,
    reason: Option<String>,
    _place: OwnedSemaphorePermit,
}

struct Shared {
    client: Client,
    subscription: String,
    options: ConsumerOptions,
    held: Mutex<HashMap<MessageId, Held>>,
    /// Messages that may be held here.
    places: Arc<Semaphore>,
    /// Handlers that may run.
    running: Arc<Semaphore>,
    stopping: CancellationToken,
    /// No receive waits any more.
    received: CancellationToken,
}

impl<H, F> Consumer<H>
where
    H: Fn(ReceivedMessage) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    /// A consumer with default options.
    pub fn new(client: Client, subscription: impl Into<String>, handler: H) -> Self {
        Self {
            client,
            subscription: subscription.into(),
            handler,
            options: ConsumerOptions::default(),
        }
    }

    /// The same with other options. Those out of range are taken to the nearest that is not.
    #[must_use]
    pub fn with(mut self, mut options: ConsumerOptions) -> Self {
        let (fewest, most) = RECEIVE_MESSAGES.into_inner();
        options.batch = options.batch.clamp(fewest, most);
        options.concurrency = options.concurrency.max(1);
        options.receivers = options.receivers.max(1);
        options.visibility_timeout_seconds = options.visibility_timeout_seconds.max(2);
        self.options = options;
        self
    }

    /// Consumes until `stop` completes; then finishes the running handlers, gives back what was not begun, and returns. A long
    /// poll that waits at that time ends by itself, after `wait_seconds` at most.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let options = self.options;
        let all = options.concurrency + options.receivers * options.batch;
        let shared = Arc::new(Shared {
            client: self.client,
            subscription: self.subscription,
            held: Mutex::default(),
            places: Arc::new(Semaphore::new(all as usize)),
            running: Arc::new(Semaphore::new(options.concurrency as usize)),
            stopping: CancellationToken::new(),
            received: CancellationToken::new(),
            options,
        });
        let handler = Arc::new(self.handler);
        let (done, settled) = mpsc::unbounded_channel();
        let finished = CancellationToken::new();
        let settler = tokio::spawn(shared.clone().settle(settled));
        let renewer = tokio::spawn(shared.clone().renew(finished.clone()));
        let handlers = TaskTracker::new();
        let mut receivers = JoinSet::new();
        for _ in 0..shared.options.receivers {
            let (shared, handler, handlers) = (shared.clone(), handler.clone(), handlers.clone());
            let done = done.clone();
            receivers.spawn(async move {
                while let Some(batch) = shared.receive().await {
                    for (message, place) in batch {
                        let (shared, handler) = (shared.clone(), handler.clone());
                        handlers.spawn(shared.process(handler, message, place, done.clone()));
                    }
                }
            });
        }
        drop(done);
        tokio::select! {
            () = stop => {}
            Some(_) = receivers.join_next() => {}
        }
        shared.stopping.cancel();
        while receivers.join_next().await.is_some() {}
        shared.received.cancel();
        handlers.close();
        handlers.wait().await;
        let _ = settler.await;
        finished.cancel();
        let _ = renewer.await;
    }
}

impl Shared {
    /// A batch, each message with its place; `None` when the consumer stops.
    async fn receive(&self) -> Option<Vec<(ReceivedMessage, OwnedSemaphorePermit)>> {
        let options = &self.options;
        let mut failures = 0;
        loop {
            let places = self.places.clone().acquire_many_owned(options.batch);
            // A whole batch or nothing: no receiver has a part of one.
            let mut places = tokio::select! {
                () = self.stopping.cancelled() => return None,
                places = places => places.ok()?,
            };
            let asked = ReceiveRequest {
                max_messages: Some(options.batch),
                wait_seconds: Some(options.wait_seconds),
                visibility_timeout_seconds: Some(options.visibility_timeout_seconds),
            };
            let renew_at = Instant::now() + self.half_time();
            match self.client.receive(&self.subscription, asked).await {
                Ok(messages) => {
                    let mut held = self.held.lock();
                    let with_place = |message: ReceivedMessage| {
                        let receipt = message.receipt.clone();
                        held.insert(message.message.id, Held { receipt, renew_at });
                        Some((message, places.split(1)?))
                    };
                    return Some(messages.into_iter().filter_map(with_place).collect());
                }
                Err(error) => {
                    // The loop outlives an outage, and says so.
                    tracing::warn!("receive from {}: {error}", self.subscription);
                    failures += 1;
                    let pause = Duration::from_secs(2_u64.saturating_pow(failures)).min(PAUSE_MAX);
                    let pause = pause.mul_f64(rand::random_range(0.5..1.0));
                    let stopped = self.stopping.cancelled();
                    if tokio::time::timeout(pause, stopped).await.is_ok() {
                        return None;
                    }
                }
            }
        }
    }

    async fn process<H, F>(
        self: Arc<Self>,
        handler: Arc<H>,
        message: ReceivedMessage,
        place: OwnedSemaphorePermit,
        done: mpsc::UnboundedSender<Done>,
    ) where
        H: Fn(ReceivedMessage) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let running = self.running.acquire().await;
        let (id, attempt) = (message.message.id, message.attempt);
        let receipt = message.receipt.clone();
        let (action, delay, reason) = if self.stopping.is_cancelled() {
            // Received, and never begun: another consumer gets it, and not a receive of this one.
            self.received.cancelled().await;
            (SettleAction::Nack, None, None)
        } else {
            // A task of its own: a handler that panics has failed, and no more than that.
            match tokio::spawn(async move { handler(message).await }).await {
                Ok(Ok(())) => (SettleAction::Ack, None, None),
                Ok(Err(Failure::Retry(delay))) => (SettleAction::Nack, Some(delay), None),
                Ok(Err(Failure::DeadLetter(reason))) => {
                    (SettleAction::DeadLetter, None, Some(reason))
                }
                failed => {
                    let delay = self.backoff(attempt);
                    let why = match failed {
                        Ok(Err(Failure::Error(error))) => error.to_string(),
                        _ => "the handler panicked".to_owned(),
                    };
                    let seconds = delay.as_secs();
                    tracing::warn!("message {id}, attempt {attempt}, again in {seconds} s: {why}");
                    (SettleAction::Nack, Some(delay), None)
                }
            }
        };
        drop(running);
        let settled = Done {
            id,
            receipt,
            action,
            delay,
            reason: reason.map(|text| text.chars().take(REASON_CHARS_MAX).collect()),
            _place: place,
        };
        // The settler lives until all handlers have ended.
        let _ = done.send(settled);
    }

    async fn settle(self: Arc<Self>, mut settled: mpsc::UnboundedReceiver<Done>) {
        let mut group = Vec::new();
        while settled.recv_many(&mut group, BATCH_MESSAGES_MAX).await > 0 {
            self.release(&group);
            let item = |done: &Done| SettleItem {
                delay_seconds: done.delay.map(seconds),
                reason: done.reason.clone().map(Into::into),
                ..SettleItem::new(done.receipt.clone(), done.action)
            };
            let items = group.iter().map(item).collect();
            // What fails comes again when its timeout is over.
            self.log(
                &self.client.settle(&self.subscription, items).await,
                "settle",
            );
            group.clear();
        }
    }

    async fn renew(self: Arc<Self>, finished: CancellationToken) {
        let period = (self.half_time() / 4).min(Duration::from_secs(1));
        while tokio::time::timeout(period, finished.cancelled())
            .await
            .is_err()
        {
            let now = Instant::now();
            let due: Vec<(MessageId, String)> = {
                let held = self.held.lock();
                let due = held.iter().filter(|(_, held)| held.renew_at <= now);
                due.map(|(id, held)| (*id, held.receipt.clone())).collect()
            };
            for group in due.chunks(BATCH_MESSAGES_MAX) {
                self.renew_group(group).await;
            }
        }
    }

    async fn renew_group(&self, due: &[(MessageId, String)]) {
        let renew_at = Instant::now() + self.half_time();
        let item = |(_, receipt): &(MessageId, String)| SettleItem {
            visibility_timeout_seconds: Some(self.options.visibility_timeout_seconds),
            ..SettleItem::new(receipt.clone(), SettleAction::Extend)
        };
        let items = due.iter().map(item).collect();
        let results = self.client.settle(&self.subscription, items).await;
        self.log(&results, "renewal");
        // After a failure the next round tries again.
        let mut held = self.held.lock();
        for ((id, _), result) in due.iter().zip(results.unwrap_or_default()) {
            if result.error.is_some() {
                // Settled meanwhile, or given to another consumer: there is nothing to renew.
                held.remove(id);
            } else if let Some(held) = held.get_mut(id) {
                held.renew_at = renew_at;
                held.receipt = result.receipt.unwrap_or_else(|| held.receipt.clone());
            }
        }
    }

    /// They are not renewed any more.
    fn release(&self, group: &[Done]) {
        let mut held = self.held.lock();
        for done in group {
            held.remove(&done.id);
        }
    }

    fn log(&self, results: &Result<Vec<SettleResult>, Error>, what: &str) {
        match results {
            Err(error) => tracing::warn!("{what} of messages of {}: {error}", self.subscription),
            Ok(results) => {
                for problem in results.iter().filter_map(|result| result.error.as_ref()) {
                    tracing::warn!(
                        "{what} of a message of {}: {}",
                        self.subscription,
                        problem.detail
                    );
                }
            }
        }
    }

    fn half_time(&self) -> Duration {
        Duration::from_secs(self.options.visibility_timeout_seconds.into()) / 2
    }

    fn backoff(&self, attempt: u32) -> Duration {
        let doubled = Duration::from_secs(2_u64.saturating_pow(attempt.min(20)));
        let random = rand::random_range(0.5..1.0);
        doubled.min(self.options.max_backoff).mul_f64(random)
    }
}

/// A delay as the service accepts it.
fn seconds(delay: Duration) -> u32 {
    let most = *NACK_DELAY_SECONDS.end();
    u32::try_from(delay.as_secs()).unwrap_or(most).min(most)
}
