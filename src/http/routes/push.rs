//! `/v1/subscriptions/{subscription}/push/…`: the endpoint of a push subscription apart from its settings. And
//! `/v1/tenants/{tenant}/jwks.json`: the keys that verify what it gets.

use api::SubscriptionName;
use api::jwks::Jwks;
use api::push::{PushRotation, PushSecret, PushTest};
use api::subscription::Subscription;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::engine::{Engine, Error};
use crate::http::answer::problem::Refusal;
use crate::http::document::{DeleteErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Manage, To};
use crate::http::request::condition;
use crate::http::request::json::Json;
use crate::http::request::path::TenantPath;

type SecretAnswer = ([(HeaderName, &'static str); 1], Json<PushSecret>);

/// Pause the endpoint of a subscription
///
/// Nothing is sent until it is resumed. Requests that run are finished. A paused endpoint stays paused.
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/push/pause", operation_id = "pause_push", tag = "Push",
    security(("api_key" = ["manage"])),
    params(To<Manage, SubscriptionName>),
    responses((status = 200, description = "The subscription", body = Subscription), DeleteErrors)
)]
pub(in crate::http) async fn pause_push(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
) -> Result<Json<Subscription>, Refusal> {
    let paused = engine.set_push_paused(&caller, &subscription, true);
    Ok(Json(paused.await?))
}

/// Resume the endpoint of a subscription
///
/// Messages are sent again, also when the endpoint was disabled because it answered 410 or failed for long. One that is
/// active stays active.
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/push/resume", operation_id = "resume_push", tag = "Push",
    security(("api_key" = ["manage"])),
    params(To<Manage, SubscriptionName>),
    responses((status = 200, description = "The subscription", body = Subscription), DeleteErrors)
)]
pub(in crate::http) async fn resume_push(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
) -> Result<Json<Subscription>, Refusal> {
    let resumed = engine.set_push_paused(&caller, &subscription, false);
    Ok(Json(resumed.await?))
}

/// Make a new secret for the endpoint of a subscription
///
/// The new secret signs from now on (`v1`). The present one signs, too, for `overlap_seconds`: a request then has both
/// signatures, and a receiver that knows either accepts it. A secret before the present one ends at once. No other
/// answer has the secret.
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/push/secret", operation_id = "rotate_push_secret", tag = "Push",
    security(("api_key" = ["manage"])),
    params(To<Manage, SubscriptionName>),
    request_body(content = Option<PushRotation>, description = "The overlap; without a body it is a day"),
    responses((status = 200, description = "The new secret", body = PushSecret), PutErrors)
)]
pub(in crate::http) async fn rotate_push_secret(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
    Json(rotation): Json<PushRotation>,
) -> Result<SecretAnswer, Refusal> {
    let secret = engine
        .rotate_push_secret(&caller, &subscription, rotation)
        .await?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(secret)))
}

/// Send a sample message to the endpoint of a subscription
///
/// Sends one signed request in the format of the endpoint, also when it is paused or disabled, and returns the request
/// and the answer. The message is no message of the topic, and its receipt settles nothing.
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/push/test", operation_id = "test_push", tag = "Push",
    security(("api_key" = ["manage"])),
    params(To<Manage, SubscriptionName>),
    responses((status = 200, description = "The request and the answer", body = PushTest), DeleteErrors)
)]
pub(in crate::http) async fn test_push(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
) -> Result<Json<PushTest>, Refusal> {
    Ok(Json(
        engine.test_push(caller.tenant(), &subscription).await?,
    ))
}

/// Get the public keys of a tenant
///
/// A JSON Web Key Set (RFC 7517). Its Ed25519 key verifies the signatures `v1a` of requests to the tenant's endpoints, and
/// the tokens (JWT) that they carry. It is empty until the tenant has an endpoint that uses one of them. Needs no key.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/jwks.json", operation_id = "get_jwks", tag = "Push", security(()),
    params(
        TenantPath,
        ("If-None-Match" = Option<String>, Header, description = "ETags or `*`; with the one of the keys the response is empty (304)", nullable = false)
    ),
    responses(
        (status = 200, description = "The keys", body = Jwks, headers(("ETag" = String, description = "Names the keys"))),
        (status = 304, description = "`If-None-Match` lists the ETag of the keys"),
        ReadErrors
    )
)]
pub(in crate::http) async fn get_jwks(
    State(engine): State<Engine>,
    TenantPath(tenant): TenantPath,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let keys = engine.jwks(&tenant).await?;
    let id = keys.keys.first().map_or("none", |key| &*key.kid);
    let etag = HeaderValue::try_from(format!("\"{id}\"")).map_err(|_| Error::Internal)?;
    let mut response = match condition::unmet(&headers, &etag) {
        Some(unmet) => unmet,
        None => ([(ETAG, etag)], Json(keys)).into_response(),
    };
    let fresh = HeaderValue::from_static("max-age=300");
    response.headers_mut().insert(CACHE_CONTROL, fresh);
    Ok(response)
}
