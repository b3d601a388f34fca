//! `GET /v1/quota`: the limits of the tenant and their use. `/v1/admin/tenants/{tenant}/quota`: the same limits, for
//! operators.

use api::TenantName;
use api::quota::{Quota, QuotaStatus};
use axum::extract::State;

use crate::engine::Engine;
use crate::engine::operate::quotas;
use crate::http::answer::problem::Refusal;
use crate::http::document::{GeneralErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, Operate, SeeQuota, To};
use crate::http::request::json::Json;

/// Get the quota
///
/// Returns the limits of the tenant and how much of each is in use. A limit holds for all nodes of the service
/// together. If the tenant has a rate limit, every response has what is left of it in the header `RateLimit`.
#[utoipa::path(
    get, path = "/v1/quota", operation_id = "get_quota", tag = "Quota",
    security(("api_key" = ["usage"]), ("api_key" = ["manage"])),
    responses((status = 200, description = "The limits and their use", body = QuotaStatus), GeneralErrors)
)]
pub(in crate::http) async fn get_quota(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<SeeQuota>,
) -> Result<Json<QuotaStatus>, Refusal> {
    Ok(Json(engine.quota_status(caller.tenant()).await?))
}

/// Set the quota of a tenant
///
/// Replaces the whole quota: an absent limit is removed. All nodes apply it within 2 seconds. A limit on topics,
/// subscriptions or stored bytes is refused if more than that is in use.
#[utoipa::path(
    put, path = "/v1/admin/tenants/{tenant}/quota", operation_id = "put_tenant_quota", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>),
    request_body(content = Option<Quota>, description = "The limits; without a body all limits are removed"),
    responses((status = 200, description = "The quota", body = Quota), PutErrors)
)]
pub(in crate::http) async fn put_tenant_quota(
    State(engine): State<Engine>,
    To(caller, tenant, ..): To<Operate, TenantName>,
    Json(limits): Json<Quota>,
) -> Result<Json<Quota>, Refusal> {
    let now = engine.clock().now();
    let set = quotas::put_quota(engine.store(), &caller, &tenant, &limits, now);
    Ok(Json(set.await?))
}

/// Get the quota of a tenant
///
/// Returns the limits as they were set.
#[utoipa::path(
    get, path = "/v1/admin/tenants/{tenant}/quota", operation_id = "get_tenant_quota", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>),
    responses((status = 200, description = "The quota", body = Quota), ReadErrors)
)]
pub(in crate::http) async fn get_tenant_quota(
    State(engine): State<Engine>,
    To(_caller, tenant, ..): To<Operate, TenantName>,
) -> Result<Json<Quota>, Refusal> {
    Ok(Json(quotas::get_quota(engine.store(), &tenant).await?))
}
