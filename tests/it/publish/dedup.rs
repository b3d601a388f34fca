//! Repeated publishes: `dedup_id` of a message and `Idempotency-Key` of a request, within the topic's window.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, all, send};

const RAW: &str = "/v1/topics/t/messages";
const BATCH: &str = "/v1/topics/t/messages/batch";

async fn keyed(node: &Node, path: &str, key: &str, body: &str) -> (u16, Value) {
    let request = node
        .request(Method::POST, path)
        .header("idempotency-key", format!("\"{key}\""));
    send(
        request
            .header("content-type", "application/json")
            .body(body.to_owned()),
    )
    .await
}

#[tokio::test]
async fn a_repeated_dedup_id_is_one_message_within_the_window() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.put("/v1/topics/t", json!({"dedup_window_seconds": 60}))
        .await;
    node.put("/v1/subscriptions/s", json!({"topic": "t"})).await;
    let batch =
        |body: &str| json!({"messages": [{"body": body, "dedup_id": "a"}, {"body": "plain"}]});

    let (_, first) = node.post(BATCH, batch("1")).await;
    fleet.advance(59);
    let (_, second) = node.post(BATCH, batch("2")).await;
    fleet.advance(2);
    let (_, third) = node.post(BATCH, batch("3")).await;
    let received = node.receive(100).await;

    let id = &first["results"][0]["id"];
    assert_eq!(first["results"][0], json!({"id": id}));
    assert_eq!(second["results"][0], json!({"id": id, "duplicate": true}));
    assert_ne!(&third["results"][0]["id"], id);
    assert_eq!(third["results"][0].get("duplicate"), None);
    assert_eq!(
        all(&received, "body"),
        ["1", "plain", "plain", "3", "plain"]
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn twins_in_one_batch_are_one_message() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let messages = json!([{"body": "1", "dedup_id": "a"}, {"body": "2", "dedup_id": "a"}, {"body": "3", "dedup_id": "b"}]);
    let (_, answer) = node.post(BATCH, json!({"messages": messages})).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(
        results[1],
        json!({"id": results[0]["id"], "duplicate": true})
    );
    assert_eq!(all(&node.receive(10).await, "body"), ["1", "3"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn the_same_idempotency_key_and_body_give_the_first_answer_again() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let batch = r#"{"messages":[{"body":"1"},{"bodyy":"bad"},{"body":"2"}]}"#;

    let first = keyed(&node, RAW, "k", "{}").await;
    let again = keyed(&node, RAW, "k", "{}").await;
    let other = keyed(&node, RAW, "k", "[]").await;
    let first_batch = keyed(&node, BATCH, "k", batch).await;
    let again_batch = keyed(&node, BATCH, "k", batch).await;
    let other_batch = keyed(&node, BATCH, "k", r#"{"messages":[{"body":"1"}]}"#).await;

    assert_eq!((first.0, &first), (200, &again));
    assert_eq!((first_batch.0, &first_batch), (200, &again_batch));
    assert_eq!(
        first_batch.1["results"][1]["error"]["code"],
        "invalid_request"
    );
    assert_eq!(
        (other.0, &other.1["code"]),
        (422, &json!("idempotency_key_mismatch"))
    );
    assert_eq!(
        (other_batch.0, &other_batch.1["code"]),
        (422, &json!("idempotency_key_mismatch"))
    );
    assert_eq!(all(&node.receive(10).await, "body"), ["{}", "1", "2"]);
    fleet.advance(601);
    let later = keyed(&node, RAW, "k", "[]").await;
    assert_eq!(
        (later.0, later.1["id"] == first.1["id"]),
        (200, false),
        "the window is over"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_streamed_body_is_guarded_by_its_key_too() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let (large, other) = ("x".repeat(1 << 20), "y".repeat(1 << 20));
    let first = keyed(&node, RAW, "k", &large).await;
    let again = keyed(&node, RAW, "k", &large).await;
    let mismatch = keyed(&node, RAW, "k", &other).await;
    assert_eq!((first.0, &first), (200, &again));
    assert_eq!(mismatch.0, 422);
    assert_eq!(node.receive(10).await.len(), 1);
    fleet.finish([node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_at_once_on_two_nodes_is_one_message() {
    let fleet = Fleet::new().await;
    let (one, two) = (fleet.node().await, fleet.node().await);
    one.topic_and_subscription(json!({})).await;
    for round in 0..10 {
        let key = format!("k{round}");
        let tries = (0..8).map(|n| keyed(if n % 2 == 0 { &one } else { &two }, RAW, &key, "{}"));
        let answers = join_all(tries).await;
        let ids: Vec<&Value> = answers
            .iter()
            .filter(|a| a.0 == 200)
            .map(|a| &a.1["id"])
            .collect();
        assert!(
            !ids.is_empty() && ids.iter().all(|id| *id == ids[0]),
            "{answers:?}"
        );
        for refused in answers.iter().filter(|a| a.0 != 200) {
            assert_eq!(
                (refused.0, &refused.1["code"]),
                (409, &json!("idempotency_key_in_use"))
            );
        }
        let received = one.receive(10).await;
        assert_eq!(all(&received, "id"), [ids[0]], "round {round}");
    }
    fleet.finish([one, two]).await;
}

#[tokio::test]
async fn a_key_belongs_to_its_route_and_its_answer_comes_back_word_for_word() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let one = r#"{"messages":[{"body":"1"}]}"#;
    let twins = r#"{"messages":[{"body":"2","dedup_id":"a"},{"body":"2","dedup_id":"a"}]}"#;

    let single = keyed(&node, RAW, "k", "{}").await;
    let batch = keyed(&node, BATCH, "k", one).await;
    let first = keyed(&node, BATCH, "twins", twins).await;
    let again = keyed(&node, BATCH, "twins", twins).await;

    assert_eq!((single.0, batch.0), (200, 200), "{batch:?}");
    assert_eq!(first.1["results"][1]["duplicate"], true);
    assert_eq!(first, again);
    assert_eq!(all(&node.receive(10).await, "body"), ["{}", "1", "2"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_request_of_nothing_but_duplicates_is_remembered_and_leaves_no_trace_in_the_lane() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let duplicate = r#"{"messages":[{"body":"a","dedup_id":"a"}]}"#;
    let other = r#"{"messages":[{"body":"b"}]}"#;
    node.post(BATCH, json!({"messages": [{"body": "a", "dedup_id": "a"}]}))
        .await;

    let first = keyed(&node, BATCH, "k", duplicate).await;
    let second = keyed(&node, BATCH, "l", duplicate).await;
    let next = keyed(&node, BATCH, "m", other).await;
    let again = keyed(&node, BATCH, "k", duplicate).await;
    let mismatch = keyed(&node, BATCH, "k", other).await;

    assert_eq!(first.1["results"][0]["duplicate"], true);
    assert_eq!([&second, &again], [&first; 2]);
    assert_eq!((next.0, mismatch.0), (200, 422));
    let received = node.receive(10).await;
    assert_eq!(all(&received, "body"), ["a", "b"]);
    assert_eq!(received[0]["id"], first.1["results"][0]["id"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_large_batch_with_keys_goes_through_object_storage() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let body = |n: u8| Value::from(String::from_utf8(vec![b'a' + n; 200_000]).unwrap());
    let message = |n: u8| json!({"body": body(n), "dedup_id": n.to_string()});

    node.post(BATCH, json!({"messages": [message(1)]})).await;
    let messages: Vec<Value> = (0..5).map(message).collect();
    let (status, answer) = node.post(BATCH, json!({"messages": messages})).await;

    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["results"][1]["duplicate"], true);
    let objects: i64 =
        sqlx::query_scalar("SELECT count(*) FROM block WHERE object_id IS NOT NULL AND count = 4")
            .fetch_one(&mut fleet.database.connect().await)
            .await
            .unwrap();
    assert_eq!(objects, 1);
    let received = node.receive(10).await;
    let bodies = [1, 0, 2, 3, 4].map(body);
    assert_eq!(all(&received, "body"), bodies.iter().collect::<Vec<_>>());
    fleet.finish([node]).await;
}
