//! What the service says about itself, to probes, scrapers and people: no tenant, no key.

use api::service::{Health, PartReadiness, ProblemKind, Readiness};
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::document::{NotFoundError, ServiceErrors};
use super::json::Json;
use super::path::CodePath;
use crate::engine::Engine;
use crate::telemetry::Telemetry;

/// Whether the process lives
///
/// Asks nobody else; for liveness probes.
#[utoipa::path(
    get, path = "/healthz", operation_id = "get_health", tag = "Service", security(()),
    responses((status = 200, description = "It lives", body = Health), ServiceErrors)
)]
pub(super) async fn get_health() -> Json<Health> {
    let status = "ok".to_owned();
    Json(Health { status })
}

/// Whether requests can be served
///
/// Asks the database and object storage, and says which is missing; for load balancers.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readiness", tag = "Service", security(()),
    responses(
        (status = 200, description = "All parts answer", body = Readiness),
        (status = 503, description = "Some part is missing", body = Readiness),
        ServiceErrors
    )
)]
pub(super) async fn get_readiness(State(engine): State<Engine>) -> (StatusCode, Json<Readiness>) {
    let parts: Vec<_> = engine.readiness().await.into_iter().map(part).collect();
    let ready = parts.iter().all(|part| part.ready);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Readiness { ready, parts }))
}

fn part(part: crate::engine::Readiness) -> PartReadiness {
    PartReadiness {
        part: part.part.to_owned(),
        ready: part.missing.is_none(),
        missing: part.missing,
    }
}

/// Metrics of this node
///
/// For Prometheus and whatever else scrapes OpenMetrics.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "Service", security(()),
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"), ServiceErrors)
)]
pub(super) async fn get_metrics(Extension(telemetry): Extension<Telemetry>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPEN_METRICS)], telemetry.text())
}

/// This document
///
/// It is generated from the routes that run; /docs shows it.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "get_openapi", tag = "Service", security(()),
    responses((status = 200, description = "The OpenAPI 3.1 document of this API", body = std::collections::BTreeMap<String, serde_json::Value>), ServiceErrors)
)]
pub(super) async fn get_openapi() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/json")],
        super::document::text(),
    )
}

/// What an error code means
///
/// The `type` of a problem leads here.
#[utoipa::path(
    get, path = "/problems/{code}", operation_id = "get_problem", tag = "Service", security(()),
    params(("code" = api::ErrorCode, Path, description = "Code of an error")),
    responses((status = 200, description = "What it means", body = ProblemKind), NotFoundError)
)]
pub(super) async fn get_problem(CodePath(code): CodePath) -> Json<ProblemKind> {
    Json(ProblemKind::of(code))
}
