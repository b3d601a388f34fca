//! The loop around a duty, the same for all duties. A round is a pause with jitter, the hold, and a run, which the
//! metrics count; the pause is longer after failures. The loop ends when its token is cancelled, after the run in
//! progress.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hold::{HELD_FOR, Hold, RENEW_AFTER};
use super::metrics::Counts;
use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::repeat::doubled;

/// Longest pause after failures, and longest pause that [`Duty::PAUSE_FACTOR`] asks for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Failures in a row that double the pause at most.
const DOUBLINGS_MAX: u32 = 6;

/// The rounds of a duty on this node.
pub(super) struct Rounds<D> {
    /// The duty.
    pub(super) duty: D,
    /// The parts that it works with.
    pub(super) context: Context,
    /// This node.
    pub(super) node: Uuid,
    /// Its metrics.
    pub(super) counts: Counts,
}

impl<D: Duty> Rounds<D> {
    /// Runs rounds until `stop`. The duty runs only while this node holds it.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self {
            mut duty,
            context,
            node,
            counts,
        } = self;
        let mut hold = Hold::new(&context, node, D::NAME);
        let mut pause = D::BUSY;
        let mut failures = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = match round(&mut duty, &context, (&mut hold, &counts), &stop).await {
                Ok(Some((done, took))) => {
                    failures = 0;
                    pause_after::<D>(done, took)
                }
                Ok(None) => {
                    duty.stand_by();
                    D::IDLE.max(HELD_FOR / 4)
                }
                Err(error) => {
                    counts.failures.inc();
                    let cause: &dyn std::error::Error = &error;
                    tracing::warn!(duty = D::NAME, cause, "duty failed; it goes on later");
                    failures = (failures + 1).min(DOUBLINGS_MAX);
                    doubled(D::BUSY, failures, PAUSE_MAX).max(D::BUSY)
                }
            };
        }
        hold.release().await;
    }
}

/// The pause after a run that took this long.
fn pause_after<D: Duty>(done: Done, took: Duration) -> Duration {
    let pause = match done {
        Done { more: true, .. } => Duration::ZERO,
        Done { count: 0, .. } => D::IDLE,
        Done { .. } => D::BUSY,
    };
    pause.max((took * D::PAUSE_FACTOR).min(PAUSE_MAX))
}

/// Runs the duty once if this node can hold it, and renews the hold during the run. Returns the result and the duration
/// of the run; `None` when another node has the duty.
async fn round<D: Duty>(
    duty: &mut D,
    context: &Context,
    (hold, counts): (&mut Hold<'_>, &Counts),
    stop: &CancellationToken,
) -> Result<Option<(Done, Duration)>, DutyError> {
    if !hold.take().await? {
        return Ok(None);
    }
    counts.runs.inc();
    let started = Instant::now();
    let mut run = std::pin::pin!(duty.run(context, stop));
    let outcome = loop {
        tokio::select! {
            outcome = &mut run => break outcome,
            () = tokio::time::sleep(RENEW_AFTER) => {
                // The run goes on even when the hold is lost. At worst two nodes do the same work.
                if let Err(error) = hold.take().await {
                    tracing::debug!(duty = D::NAME, %error, "the hold on a duty could not be renewed");
                }
            }
        }
    };
    let took = started.elapsed();
    counts.seconds.observe(took.as_secs_f64());
    let done = outcome?;
    counts.done.inc_by(done.count);
    Ok(Some((done, took)))
}

/// Between 3/4 and 5/4 of a pause, so that nodes that start together do not stay together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.75..1.25))
}
