//! The metrics of an engine: those of its verbs, and the registration of those of its rooms and of the parts below them. A
//! new metric is a field and a line in the `register` of its room.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{Engine, events};

/// Metrics of the verbs and above.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Messages moved to a dead-letter topic.
    pub(super) dead_lettered: Counter,
    /// Events on their way to sinks.
    pub(super) events: events::Metrics,
}

impl Engine {
    /// Adds all metrics to a registry that prefixes `cursus`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.blob().metrics().register(registry);
        self.store().metrics().register(registry);
        self.inner.turns.metrics.register(registry);
        registry.register(
            "messages_dead_lettered",
            "Messages moved to a dead-letter topic",
            self.metrics().dead_lettered.clone(),
        );
        self.metrics().events.register(registry);
        self.push().register(registry);
        self.inner.quotas.register(registry);
        self.inner.reader.register(registry);
        self.held().register(registry);
        self.outbound().register(registry);
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}
