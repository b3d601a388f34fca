//! Durations of requests by route and class of status, and requests that a limit refused. The label is the pattern of
//! the route, never a path, so the number of series is bounded by the number of routes.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use axum::extract::MatchedPath;
use axum::http::Method;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the buckets in seconds: from a group commit to the longest poll.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0,
];

/// Durations of requests, and requests that a limit refused.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    shed: Family<ShedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShedLabels {
    /// The name of the limit, as in `violated-policies`.
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    route: Route,
    status_class: &'static str,
}

impl Hash for Labels {
    /// Hashes only lengths and one digit, which is sufficient for few series: every request hashes a label.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let class = self.status_class.as_bytes()[0];
        let lengths = self.route.as_str().len() << 16 | self.method.len() << 8;
        state.write_usize(lengths | usize::from(class));
    }
}

/// The pattern of the route; `unknown` without a route.
#[derive(Debug, Clone)]
struct Route(Option<MatchedPath>);

impl Route {
    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("unknown", MatchedPath::as_str)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            shed: Family::default(),
        }
    }
}

impl RequestMetrics {
    /// Adds the metrics to a registry, whose prefix is `cursus`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_request_duration_seconds",
            "Time from the head of a request to the head of its answer, long polls included",
            self.durations.clone(),
        );
        registry.register(
            "http_shed_requests",
            "Requests refused by a limit of the node or of the tenant's quota, by limit",
            self.shed.clone(),
        );
    }

    pub(super) fn count_shed(&self, limit: &'static str) {
        self.shed.get_or_create(&ShedLabels { limit }).inc();
    }

    pub(super) fn observe(
        &self,
        method: &Method,
        route: Option<&MatchedPath>,
        status: u16,
        took: Duration,
    ) {
        let labels = Labels {
            method: match *method {
                Method::GET => "GET",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::DELETE => "DELETE",
                Method::HEAD => "HEAD",
                Method::OPTIONS => "OPTIONS",
                _ => "other",
            },
            route: Route(route.cloned()),
            status_class: match status {
                0..=199 => "1xx",
                200..=299 => "2xx",
                300..=399 => "3xx",
                400..=499 => "4xx",
                _ => "5xx",
            },
        };
        self.durations
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }
}
