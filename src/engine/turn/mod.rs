//! The turn: one loop, one commit, one place where durability happens (I1). What gathers while a turn commits — publishes,
//! settles, receivers that want fresh messages — goes into the next one; an idle loop takes a request at once. A topic
//! belongs to one loop of the node, so its publishes, claims and settles meet in the same turn, and a receiver that waits
//! is served in the very transaction that publishes.
//!
//! `gather` is the queue in front of a loop, `assemble` turns what gathered into the statement's arrays, `deliver` hands
//! the statement's answer to everybody who waits for it.

mod assemble;
mod gather;
mod hand_out;
mod hints;
mod off_turn;
mod returns;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::store::{self, Session, Store};
use crate::engine::catalog::Catalog;
use crate::engine::error::Error;
use crate::engine::log::cache::Cache;
use crate::engine::quota::Shortage;

pub use gather::{Content, Placed, Publish, Queue, Settle, SettleEntry};
pub use hints::Hints;
pub use off_turn::OffTurn;
pub use returns::Returns;

/// A connection that cannot be made within this time fails the turn that waits for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the statement's own timeout: a database that does not even say that is gone without a word.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// What turns count.
#[derive(Debug)]
pub struct Metrics {
    /// Messages committed.
    pub published: Counter,
    /// Messages leased for the first time.
    pub claimed: Counter,
    /// Messages settled by a turn.
    pub settled: Counter,
    /// Messages per turn that publishes.
    pub flush_messages: Histogram,
    /// Seconds from assembling a turn to its commit.
    pub turn_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            published: Counter::default(),
            claimed: Counter::default(),
            settled: Counter::default(),
            flush_messages: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            turn_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
        }
    }
}

/// The turns of a node: their loops, and what these share.
#[derive(Debug)]
pub struct Turns {
    store: Store,
    clock: Clock,
    cache: Arc<Cache>,
    /// Topics and subscriptions as this node knows them.
    pub catalog: Catalog,
    /// The hot slot that new blocks go to, as far as this node knows.
    slot: AtomicI16,
    /// Topics published to since the last hint to other nodes.
    pub hints: Hints,
    /// Subscriptions with an order of their own whose receivers wait: they are served off the turn.
    pub off_turn: OffTurn,
    /// Messages whose receivers went away before they got them.
    pub returns: Returns,
    shortage: Arc<Shortage>,
    /// What turns count.
    pub metrics: Metrics,
    queues: Vec<Queue>,
}

impl Turns {
    /// The turns of a node, with one loop for each that `shortage` has; nothing runs yet.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        cache: Arc<Cache>,
        slot: i16,
        shortage: Arc<Shortage>,
    ) -> Self {
        Self {
            store,
            clock,
            cache,
            catalog: Catalog::default(),
            slot: AtomicI16::new(slot),
            hints: Hints::default(),
            off_turn: OffTurn::default(),
            returns: Returns::default(),
            queues: shortage.loops().iter().cloned().map(Queue::new).collect(),
            shortage,
            metrics: Metrics::default(),
        }
    }

    /// Starts the loops on `tracker`; they end after `stop`.
    pub fn start(self: &Arc<Self>, tracker: &TaskTracker, stop: &CancellationToken) {
        for index in 0..self.queues.len() {
            let (turns, stop) = (self.clone(), stop.clone());
            tracker.spawn(async move { turns.run(&turns.queues[index], stop).await });
        }
    }

    /// The queue of the loop that a topic belongs to.
    #[must_use]
    pub fn queue(&self, topic: i64) -> &Queue {
        let index = usize::try_from(topic).unwrap_or(0) % self.queues.len();
        &self.queues[index]
    }

    /// The slot that new blocks go to.
    #[must_use]
    pub fn slot(&self) -> i16 {
        self.slot.load(Ordering::Relaxed)
    }

    /// New blocks go to another slot from the next turn on.
    pub fn move_to(&self, slot: i16) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Receivers that wait on this node for messages of a topic are served by the next turn.
    pub fn wake_here(&self, topic: i64) {
        self.catalog.of_topic(topic, |subscriber| {
            if subscriber.has_waiters() {
                subscriber.lanes.expect_fresh();
                self.queue(topic).want(subscriber);
            }
        });
    }

    /// The same on all nodes: messages were published outside of the turns.
    pub fn wake_topic(&self, topic: i64) {
        self.wake_here(topic);
        self.hints.published(topic);
    }

    /// Runs one loop until `stop`; then it still commits what has gathered.
    async fn run(&self, queue: &Queue, stop: CancellationToken) {
        let mut session = None;
        loop {
            // Requests that have arrived already join this turn: what one commit carries decides the speed. When the node
            // is idle this costs a poll of the sockets.
            tokio::task::yield_now().await;
            let gathered = tokio::select! {
                biased;
                gathered = queue.take() => gathered,
                () = stop.cancelled() => match queue.take_now() {
                    Some(gathered) => gathered,
                    None => return,
                },
            };
            let (input, mut pending) = assemble::assemble(gathered, self);
            let off_turn = std::mem::take(&mut pending.off_turn);
            if pending.is_idle() {
                off_turn.iter().for_each(|one| self.off_turn.want(one));
                continue;
            }
            let began = std::time::Instant::now();
            let mut outcome = commit(self, &mut session, &input).await;
            if let Err(store::Error::Raced(_)) = outcome {
                // Serialization failure or deadlock: the turn was rolled back and the other transaction has finished.
                outcome = commit(self, &mut session, &input).await;
            }
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.turn_seconds.observe(seconds);
            match outcome {
                Ok(output) => hand_out::hand_out(self, queue, pending, &output),
                Err(error) => hand_out::fail(queue, pending, &Error::from(error)),
            }
            // By now they find what was published.
            off_turn.iter().for_each(|one| self.off_turn.want(one));
            if let Some(waited) = queue.turn_ended() {
                self.shortage.observe(waited);
            }
        }
    }
}

async fn commit(
    turns: &Turns,
    session: &mut Option<Session>,
    input: &store::turn::TurnInput,
) -> Result<store::turn::TurnOutput, store::Error> {
    let mut open = match session.take() {
        Some(open) => open,
        None => tokio::time::timeout(CONNECT_TIMEOUT, turns.store.turn_session())
            .await
            .map_err(|_| store::Error::timed_out())??,
    };
    let turn = store::turn::run(&mut open, turns.clock.now(), input);
    let output = tokio::time::timeout(ANSWER_TIMEOUT, turn)
        .await
        .unwrap_or_else(|_| Err(store::Error::timed_out()));
    // A session that failed is dropped: what it was doing is unknown.
    if !matches!(output, Err(store::Error::Unavailable(_))) {
        *session = Some(open);
    }
    output
}
