//! `/v1/admin/tenants` and `/v1/admin/tenants/{tenant}`: the owners of topics, subscriptions and keys. For operators.

use api::TenantName;
use api::list::{Page, PageQuery};
use api::tenant::{Suspension, Tenant, TenantSettings};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use crate::engine::Engine;
use crate::http::answer::page;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{GeneralErrors, PutErrors, ReadErrors, WriteErrors};
use crate::http::request::caller::{Caller, Operate, OperateList, To};
use crate::http::request::json::Json;
use crate::http::request::query::PageOf;

/// Create a tenant, or change its settings
///
/// A setting that is absent keeps its value. A price plan applies from a day on, which is today or later, so that the
/// cost of the past does not change; only the first plan of a tenant may begin earlier.
#[utoipa::path(
    put, path = "/v1/admin/tenants/{tenant}", operation_id = "put_tenant", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>),
    request_body(content = Option<TenantSettings>, description = "The settings; without a body all are absent"),
    responses(
        (status = 200, description = "The tenant was changed", body = Tenant),
        (status = 201, description = "The tenant was created", body = Tenant),
        PutErrors
    )
)]
pub(in crate::http) async fn put_tenant(
    State(engine): State<Engine>,
    To(caller, tenant, ..): To<Operate, TenantName>,
    Json(settings): Json<TenantSettings>,
) -> Result<(StatusCode, Json<Tenant>), Refusal> {
    let (tenant, created) = engine.put_tenant(&caller, &tenant, &settings).await?;
    Ok((put_status(created), Json(tenant)))
}

/// Suspend a tenant
///
/// All nodes refuse its keys and tokens within 2 seconds, except for reading its usage. Its data stays; only retention
/// deletes messages.
#[utoipa::path(
    post, path = "/v1/admin/tenants/{tenant}/suspend", operation_id = "suspend_tenant", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>),
    request_body(content = Option<Suspension>, description = "The reason; without a body none is stored"),
    responses((status = 200, description = "The tenant was suspended", body = Tenant), WriteErrors)
)]
pub(in crate::http) async fn suspend_tenant(
    State(engine): State<Engine>,
    To(caller, tenant, ..): To<Operate, TenantName>,
    Json(why): Json<Suspension>,
) -> Result<Json<Tenant>, Refusal> {
    let suspended = engine.suspend_tenant(&caller, &tenant, Some(&why));
    Ok(Json(suspended.await?))
}

/// Resume a suspended tenant
///
/// All nodes accept its keys and tokens again within 2 seconds.
#[utoipa::path(
    post, path = "/v1/admin/tenants/{tenant}/resume", operation_id = "resume_tenant", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>),
    responses((status = 200, description = "The tenant was resumed", body = Tenant), ReadErrors)
)]
pub(in crate::http) async fn resume_tenant(
    State(engine): State<Engine>,
    To(caller, tenant, ..): To<Operate, TenantName>,
) -> Result<Json<Tenant>, Refusal> {
    Ok(Json(engine.suspend_tenant(&caller, &tenant, None).await?))
}

/// Get a tenant
///
/// Returns its settings, its price plans with the days from which they apply, and its creation time.
#[utoipa::path(
    get, path = "/v1/admin/tenants/{tenant}", operation_id = "get_tenant", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>),
    responses((status = 200, description = "The tenant", body = Tenant), ReadErrors)
)]
pub(in crate::http) async fn get_tenant(
    State(engine): State<Engine>,
    To(_caller, tenant, ..): To<Operate, TenantName>,
) -> Result<Json<Tenant>, Refusal> {
    Ok(Json(engine.tenant(&tenant).await?))
}

/// List tenants by name
///
/// Returns a page of the tenants that the caller may operate, in order of name.
#[utoipa::path(
    get, path = "/v1/admin/tenants", operation_id = "list_tenants", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page of tenants", body = Page<Tenant>), GeneralErrors)
)]
pub(in crate::http) async fn list_tenants(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<OperateList>,
    uri: Uri,
    page: PageOf,
) -> Result<Response, Refusal> {
    let after = page.after.as_deref();
    let page = engine.tenants(&caller, after, page.limit).await?;
    Ok(page::paged(&uri, page))
}
