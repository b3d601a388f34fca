//! `/v1/subscriptions` and `/v1/subscriptions/{subscription}`: settings and stats of subscriptions. The engine has the
//! rules for creating and deleting one.

use api::SubscriptionName;
use api::list::{Page, PageQuery};
use api::resend::{ResendRequest, ResendResult};
use api::subscription::{Subscription, SubscriptionSettings, SubscriptionStats};
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode, Uri};
use axum::response::Response;

use crate::engine::Engine;
use crate::http::answer::page;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{GeneralErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, List, Manage, SeeSubscription, To};
use crate::http::request::json::Json;
use crate::http::request::query::PageOf;

/// Keeps an answer with a secret out of caches.
type Uncached = Option<[(HeaderName, &'static str); 1]>;

/// Create or update a subscription
///
/// A setting that is absent takes its default when the subscription is created, and keeps its value when it exists.
/// `topic` is required to create it and cannot change.
///
/// With `fairness`, customers share the subscription. The attribute `fairness_key` of a message names its customer;
/// messages without it belong to one common customer. Each customer gets a share by weight of the messages that are
/// handed out, regardless of how many messages the others published before. Messages that are handed out again take at
/// most half of a receive while other messages wait. Nodes apply a change within a second; until then they hand out
/// messages in the former order.
///
/// With `push`, the service itself delivers the messages to an HTTP endpoint, and a receive is refused. `push` replaces
/// all settings of the endpoint; only a secret, a password and a token that are absent keep their values, the latter two
/// only while the origin of the URL stays. An endpoint without a secret gets one, and only this response has it. A
/// secret that is replaced goes on to sign for a day. Putting `push` again enables an endpoint that was disabled.
///
/// A message is sent by `POST`. Each request has `webhook-id`, which is the same when the same is sent again,
/// `webhook-timestamp`, `webhook-signature` (Standard Webhooks; several signatures with one space between) and
/// `Cursus-Subscription`. With the formats `raw` and `cloudevents_…` it also has `Cursus-Message-Id`, `Cursus-Topic`,
/// `Cursus-Attempt`, `Cursus-Published-At`, `Cursus-Receipt` and `Cursus-Visible-Until`, and as far as the message has
/// them `Cursus-Tag`, `Cursus-Key`, `Cursus-Attr-<name>`, `ce-<name>`, `traceparent` and `tracestate`. Tags, keys and
/// attributes are percent-encoded as in CloudEvents: a space, `"`, `%` and what is not visible ASCII. Attributes that do
/// not fit into 8 KiB of headers are left out, and `Cursus-Attrs-Omitted` is their number. A body above 10 MiB is not
/// sent: `Cursus-Body-Url`, `dataref` or `body_url` is its path at this service.
#[utoipa::path(
    put, path = "/v1/subscriptions/{subscription}", operation_id = "put_subscription", tag = "Subscriptions",
    security(("api_key" = ["manage"])),
    params(To<Manage, SubscriptionName>),
    request_body(content = Option<SubscriptionSettings>, description = "The settings; without a body all are absent"),
    responses(
        (status = 200, description = "The subscription was changed", body = Subscription),
        (status = 201, description = "The subscription was created", body = Subscription),
        PutErrors
    )
)]
pub(in crate::http) async fn put_subscription(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
    Json(settings): Json<SubscriptionSettings>,
) -> Result<(StatusCode, Uncached, Json<Subscription>), Refusal> {
    let (subscription, created) = engine
        .put_subscription(&caller, &subscription, &settings)
        .await?;
    let secret = subscription
        .push
        .as_ref()
        .and_then(|push| push.secret.as_ref());
    let uncached = secret.map(|_| [(CACHE_CONTROL, "no-store")]);
    Ok((put_status(created), uncached, Json(subscription)))
}

/// Get a subscription
///
/// Returns its settings and its creation time.
#[utoipa::path(
    get, path = "/v1/subscriptions/{subscription}", operation_id = "get_subscription", tag = "Subscriptions",
    security(("api_key" = ["manage"]), ("api_key" = ["receive"])),
    params(To<SeeSubscription, SubscriptionName>),
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
/// Returns a page of subscriptions in order of name.
#[utoipa::path(
    get, path = "/v1/subscriptions", operation_id = "list_subscriptions", tag = "Subscriptions",
    security(("api_key" = ["manage"])),
    params(PageQuery),
    responses((status = 200, description = "A page of subscriptions", body = Page<Subscription>), GeneralErrors)
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
/// Deletes the subscription with its leases. Messages that no other subscription needs may be deleted, too.
#[utoipa::path(
    delete, path = "/v1/subscriptions/{subscription}", operation_id = "delete_subscription", tag = "Subscriptions",
    security(("api_key" = ["manage"])),
    params(To<Manage, SubscriptionName>),
    responses((status = 204, description = "The subscription was deleted"), ReadErrors)
)]
pub(in crate::http) async fn delete_subscription(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
) -> Result<StatusCode, Refusal> {
    engine.delete_subscription(&caller, &subscription).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hand messages out again
///
/// Delivers messages again that the subscription is done with: one by its id, or those that were published in a range of
/// time, at most 100,000. They are pushed or received like new ones; the first attempt is `1`. Messages that are in flight
/// or were not handed out yet are left as they are. Messages whose retention is over are gone, and so may be those that
/// all subscriptions had consumed, unless the topic keeps them (`keep_consumed`).
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/resend", operation_id = "resend", tag = "Subscriptions",
    security(("api_key" = ["manage"])),
    params(To<Manage, SubscriptionName>),
    request_body = ResendRequest,
    responses((status = 200, description = "How many messages are handed out again", body = ResendResult), PutErrors)
)]
pub(in crate::http) async fn resend_messages(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Manage, SubscriptionName>,
    Json(request): Json<ResendRequest>,
) -> Result<Json<ResendResult>, Refusal> {
    Ok(Json(engine.resend(&caller, &subscription, &request).await?))
}

/// Get the stats of a subscription
///
/// Returns counts and ages for dashboards and autoscalers. The cost of a call does not depend on the backlog.
#[utoipa::path(
    get, path = "/v1/subscriptions/{subscription}/stats", operation_id = "get_subscription_stats", tag = "Subscriptions",
    security(("api_key" = ["manage"]), ("api_key" = ["receive"])),
    params(To<SeeSubscription, SubscriptionName>),
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
