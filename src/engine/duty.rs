//! The contract of a background duty: work that one node of the fleet does at a time. A duty is a file beside its rule, with
//! an `impl Duty`, and a line in `worker::start`, which runs it: the loop there has the jitter, the hold on the duty, the
//! metrics, the pauses after failures and the drain. A duty is safe to run twice and on two nodes at once: the hold saves
//! work, and correctness never depends on it.

use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::error;
use crate::store::Store;
use crate::{blob, store};

/// What every duty works with. A duty that needs more takes it when it is made.
#[derive(Debug, Clone)]
pub struct Context {
    /// The database.
    pub store: Store,
    /// Source of `$now`.
    pub clock: Clock,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Things moved, made or deleted.
    pub count: u64,
    /// There is more to do at once.
    pub more: bool,
}

/// Why a run ended early. What it did until then holds, and the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum DutyError {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Object storage.
    #[error(transparent)]
    Blob(#[from] blob::Error),
    /// A rule of the engine, or what it reads; reported where it was found.
    #[error(transparent)]
    Rule(#[from] error::Error),
    /// The installation has no row: no node has started yet.
    #[error("the installation is not set up")]
    NotSetUp,
}

/// A background duty.
pub trait Duty: Send + 'static {
    /// In the metrics and in the table `duty`; unique.
    const NAME: &'static str;
    /// Pause after a run that found something to do, and before the first run.
    const BUSY: Duration;
    /// Pause after a run that found nothing to do.
    const IDLE: Duration;
    /// A pause is at least this many times as long as the run before it, so that the database is left to others.
    const PAUSE_FACTOR: u32 = 0;

    /// Does what there is to do. Ends between two steps when `stop` is cancelled.
    ///
    /// # Errors
    /// When the database or another part of the service fails.
    fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<Done, DutyError>> + Send;

    /// Another node has the duty: figures and memories of this node are out of date.
    fn stand_by(&mut self) {}

    /// Registers the duty's own metrics; called once, before the first run.
    fn register(&self, _: &mut Registry) {}
}
