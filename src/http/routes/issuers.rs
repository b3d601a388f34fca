//! `/v1/admin/issuers` and `/v1/admin/issuers/{issuer}`: the trusted issuers of tokens (JWT). For operators of all
//! tenants.

use api::issuer::{Issuer, IssuerSettings};
use api::list::Page;
use axum::extract::State;
use axum::http::StatusCode;

use crate::engine::Engine;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{GeneralErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, Operate};
use crate::http::request::json::Json;
use crate::http::request::path::IssuerPath;

/// Trust an issuer of tokens, or change it
///
/// A caller sends a token of the issuer as `Authorization: Bearer <JWT>`. The token must have `iss`, `aud` and `exp`,
/// and be signed with RS256, ES256 or EdDSA by one of the keys at `jwks_url`. The keys are fetched again every five
/// minutes, and at once when a token names an unknown key. While `jwks_url` does not respond, the last keys stay valid
/// for a day.
#[utoipa::path(
    put, path = "/v1/admin/issuers/{issuer}", operation_id = "put_issuer", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(IssuerPath),
    request_body = IssuerSettings,
    responses(
        (status = 200, description = "The issuer was changed", body = Issuer),
        (status = 201, description = "The issuer was created", body = Issuer),
        PutErrors
    )
)]
pub(in crate::http) async fn put_issuer(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
    IssuerPath(issuer): IssuerPath,
    Json(settings): Json<IssuerSettings>,
) -> Result<(StatusCode, Json<Issuer>), Refusal> {
    let (issuer, created) = engine.put_issuer(&caller, &issuer, &settings).await?;
    Ok((put_status(created), Json(issuer)))
}

/// Get an issuer of tokens
///
/// Returns its settings and the time when its public keys were last fetched.
#[utoipa::path(
    get, path = "/v1/admin/issuers/{issuer}", operation_id = "get_issuer", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(IssuerPath),
    responses((status = 200, description = "The issuer", body = Issuer), ReadErrors)
)]
pub(in crate::http) async fn get_issuer(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
    IssuerPath(issuer): IssuerPath,
) -> Result<Json<Issuer>, Refusal> {
    Ok(Json(engine.issuer(&caller, &issuer).await?))
}

/// List the issuers of tokens by name
///
/// Returns all issuers at once; there are at most 100.
#[utoipa::path(
    get, path = "/v1/admin/issuers", operation_id = "list_issuers", tag = "Admin",
    security(("api_key" = ["admin"])),
    responses((status = 200, description = "The issuers", body = Page<Issuer>), GeneralErrors)
)]
pub(in crate::http) async fn list_issuers(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
) -> Result<Json<Page<Issuer>>, Refusal> {
    Ok(Json(engine.issuers(&caller).await?))
}

/// Remove an issuer of tokens
///
/// All nodes refuse its tokens within 2 seconds.
#[utoipa::path(
    delete, path = "/v1/admin/issuers/{issuer}", operation_id = "delete_issuer", tag = "Admin",
    security(("api_key" = ["admin"])),
    params(IssuerPath),
    responses((status = 204, description = "The issuer was removed"), ReadErrors)
)]
pub(in crate::http) async fn delete_issuer(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
    IssuerPath(issuer): IssuerPath,
) -> Result<StatusCode, Refusal> {
    engine.delete_issuer(&caller, &issuer).await?;
    Ok(StatusCode::NO_CONTENT)
}
