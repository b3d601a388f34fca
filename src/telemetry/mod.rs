//! Telemetry of a node. The log goes to standard error, as lines for people or JSON for machines; `main` starts it
//! once. Each part registers its metrics under its own names, and `/metrics` shows them.

mod log;
mod pipe;
mod repeats;

use std::sync::Arc;

use prometheus_client::registry::Registry;

pub use log::{flush, init, say};

/// The metrics of a node, in the OpenMetrics text format.
#[derive(Debug, Clone)]
pub struct Telemetry {
    registry: Arc<Registry>,
}

impl Telemetry {
    /// All metrics of `registry`.
    #[must_use]
    pub fn of(registry: Registry) -> Self {
        Self {
            registry: Arc::new(registry),
        }
    }

    /// The metrics as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// A registry whose names begin with `cursus_`, with the metrics of the log.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("cursus");
    log::register(&mut registry);
    registry
}
