//! `/v1/topics` and `/v1/topics/{topic}`: settings and stats of topics. The engine has the rules for creating and
//! deleting one.

use api::TopicName;
use api::list::{Page, PageQuery};
use api::topic::{Topic, TopicSettings, TopicStats};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use crate::engine::Engine;
use crate::http::answer::page;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{DeleteErrors, GeneralErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, List, Manage, SeeTopic, To};
use crate::http::request::json::Json;
use crate::http::request::query::PageOf;

/// Create or update a topic
///
/// A setting that is absent takes its default when the topic is created, and keeps its value when it exists.
#[utoipa::path(
    put, path = "/v1/topics/{topic}", operation_id = "put_topic", tag = "Topics",
    security(("api_key" = ["manage"])),
    params(To<Manage, TopicName>),
    request_body(content = Option<TopicSettings>, description = "The settings; without a body all are absent"),
    responses(
        (status = 200, description = "The topic was changed", body = Topic),
        (status = 201, description = "The topic was created", body = Topic),
        PutErrors
    )
)]
pub(in crate::http) async fn put_topic(
    State(engine): State<Engine>,
    To(caller, topic, ..): To<Manage, TopicName>,
    Json(settings): Json<TopicSettings>,
) -> Result<(StatusCode, Json<Topic>), Refusal> {
    let (topic, created) = engine.put_topic(&caller, &topic, &settings).await?;
    Ok((put_status(created), Json(topic)))
}

/// Get a topic
///
/// Returns its settings and its creation time.
#[utoipa::path(
    get, path = "/v1/topics/{topic}", operation_id = "get_topic", tag = "Topics",
    security(("api_key" = ["manage"]), ("api_key" = ["publish"]), ("api_key" = ["receive"])),
    params(To<SeeTopic, TopicName>),
    responses((status = 200, description = "The topic", body = Topic), ReadErrors)
)]
pub(in crate::http) async fn get_topic(
    State(engine): State<Engine>,
    To(caller, topic, ..): To<SeeTopic, TopicName>,
) -> Result<Json<Topic>, Refusal> {
    Ok(Json(engine.topic(caller.tenant(), &topic).await?))
}

/// List topics by name
///
/// Returns a page of topics in order of name.
#[utoipa::path(
    get, path = "/v1/topics", operation_id = "list_topics", tag = "Topics",
    security(("api_key" = ["manage"])),
    params(PageQuery),
    responses((status = 200, description = "A page of topics", body = Page<Topic>), GeneralErrors)
)]
pub(in crate::http) async fn list_topics(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<List>,
    uri: Uri,
    page: PageOf,
) -> Result<Response, Refusal> {
    let after = page.after.as_deref();
    let page = engine.topics(&caller, after, page.limit).await?;
    Ok(page::paged(&uri, page))
}

/// Delete a topic
///
/// Deletes the topic with its messages. Refused while a subscription reads it or has it as its dead-letter topic, and
/// while an event sink publishes to it.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}", operation_id = "delete_topic", tag = "Topics",
    security(("api_key" = ["manage"])),
    params(To<Manage, TopicName>),
    responses((status = 204, description = "The topic was deleted"), DeleteErrors)
)]
pub(in crate::http) async fn delete_topic(
    State(engine): State<Engine>,
    To(caller, topic, ..): To<Manage, TopicName>,
) -> Result<StatusCode, Refusal> {
    engine.delete_topic(&caller, &topic).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get the stats of a topic
///
/// Returns counts and ages. The cost of a call does not depend on the number of messages.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/stats", operation_id = "get_topic_stats", tag = "Topics",
    security(("api_key" = ["manage"]), ("api_key" = ["publish"]), ("api_key" = ["receive"])),
    params(To<SeeTopic, TopicName>),
    responses((status = 200, description = "Its stats", body = TopicStats), ReadErrors)
)]
pub(in crate::http) async fn get_topic_stats(
    State(engine): State<Engine>,
    To(caller, topic, ..): To<SeeTopic, TopicName>,
) -> Result<Json<TopicStats>, Refusal> {
    Ok(Json(engine.topic_stats(caller.tenant(), &topic).await?))
}
