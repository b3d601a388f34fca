//! Push: the service itself delivers the messages of a subscription to an HTTP endpoint, from the same leases, attempts
//! and dead letters as receive.
//!
//! `settings` changes endpoints, `consent` asks them, `endpoint` is one that is ready for use. Each endpoint has a task on
//! one node (`drive`), which `assign` starts. It asks `flow` how much it may send, makes requests (`request`, signed by
//! `sign`, maybe with the `key` of the tenant, whose public half is in its `key_set`), sends them (`send`), understands the
//! answers (`answer`, `retry`) and settles (`settle`). The endpoints of sinks get what they get `in_order`. `attempts` and `status` are for people, `test` sends a sample.

pub(in crate::engine) mod answer;
mod assign;
mod attempts;
mod consent;
mod control;
mod drive;
mod endpoint;
pub mod expire_attempts;
mod flow;
pub(in crate::engine) mod in_order;
pub mod key;
mod key_set;
mod metrics;
mod rate;
mod ready;
pub mod request;
mod retry;
mod send;
pub mod settings;
mod settle;
pub mod sign;
pub(in crate::engine) mod status;
mod test;

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use endpoint::Endpoint;

use crate::engine::Engine;
use crate::turnstile::Turnstile;

/// Requests to endpoints at the same time on one node.
const PLACES: usize = 4_096;
/// Those of one tenant.
const PLACES_OF_TENANT: usize = 3_072;

/// The deliveries of a node.
#[derive(Debug)]
pub(in crate::engine) struct Push {
    /// Places of requests, which tenants share fairly.
    places: Turnstile,
    /// Wakes the loop that assigns endpoints.
    changed: Notify,
    /// Whether endpoints have changed since that loop read them.
    is_changed: AtomicBool,
    attempts: attempts::Attempts,
    metrics: metrics::Metrics,
    /// Requests that failed of endpoints that get messages in order.
    failures_in_order: Counter,
    /// The drivers of endpoints.
    drivers: TaskTracker,
    /// Leaves drivers little time to end.
    halt: CancellationToken,
}

impl Push {
    /// `failures_in_order` counts the requests that fail of endpoints that get messages in order.
    pub(in crate::engine) fn new(failures_in_order: Counter) -> Self {
        Self {
            places: Turnstile::new(PLACES, PLACES_OF_TENANT),
            changed: Notify::new(),
            is_changed: AtomicBool::new(false),
            attempts: attempts::Attempts::default(),
            metrics: metrics::Metrics::default(),
            failures_in_order,
            drivers: TaskTracker::new(),
            halt: CancellationToken::new(),
        }
    }

    /// Has endpoints assigned now, because some have changed.
    pub(in crate::engine) fn assign_now(&self) {
        self.is_changed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Adds its metrics to a registry that prefixes `cursus`.
    pub(in crate::engine) fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }
}

impl Engine {
    /// Ends the drivers of a node that stops, within some seconds. What was answered until then is settled, metered and
    /// recorded by loops that must run until this returns.
    pub async fn end_push(&self) {
        let push = self.push();
        push.halt.cancel();
        push.drivers.close();
        push.drivers.wait().await;
    }
}

/// Starts the loops of push on `tracker`. They hand over when the node drains, and end soon after `stop`.
pub(in crate::engine) fn spawn(engine: &Engine, tracker: &TaskTracker, stop: &CancellationToken) {
    tracker.spawn(engine.clone().assign_endpoints(stop.clone()));
    tracker.spawn(engine.clone().store_attempts(stop.clone()));
}
