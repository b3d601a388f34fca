//! Metrics of background duties, by duty: runs, failures, things done and durations. A duty registers its own gauges
//! itself. A node shows such a gauge only while it holds the duty. Over the fleet, the worst value counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bounds of the histogram of durations, from a run without work to a long run after an outage.
const SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0];

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Label {
    duty: &'static str,
}

/// The metrics of all duties.
#[derive(Debug)]
pub(super) struct Metrics {
    runs: Family<Label, Counter>,
    failures: Family<Label, Counter>,
    done: Family<Label, Counter>,
    seconds: Family<Label, Histogram>,
}

/// The metrics of one duty.
#[derive(Debug)]
pub(super) struct Counts {
    /// Runs.
    pub(super) runs: Counter,
    /// Runs that failed.
    pub(super) failures: Counter,
    /// Things moved, made or deleted.
    pub(super) done: Counter,
    /// Durations of runs in seconds.
    pub(super) seconds: Histogram,
}

impl Metrics {
    /// Registers the metrics. The registry adds the prefix `cursus`.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            runs: Family::default(),
            failures: Family::default(),
            done: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
        };
        registry.register(
            "duty_runs",
            "Runs of background duties",
            metrics.runs.clone(),
        );
        registry.register(
            "duty_failures",
            "Runs of background duties that failed",
            metrics.failures.clone(),
        );
        registry.register(
            "duty_done",
            "Things that background duties moved, made or deleted",
            metrics.done.clone(),
        );
        registry.register_with_unit(
            "duty_duration",
            "Duration of a run",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        metrics
    }

    /// The metrics of a duty. They are shown from now on, also when they are zero.
    pub(super) fn of(&self, duty: &'static str) -> Counts {
        let label = Label { duty };
        Counts {
            runs: self.runs.get_or_create(&label).clone(),
            failures: self.failures.get_or_create(&label).clone(),
            done: self.done.get_or_create(&label).clone(),
            seconds: self.seconds.get_or_create(&label).clone(),
        }
    }
}
