//! Event sinks over HTTP: what may be put and by whom, what is shown, and what stands in the way.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, all, is, refusal};

const SINK: &str = "/v1/event-sinks/billing";
const URL: &str = "https://billing.example/events";

pub(crate) async fn sink(node: &Node, name: &str) -> Value {
    let (status, sink) = node.get(&format!("/v1/event-sinks/{name}")).await;
    assert_eq!(status, 200, "{sink}");
    sink
}

#[tokio::test]
async fn a_sink_is_made_shown_changed_and_deleted() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;

    let response = node.request(Method::PUT, SINK).json(&json!({"url": URL}));
    let response = response.send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut made: Value = response.json().await.unwrap();
    let secret = made.as_object_mut().unwrap().remove("secret").unwrap();
    assert!(secret.as_str().unwrap().starts_with("whsec_"));
    let at = "2030-01-01T00:00:00.000Z";
    let expected = json!({
        "name": "billing",
        "settings": {
            "url": URL, "events": ["usage", "budget", "endpoint"], "granularity": "hour", "tenants": "own", "batch": false,
        },
        "waiting": 0, "failed_attempts": 0, "usage_until": at, "created_at": at, "updated_at": at,
    });
    assert_eq!(made, expected);
    assert_eq!(
        node.get(SINK).await,
        (200, made),
        "the secret is shown once"
    );

    fleet.advance(90);
    let (status, put) = node
        .put(SINK, json!({"url": format!("{URL}/2"), "batch": true}))
        .await;
    assert_eq!((status, put.get("secret")), (200, None), "it stays");
    assert_eq!(put["updated_at"], "2030-01-01T00:01:30.000Z");
    let to_topic = json!({"topic": "t", "events": ["budget"], "granularity": "minute"});
    let (status, put) = node.put(SINK, to_topic).await;
    assert_eq!(status, 200, "{put}");
    let settings =
        json!({"topic": "t", "events": ["budget"], "granularity": "minute", "tenants": "own"});
    assert_eq!(
        (&put["settings"], put.get("usage_until")),
        (&settings, None)
    );
    let (_, put) = node
        .put(SINK, json!({"url": URL, "granularity": "minute"}))
        .await;
    assert_ne!(put["secret"], secret, "of a URL that is new");
    assert_eq!(put["usage_until"], "2030-01-01T00:01:00.000Z");

    node.put("/v1/event-sinks/a", json!({"topic": "t"})).await;
    let (_, list) = node.get("/v1/event-sinks?limit=1").await;
    assert_eq!(
        (
            all(list["items"].as_array().unwrap(), "name"),
            &list["next"]
        ),
        (vec![&json!("a")], &json!("a"))
    );
    let (_, list) = node.get("/v1/event-sinks?after=a").await;
    assert_eq!(all(list["items"].as_array().unwrap(), "name"), ["billing"]);
    assert_eq!(node.delete(SINK).await, (204, Value::Null));
    for gone in [node.get(SINK).await, node.delete(SINK).await] {
        assert_eq!(refusal(gone), is(404, "not_found", Value::Null));
    }
    let (_, log) = node.get("/v1/admin/audit?limit=3").await;
    let log = log["items"].as_array().unwrap();
    assert_eq!(all(log, "action")[0], "event_sink.delete");
    assert_eq!(all(log, "action")[1], "event_sink.put");
    assert!(!log.iter().any(|entry| entry.to_string().contains("whsec_")));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_is_no_sink_is_refused_by_its_field() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    let long = format!("https://a/{}", "x".repeat(2_048));
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"topic": "t", "url": URL}), "/url"),
        (json!({"url": "http://billing.example/"}), "/url"),
        (json!({"url": "http://169.254.169.254/"}), "/url"),
        (json!({"url": "https://me:secret@a/"}), "/url"),
        (json!({"url": "billing"}), "/url"),
        (json!({"url": ""}), "/url"),
        (json!({ "url": long }), "/url"),
        (json!({"topic": "t", "batch": true}), "/batch"),
        (json!({"topic": "t", "events": []}), "/events"),
        (json!({"topic": "t", "events": ["rain"]}), "/events/0"),
        (json!({"topic": "t", "granularity": "day"}), "/granularity"),
        (json!({"topic": "t", "tenants": "b"}), "/tenants"),
        (json!({"topic": "a b"}), "/topic"),
        (json!({"topic": "t", "colour": 1}), "/colour"),
    ] {
        let refused = refusal(node.put(SINK, body.clone()).await);
        assert_eq!(
            refused,
            is(400, "invalid_request", json!(pointer)),
            "{body}"
        );
    }
    let name = refusal(node.put("/v1/event-sinks/-", json!({"topic": "t"})).await);
    assert_eq!(name, is(400, "invalid_request", json!("parameter:sink")));
    let missing = refusal(node.put(SINK, json!({"topic": "n"})).await);
    assert_eq!(missing, is(404, "not_found", Value::Null));
    assert_eq!(node.get(SINK).await.0, 404, "nothing came of it");
    let null = json!({"topic": "t", "url": null, "events": null, "granularity": null, "tenants": null, "batch": null});
    assert_eq!(node.put(SINK, null).await.0, 201);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_tenant_has_so_many_sinks_and_a_topic_that_one_needs_stays() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    for n in 0..20 {
        let path = format!("/v1/event-sinks/s{n}");
        assert_eq!(node.put(&path, json!({"topic": "t"})).await.0, 201);
    }
    let one_more = refusal(node.put(SINK, json!({"topic": "t"})).await);
    assert_eq!(one_more, is(409, "conflict", Value::Null));
    assert_eq!(node.get(SINK).await.0, 404);
    assert_eq!(
        node.put("/v1/event-sinks/s0", json!({"topic": "t"}))
            .await
            .0,
        200
    );

    let (status, refused) = node.delete("/v1/topics/t").await;
    assert_eq!(status, 409);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("event sinks s0, s1"), "{detail}");
    for n in 0..20 {
        node.delete(&format!("/v1/event-sinks/s{n}")).await;
    }
    assert_eq!(node.delete("/v1/topics/t").await.0, 204);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_sink_needs_the_scopes_to_read_usage_manage_its_topic_or_operate() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    for name in ["t", "orders.t"] {
        node.topic(name).await;
    }
    let to = |topic: &str| json!({ "topic": topic });
    let (url, everybody) = (json!({"url": URL}), json!({"topic": "t", "tenants": "all"}));
    for (scopes, body, status) in [
        (&["manage"][..], to("t"), 403),
        (&["manage", "usage:orders.*"], to("t"), 403),
        (&["usage", "admin"], to("t"), 403),
        (&["manage", "usage"], to("t"), 201),
        (&["manage", "usage"], url.clone(), 403),
        (&["manage", "usage"], everybody.clone(), 403),
        (&["manage", "usage", "admin:a"], url.clone(), 403),
        (&["manage", "usage", "admin:a"], everybody.clone(), 403),
        (&["manage", "usage", "admin"], url, 200),
        (&["manage", "usage", "admin"], everybody, 200),
        (&["manage:billing", "usage"], to("t"), 403),
        (
            &["manage:b*", "manage:orders.*", "usage"],
            to("orders.t"),
            200,
        ),
        (&["manage:orders.*", "usage"], to("orders.t"), 403),
    ] {
        let key = fleet.key_for("a", scopes).await;
        let (was, answer) = node.ask(&key, Method::PUT, SINK, Some(body.clone())).await;
        assert_eq!(was, status, "{scopes:?} {body}: {answer}");
    }
    let key = fleet.key_for("a", &["manage:orders.*"]).await;
    let (_, list) = node.ask(&key, Method::GET, "/v1/event-sinks", None).await;
    assert_eq!(list["items"], json!([]), "it manages no such name");
    fleet.finish([node]).await;
}
