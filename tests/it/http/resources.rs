//! Topics and subscriptions: made, changed, listed, refused and deleted; stats and browse; and the manners of all routes
//! towards requests that are wrong.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, all, is, refusal, send, text};

#[tokio::test]
async fn a_topic_is_made_changed_and_deleted() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;

    let made = node
        .put("/v1/topics/t", json!({"keep_consumed": true}))
        .await;
    fleet.advance(5);
    let changed = node
        .put("/v1/topics/t", json!({"retention_seconds": 60}))
        .await;
    let got = node.get("/v1/topics/t").await;
    let deleted = node.delete("/v1/topics/t").await;
    let gone = node.get("/v1/topics/t").await;

    let topic = |retention: u32, updated: &str| {
        json!({
            "name": "t", "retention_seconds": retention, "keep_consumed": true, "dedup_window_seconds": 600,
            "created_at": "2030-01-01T00:00:00.000Z", "updated_at": updated,
        })
    };
    assert_eq!(made, (201, topic(345_600, "2030-01-01T00:00:00.000Z")));
    assert_eq!(
        changed,
        (200, topic(60, "2030-01-01T00:00:05.000Z")),
        "what is absent keeps its value"
    );
    assert_eq!(got, changed);
    assert_eq!(deleted, (204, Value::Null));
    assert_eq!(refusal(gone), is(404, "not_found", Value::Null));
    assert_eq!(node.delete("/v1/topics/t").await.0, 404);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_subscription_is_made_changed_and_deleted() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    node.topic("dead").await;

    let made = node
        .put(
            "/v1/subscriptions/s",
            json!({"topic": "t", "dead_letter_topic": "dead"}),
        )
        .await;
    let changed = node
        .put(
            "/v1/subscriptions/s",
            json!({"max_attempts": 3, "dead_letter_topic": ""}),
        )
        .await;
    let got = node.get("/v1/subscriptions/s").await;
    let deleted = node.delete("/v1/subscriptions/s").await;

    let times = "2030-01-01T00:00:00.000Z";
    let expected = json!({
        "name": "s", "topic": "t", "visibility_timeout_seconds": 30, "max_attempts": 16, "dead_letter_topic": "dead",
        "max_in_flight": 120_000, "created_at": times, "updated_at": times,
    });
    assert_eq!(made, (201, expected));
    assert_eq!(
        (
            changed.0,
            &changed.1["max_attempts"],
            changed.1.get("dead_letter_topic")
        ),
        (200, &json!(3), None)
    );
    assert_eq!(got, changed);
    assert_eq!(deleted.0, 204);
    assert_eq!(
        node.post("/v1/subscriptions/s/receive", json!({})).await.0,
        404
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn many_callers_that_create_one_subscription_at_once_are_all_served() {
    let fleet = Fleet::new().await;
    let (a, b) = (fleet.node().await, fleet.node().await);
    a.topic("t").await;
    for name in ["x", "y", "z"] {
        let path = format!("/v1/subscriptions/{name}");
        let put = |node: &Node| {
            let put = node.request(Method::PUT, &path);
            send(put.json(&json!({"topic": "t", "max_attempts": 3})))
        };
        let puts: Vec<_> = (0..8)
            .map(|n| put(if n % 2 == 0 { &a } else { &b }))
            .collect();
        let mut statuses: Vec<u16> = Vec::new();
        for (status, answer) in futures_util::future::join_all(puts).await {
            assert_eq!(answer["max_attempts"], 3, "{answer}");
            statuses.push(status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
    }
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn a_subscription_begins_at_the_end_or_at_the_start_as_it_is_set() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.put("/v1/topics/t", json!({"keep_consumed": true}))
        .await;
    node.publish("before").await;
    node.put(
        "/v1/subscriptions/s",
        json!({"topic": "t", "from": "start"}),
    )
    .await;
    node.put("/v1/subscriptions/late", json!({"topic": "t"}))
        .await;
    node.publish("after").await;
    assert_eq!(all(&node.receive(10).await, "body"), ["before", "after"]);
    let (_, late) = node
        .post(
            "/v1/subscriptions/late/receive",
            json!({"max_messages": 10}),
        )
        .await;
    assert_eq!(all(late["messages"].as_array().unwrap(), "body"), ["after"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_others_need_is_not_deleted_and_they_are_named() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    for topic in ["t", "dead"] {
        let (status, problem) = node.delete(&format!("/v1/topics/{topic}")).await;
        assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
        assert!(
            text(&problem["detail"]).ends_with("subscriptions s"),
            "{problem}"
        );
    }
    node.delete("/v1/subscriptions/s").await;
    assert_eq!(node.delete("/v1/topics/t").await.0, 204);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_with_their_field() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.topic("u").await;
    let put = async |path: &str, body: Value| refusal(node.put(path, body).await);

    let invalid = |pointer: &str| is(400, "invalid_request", json!(pointer));
    assert_eq!(
        put("/v1/topics/x", json!({"retention_seconds": 59})).await,
        invalid("/retention_seconds")
    );
    assert_eq!(
        put("/v1/topics/x", json!({"retention": 60})).await,
        invalid("/retention")
    );
    assert_eq!(
        put("/v1/topics/x", json!({"keep_consumed": "yes"})).await,
        invalid("/keep_consumed")
    );
    assert_eq!(
        put("/v1/topics/.x", json!({})).await,
        invalid("parameter:topic")
    );
    assert_eq!(
        put(&format!("/v1/topics/{}", "x".repeat(129)), json!({})).await,
        invalid("parameter:topic")
    );
    assert_eq!(
        put("/v1/subscriptions/x", json!({})).await,
        invalid("/topic")
    );
    assert_eq!(
        put(
            "/v1/subscriptions/x",
            json!({"topic": "t", "max_attempts": 1_001})
        )
        .await,
        invalid("/max_attempts")
    );
    assert_eq!(
        put("/v1/subscriptions/x", json!({"topic": "t", "filter": "a"})).await,
        invalid("/filter")
    );
    let same = put(
        "/v1/subscriptions/x",
        json!({"topic": "t", "dead_letter_topic": "t"}),
    )
    .await;
    assert_eq!(same, invalid("/dead_letter_topic"));
    assert_eq!(
        put("/v1/subscriptions/x", json!({"topic": "none"})).await,
        is(404, "not_found", Value::Null)
    );
    let dead = put(
        "/v1/subscriptions/x",
        json!({"topic": "t", "dead_letter_topic": "none"}),
    )
    .await;
    assert_eq!(dead, is(404, "not_found", Value::Null));
    assert_eq!(
        put("/v1/subscriptions/s", json!({"topic": "u"})).await,
        is(409, "already_exists", Value::Null)
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn lists_come_in_pages_and_in_order_of_name() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    for name in ["c", "a", "e", "B", "d"] {
        node.topic(name).await;
        node.put(&format!("/v1/subscriptions/{name}"), json!({"topic": name}))
            .await;
    }
    for list in ["/v1/topics", "/v1/subscriptions"] {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let (status, page) = node.get(&format!("{list}?limit=2{after}")).await;
            assert_eq!(status, 200, "{page}");
            names.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| text(&item["name"])),
            );
            let Some(next) = page["next"].as_str() else {
                break;
            };
            after = format!("&after={next}");
        }
        assert_eq!(names, ["B", "a", "c", "d", "e"]);
    }
    assert_eq!(
        refusal(node.get("/v1/topics?limit=0").await),
        is(400, "invalid_request", json!("parameter:limit"))
    );
    assert_eq!(
        refusal(node.get("/v1/topics?page=2").await),
        is(400, "invalid_request", json!("parameter:page"))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn stats_say_how_a_subscription_stands() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for body in ["a", "b", "c", "d", "e"] {
        node.publish(body).await;
    }
    let received = node.receive(3).await;
    let nack = json!([{"receipt": received[0]["receipt"], "action": "nack", "delay_seconds": 600}]);
    node.settle(nack).await;
    node.ack(&[&received[1]["receipt"]]).await;
    fleet.advance(10);

    let (_, subscription) = node.get("/v1/subscriptions/s/stats").await;
    let (_, topic) = node.get("/v1/topics/t/stats").await;

    let expected = json!({"ready": 2, "in_flight": 1, "delayed": 1, "backlog": 3, "oldest_ready_age_seconds": 10.0});
    assert_eq!(subscription, expected);
    assert_eq!(
        topic,
        json!({"published": 5, "kept": 5, "oldest_published_at": "2030-01-01T00:00:00.000Z"})
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn browsing_begins_anywhere_and_consumes_nothing() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let mut ids = Vec::new();
    for body in ["0", "1", "2", "3", "4"] {
        ids.push(node.publish(body).await);
        fleet.advance(10);
    }
    let browse = async |query: &str| {
        let (status, page) = node.get(&format!("/v1/topics/t/messages?{query}")).await;
        assert_eq!(status, 200, "{page}");
        let bodies: String = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| text(&item["body"]))
            .collect();
        (bodies, page["next"].clone())
    };

    assert_eq!(browse("").await, ("01234".to_owned(), Value::Null));
    assert_eq!(browse("limit=2").await, ("01".to_owned(), json!(ids[1])));
    assert_eq!(
        browse(&format!("limit=2&after={}", ids[1])).await,
        ("23".to_owned(), json!(ids[3]))
    );
    assert_eq!(browse(&format!("from={}", ids[3])).await.0, "34");
    assert_eq!(browse("from=2030-01-01T00:00:15Z").await.0, "234");
    assert_eq!(browse("from=2030-01-01T00:00:20Z").await.0, "234");
    assert_eq!(browse("from=2031-01-01T00:00:00Z").await.0, "");
    let (_, one) = node.get(&format!("/v1/messages/{}", ids[2])).await;
    assert_eq!((&one["body"], &one["id"]), (&json!("2"), &json!(ids[2])));
    assert_eq!(node.receive(10).await.len(), 5, "nothing was consumed");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn browsing_filters_by_key_and_tag() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    let messages: Vec<Value> =
        (0..20).map(|n| json!({"body": n.to_string(), "key": format!("k{}", n % 5), "tag": format!("t{}", n % 2)})).collect();
    node.post("/v1/topics/t/messages/batch", json!({"messages": messages}))
        .await;
    let (_, page) = node
        .get("/v1/topics/t/messages?key=k3&tag=t1&limit=1")
        .await;
    assert_eq!(all(page["items"].as_array().unwrap(), "body"), ["3"]);
    let (_, rest) = node
        .get(&format!(
            "/v1/topics/t/messages?key=k3&tag=t1&after={}",
            text(&page["next"])
        ))
        .await;
    assert_eq!(all(rest["items"].as_array().unwrap(), "body"), ["13"]);
    fleet.finish([node]).await;
}

/// A raw request with this body and content type.
async fn posted(node: &Node, path: &str, kind: &str, body: &str) -> (u16, Value) {
    send(
        node.request(Method::POST, path)
            .header("content-type", kind)
            .body(body.to_owned()),
    )
    .await
}

#[tokio::test]
async fn a_refusal_names_what_is_wrong_with_the_request() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let receive = "/v1/subscriptions/s/receive";

    assert_eq!(
        refusal(node.get("/v1/nothing").await),
        is(404, "not_found", Value::Null)
    );
    let (status, problem) = posted(&node, receive, "text/plain", "{}").await;
    assert_eq!(
        (status, &problem["code"]),
        (415, &json!("unsupported_media_type"))
    );
    let (status, problem) = posted(&node, receive, "application/json", "{\"max_messages\":").await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")));
    assert!(
        text(&problem["detail"]).contains("is not JSON"),
        "{problem}"
    );
    for (body, pointer) in [
        (json!({"max_messages": 0}), "/max_messages"),
        (json!({"max_messages": 101}), "/max_messages"),
        (json!({"wait_seconds": 31}), "/wait_seconds"),
        (
            json!({"visibility_timeout_seconds": 43_201}),
            "/visibility_timeout_seconds",
        ),
        (json!({"wait": 1}), "/wait"),
    ] {
        assert_eq!(
            refusal(node.post(receive, body).await),
            is(400, "invalid_request", json!(pointer))
        );
    }
    let too_many: Vec<Value> = (0..101).map(|_| json!({"body": ""})).collect();
    let batch = node
        .post("/v1/topics/t/messages/batch", json!({"messages": too_many}))
        .await;
    assert_eq!(
        refusal(batch),
        is(400, "invalid_request", json!("/messages"))
    );
    assert_eq!(
        node.post("/v1/topics/none/messages", json!({})).await.0,
        404
    );

    let response = node
        .request(Method::PATCH, "/v1/topics/t")
        .send()
        .await
        .unwrap();
    let mut allowed: Vec<String> = response.headers()["allow"]
        .to_str()
        .unwrap()
        .split(',')
        .map(|method| method.trim().to_owned())
        .collect();
    allowed.sort_unstable();
    assert_eq!(
        (response.status().as_u16(), allowed.join(" ")),
        (405, "DELETE GET HEAD PUT".to_owned())
    );
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn every_problem_explains_its_type() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let (_, problem) = node.get("/v1/topics/none").await;
    let (status, explained) = node.get(problem["type"].as_str().unwrap()).await;
    assert_eq!(status, 200, "{explained}");
    fleet.finish([node]).await;
}
