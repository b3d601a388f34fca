//! Requests in every format: what a receiver reads. The libraries of others verify them in `tests/it/push/sign.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Timestamp;
use api::limits::PUSH_BODY_BYTES_MAX;
use api::message::{ReceiveResult, ReceivedMessage};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::engine::log::block::Block;
use crate::engine::log::payload::{Payload, Records, stream_head};
use crate::store::event_sink::SigningKey;
use crate::store::push_endpoint::{Credential, EndpointRow};
use crate::store::{Era, LaneId, Offset, TenantId, TopicId};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn endpoint(settings: &Value) -> Endpoint {
    let mut settings = settings.clone();
    settings["url"] = "https://a.example/hook".into();
    let row = EndpointRow {
        subscription_id: SubscriptionId::new(7),
        subscription: "billing".to_owned(),
        tenant_id: TenantId::new(1),
        tenant: "acme".to_owned(),
        settings: settings.to_string(),
        credential: Some(Credential("secret".to_owned())),
        secret: SigningKey(vec![1; 24]),
        old_secret: None,
        old_secret_until: None,
        granted_per_minute: None,
        version: 1,
        driver: None,
        paused_at: None,
        disabled_at: None,
        disabled_reason: None,
        failing_since: None,
        stats: None,
        failed_attempts: 0,
        next_attempt_at: None,
        key_id: Some(Uuid::nil()),
        seed: Some(SigningKey(vec![2; 32])),
        installation_id: Uuid::nil(),
    };
    Endpoint::of(row).unwrap()
}

fn delivered(payload: Vec<u8>, beyond: u64) -> Vec<Delivery> {
    let total = payload.len() as u64 + beyond;
    let block = Arc::new(Block {
        lane: LaneId::new(1),
        first_offset: Offset::new(5),
        published_at: Timestamp(1_769_860_800_123_456),
        is_cold: false,
        payload: Payload::parse(Bytes::from(payload), total).unwrap(),
    });
    let topic = Arc::new("orders".parse().unwrap());
    let delivery = |index| Delivery {
        receipt: "r-1".to_owned(),
        message: StoredMessage {
            block: Arc::clone(&block),
            index,
            topic: Arc::clone(&topic),
            topic_id: TopicId::new(1),
        },
        attempt: 2,
        visible_until: Timestamp(1_769_860_830_000_000),
    };
    (0..block.payload.len()).map(delivery).collect()
}

fn deliveries(messages: &[(Meta<'_>, &[u8])]) -> Vec<Delivery> {
    let mut records = Records::default();
    for (meta, body) in messages {
        records.push(meta, body);
    }
    delivered(records.to_payload(Era::FIRST), 0)
}

fn meta<'a>(content_type: &'a str, attributes: &[(&'a str, &'a str)]) -> Meta<'a> {
    Meta {
        content_type: Some(content_type),
        attributes: attributes.to_vec(),
        ..Meta::default()
    }
}

/// Headers of a request, those of its signature left out, and its body.
fn sent(settings: &Value, deliveries: &[Delivery]) -> (BTreeMap<String, String>, Bytes) {
    let post = of(&endpoint(settings), deliveries, OffsetDateTime::UNIX_EPOCH).unwrap();
    let headers = post.headers.iter();
    let headers = headers.map(|(name, value)| {
        let value = value.to_str().unwrap().to_owned();
        (name.as_str().to_owned(), value)
    });
    let mut headers: BTreeMap<_, _> = headers.collect();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert!(headers.remove(name).is_some_and(|value| !value.is_empty()));
    }
    let agent = headers.remove("user-agent").unwrap();
    assert_eq!(agent, concat!("cursus/", env!("CARGO_PKG_VERSION")));
    (headers, post.body)
}

fn one(settings: &Value, meta: &Meta<'_>, body: &[u8]) -> (BTreeMap<String, String>, Bytes) {
    sent(settings, &deliveries(&[(meta.clone(), body)]))
}

fn expected(headers: &[(&str, &str)]) -> BTreeMap<String, String> {
    let facts = [
        ("cursus-attempt", "2"),
        ("cursus-message-id", "00000001000000000005"),
        ("cursus-published-at", "2026-01-31T12:00:00.123Z"),
        ("cursus-receipt", "r-1"),
        ("cursus-subscription", "billing"),
        ("cursus-topic", "orders"),
        ("cursus-visible-until", "2026-01-31T12:00:30.000Z"),
    ];
    let all = facts.iter().chain(headers);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_raw_request_is_the_body_with_facts_in_headers() {
    let full = Meta {
        content_type: Some("image/png"),
        tag: Some("eu west"),
        key: Some("42%"),
        traceparent: Some(TRACE),
        tracestate: Some("a=1, b=2"),
        attributes: vec![
            ("ce-ID", "no attribute of an event"),
            ("ce-id", "a b"),
            ("empty", ""),
            ("größe", "\"XL\" €\r\nhost: evil"),
            ("zone", "b"),
        ],
    };
    let settings =
        json!({"headers": {"X-Team": "shop floor"}, "auth": {"type": "basic", "username": "me"}});
    let (headers, body) = one(&settings, &full, b"\xff\x00");
    let expected = expected(&[
        ("authorization", "Basic bWU6c2VjcmV0"),
        ("ce-id", "a%20b"),
        ("content-type", "image/png"),
        ("cursus-attr-ce-id", "no%20attribute%20of%20an%20event"),
        ("cursus-attr-empty", ""),
        (
            "cursus-attr-gr%c3%b6%c3%9fe",
            "%22XL%22%20%E2%82%AC%0D%0Ahost:%20evil",
        ),
        ("cursus-attr-zone", "b"),
        ("cursus-key", "42%25"),
        ("cursus-tag", "eu%20west"),
        ("traceparent", TRACE),
        ("tracestate", "a=1, b=2"),
        ("x-team", "shop floor"),
    ]);
    assert_eq!(headers, expected);
    assert_eq!(body, b"\xff\x00"[..]);
}

#[test]
fn attributes_beyond_the_room_of_the_head_are_counted() {
    let long = "x".repeat(5_000);
    let meta = meta("a/b", &[("a", &long), ("b", &long), ("c", "1")]);
    let (headers, _) = one(&json!({}), &meta, b"");
    assert_eq!(headers["cursus-attr-a"], long);
    assert_eq!(headers.get("cursus-attr-b"), None);
    assert_eq!(headers["cursus-attr-c"], "1");
    assert_eq!(headers["cursus-attrs-omitted"], "1");
}

#[test]
fn a_binary_event_has_what_is_required_and_keeps_what_was_published() {
    let settings = json!({"format": "cloudevents_binary"});
    let plain = Meta {
        key: Some("42"),
        ..meta("text/csv", &[("zone", "b"), ("ce-datacontenttype", "a/b")])
    };
    let (headers, body) = one(&settings, &plain, b"1,2");
    let expected_plain = expected(&[
        ("ce-id", "00000001000000000005"),
        ("ce-partitionkey", "42"),
        ("ce-source", "urn:uuid:00000000-0000-0000-0000-000000000000"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "orders"),
        ("ce-time", "2026-01-31T12:00:00.123Z"),
        ("ce-type", "cursus.message"),
        ("content-type", "text/csv"),
        ("cursus-attr-zone", "b"),
        ("cursus-key", "42"),
    ]);
    assert_eq!((headers, &body[..]), (expected_plain, &b"1,2"[..]));
    let event = meta(
        "application/json",
        &[
            ("ce-comexampleext", "ü"),
            ("ce-id", "7"),
            ("ce-source", "/shop"),
            ("ce-time", ""),
            ("ce-type", "order.paid"),
        ],
    );
    let (headers, _) = one(&settings, &event, b"{}");
    let expected_event = expected(&[
        ("ce-comexampleext", "%C3%BC"),
        ("ce-id", "7"),
        ("ce-source", "/shop"),
        ("ce-specversion", "1.0"),
        ("ce-type", "order.paid"),
        ("content-type", "application/json"),
    ]);
    assert_eq!(headers, expected_event);
}

#[test]
fn a_structured_event_is_one_document_without_ce_headers() {
    let settings = json!({"format": "cloudevents_structured"});
    let attributes = [
        ("ce-id", "7"),
        ("ce-source", "/shop"),
        ("ce-type", "order.paid"),
        ("zone", "b"),
    ];
    for (content_type, body, data) in [
        ("application/json", "{\"a\": [1]}", json!({"a": [1]})),
        ("application/vnd.a+json; v=1", " null ", Value::Null),
        ("text/plain", "\"a\"", json!("\"a\"")),
        ("application/xml", "<a/>", json!("<a/>")),
    ] {
        let (headers, sent) = one(&settings, &meta(content_type, &attributes), body.as_bytes());
        let expected = expected(&[
            ("content-type", "application/cloudevents+json"),
            ("cursus-attr-zone", "b"),
        ]);
        assert_eq!(headers, expected, "{content_type}");
        let event = json!({
            "specversion": "1.0", "id": "7", "source": "/shop", "type": "order.paid",
            "datacontenttype": content_type, "data": data,
        });
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent, event, "{content_type}");
    }
    let (_, empty) = one(&settings, &meta("text/plain", &attributes), b"");
    let empty: Value = serde_json::from_slice(&empty).unwrap();
    assert_eq!(empty.as_object().unwrap().len(), 4, "{empty}");
}

#[test]
fn what_json_cannot_hold_as_it_is_comes_in_binary_mode() {
    let settings = json!({"format": "cloudevents_structured"});
    for (content_type, body) in [
        ("text/plain", &b"\xff"[..]),
        ("application/json", b"{"),
        ("application/octet-stream", b"text"),
    ] {
        let (headers, sent) = one(&settings, &meta(content_type, &[]), body);
        assert_eq!(headers["content-type"], content_type);
        assert_eq!(headers["ce-type"], "cursus.message");
        assert_eq!(sent, body, "{content_type}");
    }
}

#[test]
fn a_message_that_is_an_event_in_structured_mode_stays_one() {
    let content_type = "application/CloudEvents+json; charset=utf-8";
    let event = meta(content_type, &[("ce-id", "7"), ("zone", "b")]);
    for format in ["raw", "cloudevents_binary", "cloudevents_structured"] {
        let (headers, body) = one(&json!({"format": format}), &event, b"{\"id\":\"7\"}");
        let expected = expected(&[("content-type", content_type), ("cursus-attr-zone", "b")]);
        assert_eq!(
            (headers, &body[..]),
            (expected, &b"{\"id\":\"7\"}"[..]),
            "{format}"
        );
    }
}

#[test]
fn json_is_what_a_receive_answers() {
    let messages = [
        (meta("text/plain", &[("zone", "b")]), &b"hello"[..]),
        (meta("a/b", &[]), b"\xff"),
    ];
    let deliveries = deliveries(&messages);
    let (headers, body) = sent(&json!({"format": "json"}), &deliveries[..1]);
    let names: Vec<&str> = headers.keys().map(String::as_str).collect();
    assert_eq!(names, ["content-type", "cursus-subscription"]);
    assert_eq!(headers["content-type"], "application/json");
    let read: ReceivedMessage = serde_json::from_slice(&body).unwrap();
    assert_eq!(read.message.body.as_deref(), Some("hello"));
    assert_eq!((read.receipt.as_str(), read.attempt), ("r-1", 2));
    let (_, body) = sent(&json!({"format": "json_batch"}), &deliveries);
    let read: ReceiveResult = serde_json::from_slice(&body).unwrap();
    assert_eq!(read.messages.len(), 2);
    assert_eq!(
        read.messages[1].message.body_base64.as_deref(),
        Some("/w==")
    );
}

#[test]
fn a_body_that_was_not_read_is_named() {
    let head = stream_head(&meta("text/plain", &[]), Era::FIRST);
    let large = delivered(head, PUSH_BODY_BYTES_MAX as u64 + 1);
    let path = "/v1/messages/00000001000000000005/body";
    for (format, is_ref) in [("raw", false), ("cloudevents_binary", true)] {
        let (headers, body) = sent(&json!({"format": format}), &large);
        assert_eq!(headers["cursus-body-url"], path);
        let named = headers.get("ce-dataref").map(String::as_str);
        assert_eq!((named, body.len()), (is_ref.then_some(path), 0));
    }
    let (headers, body) = sent(&json!({"format": "cloudevents_structured"}), &large);
    assert_eq!(headers["cursus-body-url"], path);
    let event: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&event["dataref"], event.get("data")), (&json!(path), None));
    let (_, body) = sent(&json!({"format": "json"}), &large);
    let read: ReceivedMessage = serde_json::from_slice(&body).unwrap();
    assert_eq!(read.message.body_url.as_deref(), Some(path));
}

#[test]
fn the_id_of_a_request_depends_on_messages_and_subscription_alone() {
    let all = deliveries(&[(meta("a/b", &[]), b"1"), (meta("a/b", &[]), b"2")]);
    let id = |format: &str, all: &[Delivery]| {
        let at = OffsetDateTime::from_unix_timestamp(rand::random_range(0..2_000_000_000)).unwrap();
        let post = of(&endpoint(&json!({"format": format})), all, at).unwrap();
        let seconds = at.unix_timestamp().to_string();
        assert_eq!(post.headers["webhook-timestamp"], seconds);
        post.headers["webhook-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id("raw", &all[..1]), "00000001000000000005-7");
    assert_eq!(id("json_batch", &all[..1]), "00000001000000000005-7");
    let both = id("json_batch", &all);
    assert_eq!(both, id("json_batch", &all));
    assert!(both.ends_with("-7") && both.len() == 34 && !both.contains('.'));
    let none = of(&endpoint(&json!({})), &[], OffsetDateTime::UNIX_EPOCH);
    let two = of(&endpoint(&json!({})), &all, OffsetDateTime::UNIX_EPOCH);
    assert!(none.is_err() && two.is_err());
}

#[test]
fn tokens_are_in_the_header_of_every_request() {
    let all = deliveries(&[(meta("a/b", &[]), b"1")]);
    let bearer = json!({"auth": {"type": "bearer"}});
    assert_eq!(sent(&bearer, &all).0["authorization"], "Bearer secret");
    let jwt = json!({"auth": {"type": "jwt"}});
    let value = sent(&jwt, &all).0.remove("authorization").unwrap();
    let token = value.strip_prefix("Bearer ").unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(header.kid, Some(Uuid::nil().to_string()));
    let endpoint = endpoint(&jwt);
    assert!(
        !format!("{endpoint:?}").contains("secret\""),
        "{endpoint:?}"
    );
}
