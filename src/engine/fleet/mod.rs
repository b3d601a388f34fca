//! A node among the nodes of one installation. It shows that it is there (`heartbeat`), learns what other nodes changed
//! (`watch`), wakes their receivers (`wake`), lets go of what they deleted (`deleted`), counts what they settled
//! (`in_flight`) and notes which keys it let in (`used_keys`); these are loops of every node, and no message is lost without
//! them. `returns` gives back messages whose receivers went away. `expire_nodes` is a duty. `nodes` and `readiness` are
//! what operators read, and `installation` is what all nodes share.

mod deleted;
pub mod expire_nodes;
mod heartbeat;
mod in_flight;
pub(in crate::engine) mod installation;
mod nodes;
pub(in crate::engine) mod readiness;
mod returns;
mod used_keys;
pub(in crate::engine) mod wake;
pub(in crate::engine) mod watch;

pub use readiness::Readiness;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;

/// Starts the loops of a node on `tracker`; they end soon after `stop`.
pub(in crate::engine) fn spawn(engine: &Engine, tracker: &TaskTracker, stop: &CancellationToken) {
    tracker.spawn(engine.clone().keep_heartbeat(stop.clone()));
    tracker.spawn(engine.clone().watch(stop.clone()));
    tracker.spawn(engine.clone().send_hints(stop.clone()));
    tracker.spawn(engine.clone().hear_hints(stop.clone()));
    tracker.spawn(engine.clone().retire_deleted(stop.clone()));
    tracker.spawn(engine.clone().count_in_flight(stop.clone()));
    tracker.spawn(engine.clone().note_used_keys(stop.clone()));
    tracker.spawn(engine.clone().return_unwanted(stop.clone()));
}
