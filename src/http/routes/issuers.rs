//! `/v1/admin/issuers` and `/v1/admin/issuers/{issuer}`: the trusted issuers of tokens (JWT). For operators of all tenants.

use api::issuer::{Issuer, IssuerSettings};
use api::list::Page;
use axum::extract::State;
use axum::http::StatusCode;

use crate::engine::Engine;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{ListErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, Operate};
use crate::http::request::json::Json;
use crate::http::request::path::IssuerPath;

/// Trust an issuer of tokens, or change it
///
/// Its tokens are sent as `Authorization: Bearer <JWT>` with `iss`, `aud` and `exp`, signed by one of the keys at `jwks_url`
/// with RS256, ES256 or EdDSA. The keys are read again every five minutes, and at once when a token names one that is
/// unknown. They stay valid for a day when the issuer does not respond.
#[utoipa::path(
    put, path = "/v1/admin/issuers/{issuer}", operation_id = "put_issuer", tag = "Operation",
    security(("api_key" = ["admin"])),
    params(IssuerPath),
    request_body = IssuerSettings,
    responses(
        (status = 200, description = "It existed and has these settings now", body = Issuer),
        (status = 201, description = "It is trusted", body = Issuer),
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
/// Its settings, and when its public keys were last read.
#[utoipa::path(
    get, path = "/v1/admin/issuers/{issuer}", operation_id = "get_issuer", tag = "Operation",
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
/// All of them at once: there are at most 100.
#[utoipa::path(
    get, path = "/v1/admin/issuers", operation_id = "list_issuers", tag = "Operation",
    security(("api_key" = ["admin"])),
    responses((status = 200, description = "The issuers", body = Page<Issuer>), ListErrors)
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
    delete, path = "/v1/admin/issuers/{issuer}", operation_id = "delete_issuer", tag = "Operation",
    security(("api_key" = ["admin"])),
    params(IssuerPath),
    responses((status = 204, description = "It is removed"), ReadErrors)
)]
pub(in crate::http) async fn delete_issuer(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<Operate>,
    IssuerPath(issuer): IssuerPath,
) -> Result<StatusCode, Refusal> {
    engine.delete_issuer(&caller, &issuer).await?;
    Ok(StatusCode::NO_CONTENT)
}
