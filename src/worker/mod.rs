//! The background duties of a node: one loop with jitter, trigger and drain, and a duty a file. `main` starts them on a
//! tracker with a token that stops them; a duty ends within one batch. Each duty is held by one node of the fleet at a
//! time, by time, so that none is done twice for nothing; being right never depends on it. Knows no SQL and no rules:
//! `engine` has them.

mod budget;
mod collect;
mod events;
mod expire;
mod meter;
mod metrics;
mod offload;
mod roll_up;
mod rotate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::blob::Blob;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::engine::duty::{Done, DutyError};
use crate::engine::lifecycle::collect::CollectSettings;
use crate::engine::lifecycle::expire::ExpireSettings;
use crate::engine::lifecycle::offload::OffloadSettings;
use crate::engine::lifecycle::rotate::RotateSettings;
use crate::store::{self, Store, duty};

pub use metrics::{Duty as DutyLabel, Metrics};

/// How long a duty is held; a node that dies stops it for so long.
const HOLD: Duration = Duration::from_secs(60);
/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Settings of all duties.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Moving to the next hot slot.
    pub rotate: RotateSettings,
    /// Packing into object storage.
    pub offload: OffloadSettings,
    /// Retention.
    pub expire: ExpireSettings,
    /// Garbage in object storage.
    pub collect: CollectSettings,
}

/// What the duties work with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The engine, for what a duty does as a tenant could.
    pub engine: Engine,
    /// The database.
    pub store: Store,
    /// Object storage.
    pub blob: Arc<Blob>,
    /// The time.
    pub clock: Clock,
    /// This node.
    pub node: Uuid,
    /// Settings.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Metrics,
}

/// Wakes duties before their time. A trigger during a run makes another run follow.
#[derive(Debug, Clone, Default)]
pub struct Triggers {
    /// Moving to the next hot slot.
    pub rotate: Arc<Notify>,
    /// Packing into object storage.
    pub offload: Arc<Notify>,
    /// Retention.
    pub expire: Arc<Notify>,
    /// Garbage in object storage.
    pub collect: Arc<Notify>,
    /// Counting what was published.
    pub meter: Arc<Notify>,
    /// Usage that grows old.
    pub roll_up: Arc<Notify>,
    /// Budgets and what is spent.
    pub budget: Arc<Notify>,
    /// Events for sinks.
    pub events: Arc<Notify>,
}

/// Starts the duties on `tracker`; they end soon after `stop`.
pub fn start(context: &Context, tracker: &TaskTracker, stop: &CancellationToken) -> Triggers {
    let triggers = Triggers::default();
    let run = |trigger: &Arc<Notify>| (context.clone(), trigger.clone(), stop.clone());
    tracker.spawn(turn_over(rotate::Rotate, run(&triggers.rotate)));
    tracker.spawn(turn_over(
        offload::Offload::default(),
        run(&triggers.offload),
    ));
    tracker.spawn(turn_over(expire::Expire::default(), run(&triggers.expire)));
    tracker.spawn(turn_over(
        collect::Collect::default(),
        run(&triggers.collect),
    ));
    tracker.spawn(turn_over(meter::Meter, run(&triggers.meter)));
    tracker.spawn(turn_over(roll_up::RollUp, run(&triggers.roll_up)));
    tracker.spawn(turn_over(budget::Budget, run(&triggers.budget)));
    tracker.spawn(turn_over(
        events::Events::new(tracker),
        run(&triggers.events),
    ));
    triggers
}

/// A duty.
trait Duty: Send {
    /// In the metrics and in the table `duty`.
    const NAME: &'static str;
    /// Pause after a run that found something to do.
    const BUSY: Duration;
    /// Pause after a run that found nothing.
    const IDLE: Duration;
    /// Leaves the database to others for so many times as long as a run took.
    const REST: u32 = 0;

    /// Does what there is to do; stops early when told to.
    fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<Done, DutyError>> + Send;

    /// Another node has the duty: figures of this one are out of date.
    fn rest(&mut self, _: &Metrics) {}
}

/// The loop around a duty, until `stop`.
async fn turn_over<D: Duty>(
    mut duty: D,
    (context, trigger, stop): (Context, Arc<Notify>, CancellationToken),
) {
    let mut hold = Hold {
        context: &context,
        duty: D::NAME,
        since: None,
    };
    let mut pause = D::BUSY;
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = trigger.notified() => {}
            () = tokio::time::sleep(jittered(pause)) => {}
        }
        match attend(&mut duty, &mut hold, &stop).await {
            Ok(Some((done, took))) => {
                failures = 0;
                pause = match done {
                    Done { more: true, .. } => Duration::ZERO,
                    Done { count: 0, .. } => D::IDLE,
                    Done { .. } => D::BUSY,
                };
                pause = pause.max((took * D::REST).min(PAUSE_MAX));
            }
            Ok(None) => {
                duty.rest(&context.metrics);
                pause = D::IDLE.max(HOLD / 4);
            }
            Err(error) => {
                context
                    .metrics
                    .failures
                    .get_or_create(&DutyLabel { duty: D::NAME })
                    .inc();
                let cause: &dyn std::error::Error = &error;
                tracing::warn!(duty = D::NAME, cause, "duty failed; it goes on later");
                failures = (failures + 1).min(6);
                pause = (D::BUSY * (1 << failures)).min(PAUSE_MAX).max(D::BUSY);
            }
        }
    }
    hold.release().await;
}

/// Runs a duty once if this node has it; keeps hold of it meanwhile.
async fn attend<D: Duty>(
    duty: &mut D,
    hold: &mut Hold<'_>,
    stop: &CancellationToken,
) -> Result<Option<(Done, Duration)>, DutyError> {
    if !hold.take().await? {
        return Ok(None);
    }
    let metrics = &hold.context.metrics;
    metrics
        .runs
        .get_or_create(&DutyLabel { duty: D::NAME })
        .inc();
    let started = Instant::now();
    let context = hold.context;
    let mut run = std::pin::pin!(duty.run(context, stop));
    let outcome = loop {
        tokio::select! {
            outcome = &mut run => break outcome,
            () = tokio::time::sleep(HOLD / 3) => {
                // Lost or not, the run goes on: at worst two nodes do the same.
                if let Err(error) = hold.take().await {
                    tracing::debug!(duty = D::NAME, %error, "duty could not be held on to");
                }
            }
        }
    };
    let took = started.elapsed();
    metrics
        .seconds
        .get_or_create(&DutyLabel { duty: D::NAME })
        .observe(took.as_secs_f64());
    let done = outcome?;
    metrics
        .done
        .get_or_create(&DutyLabel { duty: D::NAME })
        .inc_by(done.count);
    Ok(Some((done, took)))
}

/// This node's hold on a duty.
struct Hold<'a> {
    context: &'a Context,
    duty: &'static str,
    /// When it was last taken; this clock only saves statements.
    since: Option<Instant>,
}

impl Hold<'_> {
    /// Takes or keeps the duty; false: another node has it.
    async fn take(&mut self) -> Result<bool, store::Error> {
        if self.since.is_some_and(|since| since.elapsed() < HOLD / 3) {
            return Ok(true);
        }
        self.since = None;
        let Context {
            store, clock, node, ..
        } = self.context;
        let taken = Instant::now();
        let mut session = store.session().await?;
        let is_held = duty::hold(&mut session, self.duty, *node, HOLD, clock.now()).await?;
        self.since = is_held.then_some(taken);
        Ok(is_held)
    }

    /// Lets the next node have it at once.
    async fn release(&self) {
        if self.since.is_none() {
            return;
        }
        let released = async {
            let mut session = self.context.store.session().await?;
            duty::release(&mut session, self.duty, self.context.node).await
        };
        if let Err(error) = released.await {
            tracing::debug!(duty = self.duty, %error, "duty is let go by time");
        }
    }
}

/// Between 3/4 and 5/4 of it, so that nodes that start together do not stay together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.75..1.25))
}
