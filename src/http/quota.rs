//! `GET /v1/quota`: what the tenant may do, and what it does at the moment.

use api::quota::QuotaStatus;
use axum::extract::State;

use super::caller::Caller;
use super::document::ListErrors;
use super::json::Json;
use super::problem::Refusal;
use crate::engine::Engine;

/// Get the quota
///
/// The limits of the tenant, which hold for all nodes of the service together, and how much of each is in use. Every answer
/// to a tenant with a rate limit says what is left of it in `RateLimit`.
#[utoipa::path(
    get, path = "/v1/quota", operation_id = "get_quota", tag = "Quota",
    responses((status = 200, description = "The limits and their use", body = QuotaStatus), ListErrors)
)]
pub(super) async fn get_quota(
    State(engine): State<Engine>,
    Caller(tenant): Caller,
) -> Result<Json<QuotaStatus>, Refusal> {
    Ok(Json(engine.quota_status(tenant).await?))
}
