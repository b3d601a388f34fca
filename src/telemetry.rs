//! Telemetry of a node. The log goes to standard error, as lines for people or JSON for machines; `main` starts it
//! once. Each part registers its metrics under its own names, and `/metrics` shows them.

use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::config::{LogFormat, Logging};
use crate::engine::Engine;

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

/// Registers what the engine and the parts below it count.
pub fn register(registry: &mut Registry, engine: &Engine) {
    engine.blob().metrics().register(registry);
    let store = engine.store().metrics();
    registry.register(
        "database_statements",
        "Statements sent to the database, by name",
        store.statements.clone(),
    );
    registry.register(
        "database_commits",
        "Commits asked of the database",
        store.commits.clone(),
    );
    let turns = engine.turn_metrics();
    registry.register(
        "messages_published",
        "Messages committed by turns",
        turns.published.clone(),
    );
    registry.register(
        "messages_received",
        "Messages handed out for the first time",
        turns.claimed.clone(),
    );
    registry.register(
        "messages_acked",
        "Messages acked by turns",
        turns.settled.clone(),
    );
    registry.register(
        "flush_messages",
        "Messages in a block that a turn committed",
        turns.flush_messages.clone(),
    );
    registry.register(
        "turn_duration_seconds",
        "Time a turn took to commit",
        turns.turn_seconds.clone(),
    );
    let dead = engine.metrics().dead_lettered.clone();
    registry.register(
        "messages_dead_lettered",
        "Messages moved to a dead-letter topic",
        dead,
    );
    let events = &engine.metrics().events;
    registry.register(
        "events_delivered",
        "Events that sinks took",
        events.delivered.clone(),
    );
    registry.register(
        "events_failed_attempts",
        "Attempts to deliver events that sinks did not take",
        events.failed.clone(),
    );
    registry.register(
        "throttled_requests",
        "Requests that a quota stood against, by policy",
        engine.quotas().throttled.clone(),
    );
    registry.register_collector(Box::new(CacheBytes(engine.clone())));
    registry.register_collector(Box::new(Short(engine.clone())));
}

/// Bytes of cached blocks, read when metrics are collected.
#[derive(Debug)]
struct CacheBytes(Engine);

impl Collector for CacheBytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bytes = ConstGauge::new(u32::try_from(self.0.cache_bytes()).unwrap_or(u32::MAX));
        let help = "Blocks kept in memory";
        bytes.encode(encoder.encode_descriptor("cache_bytes", help, None, bytes.metric_type())?)
    }
}

/// Whether the node is short of capacity, read when metrics are collected.
#[derive(Debug)]
struct Short(Engine);

impl Collector for Short {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let short = ConstGauge::new(u32::from(self.0.quotas().is_short()));
        let help = "1 while the node is short of capacity and serves only what is guaranteed";
        short.encode(encoder.encode_descriptor(
            "capacity_short",
            help,
            None,
            short.metric_type(),
        )?)
    }
}
