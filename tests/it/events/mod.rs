//! CloudEvents to sinks: settings, delivery, and the events of usage.

mod deliver;
pub(crate) mod sinks;
mod transport;
mod usage;
