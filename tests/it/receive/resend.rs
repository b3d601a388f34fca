//! Messages that are handed out again on request.

use serde_json::{Value, json};

use crate::harness::{Fleet, Node, is, refusal};

async fn resend(node: &Node, request: Value) -> (u16, Value) {
    node.post("/v1/subscriptions/s/resend", request).await
}

async fn resent(node: &Node, request: Value) -> Value {
    let (status, answer) = resend(node, request).await;
    assert_eq!(status, 200, "{answer}");
    answer["messages"].clone()
}

/// Receives and acks all that is ready; returns the bodies with their attempts, in order.
async fn drain(node: &Node) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    loop {
        let messages = node.receive(100).await;
        if messages.is_empty() {
            all.sort();
            return all;
        }
        let receipts: Vec<&Value> = messages.iter().map(|message| &message["receipt"]).collect();
        node.ack(&receipts).await;
        for message in &messages {
            let body = message["body"].as_str().unwrap().to_owned();
            all.push((body, message["attempt"].as_u64().unwrap()));
        }
    }
}

#[tokio::test]
async fn what_is_done_is_handed_out_again_and_nothing_else() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.put("/v1/topics/t", json!({"keep_consumed": true}))
        .await;
    let mut ids = Vec::new();
    for body in ["a", "b", "c", "d"] {
        ids.push(node.publish(body).await);
        fleet.advance(10);
    }
    // Of four messages the first two are done, the third is in flight, and the last was never handed out.
    let first = node.receive(3).await;
    node.ack(&[&first[0]["receipt"], &first[1]["receipt"]])
        .await;

    for (index, messages) in [(0, 1), (0, 0), (2, 0), (3, 0)] {
        assert_eq!(
            resent(&node, json!({"message_id": ids[index]})).await,
            messages,
            "{index}"
        );
    }
    assert_eq!(
        drain(&node).await,
        [("a".to_owned(), 1), ("d".to_owned(), 1)]
    );
    let all = resent(&node, json!({"from": "2030-01-01T00:00:00Z"})).await;
    assert_eq!(all, 3, "all but the one in flight");
    assert_eq!(drain(&node).await.len(), 3);
    let range = json!({"from": "2030-01-01T00:00:05Z", "until": "2030-01-01T00:00:15Z"});
    assert_eq!(resent(&node, range).await, 1);
    assert_eq!(drain(&node).await, [("b".to_owned(), 1)]);
    node.ack(&[&first[2]["receipt"]]).await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn many_messages_and_a_fair_subscription_are_handed_out_again() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({"fairness": {}})).await;
    node.put("/v1/topics/t", json!({"keep_consumed": true}))
        .await;
    for number in 0..150 {
        node.publish(&format!("{number:03}")).await;
    }
    assert_eq!(drain(&node).await.len(), 150);
    assert_eq!(
        resent(&node, json!({"from": "2029-01-01T00:00:00Z"})).await,
        150
    );
    let again = drain(&node).await;
    assert_eq!(again.len(), 150);
    assert!(
        again
            .iter()
            .zip(0..)
            .all(|((body, _), number)| *body == format!("{number:03}"))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_request_names_one_message_or_a_range_of_the_topic() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.topic("other").await;
    let (_, other) = node
        .post(
            "/v1/topics/other/messages/batch",
            json!({"messages": [{"body": "x"}]}),
        )
        .await;
    let other = &other["results"][0]["id"];
    for bad in [
        json!({}),
        json!({"until": "2030-01-01T00:00:00Z"}),
        json!({"message_id": other, "from": "2030-01-01T00:00:00Z"}),
    ] {
        assert_eq!(
            refusal(resend(&node, bad).await),
            is(400, "invalid_request", json!(""))
        );
    }
    let empty = json!({"from": "2030-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z"});
    assert_eq!(
        refusal(resend(&node, empty).await),
        is(400, "invalid_request", json!("/until"))
    );
    let (status, _) = resend(&node, json!({"message_id": other})).await;
    assert_eq!(status, 404, "of another topic");
    fleet.finish([node]).await;
}
