//! `/v1/event-sinks` and `/v1/event-sinks/{sink}`: where the service sends its events. The secret of a sink is only in the response
//! that creates it, and no cache may keep that response.

use api::EventSinkName;
use api::event::{EventSink, EventSinkSettings};
use api::list::{Page, PageQuery};
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode, Uri};
use axum::response::Response;

use crate::engine::Engine;
use crate::http::answer::page;
use crate::http::answer::problem::Refusal;
use crate::http::answer::put_status;
use crate::http::document::{ListErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, List, Manage, To};
use crate::http::request::json::Json;
use crate::http::request::query::PageOf;

type PutAnswer = (StatusCode, [(HeaderName, &'static str); 1], Json<EventSink>);

/// Create an event sink, or change it
///
/// Events of the service go there as CloudEvents (structured, JSON), at least once and in order, each with the same `id`
/// whenever it comes again. `cursus.usage` reports the usage of a window that is over and metered, one event a tenant,
/// meter, topic and subscription, with the fields of `GET /v1/usage` and the `end` of the window; it begins with the current
/// window. `cursus.budget` reports that a threshold of a budget is reached.
///
/// A topic gets a message an event, which counts as published by its tenant. A URL is sent `POST`s with the headers of
/// Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`: `v1`, with the `secret`, which only the response
/// that creates it has); any status 2xx within 15 seconds accepts them. Events that are not accepted are sent again after 5
/// seconds, and then at growing intervals of up to an hour, or after `Retry-After`; 410 disables the sink. Putting it again lets it go on at
/// once. While 10,000 events wait its usage stands still and is not lost: a sink that is behind for longer than usage is
/// kept by the minute (8 days) or hour (400 days) gets it by the hour or day. Budget events beyond 11,000 are left out. What
/// belongs to a suspended tenant waits.
///
/// Settings that are absent take their defaults. It also needs the scope `usage` for all names; a topic needs `manage` for
/// its name, and a URL or the events of all tenants need `admin` for all names.
#[utoipa::path(
    put, path = "/v1/event-sinks/{sink}", operation_id = "put_event_sink", tag = "Events",
    security(("api_key" = ["manage"])),
    params(To<Manage, EventSinkName>),
    request_body = EventSinkSettings,
    responses(
        (status = 200, description = "It existed and has these settings now", body = EventSink),
        (status = 201, description = "It was created", body = EventSink),
        PutErrors
    )
)]
pub(in crate::http) async fn put_event_sink(
    State(engine): State<Engine>,
    To(caller, sink, ..): To<Manage, EventSinkName>,
    Json(settings): Json<EventSinkSettings>,
) -> Result<PutAnswer, Refusal> {
    let (sink, created) = engine.put_event_sink(&caller, &sink, &settings).await?;
    let uncached = [(CACHE_CONTROL, "no-store")];
    Ok((put_status(created), uncached, Json(sink)))
}

/// Get an event sink
///
/// Its settings, how many events wait, and how the last deliveries went.
#[utoipa::path(
    get, path = "/v1/event-sinks/{sink}", operation_id = "get_event_sink", tag = "Events",
    security(("api_key" = ["manage"])),
    params(To<Manage, EventSinkName>),
    responses((status = 200, description = "The event sink", body = EventSink), ReadErrors)
)]
pub(in crate::http) async fn get_event_sink(
    State(engine): State<Engine>,
    To(caller, sink, ..): To<Manage, EventSinkName>,
) -> Result<Json<EventSink>, Refusal> {
    Ok(Json(engine.event_sink(caller.tenant(), &sink).await?))
}

/// List event sinks by name
///
/// A page at a time, in the order of their names.
#[utoipa::path(
    get, path = "/v1/event-sinks", operation_id = "list_event_sinks", tag = "Events",
    security(("api_key" = ["manage"])),
    params(PageQuery),
    responses((status = 200, description = "A page of event sinks", body = Page<EventSink>), ListErrors)
)]
pub(in crate::http) async fn list_event_sinks(
    State(engine): State<Engine>,
    Caller(caller, ..): Caller<List>,
    uri: Uri,
    page: PageOf,
) -> Result<Response, Refusal> {
    let after = page.after.as_deref();
    let page = engine.event_sinks(&caller, after, page.limit).await?;
    Ok(page::paged(&uri, page))
}

/// Delete an event sink
///
/// With the events that wait for it.
#[utoipa::path(
    delete, path = "/v1/event-sinks/{sink}", operation_id = "delete_event_sink", tag = "Events",
    security(("api_key" = ["manage"])),
    params(To<Manage, EventSinkName>),
    responses((status = 204, description = "It is deleted"), ReadErrors)
)]
pub(in crate::http) async fn delete_event_sink(
    State(engine): State<Engine>,
    To(caller, sink, ..): To<Manage, EventSinkName>,
) -> Result<StatusCode, Refusal> {
    engine.delete_event_sink(&caller, &sink).await?;
    Ok(StatusCode::NO_CONTENT)
}
