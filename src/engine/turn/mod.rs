//! The turn: a loop that commits publishes, changes of leases and claims in one transaction each time (I1). While a turn
//! commits, requests gather for the next one; an idle loop takes a request at once. A topic belongs to one loop of the
//! node, so its publishes, settles and claims meet in the same turn, and a waiting receiver is served in the transaction
//! that publishes.
//!
//! `gather` is the queue in front of a loop. `assemble` turns the gathered requests into the arrays of the statement:
//! `blocks` joins publishes, with their keys, `fold` folds changes of leases, `claims` makes claims, of fresh messages
//! and of those that are due again. `hand_out` sends the results of the commit to the waiting requests.
//!
//! Everything that a client does with messages is part of a turn, but for these, which have a commit of their own:
//! - a claim or redelivery of a subscription with an order of its own (`order`): it reads messages before it can choose
//!   them, which may need object storage (bench `fair`);
//! - a move to the dead-letter topic (`receive::dead_letter`): it is a publish to one topic and a settle in another,
//!   which may belong to different loops, so it commits both by itself, many messages at once (bench `dead-letter-100`);
//! - browsing reads and commits nothing.
//!
//! A turn waits for a lock only briefly. When another transaction holds one of its lanes for longer, the publishes to that
//! lane wait aside until it is free (`stuck`), and the others go into the next turn.

mod assemble;
mod blocks;
mod claims;
mod fold;
mod gather;
mod hand_out;
mod health;
mod hints;
mod off_turn;
mod set_aside;
mod stuck;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::engine::catalog::Catalog;
use crate::engine::duty::Context;
use crate::engine::error::Error;
use crate::engine::log::cache::Cache;
use crate::engine::quota::Shortage;
use crate::engine::subscriber::{Grant, Subscriber};
use crate::store::turn::LeaseAction;
use crate::store::{self, Session, Store, TopicId};

pub use gather::{Changed, Content, Placed, Publish, Queue, Settle, SettleEntry};
pub use health::Health;
pub use hints::Hints;
pub use off_turn::OffTurn;
pub use set_aside::{Aside, Moved, SetAside};

/// Pause between two attempts to connect while nothing waits.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// A turn that waits this long for its lane competes with another node.
const CONTENDED: Duration = Duration::from_micros(100);
/// Longest pause between two turns.
const GATHER_MAX: Duration = Duration::from_millis(2);
/// Time for one turn, longer than the timeout of its statements. It ends a turn whose connection is lost without an
/// error.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(35);

/// Metrics of turns.
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

impl Metrics {
    /// Adds them to a registry that prefixes `cursus`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "messages_published",
            "Messages committed by turns",
            self.published.clone(),
        );
        registry.register(
            "messages_received",
            "Messages handed out for the first time",
            self.claimed.clone(),
        );
        registry.register(
            "messages_acked",
            "Messages acked by turns",
            self.settled.clone(),
        );
        registry.register(
            "flush_messages",
            "Messages in a block that a turn committed",
            self.flush_messages.clone(),
        );
        registry.register(
            "turn_duration_seconds",
            "Time a turn took to commit",
            self.turn_seconds.clone(),
        );
    }
}

/// The turn loops of a node, and what they share.
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
    /// Subscriptions with an order of their own whose receivers wait. Loops outside the turn serve them.
    pub off_turn: OffTurn,
    /// Leases whose messages are to be moved to the dead-letter topic.
    pub set_aside: SetAside,
    shortage: Arc<Shortage>,
    /// What stands in the way of turns.
    pub health: Health,
    /// Metrics of turns.
    pub metrics: Metrics,
    queues: Vec<Queue>,
}

impl Turns {
    /// Makes one queue for each turn loop that `shortage` knows. The loops do not run yet.
    #[must_use]
    pub fn new(context: Context, cache: Arc<Cache>, slot: i16, shortage: Arc<Shortage>) -> Self {
        Self {
            store: context.store,
            clock: context.clock,
            cache,
            catalog: Catalog::default(),
            slot: AtomicI16::new(slot),
            hints: Hints::default(),
            off_turn: OffTurn::default(),
            set_aside: SetAside::default(),
            queues: shortage.loops().iter().cloned().map(Queue::new).collect(),
            shortage,
            health: Health::default(),
            metrics: Metrics::default(),
        }
    }

    /// A connection for each loop. They are made before a node serves: later there may be none left for it.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn connect(&self) -> Result<Vec<Session>, store::Error> {
        let mut sessions = Vec::new();
        for _ in &self.queues {
            sessions.push(self.store.turn_session().await?);
        }
        Ok(sessions)
    }

    /// Starts the loops on `tracker`, each with its connection; they end after `stop`.
    pub fn start(
        self: &Arc<Self>,
        sessions: Vec<Session>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) {
        for (index, session) in sessions.into_iter().enumerate() {
            let (turns, stop) = (self.clone(), stop.clone());
            tracker.spawn(async move {
                let queue = &turns.queues[index];
                tokio::select! {
                    () = turns.run(queue, session, stop) => (),
                    () = turns.free_stuck(queue) => (),
                }
            });
        }
    }

    /// The queue of the loop that a topic belongs to.
    #[must_use]
    pub fn queue(&self, topic: TopicId) -> &Queue {
        let index = usize::try_from(topic.get()).unwrap_or(0) % self.queues.len();
        &self.queues[index]
    }

    /// The slot that new blocks go to.
    #[must_use]
    pub fn slot(&self) -> i16 {
        self.slot.load(Ordering::Relaxed)
    }

    /// Makes new blocks go to another slot, from the next turn on.
    pub fn move_to(&self, slot: i16) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Forgets blocks, topics, and what is known of subscriptions.
    pub fn forget(&self) {
        self.cache.forget();
        self.catalog.forget_all();
    }

    /// Makes the next turn serve the receivers that wait on this node for messages of a topic.
    pub fn wake_here(&self, topic: TopicId) {
        self.catalog.of_topic(topic, |subscriber| {
            if subscriber.has_waiters() {
                subscriber.lanes.expect_fresh();
                self.queue(topic).want(subscriber);
            }
        });
    }

    /// The same on all nodes, after messages were published outside a turn.
    pub fn wake_topic(&self, topic: TopicId) {
        self.wake_here(topic);
        self.hints.published(topic);
    }

    /// Gives back messages that were not handed out to any receiver, by `action`. If that fails, they are due again when
    /// their lease ends.
    pub async fn give_back(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
        action: LeaseAction,
    ) {
        let changed = self.send_back(subscriber, grants, action).await;
        let changed = changed.unwrap_or(Err(Error::Unavailable("the node")));
        if let Err(error) = changed {
            tracing::warn!(%error, "messages could not be given back and stay hidden until their lease ends");
        }
    }

    /// Gives back messages whose receivers went away before they got them, with the next turn.
    pub fn give_back_later(&self, subscriber: &Arc<Subscriber>, grants: &[Grant]) {
        if !grants.is_empty() {
            drop(self.send_back(subscriber, grants, LeaseAction::GiveBack(0)));
        }
    }

    fn send_back(
        &self,
        subscriber: &Arc<Subscriber>,
        grants: &[Grant],
        action: LeaseAction,
    ) -> oneshot::Receiver<Result<Changed, Error>> {
        let entries = grants.iter().map(|grant| SettleEntry {
            lane: grant.lane,
            lease: grant.lease,
            action,
            mask: grant.bits,
        });
        let (reply, changed) = oneshot::channel();
        self.queue(subscriber.topic_id).settle(Settle {
            subscriber: subscriber.clone(),
            entries: entries.collect(),
            held_up: 0,
            reply,
        });
        changed
    }

    /// Runs one loop until `stop`, and then commits what has gathered until the queue is empty.
    async fn run(&self, queue: &Queue, session: Session, stop: CancellationToken) {
        let mut session = Some(session);
        let mut crowd = None;
        loop {
            // Lets requests that have arrived already join this turn, because throughput depends on the size of a
            // commit. On an idle node this costs one poll of the sockets. When the last turn waited for another node
            // that publishes to the same lane, this one would wait too, with the few requests that are here now. It lets
            // as many gather as the node had then.
            match crowd.take() {
                None => tokio::task::yield_now().await,
                Some((requests, at_most)) => queue.gather(requests, at_most).await,
            }
            let gathered = tokio::select! {
                biased;
                gathered = queue.take() => gathered,
                () = stop.cancelled() => match queue.take_now() {
                    Some(gathered) => gathered,
                    None => break,
                },
                opened = self.reconnect(), if session.is_none() => {
                    session = Some(opened);
                    continue;
                }
            };
            let requests = gathered.requests();
            // Before the turn is made: a new connection may be of another history, and then what this node remembered
            // is forgotten by now.
            let epoch = self.cache.epoch();
            let opened = open(self, &mut session).await;
            let era = session
                .as_ref()
                .map_or_else(|| self.store.era(), Session::era);
            let (input, mut pending) = assemble::assemble(gathered, self, era);
            pending.epoch = epoch;
            let off_turn = std::mem::take(&mut pending.off_turn);
            if pending.is_idle() {
                off_turn.iter().for_each(|one| self.off_turn.want(one));
                continue;
            }
            let began = std::time::Instant::now();
            let mut outcome = match opened {
                Ok(()) => commit(self, &mut session, &input).await,
                Err(error) => Err(error),
            };
            if let Err(store::Error::Raced(_)) = outcome {
                // Serialization failure or deadlock: the turn was rolled back and the other transaction has finished.
                outcome = commit(self, &mut session, &input).await;
            }
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.turn_seconds.observe(seconds);
            match outcome {
                Ok(output) => {
                    if output.waited >= CONTENDED {
                        let requests = (requests + queue.requests()) * 3 / 4;
                        crowd = Some((requests, output.waited.min(GATHER_MAX)));
                    }
                    hand_out::hand_out(self, queue, pending, &input, &output);
                }
                Err(error @ store::Error::Locked(_)) => {
                    stuck::step_aside(self, queue, pending, &input, error).await;
                }
                Err(error) => hand_out::fail(queue, pending, &Error::from(error)),
            }
            // After the commit, so that their loops find what was published.
            off_turn.iter().for_each(|one| self.off_turn.want(one));
            if let Some(waited) = queue.turn_ended() {
                self.shortage.observe(waited);
            }
        }
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// Takes the place at the database again that a loop has lost, as soon as there is one.
    async fn reconnect(&self) -> Session {
        loop {
            match self.store.turn_session().await {
                Ok(session) => return session,
                Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
            }
        }
    }
}

/// Opens a session if there is none that is as good as a new one.
async fn open(turns: &Turns, session: &mut Option<Session>) -> Result<(), store::Error> {
    if session.as_ref().is_some_and(Session::is_trusted) {
        return Ok(());
    }
    *session = None;
    let made = turns.store.turn_session().await;
    *session = Some(made.inspect_err(|error| turns.health.failed(error.trouble()))?);
    Ok(())
}

async fn commit(
    turns: &Turns,
    session: &mut Option<Session>,
    input: &store::turn::TurnInput,
) -> Result<store::turn::TurnOutput, store::Error> {
    let mut open = session.take().ok_or_else(store::Error::timed_out)?;
    let turn = store::turn::run(&mut open, turns.clock.now(), input);
    let output = tokio::time::timeout(COMMIT_TIMEOUT, turn)
        .await
        .unwrap_or_else(|_| Err(store::Error::timed_out()));
    match &output {
        Ok(_) => turns.health.succeeded(),
        Err(error) if error.is_passing() => turns.health.failed(error.trouble()),
        Err(_) => {}
    }
    match &output {
        // Its state is unknown, and others have met the same server.
        Err(error) if error.is_of_connection() => turns.store.distrust(),
        _ => *session = Some(open),
    }
    output
}
