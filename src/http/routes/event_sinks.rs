//! `/v1/event-sinks` and `/v1/event-sinks/{sink}`: the receivers of events. Only the response that creates a sink has
//! its secret; `no-store` keeps it out of caches.

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
use crate::http::document::{GeneralErrors, PutErrors, ReadErrors};
use crate::http::request::caller::{Caller, List, Manage, To};
use crate::http::request::json::Json;
use crate::http::request::query::PageOf;

type PutAnswer = (StatusCode, [(HeaderName, &'static str); 1], Json<EventSink>);

/// Create an event sink, or change it
///
/// The service sends events to the sink as CloudEvents (structured mode, JSON), at least once and in order. A repeated
/// event has the same `id`. An event `cursus.usage` reports the usage of a window of time that is over and metered: one
/// event per tenant, meter, topic and subscription, with the fields of `GET /v1/usage` and the `end` of the window. It
/// starts with the current window. An event `cursus.budget` reports that a percentage of a budget is reached.
///
/// A sink with a topic gets each event as a message, which its tenant is charged for as a publish. A sink with a URL
/// gets `POST` requests with the headers of Standard Webhooks: `webhook-id`, `webhook-timestamp` and
/// `webhook-signature` (scheme `v1`). Only the response that creates the `secret` has it. Any status 2xx within 15
/// seconds accepts the events. Otherwise they are sent again after 5 seconds, then at growing intervals of up to an
/// hour, or after `Retry-After`. A status 410 disables the sink; putting it again makes it continue at once.
///
/// While 10,000 events wait for a sink, no more usage is added, and none is lost. But usage is kept by the minute for 8
/// days and by the hour for 400 days: a sink that is further behind gets it by the hour or day. Budget events are
/// dropped while 11,000 events wait. Events for the sinks of a suspended tenant wait until it is resumed.
///
/// A setting that is absent takes its default. The caller also needs the scope `usage` for all names. A topic needs
/// `manage` for its name. A URL, or the events of all tenants, needs `admin` for all names.
#[utoipa::path(
    put, path = "/v1/event-sinks/{sink}", operation_id = "put_event_sink", tag = "Events",
    security(("api_key" = ["manage"])),
    params(To<Manage, EventSinkName>),
    request_body = EventSinkSettings,
    responses(
        (status = 200, description = "The event sink was changed", body = EventSink),
        (status = 201, description = "The event sink was created", body = EventSink),
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
/// Returns its settings, the number of waiting events and the outcome of the last deliveries.
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
/// Returns a page of event sinks in order of name.
#[utoipa::path(
    get, path = "/v1/event-sinks", operation_id = "list_event_sinks", tag = "Events",
    security(("api_key" = ["manage"])),
    params(PageQuery),
    responses((status = 200, description = "A page of event sinks", body = Page<EventSink>), GeneralErrors)
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
/// Deletes the sink with its waiting events.
#[utoipa::path(
    delete, path = "/v1/event-sinks/{sink}", operation_id = "delete_event_sink", tag = "Events",
    security(("api_key" = ["manage"])),
    params(To<Manage, EventSinkName>),
    responses((status = 204, description = "The event sink was deleted"), ReadErrors)
)]
pub(in crate::http) async fn delete_event_sink(
    State(engine): State<Engine>,
    To(caller, sink, ..): To<Manage, EventSinkName>,
) -> Result<StatusCode, Refusal> {
    engine.delete_event_sink(&caller, &sink).await?;
    Ok(StatusCode::NO_CONTENT)
}
