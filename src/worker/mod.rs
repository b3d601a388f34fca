//! Runs the background duties of a node: this file lists all duties, `rounds` is the loop around each. `app` starts
//! them on a tracker, with a token that stops them. One node of the fleet holds each duty at a time, which saves work;
//! correctness never depends on it. This module has no SQL and no rules. The duties are in the rooms of `engine`
//! (`engine::duty`).

mod hold;
mod metrics;
mod rounds;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::engine::access::expire_audit::ExpireAudit;
use crate::engine::bill::events::Events;
use crate::engine::bill::spend::Spend;
use crate::engine::duty::Duty;
use crate::engine::events::endpoints::EndpointEvents;
use crate::engine::fleet::expire_nodes::ExpireNodes;
use crate::engine::lease::expire_lost::ExpireLost;
use crate::engine::lifecycle::collect::{Collect, CollectSettings};
use crate::engine::lifecycle::expire::{Expire, ExpireSettings};
use crate::engine::lifecycle::offload::{Offload, OffloadSettings};
use crate::engine::lifecycle::rotate::{Rotate, RotateSettings};
use crate::engine::meter::blocks::Meter;
use crate::engine::meter::roll_up::RollUp;
use crate::engine::publish::expire_dedup::ExpireDedup;
use crate::engine::push::expire_attempts::ExpireAttempts;
use crate::engine::receive::used_up::UsedUp;
use metrics::Metrics;
use rounds::Rounds;

/// Settings of the duties that have settings.
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

/// Starts all duties on `tracker` and registers their metrics. They end soon after `stop`.
pub fn start(
    engine: &Engine,
    settings: Settings,
    registry: &mut Registry,
    (tracker, stop): (&TaskTracker, &CancellationToken),
) {
    let mut worker = Worker {
        engine,
        metrics: Metrics::register(registry),
        registry,
        tracker,
        stop,
    };
    let blob = engine.blob();
    worker.start(Rotate::new(settings.rotate));
    worker.start(Offload::new(blob.clone(), settings.offload));
    worker.start(Expire::new(settings.expire));
    worker.start(UsedUp::new(engine.clone()));
    worker.start(Collect::new(blob.clone(), settings.collect));
    worker.start(Meter::default());
    worker.start(RollUp);
    worker.start(Spend);
    worker.start(Events::new(engine.clone(), tracker.clone()));
    worker.start(EndpointEvents);
    worker.start(ExpireDedup);
    worker.start(ExpireAttempts);
    worker.start(ExpireLost::default());
    worker.start(ExpireAudit);
    worker.start(ExpireNodes);
}

/// Starts duties.
struct Worker<'a> {
    engine: &'a Engine,
    metrics: Metrics,
    registry: &'a mut Registry,
    tracker: &'a TaskTracker,
    stop: &'a CancellationToken,
}

impl Worker<'_> {
    /// Registers the metrics of a duty and starts its loop.
    fn start<D: Duty>(&mut self, duty: D) {
        duty.register(self.registry);
        let rounds = Rounds {
            duty,
            context: self.engine.duty_context(),
            node: self.engine.node(),
            counts: self.metrics.of(D::NAME),
        };
        self.tracker.spawn(rounds.run(self.stop.clone()));
    }
}
