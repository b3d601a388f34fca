//! `/v1/admin/tenants/{tenant}/keys`: the API keys of a tenant. For operators. Only the response that creates a key has
//! its secret; `no-store` keeps it out of caches.

use api::TenantName;
use api::key::{ApiKey, ApiKeyWithSecret, KeyRotation, KeySettings};
use api::list::{Page, PageQuery};
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode, Uri};
use axum::response::Response;

use crate::engine::Engine;
use crate::http::answer::page;
use crate::http::answer::problem::Refusal;
use crate::http::document::{PutErrors, ReadErrors};
use crate::http::request::caller::{Operate, OperateList, To};
use crate::http::request::json::Json;
use crate::http::request::path::KeyPath;
use crate::http::request::query::PageOf;

type Created = (
    StatusCode,
    [(HeaderName, &'static str); 1],
    Json<ApiKeyWithSecret>,
);

fn created(key: ApiKeyWithSecret) -> Created {
    let uncached = [(CACHE_CONTROL, "no-store")];
    (StatusCode::CREATED, uncached, Json(key))
}

/// Create an API key
///
/// The response is the only one that has the key itself, because just its hash is stored. The key works on all nodes at
/// once.
#[utoipa::path(
    post, path = "/v1/admin/tenants/{tenant}/keys", operation_id = "create_key", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>),
    request_body(content = Option<KeySettings>, description = "The settings; without a body all have their defaults"),
    responses((status = 201, description = "The key was created", body = ApiKeyWithSecret), PutErrors)
)]
pub(in crate::http) async fn create_key(
    State(engine): State<Engine>,
    To(caller, tenant, ..): To<Operate, TenantName>,
    Json(settings): Json<KeySettings>,
) -> Result<Created, Refusal> {
    Ok(created(
        engine.create_key(&caller, &tenant, &settings).await?,
    ))
}

/// Rotate an API key
///
/// Creates a key with the same permissions. The old key stays valid until the overlap is over.
#[utoipa::path(
    post, path = "/v1/admin/tenants/{tenant}/keys/{key}/rotate", operation_id = "rotate_key", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>, KeyPath),
    request_body(content = Option<KeyRotation>, description = "The settings; without a body all have their defaults"),
    responses((status = 201, description = "The new key was created", body = ApiKeyWithSecret), PutErrors)
)]
pub(in crate::http) async fn rotate_key(
    State(engine): State<Engine>,
    To(caller, tenant, ..): To<Operate, TenantName>,
    KeyPath(key): KeyPath,
    Json(rotation): Json<KeyRotation>,
) -> Result<Created, Refusal> {
    let rotated = engine.rotate_key(&caller, &tenant, key, &rotation);
    Ok(created(rotated.await?))
}

/// Revoke an API key
///
/// All nodes refuse the key within 2 seconds. It stays in the list of keys.
#[utoipa::path(
    post, path = "/v1/admin/tenants/{tenant}/keys/{key}/revoke", operation_id = "revoke_key", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>, KeyPath),
    responses((status = 204, description = "The key was revoked"), ReadErrors)
)]
pub(in crate::http) async fn revoke_key(
    State(engine): State<Engine>,
    To(caller, tenant, ..): To<Operate, TenantName>,
    KeyPath(key): KeyPath,
) -> Result<StatusCode, Refusal> {
    engine.revoke_key(&caller, &tenant, key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get an API key
///
/// Returns its settings and the time of its last use, without the key itself.
#[utoipa::path(
    get, path = "/v1/admin/tenants/{tenant}/keys/{key}", operation_id = "get_key", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<Operate, TenantName>, KeyPath),
    responses((status = 200, description = "The key", body = ApiKey), ReadErrors)
)]
pub(in crate::http) async fn get_key(
    State(engine): State<Engine>,
    To(_caller, tenant, ..): To<Operate, TenantName>,
    KeyPath(key): KeyPath,
) -> Result<Json<ApiKey>, Refusal> {
    Ok(Json(engine.key(&tenant, key).await?))
}

/// List the API keys of a tenant by age
///
/// Returns a page of keys in order of creation, including revoked and expired ones.
#[utoipa::path(
    get, path = "/v1/admin/tenants/{tenant}/keys", operation_id = "list_keys", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(To<OperateList, TenantName>, PageQuery),
    responses((status = 200, description = "A page of keys", body = Page<ApiKey>), ReadErrors)
)]
pub(in crate::http) async fn list_keys(
    State(engine): State<Engine>,
    To(_caller, tenant, ..): To<OperateList, TenantName>,
    uri: Uri,
    page: PageOf,
) -> Result<Response, Refusal> {
    let after = page.after.as_deref();
    let page = engine.keys(&tenant, after, page.limit).await?;
    Ok(page::paged(&uri, page))
}
