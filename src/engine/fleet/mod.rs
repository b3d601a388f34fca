//! This node as one of the nodes of an installation. Each node runs these loops: it reports that it is running
//! (`heartbeat`), polls for changes by other nodes (`watch`), wakes receivers on them (`wake`), retires subscriptions
//! that they deleted (`deleted`), counts messages that they settled (`in_flight`), and records which keys were used
//! (`used_keys`). No message is lost without these loops. `expire_nodes` is a duty. `nodes` and `readiness` are for operators, and `installation` holds the values that all
//! nodes share.

mod deleted;
pub mod expire_nodes;
mod heartbeat;
mod in_flight;
pub(in crate::engine) mod installation;
mod nodes;
pub(in crate::engine) mod readiness;
mod used_keys;
pub(in crate::engine) mod wake;
pub(in crate::engine) mod watch;

pub use readiness::Readiness;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;

/// Starts the loops of a node on `tracker`. They end soon after `stop` is cancelled.
pub(in crate::engine) fn spawn(engine: &Engine, tracker: &TaskTracker, stop: &CancellationToken) {
    tracker.spawn(engine.clone().keep_heartbeat(stop.clone()));
    tracker.spawn(engine.clone().watch(stop.clone()));
    tracker.spawn(engine.clone().send_hints(stop.clone()));
    tracker.spawn(engine.clone().receive_hints(stop.clone()));
    tracker.spawn(engine.clone().retire_deleted(stop.clone()));
    tracker.spawn(engine.clone().count_in_flight(stop.clone()));
    tracker.spawn(engine.clone().record_used_keys(stop.clone()));
}
