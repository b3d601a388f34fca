//! Metrics of push.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::outbound::{self, Reply};

/// Label: the class of an answer.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Class {
    /// `2xx` to `5xx`, or `none` without an answer.
    code_class: &'static str,
}

/// Metrics of the deliveries of a node.
#[derive(Debug)]
pub(super) struct Metrics {
    attempts: Family<Class, Counter>,
    seconds: Histogram,
    /// Endpoints that this node drives.
    pub(super) endpoints: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            endpoints: Gauge::default(),
        }
    }
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "push_attempts",
            "Requests to endpoints by the class of their answer",
            self.attempts.clone(),
        );
        registry.register(
            "push_duration_seconds",
            "Time until an endpoint answered, or a request failed",
            self.seconds.clone(),
        );
        registry.register(
            "push_endpoints",
            "Endpoints that this node delivers to",
            self.endpoints.clone(),
        );
    }

    /// Counts a request that has ended.
    pub(super) fn ended(&self, result: &Result<Reply, outbound::Error>, took: Duration) {
        let code_class = match result.as_ref().map(|reply| reply.status) {
            Ok(100..200) => "1xx",
            Ok(200..300) => "2xx",
            Ok(300..400) => "3xx",
            Ok(400..500) => "4xx",
            Ok(_) => "5xx",
            Err(_) => "none",
        };
        self.attempts.get_or_create(&Class { code_class }).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
