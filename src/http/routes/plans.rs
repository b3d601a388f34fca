//! `/v1/admin/plans` and `/v1/admin/plans/{plan}/versions/{valid_from}`: the prices of usage. For operators of all
//! tenants. The plan of a tenant is one of the tenant's settings.

use api::list::Page;
use api::price::{Plan, PlanVersion, PlanVersionSettings};
use axum::extract::State;
use axum::http::StatusCode;

use crate::engine::Engine;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{DeleteErrors, GeneralErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, Operate};
use crate::http::request::json::Json;
use crate::http::request::path::VersionPath;

/// Create a version of a price plan, or change one
///
/// The first version of a name creates the plan. A version applies from the start of its day (UTC) until the next
/// version begins. Price tiers fill up over the calendar month of a tenant. A version that begins within a month
/// continues with the totals of that month. The currency of a plan cannot change. Only the first version may begin
/// before today.
#[utoipa::path(
    put, path = "/v1/admin/plans/{plan}/versions/{valid_from}", operation_id = "put_plan_version", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(VersionPath),
    request_body = PlanVersionSettings,
    responses(
        (status = 200, description = "The version was changed", body = PlanVersion),
        (status = 201, description = "The version was created", body = PlanVersion),
        PutErrors
    )
)]
pub(in crate::http) async fn put_plan_version(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
    VersionPath(plan, day): VersionPath,
    Json(settings): Json<PlanVersionSettings>,
) -> Result<(StatusCode, Json<PlanVersion>), Refusal> {
    let put = engine.put_plan_version(&caller, &plan, day, &settings);
    let (version, created) = put.await?;
    Ok((put_status(created), Json(version)))
}

/// Get a version of a price plan
///
/// Returns its currency and prices.
#[utoipa::path(
    get, path = "/v1/admin/plans/{plan}/versions/{valid_from}", operation_id = "get_plan_version", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(VersionPath),
    responses((status = 200, description = "The version", body = PlanVersion), ReadErrors)
)]
pub(in crate::http) async fn get_plan_version(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
    VersionPath(plan, day): VersionPath,
) -> Result<Json<PlanVersion>, Refusal> {
    Ok(Json(engine.plan_version(&caller, &plan, day).await?))
}

/// Delete a version of a price plan
///
/// Deleting the last version deletes the plan. If a tenant has the plan, had it or will have it, only versions that
/// have not begun can be deleted, and the last version cannot.
#[utoipa::path(
    delete, path = "/v1/admin/plans/{plan}/versions/{valid_from}", operation_id = "delete_plan_version", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(VersionPath),
    responses((status = 204, description = "The version was deleted"), DeleteErrors)
)]
pub(in crate::http) async fn delete_plan_version(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
    VersionPath(plan, day): VersionPath,
) -> Result<StatusCode, Refusal> {
    engine.delete_plan_version(&caller, &plan, day).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the price plans by name
///
/// Returns all plans at once; there are at most 100.
#[utoipa::path(
    get, path = "/v1/admin/plans", operation_id = "list_plans", tag = "Admin",
    security(("api_key" = ["admin"])),
    responses((status = 200, description = "The plans", body = Page<Plan>), GeneralErrors)
)]
pub(in crate::http) async fn list_plans(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
) -> Result<Json<Page<Plan>>, Refusal> {
    Ok(Json(engine.plans(&caller).await?))
}
