//! Counts what the background duties do and how far behind they are. A node shows figures only while it has the duty, so
//! over the fleet a gauge is read as its worst value.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::store::hot_payload;

/// Names of the duties, in the metrics and in the table `duty`.
const DUTIES: [&str; 8] = [
    "rotate", "offload", "expire", "collect", "meter", "roll_up", "budget", "events",
];
/// From a look that finds nothing to a long catching up.
const SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0];

/// Label of a duty.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Duty {
    /// Its name.
    pub duty: &'static str,
}

/// What the duties count; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Runs.
    pub runs: Family<Duty, Counter>,
    /// Runs that failed.
    pub failures: Family<Duty, Counter>,
    /// Things moved or deleted.
    pub done: Family<Duty, Counter>,
    /// Seconds of a run.
    pub seconds: Family<Duty, Histogram>,
    /// Slots that a rotation can move to.
    pub slots_free: Gauge,
    /// Bytes that wait for object storage, at most.
    pub backlog_bytes: Gauge,
    /// Age of about the oldest payload among them.
    pub oldest_age_seconds: Gauge<f64, AtomicU64>,
    /// Events that wait for sinks, counted up to 100,000.
    pub events_waiting: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            runs: Family::default(),
            failures: Family::default(),
            done: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            slots_free: Gauge::default(),
            backlog_bytes: Gauge::default(),
            oldest_age_seconds: Gauge::default(),
            events_waiting: Gauge::default(),
        };
        metrics.slots_free.set(i64::from(hot_payload::SLOTS));
        for duty in DUTIES {
            for family in [&metrics.runs, &metrics.failures, &metrics.done] {
                drop(family.get_or_create(&Duty { duty }));
            }
        }
        metrics
    }
}

impl Metrics {
    /// Adds them to a registry that prefixes `cursus`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("duty_runs", "Runs of background duties", self.runs.clone());
        registry.register(
            "duty_failures",
            "Runs of background duties that failed",
            self.failures.clone(),
        );
        registry.register(
            "duty_done",
            "Things that background duties moved or deleted",
            self.done.clone(),
        );
        registry.register_with_unit(
            "duty_duration",
            "Duration of a run",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register(
            "hot_slots_free",
            "Hot slots that a rotation can move to",
            self.slots_free.clone(),
        );
        registry.register(
            "offload_backlog_bytes",
            "Bytes in hot slots other than the current one, those consumed since included",
            self.backlog_bytes.clone(),
        );
        registry.register(
            "events_waiting",
            "Events that wait for sinks, counted up to 100,000",
            self.events_waiting.clone(),
        );
        registry.register(
            "offload_oldest_age_seconds",
            "Age of the oldest payload that waits for object storage, about",
            self.oldest_age_seconds.clone(),
        );
    }
}
