//! HTTP access to the engine, with all routes on one screen. A handler has typed extractors, makes one call of the
//! engine and returns a response. The router collects it together with its description, so every route is in the
//! OpenAPI document. There is no SQL here, and the rules are in the engine.

mod answer;
mod apart;
mod document;
mod layer;
mod metrics;
mod request;
mod routes;
mod samples;

use std::time::Duration;

use axum::handler::Handler;
use axum::response::Redirect;
use axum::routing::get;
use axum::{Extension, Router};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

pub use apart::apart;
pub use metrics::RequestMetrics;

use answer::problem;
use layer::{RequestLayer, Rules};
use request::deadline::{Deadline, Timeouts};
use routes::service::Probe;
use routes::{
    audit, bills, budgets, event_sinks, issuers, keys, messages, nodes, plans, publish, push,
    quota, receive, service, settle, subscriptions, tenants, topics, usage,
};

use crate::engine::held::Budget;
use crate::engine::quota::InUse;
use crate::engine::{Engine, Limit};
use crate::listen::Routers;
use crate::telemetry::{self, Telemetry};

/// The HTTP settings of a node.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Longest time for a request, without the wait of a long poll and the transfer of a large body.
    pub request_timeout: Duration,
    /// Connections that the listener serves at the same time.
    pub max_connections: u32,
    /// Receives the duration of each request.
    pub metrics: RequestMetrics,
    /// The metrics that `/metrics` returns.
    pub telemetry: Telemetry,
}

/// The routes of endpoints, and those that look at deliveries or repeat them.
fn push_routes() -> OpenApiRouter<Engine> {
    OpenApiRouter::new()
        .routes(routes!(push::pause_push))
        .routes(routes!(push::resume_push))
        .routes(routes!(push::rotate_push_secret))
        .routes(routes!(push::test_push))
        .routes(routes!(push::get_jwks))
        .routes(routes!(messages::get_push_attempts))
        .routes(routes!(subscriptions::resend_messages))
}

/// All routes, each inside `layer`. The deadline of a route is the request timeout unless the list has another one.
/// `/metrics` returns `telemetry`; no other route gets it.
fn all_routes(layer: &RequestLayer, telemetry: Telemetry, probe: Probe) -> OpenApiRouter<Engine> {
    OpenApiRouter::with_openapi(document::head())
        .routes(routes!(topics::list_topics))
        .routes(routes!(
            topics::put_topic,
            topics::get_topic,
            topics::delete_topic
        ))
        .routes(routes!(topics::get_topic_stats))
        .routes(routes!(messages::browse_messages))
        .routes(routes!(publish::publish_batch))
        .routes(routes!(subscriptions::list_subscriptions))
        .routes(routes!(
            subscriptions::put_subscription,
            subscriptions::get_subscription,
            subscriptions::delete_subscription
        ))
        .routes(routes!(subscriptions::get_subscription_stats))
        .merge(push_routes())
        .routes(routes!(settle::ack_messages))
        .routes(routes!(settle::change_visibility))
        .routes(routes!(settle::settle_messages))
        .routes(routes!(messages::get_message))
        .routes(routes!(messages::get_message_body))
        .routes(routes!(usage::get_usage))
        .routes(routes!(bills::get_usage_month))
        .routes(routes!(bills::export_usage))
        .routes(routes!(budgets::list_budgets))
        .routes(routes!(
            budgets::put_budget,
            budgets::get_budget,
            budgets::delete_budget
        ))
        .routes(routes!(event_sinks::list_event_sinks))
        .routes(routes!(
            event_sinks::put_event_sink,
            event_sinks::get_event_sink,
            event_sinks::delete_event_sink
        ))
        .routes(routes!(quota::get_quota))
        .routes(routes!(tenants::list_tenants))
        .routes(routes!(tenants::put_tenant, tenants::get_tenant))
        .routes(routes!(tenants::suspend_tenant))
        .routes(routes!(tenants::resume_tenant))
        .routes(routes!(quota::get_tenant_quota, quota::put_tenant_quota))
        .routes(routes!(keys::create_key, keys::list_keys))
        .routes(routes!(keys::get_key))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(keys::rotate_key))
        .routes(routes!(issuers::list_issuers))
        .routes(routes!(
            issuers::put_issuer,
            issuers::get_issuer,
            issuers::delete_issuer
        ))
        .routes(routes!(plans::list_plans))
        .routes(routes!(
            plans::put_plan_version,
            plans::get_plan_version,
            plans::delete_plan_version
        ))
        .routes(routes!(audit::read_audit_log))
        .routes(routes!(nodes::list_nodes))
        .routes(routes!(service::get_health))
        .routes(routes!(service::get_readiness).layer(Extension(probe)))
        .routes(routes!(service::get_metrics).layer(Extension(telemetry)))
        .routes(routes!(service::get_openapi))
        .routes(routes!(service::get_problem))
        // This layer wraps the routes above. Those below have a layer with another deadline.
        .layer(layer.clone())
        .routes(routes!(publish::publish_message).layer(layer.within(Deadline::Transfer)))
        .routes(routes!(receive::receive_messages).layer(layer.within(Deadline::LongPoll)))
}

/// The routers of a node.
pub fn routers(engine: Engine, settings: HttpSettings) -> Routers {
    let timeouts = Timeouts {
        request: settings.request_timeout,
        held_max: engine.hot_limit_bytes(),
    };
    let rules = Rules {
        timeouts,
        is_open: engine.gate().is_open(),
    };
    let quotas = engine.quotas().in_use();
    let bounds = (quotas, engine.held().clone());
    let layer = RequestLayer::new(rules, settings.metrics, bounds);
    let (probe, telemetry) = (Probe::default(), settings.telemetry);
    let spare = OpenApiRouter::new()
        .routes(routes!(service::get_health))
        .routes(routes!(service::get_readiness).layer(Extension(probe.clone())))
        .routes(routes!(service::get_metrics).layer(Extension(telemetry.clone())));
    let (spare, _) = spare.split_for_parts();
    let limit = Limit::Connections(settings.max_connections);
    let spare = spare.fallback(async move || problem::closing(limit));
    let (all, _) = all_routes(&layer, telemetry, probe).split_for_parts();
    let swagger = Config::new(["/openapi.json"]).validator_url("none");
    let swagger = Router::from(SwaggerUi::new("/docs").config(swagger));
    let to_docs = async || Redirect::temporary("/docs/");
    let all = all
        .merge(swagger.layer(layer.clone()))
        .route("/", get(to_docs.layer(layer.clone())))
        .fallback(problem::no_route.layer(layer.clone()))
        .method_not_allowed_fallback(problem::no_method.layer(layer.clone()));
    Routers {
        all: all.with_state(engine.clone()),
        spare: spare.layer(layer).with_state(engine),
    }
}

/// The OpenAPI document of all routes.
#[must_use]
pub fn openapi() -> OpenApi {
    document::for_clients(described_routes())
}

/// The document with all that the types say, null for absent fields too.
fn described_routes() -> OpenApi {
    let metrics = RequestMetrics::default();
    let bounds = (InUse::default(), Budget::new(0));
    let layer = RequestLayer::new(Rules::default(), metrics, bounds);
    let telemetry = Telemetry::of(telemetry::registry());
    document::finish(all_routes(&layer, telemetry, Probe::default()).into_openapi())
}

/// The document as text, in the form that is committed.
#[must_use]
pub fn openapi_text() -> String {
    String::from_utf8_lossy(&document::text()).into_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    fn operations(document: &Value) -> Vec<(&String, &String, &Value)> {
        let paths = document["paths"].as_object().unwrap();
        let operation = |(path, item)| {
            let methods: &serde_json::Map<String, Value> = Value::as_object(item).unwrap();
            methods.iter().map(move |(method, op)| (path, method, op))
        };
        paths.iter().flat_map(operation).collect()
    }

    #[test]
    fn every_operation_is_named_once_and_says_how_it_fails() {
        let document = serde_json::to_value(super::openapi()).unwrap();
        let operations = operations(&document);
        let ids: BTreeSet<_> = operations
            .iter()
            .map(|(_, _, op)| op["operationId"].to_string())
            .collect();
        assert_eq!(operations.len(), ids.len());
        for (path, method, operation) in operations {
            let responses = operation["responses"].as_object().unwrap();
            for range in ["4XX", "5XX"] {
                assert!(responses.contains_key(range), "{method} {path}");
            }
            assert!(responses.len() <= 8, "{method} {path}");
            assert!(operation["description"].is_string(), "{method} {path}");
            if let Some(content) = operation["requestBody"]["content"].as_object() {
                let has_sample = content.values().any(|one| !one["example"].is_null());
                assert!(has_sample, "{method} {path}");
            }
            let scope = &operation["x-scopes"][0];
            // Receivers of requests have no key of the service.
            let needs_key = path.starts_with("/v1/") && operation["operationId"] != "get_jwks";
            assert_eq!(needs_key, scope.is_string(), "{path}");
        }
    }

    /// Whether a schema allows null.
    fn takes_null(schema: &Value) -> bool {
        let kind = &schema["type"];
        let either = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
        kind == "null"
            || kind
                .as_array()
                .is_some_and(|kinds| kinds.contains(&"null".into()))
            || either.is_some_and(|all| all.iter().any(takes_null))
            || (kind.is_null() && schema["$ref"].is_null() && either.is_none())
    }

    #[test]
    fn every_optional_field_of_a_request_may_be_null() {
        let document = serde_json::to_value(super::described_routes()).unwrap();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&Value> = operations(&document)
            .into_iter()
            .map(|(_, _, operation)| &operation["requestBody"])
            .collect();
        while let Some(value) = todo.pop() {
            if let Some(name) = value["$ref"].as_str() {
                if seen.insert(name) {
                    todo.push(document.pointer(&name[1..]).unwrap());
                }
                continue;
            }
            let required = value["required"].as_array().cloned().unwrap_or_default();
            for (name, schema) in value["properties"].as_object().into_iter().flatten() {
                let is_required = required.contains(&name.as_str().into());
                assert!(is_required || takes_null(schema), "{name}: {schema}");
            }
            todo.extend(value.as_object().into_iter().flat_map(|map| map.values()));
            todo.extend(value.as_array().into_iter().flatten());
        }
        assert!(seen.len() > 20, "{seen:?}");
    }

    #[test]
    fn the_document_refers_only_to_what_it_has() {
        let text = super::openapi().to_pretty_json().unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        for reference in text.split("\"$ref\": \"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let body = "/paths/~1v1~1topics~1{topic}/put/requestBody/content/application~1json/schema";
        let settings = "#/components/schemas/TopicSettings";
        assert_eq!(document.pointer(body).unwrap()["$ref"], settings);
        let items = "/components/schemas/Page_Topic/properties/items/items/$ref";
        assert_eq!(
            document.pointer(items).unwrap(),
            "#/components/schemas/Topic"
        );
    }
}
