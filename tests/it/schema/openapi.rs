//! The committed OpenAPI document is the one that the routes make (`UPDATE_OPENAPI=1` writes it), and each bound in it is a
//! limit of `api::limits`: one table ties them, and a bound that is not in the table fails.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use api::event::EventKind;
use api::issuer::TokenAlgorithm;
use api::limits as l;
use serde_json::{Map, Value};

#[test]
fn the_committed_document_is_the_one_that_runs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let text = cursus::http::openapi_text();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        text == committed,
        "the API has changed: run this test with UPDATE_OPENAPI=1 and commit openapi/openapi.json"
    );
}

/// What a bound counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Value,
    Length,
    Items,
    Properties,
}

impl Of {
    const ALL: [Self; 4] = [Self::Value, Self::Length, Self::Items, Self::Properties];

    /// Every bound of this kind that the document may have.
    fn rows(self) -> Vec<Row> {
        match self {
            Self::Value => [values(), push_values()].concat(),
            Self::Length => lengths(),
            Self::Items => items(),
            Self::Properties => properties(),
        }
    }

    /// Its keywords in a JSON schema.
    fn keywords(self) -> [&'static str; 2] {
        match self {
            Self::Value => ["minimum", "maximum"],
            Self::Length => ["minLength", "maxLength"],
            Self::Items => ["minItems", "maxItems"],
            Self::Properties => ["minProperties", "maxProperties"],
        }
    }
}

/// Where a bound stands, and its range. A place is `Schema.property`, where `.*` is any value of a map and `.name` its names,
/// or `operation.parameter`, where the operation `*` is any.
type Row = (&'static str, RangeInclusive<u64>);

fn up_to(max: usize) -> RangeInclusive<u64> {
    0..=max as u64
}

fn from_one(max: usize) -> RangeInclusive<u64> {
    1..=max as u64
}

fn range<T: Copy + Into<u64>>(range: &RangeInclusive<T>) -> RangeInclusive<u64> {
    (*range.start()).into()..=(*range.end()).into()
}

fn values() -> Vec<Row> {
    vec![
        ("*.limit", range(&l::PAGE)),
        ("EventSink.waiting", 0..=l::EVENTS_SHOWN_MAX.into()),
        ("Fairness.weights.*", range(&l::FAIRNESS_WEIGHT)),
        (
            "IssuerSettings.clock_skew_seconds",
            range(&l::CLOCK_SKEW_SECONDS),
        ),
        (
            "KeyRotation.overlap_seconds",
            range(&l::KEY_OVERLAP_SECONDS),
        ),
        (
            "KeySettings.expires_in_seconds",
            range(&l::KEY_LIFE_SECONDS),
        ),
        ("Percent", range(&l::ALERT_PERCENT)),
        ("Quota.concurrent_requests", range(&l::QUOTA)),
        ("Quota.in_flight_messages", range(&l::QUOTA)),
        ("Quota.stored_bytes", range(&l::QUOTA)),
        ("Quota.subscriptions", range(&l::QUOTA)),
        ("Quota.topics", range(&l::QUOTA)),
        ("RateQuota.ceiling", range(&l::QUOTA)),
        ("RateQuota.guaranteed", range(&l::QUOTA_GUARANTEED)),
        ("ReceiveRequest.max_messages", range(&l::RECEIVE_MESSAGES)),
        (
            "ReceiveRequest.visibility_timeout_seconds",
            range(&l::VISIBILITY_SECONDS),
        ),
        ("ReceiveRequest.wait_seconds", range(&l::WAIT_SECONDS)),
        ("SettleItem.delay_seconds", range(&l::NACK_DELAY_SECONDS)),
        (
            "SettleItem.visibility_timeout_seconds",
            range(&l::VISIBILITY_SECONDS),
        ),
        ("SubscriptionSettings.max_attempts", range(&l::ATTEMPTS)),
        ("SubscriptionSettings.max_in_flight", range(&l::IN_FLIGHT)),
        (
            "SubscriptionSettings.visibility_timeout_seconds",
            range(&l::VISIBILITY_SECONDS),
        ),
        (
            "TopicSettings.dedup_window_seconds",
            range(&l::DEDUP_WINDOW_SECONDS),
        ),
        (
            "TopicSettings.retention_seconds",
            range(&l::RETENTION_SECONDS),
        ),
        (
            "VisibilityChange.visibility_timeout_seconds",
            range(&l::VISIBILITY_SECONDS),
        ),
    ]
}

fn push_values() -> Vec<Row> {
    vec![
        ("PushLimits.concurrency", range(&l::PUSH_CONCURRENCY)),
        ("PushLimits.per_minute", range(&l::PUSH_RATE)),
        ("PushLimits.per_second", range(&l::PUSH_RATE)),
        ("PushRetry.max_seconds", range(&l::PUSH_RETRY_SECONDS)),
        ("PushRetry.min_seconds", range(&l::PUSH_RETRY_SECONDS)),
        (
            "PushRotation.overlap_seconds",
            range(&l::PUSH_OVERLAP_SECONDS),
        ),
        (
            "PushSettings.batch_max_messages",
            range(&l::PUSH_BATCH_MESSAGES),
        ),
        (
            "PushSettings.disable_after_seconds",
            range(&l::PUSH_DISABLE_SECONDS),
        ),
        (
            "PushSettings.timeout_seconds",
            range(&l::PUSH_TIMEOUT_SECONDS),
        ),
    ]
}

fn lengths() -> Vec<Row> {
    let base64 = l::BATCH_BODY_BYTES_MAX.div_ceil(3) * 4;
    let mut rows = vec![
        ("*.after", from_one(l::CURSOR_CHARS_MAX)),
        ("*.key", from_one(l::KEY_CHARS_MAX)),
        ("*.tag", from_one(l::KEY_CHARS_MAX)),
        ("*.Cursus-Key", from_one(l::KEY_CHARS_MAX)),
        ("*.Cursus-Tag", from_one(l::KEY_CHARS_MAX)),
        // In quotes.
        ("*.Idempotency-Key", from_one(l::DEDUP_ID_CHARS_MAX + 2)),
        ("get_usage.after", from_one(l::USAGE_CURSOR_CHARS_MAX)),
        ("Audience", from_one(l::URL_CHARS_MAX)),
        ("ClaimName", from_one(l::CLAIM_CHARS_MAX)),
        ("EventSinkSettings.url", from_one(l::URL_CHARS_MAX)),
        ("Fairness.weights.name", from_one(l::KEY_CHARS_MAX)),
        ("IssuerSettings.issuer", from_one(l::URL_CHARS_MAX)),
        ("IssuerSettings.jwks_url", from_one(l::URL_CHARS_MAX)),
        ("KeySettings.name", from_one(l::KEY_NAME_CHARS_MAX)),
        ("PlanChoice", up_to(l::NAME_CHARS_MAX)),
        (
            "PublishMessage.attributes.name",
            from_one(l::ATTRIBUTE_NAME_CHARS_MAX),
        ),
        ("PublishMessage.body", up_to(l::BATCH_BODY_BYTES_MAX)),
        ("PublishMessage.body_base64", up_to(base64)),
        (
            "PublishMessage.content_type",
            up_to(l::CONTENT_TYPE_CHARS_MAX),
        ),
        ("PublishMessage.dedup_id", from_one(l::DEDUP_ID_CHARS_MAX)),
        ("PublishMessage.key", from_one(l::KEY_CHARS_MAX)),
        ("PublishMessage.tag", from_one(l::KEY_CHARS_MAX)),
        // `whsec_` and base64.
        (
            "PushSettings.secret",
            up_to(6 + l::PUSH_SECRET_BYTES.end().div_ceil(3) * 4),
        ),
        ("PushSettings.headers.*", from_one(l::PUSH_VALUE_CHARS_MAX)),
        (
            "PushSettings.headers.name",
            from_one(l::PUSH_HEADER_CHARS_MAX),
        ),
        ("PushSettings.url", from_one(l::URL_CHARS_MAX)),
        ("SettleItem.reason", from_one(l::REASON_CHARS_MAX)),
        (
            "SubscriptionSettings.dead_letter_topic",
            up_to(l::NAME_CHARS_MAX),
        ),
        ("Suspension.reason", from_one(l::REASON_CHARS_MAX)),
    ];
    let names = ["BudgetName", "EventSinkName", "IssuerName", "PlanName"];
    rows.extend(names.map(|name| (name, from_one(l::NAME_CHARS_MAX))));
    let names = ["SubscriptionName", "TenantName", "TopicName"];
    rows.extend(names.map(|name| (name, from_one(l::NAME_CHARS_MAX))));
    rows
}

fn items() -> Vec<Row> {
    vec![
        ("AckRequest.receipts", from_one(l::BATCH_MESSAGES_MAX)),
        ("BudgetSettings.alert_percents", up_to(l::ALERTS_MAX)),
        ("EventSinkSettings.events", from_one(EventKind::ALL.len())),
        (
            "IssuerSettings.algorithms",
            from_one(TokenAlgorithm::ALL.len()),
        ),
        ("IssuerSettings.audiences", from_one(l::AUDIENCES_MAX)),
        ("KeySettings.scopes", from_one(l::SCOPES_MAX)),
        ("IssuerSettings.scopes", from_one(l::SCOPES_MAX)),
        ("Price.tiers", up_to(l::TIERS_MAX)),
        ("PublishBatch.messages", from_one(l::BATCH_MESSAGES_MAX)),
        ("PushRetry.delays_seconds", from_one(l::PUSH_DELAYS_MAX)),
        ("PushSettings.signatures", from_one(2)),
        ("SettleRequest.items", from_one(l::BATCH_MESSAGES_MAX)),
        ("VisibilityRequest.changes", from_one(l::BATCH_MESSAGES_MAX)),
    ]
}

fn properties() -> Vec<Row> {
    vec![
        ("Fairness.weights", up_to(l::FAIRNESS_WEIGHTS_MAX)),
        ("PublishMessage.attributes", up_to(l::ATTRIBUTES_MAX)),
        ("PushSettings.headers", up_to(l::PUSH_HEADERS_MAX)),
    ]
}

/// A bound of the document: its place, what it counts, its smallest and largest value.
type Found = (String, Of, Option<u64>, Option<u64>);

/// The bounds of a schema and of all schemas in it.
fn walk(schema: &Value, place: &str, found: &mut Vec<Found>) {
    match schema {
        Value::Array(all) => all.iter().for_each(|one| walk(one, place, found)),
        Value::Object(schema) => {
            found.extend(
                Of::ALL
                    .into_iter()
                    .filter_map(|of| bound(schema, place, of)),
            );
            for (key, value) in schema {
                match key.as_str() {
                    "properties" => {
                        for (name, property) in value.as_object().into_iter().flatten() {
                            walk(property, &format!("{place}.{name}"), found);
                        }
                    }
                    "additionalProperties" => walk(value, &format!("{place}.*"), found),
                    "propertyNames" => walk(value, &format!("{place}.name"), found),
                    "example" | "examples" | "default" => {}
                    _ => walk(value, place, found),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn bound(schema: &Map<String, Value>, place: &str, of: Of) -> Option<Found> {
    let [min, max] = of
        .keywords()
        .map(|key| schema.get(key).and_then(Value::as_u64));
    // The type alone says of an unsigned number that it is not negative.
    let is_bound = max.is_some() || min.is_some_and(|min| min > 0 || of != Of::Value);
    is_bound.then(|| (place.to_owned(), of, min, max))
}

fn bounds_of(document: &Value) -> Vec<Found> {
    let mut found = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        walk(schema, name, &mut found);
    }
    let paths = document["paths"].as_object().unwrap().values();
    for operation in paths.flat_map(|path| path.as_object().unwrap().values()) {
        let id = operation["operationId"].as_str().unwrap();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            walk(&parameter["schema"], &format!("{id}.{name}"), &mut found);
        }
        for rest in ["requestBody", "responses"] {
            walk(&operation[rest], id, &mut found);
        }
    }
    found
}

#[test]
fn every_bound_of_the_document_is_a_limit() {
    let document = serde_json::to_value(cursus::http::openapi()).unwrap();
    let found = bounds_of(&document);
    for of in Of::ALL {
        let rows = of.rows();
        let row = |place: &str| rows.iter().find(|row| row.0 == place);
        let mut used = BTreeSet::new();
        for (place, _, min, max) in found.iter().filter(|found| found.1 == of) {
            let anywhere = place.split_once('.').map(|(_, name)| format!("*.{name}"));
            let Some((name, limit)) = row(place).or_else(|| row(&anywhere?)) else {
                panic!("{of:?} of {place} ({min:?} to {max:?}) is in no row of the table");
            };
            let expected = (*limit.start(), Some(*limit.end()));
            assert_eq!((min.unwrap_or(0), *max), expected, "{of:?} of {place}");
            used.insert(*name);
        }
        for (place, _) in &rows {
            assert!(
                used.contains(place),
                "{of:?} of {place} is not in the document"
            );
        }
    }
}
