//! Health, readiness, metrics and documentation of the service. These routes need no key and belong to no tenant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::service::{Health, PartReadiness, ProblemKind, Readiness, ReadinessPart, ReadinessQuery};
use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::http::answer::problem::Refusal;
use crate::http::answer::{exposition, throttle};
use crate::http::document::{GeneralErrors, ReadErrors};
use crate::http::request::json::Json;
use crate::http::request::path::CodePath;
use crate::http::request::query::Pairs;
use crate::telemetry::Telemetry;

/// Check that the process is alive
///
/// Does not depend on other services. For liveness probes.
#[utoipa::path(
    get, path = "/healthz", operation_id = "get_health", tag = "Service", security(()),
    responses((status = 200, description = "The process is alive", body = Health), GeneralErrors)
)]
pub(in crate::http) async fn get_health() -> Json<Health> {
    let status = "ok".to_owned();
    Json(Health { status })
}

/// Check that requests can be served
///
/// Checks the database and object storage, at most once a second, and reports which of them does not respond. For load
/// balancers: with `exclude=object_storage`, or an outage of object storage takes all nodes out of service, though small
/// messages go on.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readiness", tag = "Service", security(()),
    params(ReadinessQuery),
    responses(
        (status = 200, description = "The database and object storage respond", body = Readiness),
        (status = 503, description = "The database or object storage does not respond", body = Readiness,
            headers(("Retry-After" = String, description = "Seconds to wait before the next attempt"),
                ("RateLimit-Policy" = String, description = "The limit that was reached"), ("RateLimit" = String, description = "What is left of the limit"))),
        GeneralErrors
    )
)]
pub(in crate::http) async fn get_readiness(
    State(engine): State<Engine>,
    Extension(probe): Extension<Probe>,
    Excluded(exclude): Excluded,
) -> Response {
    let ask = async || engine.readiness().await.into_iter().map(part).collect();
    let parts = probe.parts(ask).await;
    let excluded = exclude.map(ReadinessPart::as_str);
    let mut counted = parts
        .iter()
        .filter(|part| Some(part.part.as_str()) != excluded);
    let ready = counted.all(|part| part.ready);
    let mut response = Json(Readiness { ready, parts }).into_response();
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        throttle::put_limit(response.headers_mut(), None);
    }
    response
}

/// The part that does not count, documented as [`ReadinessQuery`].
pub(in crate::http) struct Excluded(Option<ReadinessPart>);

impl<S: Sync> FromRequestParts<S> for Excluded {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut pairs = Pairs::of(&parts.uri);
        let must = "must be database, object_storage or node";
        let exclude = pairs.parsed("exclude", must, |text| {
            let mut all = ReadinessPart::ALL.into_iter();
            all.find(|part| part.as_str() == text)
        });
        pairs.finish(Self(exclude))
    }
}

/// How long a check is reused: `/readyz` is open to everyone, and each check costs a query and a request.
const FRESH: Duration = Duration::from_secs(1);

/// The last check. The lock is held during a check, so that concurrent probes share its result.
#[derive(Clone, Default)]
pub(in crate::http) struct Probe(Arc<Mutex<Option<Check>>>);

/// Time and result of a check.
type Check = (Instant, Vec<PartReadiness>);

impl Probe {
    async fn parts(&self, ask: impl AsyncFnOnce() -> Vec<PartReadiness>) -> Vec<PartReadiness> {
        let mut last = self.0.lock().await;
        if let Some((at, parts)) = &*last
            && at.elapsed() < FRESH
        {
            return parts.clone();
        }
        let parts = ask().await;
        *last = Some((Instant::now(), parts.clone()));
        parts
    }
}

fn part(part: crate::engine::Readiness) -> PartReadiness {
    PartReadiness {
        part: part.part.as_str().to_owned(),
        ready: part.missing.is_none(),
        missing: part.missing,
    }
}

/// Get the metrics of this node
///
/// Returns text for Prometheus and other scrapers: in the OpenMetrics format if `Accept` asks for it, else in the classic
/// text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "Service", security(()),
    responses((status = 200, description = "The metrics", content((String = "text/plain"), (String = "application/openmetrics-text"))), GeneralErrors)
)]
pub(in crate::http) async fn get_metrics(
    Extension(telemetry): Extension<Telemetry>,
    headers: HeaderMap,
) -> Response {
    exposition::metrics(&headers, telemetry.text())
}

/// Get this document
///
/// Returns the document, which is generated from the routes of this version. `/docs` displays it.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "get_openapi", tag = "Service", security(()),
    responses((status = 200, description = "The OpenAPI 3.1 document of this API", body = std::collections::BTreeMap<String, serde_json::Value>), GeneralErrors)
)]
pub(in crate::http) async fn get_openapi() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/json")],
        crate::http::document::text(),
    )
}

/// Get the meaning of an error code
///
/// Describes the code. The `type` of a problem is the URL of this page.
#[utoipa::path(
    get, path = "/problems/{code}", operation_id = "get_problem", tag = "Service", security(()),
    params(CodePath),
    responses((status = 200, description = "The meaning of the code", body = ProblemKind), ReadErrors)
)]
pub(in crate::http) async fn get_problem(CodePath(code): CodePath) -> Json<ProblemKind> {
    Json(ProblemKind::of(code))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_probes_at_once_ask_the_parts_once() {
        let (probe, asked) = (Probe::default(), AtomicU32::new(0));
        let ask = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Vec::new()
        };
        let probes = (0..100).map(|_| probe.parts(ask));
        let answers = futures_util::future::join_all(probes).await;
        assert_eq!((answers.len(), asked.into_inner()), (100, 1));
    }
}
