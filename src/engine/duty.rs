//! The contract of a background duty: work that one node of the fleet does at a time. A duty is an `impl Duty` in the
//! file of its rule, and one line in `worker::start`. The loop in `worker` adds jitter, the hold that keeps a duty on
//! one node, metrics, pauses after failures, and the drain. A duty must be safe to run twice and on two nodes at once:
//! the hold saves work, and correctness never depends on it.

use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::error;
use crate::store::Store;
use crate::{blob, store};

/// The database and the clock: what every duty and every loop of a node gets. What needs more takes it in its
/// constructor.
#[derive(Debug, Clone)]
pub struct Context {
    /// The database.
    pub store: Store,
    /// Source of the parameter `$now` of statements.
    pub clock: Clock,
}

/// Result of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Number of things moved, created or deleted.
    pub count: u64,
    /// Whether there is more to do at once, without a pause.
    pub more: bool,
}

/// Why a run ended early. What it committed until then stays, and the next run continues from there.
#[derive(Debug, thiserror::Error)]
pub enum DutyError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Object storage failed.
    #[error(transparent)]
    Blob(#[from] blob::Error),
    /// A rule of the engine failed. Internal errors are logged where they occur.
    #[error(transparent)]
    Rule(#[from] error::Error),
    /// The installation has no row, because no node has started yet.
    #[error("the installation is not set up")]
    NotSetUp,
}

/// A background duty.
pub trait Duty: Send + 'static {
    /// Name in metrics and in the table `duty`; unique.
    const NAME: &'static str;
    /// Pause after a run that found something to do, and before the first run.
    const BUSY: Duration;
    /// Pause after a run that found nothing to do.
    const IDLE: Duration;
    /// A pause is at least this many times as long as the run before it, so that other work gets the database.
    const PAUSE_FACTOR: u32 = 0;

    /// Does the work that is due. When `stop` is cancelled, it ends between two steps.
    ///
    /// # Errors
    /// When the database or another part of the service fails.
    fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<Done, DutyError>> + Send;

    /// Called when another node has the duty. The duty resets its metrics and what it remembers, because both are out
    /// of date.
    fn stand_by(&mut self) {}

    /// Registers the duty's own metrics; called once, before the first run.
    fn register(&self, _: &mut Registry) {}
}
