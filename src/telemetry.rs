//! Telemetry of a node. The log goes to standard error, as lines for people or JSON for machines; `main` starts it
//! once. Each part registers its metrics under its own names, and `/metrics` shows them.

use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use prometheus_client::registry::Registry;

use crate::config::{LogFormat, Logging};

/// Starts logging.
pub fn init(logging: &Logging) {
    let filter = EnvFilter::new(&logging.log_level);
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only when a subscriber is already set, which then does the logging.
    let _ = match logging.log_format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

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

/// A registry whose names begin with `cursus_`.
#[must_use]
pub fn registry() -> Registry {
    Registry::with_prefix("cursus")
}
