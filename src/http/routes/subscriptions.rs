//! `/v1/subscriptions` and `/v1/subscriptions/{subscription}`: settings and stats of subscriptions. What it
//! means to create or delete one is the engine's business.

use api::SubscriptionName;
use api::list::{Page, PageQuery};
use api::subscription::{Subscription, SubscriptionSettings, SubscriptionStats};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use crate::engine::Engine;
use crate::http::answer::page;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{ListErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, List, Manage, SeeSubscription, To};
use crate::http::request::json::Json;
use crate::http::request::query::PageOf;

/// Create or update a subscription
///
/// An absent setting takes its default when the subscription is created and keeps its value when it exists;
/// `topic` is needed to create it and cannot change.
///
/// With `fairness` customers take turns: a message says by its attribute `fairness_key` whose it is, and each customer gets
/// its share by weight of what is handed out, however much the others have published before. Messages without the attribute
/// are one customer. What is due again takes at most half of a receive while others wait. Nodes notice a change within a
/// second; what they hand out until then is in their order.
#[utoipa::path(
    put, path = "/v1/subscriptions/{subscription}", operation_id = "put_subscription", tag = "Subscriptions",
    security(("api_key" = ["manage"])),
    params(("subscription" = api::SubscriptionName, Path, description = "Name of the subscription")),
    request_body(content = Option<SubscriptionSettings>, description = "Settings; none is all defaults"),
    responses(
        (status = 200, description = "It existed and has these settings now", body = Subscription),
        (status = 201, description = "It was created", body = Subscription),
        PutErrors
    )
)]
pub(in crate::http) async fn put_subscription(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
    Json(settings): Json<SubscriptionSettings>,
) -> Result<(StatusCode, Json<Subscription>), Refusal> {
    let (subscription, created) = engine
        .put_subscription(&caller, &subscription, &settings)
        .await?;
    Ok((put_status(created), Json(subscription)))
}

/// Get a subscription
///
/// Its settings, and when they were made.
#[utoipa::path(
    get, path = "/v1/subscriptions/{subscription}", operation_id = "get_subscription", tag = "Subscriptions",
    security(("api_key" = ["manage"]), ("api_key" = ["receive"])),
    params(("subscription" = api::SubscriptionName, Path, description = "Name of the subscription")),
    responses((status = 200, description = "The subscription", body = Subscription), ReadErrors)
)]
pub(in crate::http) async fn get_subscription(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<SeeSubscription, SubscriptionName>,
) -> Result<Json<Subscription>, Refusal> {
    Ok(Json(
        engine.subscription(caller.tenant(), &subscription).await?,
    ))
}

/// List subscriptions by name
///
/// A page at a time, in the order of their names.
#[utoipa::path(
    get, path = "/v1/subscriptions", operation_id = "list_subscriptions", tag = "Subscriptions",
    security(("api_key" = ["manage"])),
    params(PageQuery),
    responses((status = 200, description = "A page of subscriptions", headers(("Link" = String, description = "The next page, if there is one: `<…>; rel=\"next\"` (RFC 8288)")), body = Page<Subscription>), ListErrors)
)]
pub(in crate::http) async fn list_subscriptions(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<List>,
    uri: Uri,
    page: PageOf,
) -> Result<Response, Refusal> {
    let after = page.after.as_deref();
    let page = engine.subscriptions(&caller, after, page.limit).await?;
    Ok(page::paged(&uri, page))
}

/// Delete a subscription
///
/// With its leases; messages that only it kept are deleted with it.
#[utoipa::path(
    delete, path = "/v1/subscriptions/{subscription}", operation_id = "delete_subscription", tag = "Subscriptions",
    security(("api_key" = ["manage"])),
    params(("subscription" = api::SubscriptionName, Path, description = "Name of the subscription")),
    responses((status = 204, description = "It is deleted"), ReadErrors)
)]
pub(in crate::http) async fn delete_subscription(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
) -> Result<StatusCode, Refusal> {
    engine.delete_subscription(&caller, &subscription).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get how a subscription stands
///
/// Cheap: no messages are counted for it. Made for dashboards and autoscalers.
#[utoipa::path(
    get, path = "/v1/subscriptions/{subscription}/stats", operation_id = "get_subscription_stats", tag = "Subscriptions",
    security(("api_key" = ["manage"]), ("api_key" = ["receive"])),
    params(("subscription" = api::SubscriptionName, Path, description = "Name of the subscription")),
    responses((status = 200, description = "Its stats", body = SubscriptionStats), ReadErrors)
)]
pub(in crate::http) async fn get_subscription_stats(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<SeeSubscription, SubscriptionName>,
) -> Result<Json<SubscriptionStats>, Refusal> {
    Ok(Json(
        engine
            .subscription_stats(caller.tenant(), &subscription)
            .await?,
    ))
}
