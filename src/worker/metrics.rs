//! Counts the runs of background duties, by duty. A gauge of a duty itself is registered by the duty, and a node shows it
//! only while it has the duty: over the fleet a gauge is read as its worst value.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bounds of the histogram of durations: from a run that finds nothing to do to a long catching up.
const SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0];

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Label {
    duty: &'static str,
}

/// What is counted of all duties.
#[derive(Debug)]
pub(super) struct Metrics {
    runs: Family<Label, Counter>,
    failures: Family<Label, Counter>,
    done: Family<Label, Counter>,
    seconds: Family<Label, Histogram>,
}

/// What is counted of one duty.
#[derive(Debug)]
pub(super) struct Counts {
    /// Runs.
    pub(super) runs: Counter,
    /// Runs that failed.
    pub(super) failures: Counter,
    /// Things moved, made or deleted.
    pub(super) done: Counter,
    /// Seconds of a run.
    pub(super) seconds: Histogram,
}

impl Metrics {
    /// Registers them; the registry prefixes `cursus`.
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

    /// The counts of a duty, shown from now on.
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
