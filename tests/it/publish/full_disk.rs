//! A disk that is nearly full refuses what would fill it, and lets messages be received and settled, which makes room.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::log::noise;
use crate::harness::{Fleet, Node, all, send};

const RAW: &str = "/v1/topics/t/messages";

/// Publishes in every way, and returns the status and the code of each.
async fn publish_in_every_way(node: &Node) -> Vec<(u16, Value)> {
    let post = |path: &str| node.request(Method::POST, path);
    let keyed = post(RAW).header("idempotency-key", "\"a\"").body("keyed");
    let batch = json!({"messages": [{"body": "one"}, {"body": "two"}]});
    let requests = [
        post(RAW).body("small"),
        post(RAW).body(noise(1 << 20)),
        post("/v1/topics/t/messages/batch").json(&batch),
        keyed,
    ];
    let mut answers = Vec::new();
    for request in requests {
        let (status, answer) = send(request).await;
        answers.push((status, answer["code"].clone()));
    }
    answers
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_and_can_be_drained() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.publish("before").await;

    fleet.room.set_low(true);
    for refused in publish_in_every_way(&node).await {
        assert_eq!(refused, (507, json!("insufficient_storage")));
    }
    let received = node.receive(10).await;
    assert_eq!(all(&received, "body"), ["before"]);
    let receipts = all(&received, "receipt");
    let ack = node.request(Method::POST, "/v1/subscriptions/s/ack");
    let (status, acked) = send(ack.json(&json!({ "receipts": receipts }))).await;
    assert_eq!((status, &acked["results"]), (200, &json!([{}])));

    fleet.room.set_low(false);
    for (status, code) in publish_in_every_way(&node).await {
        assert_eq!((status, code), (200, Value::Null));
    }
    fleet.finish([node]).await;
}
