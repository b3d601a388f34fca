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
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::{self, Session, Store};

use crate::engine::catalog::Catalog;
use crate::engine::error::Error;
use crate::engine::log::cache::Cache;
use crate::engine::quota::Shortage;

pub(in crate::engine) use assemble::compress;
pub use gather::{Content, Placed, Publish, Queue, Settle, SettleEntry};
pub(in crate::engine) use hand_out::{give, turn_away, turn_away_impatient};

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

/// What all loops of a node share.
#[derive(Debug)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// Source of `$now`.
    pub clock: Clock,
    /// Blocks in memory.
    pub cache: Arc<Cache>,
    /// Topics and subscriptions.
    pub catalog: Arc<Catalog>,
    /// The hot slot that new blocks go to, as far as this node knows.
    pub slot: AtomicI16,
    /// Topics published to since the last hint to other nodes.
    pub hints: crate::engine::fleet::wake::Hints,
    /// Fair subscriptions whose receivers wait: they are served off the turn.
    pub fair: crate::engine::order::fair::FairQueue,
    /// Messages whose receivers went away before they got them.
    pub returns: crate::engine::lease::redeliver::Returns,
    /// Whether publishes wait too long.
    pub shortage: Shortage,
    /// What turns count.
    pub metrics: Metrics,
}

/// Runs one loop until `stop`; then it still commits what has gathered.
pub async fn run(shared: Arc<Shared>, queue: Arc<Queue>, stop: CancellationToken) {
    let mut session = None;
    loop {
        // Requests that have arrived already join this turn: what one commit carries decides the speed. When the node is
        // idle this costs a look at the sockets.
        tokio::task::yield_now().await;
        let gathered = tokio::select! {
            biased;
            gathered = queue.take() => gathered,
            () = stop.cancelled() => match queue.take_now() {
                Some(gathered) => gathered,
                None => return,
            },
        };
        let (input, mut pending) = assemble::assemble(gathered, &shared);
        let fair = std::mem::take(&mut pending.fair);
        if pending.is_idle() {
            fair.iter().for_each(|wanted| shared.fair.want(wanted));
            continue;
        }
        let began = std::time::Instant::now();
        let mut outcome = commit(&shared, &mut session, &input).await;
        if let Err(store::Error::Raced(_)) = outcome {
            // Nothing was done, and whoever was in the way has gone on.
            outcome = commit(&shared, &mut session, &input).await;
        }
        shared
            .metrics
            .turn_seconds
            .observe(began.elapsed().as_secs_f64());
        match outcome {
            Ok(output) => hand_out::deliver(&shared, &queue, pending, &output),
            Err(error) => hand_out::fail(&queue, pending, &Error::from(error)),
        }
        // By now they find what was published.
        fair.iter().for_each(|wanted| shared.fair.want(wanted));
        if let Some(waited) = queue.turn_ended() {
            shared.shortage.saw(waited);
        }
    }
}

async fn commit(
    shared: &Shared,
    session: &mut Option<Session>,
    input: &store::turn::TurnInput,
) -> Result<store::turn::TurnOutput, store::Error> {
    let mut open = match session.take() {
        Some(open) => open,
        None => tokio::time::timeout(CONNECT_TIMEOUT, shared.store.turn_session())
            .await
            .map_err(|_| store::Error::timed_out())??,
    };
    let turn = store::turn::run(&mut open, shared.clock.now(), input);
    let output = tokio::time::timeout(ANSWER_TIMEOUT, turn)
        .await
        .unwrap_or_else(|_| Err(store::Error::timed_out()));
    // A session that failed is dropped: what it was doing is unknown.
    if !matches!(output, Err(store::Error::Unavailable(_))) {
        *session = Some(open);
    }
    output
}

impl Shared {
    /// The slot that new blocks go to.
    #[must_use]
    pub fn slot(&self) -> i16 {
        self.slot.load(Ordering::Relaxed)
    }
}
