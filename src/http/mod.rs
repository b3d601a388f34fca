//! The HTTP face of the engine: every route on one screen. A handler is typed extractors, one call of the engine and an
//! answer; the router collects each with its description, so a route cannot exist outside of the OpenAPI document. No SQL,
//! no rules: those are the engine's.

mod batch;
mod body;
mod caller;
mod coding;
mod cors;
mod document;
mod draft;
mod json;
mod manners;
mod messages;
mod metrics;
mod options;
mod path;
mod problem;
mod publish;
mod query;
mod range;
mod receive;
mod service;
mod settle;
mod shown;
mod subscriptions;
mod topics;

use std::time::Duration;

use axum::{Extension, Router};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

pub use metrics::RequestMetrics;

use crate::engine::Engine;
use crate::telemetry::Telemetry;

/// What the HTTP layer is told from outside.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Longest time for a request, the wait of a long poll and the transfer of a large body not counted.
    pub request_timeout: Duration,
    /// Where durations go.
    pub metrics: RequestMetrics,
    /// What `/metrics` shows.
    pub telemetry: Telemetry,
}

fn routes() -> OpenApiRouter<Engine> {
    OpenApiRouter::with_openapi(document::head())
        .routes(routes!(topics::list_topics))
        .routes(routes!(
            topics::put_topic,
            topics::get_topic,
            topics::delete_topic
        ))
        .routes(routes!(topics::get_topic_stats))
        .routes(routes!(publish::publish_message, messages::browse_messages))
        .routes(routes!(publish::publish_batch))
        .routes(routes!(subscriptions::list_subscriptions))
        .routes(routes!(
            subscriptions::put_subscription,
            subscriptions::get_subscription,
            subscriptions::delete_subscription
        ))
        .routes(routes!(subscriptions::get_subscription_stats))
        .routes(routes!(receive::receive_messages))
        .routes(routes!(settle::ack_messages))
        .routes(routes!(settle::change_visibility))
        .routes(routes!(settle::settle_messages))
        .routes(routes!(messages::get_message))
        .routes(routes!(messages::get_message_body))
        .routes(routes!(service::get_health))
        .routes(routes!(service::get_readiness))
        .routes(routes!(service::get_metrics))
        .routes(routes!(service::get_openapi))
        .routes(routes!(service::get_problem))
}

/// All routes, with their manners.
pub fn router(engine: Engine, settings: HttpSettings) -> Router {
    let (router, _) = routes().split_for_parts();
    let swagger = Config::new(["/openapi.json"]).validator_url("none");
    router
        .merge(SwaggerUi::new("/docs").config(swagger))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(Extension(settings.telemetry.clone()))
        .with_state(engine)
        .layer(manners::Manners::new(settings))
}

/// The OpenAPI document of all routes.
#[must_use]
pub fn openapi() -> OpenApi {
    document::finish(routes().into_openapi())
}

/// The same as text, as it is served and committed.
#[must_use]
pub fn openapi_text() -> String {
    String::from_utf8_lossy(&document::text()).into_owned() + "\n"
}
