//! The metrics of a node: one registry with the prefix `cursus`, filled by the parts that count, read as text by
//! `/metrics`. Called by whoever puts the node together. Labels are bounded: statements, duties, operations, never a name
//! that a client chose.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::{blob, store, worker};

/// All metrics of a node.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
}

impl Telemetry {
    /// The metrics of the parts that every node has.
    #[must_use]
    pub fn new(store: &store::Metrics, blob: &blob::Metrics, worker: &worker::Metrics) -> Self {
        let mut registry = Registry::with_prefix("cursus");
        registry.register("database_statements", "Statements sent to the database, by name", store.statements.clone());
        registry.register("database_commits", "Commits asked of the database", store.commits.clone());
        blob.register(&mut registry);
        worker.register(&mut registry);
        Self { registry }
    }

    /// For the metrics of other parts, before the first request.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// All values in the text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("metrics could not be encoded");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_shows_under_the_prefix() {
        let store = store::Metrics::default();
        store.commits.inc();
        let telemetry = Telemetry::new(&store, &blob::Metrics::default(), &worker::Metrics::default());
        let text = telemetry.text();
        for line in [
            "cursus_database_commits_total 1",
            "cursus_object_requests_total{op=\"put\"} 0",
            "cursus_duty_runs_total{duty=\"offload\"} 0",
            "cursus_duty_failures_total{duty=\"expire\"} 0",
            "cursus_hot_slots_free 8",
            "cursus_offload_backlog_bytes 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }
}
