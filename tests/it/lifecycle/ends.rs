//! Messages and topics that end: retention under a reader's feet, topics deleted and made again, on two nodes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Fleet, Node, all, code};

async fn bodies(node: &Node) -> Vec<Value> {
    let received = node.receive(100).await;
    all(&received, "body").into_iter().cloned().collect()
}

#[tokio::test]
async fn messages_end_with_their_retention_wherever_they_are() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.put("/v1/topics/t", json!({"retention_seconds": 60}))
        .await;
    node.put("/v1/subscriptions/s", json!({"topic": "t"})).await;
    for body in ["leased", "nacked", "ahead"] {
        node.publish(body).await;
    }
    let received = node.receive(2).await;
    node.settle(
        json!([{"receipt": received[1]["receipt"], "action": "nack", "delay_seconds": 10}]),
    )
    .await;

    fleet.advance(61);
    // The node's own duty may have been faster.
    fleet.expire().await;
    let (_, left) = node.get("/v1/topics/t/stats").await;
    assert_eq!((&left["published"], &left["kept"]), (&json!(3), &json!(0)));
    let gone = bodies(&node).await;
    let late = node.ack(&[&received[0]["receipt"]]).await;
    node.publish("new").await;

    assert_eq!(gone, [] as [Value; 0]);
    assert_eq!(code(&late[0]), "lease_lost");
    assert_eq!(bodies(&node).await, ["new"]);
    let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
    assert_eq!(
        (&stats["ready"], &stats["in_flight"], &stats["delayed"]),
        (&json!(0), &json!(1), &json!(0))
    );
    let (_, browsed) = node.get("/v1/topics/t/messages").await;
    assert_eq!(all(browsed["items"].as_array().unwrap(), "body"), ["new"]);
    let (_, topic) = node.get("/v1/topics/t/stats").await;
    assert_eq!(
        (&topic["published"], &topic["kept"]),
        (&json!(4), &json!(1))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_new_message_in_a_topic_that_retention_has_emptied_reaches_every_subscription() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.put("/v1/topics/t", json!({"retention_seconds": 60}))
        .await;
    node.put("/v1/subscriptions/s", json!({"topic": "t"})).await;
    for _ in 0..3 {
        node.publish("old").await;
        fleet.advance(61);
        fleet.expire().await;
        assert_eq!(bodies(&node).await, [] as [Value; 0]);
        node.put(
            "/v1/subscriptions/other",
            json!({"topic": "t", "from": "start"}),
        )
        .await;
        let id = node.publish("new").await;
        let received = node.receive(100).await;
        assert_eq!(
            (all(&received, "id"), all(&received, "attempt")),
            (vec![&json!(id)], vec![&json!(1)])
        );
        node.ack(&[&received[0]["receipt"]]).await;
        let (_, other) = node
            .post(
                "/v1/subscriptions/other/receive",
                json!({"max_messages": 100}),
            )
            .await;
        assert_eq!(
            all(other["messages"].as_array().unwrap(), "id"),
            [&json!(id)]
        );
        node.delete("/v1/subscriptions/other").await;
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn consumed_messages_go_unless_the_topic_keeps_them() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let kept = async || {
        node.get("/v1/topics/t/messages").await.1["items"]
            .as_array()
            .unwrap()
            .len()
    };
    for body in ["a", "b", "last"] {
        node.publish(body).await;
    }
    let received = node.receive(2).await;
    fleet.advance(10);
    fleet.expire().await;
    assert_eq!(kept().await, 3, "not acked yet");

    node.put("/v1/topics/t", json!({"keep_consumed": true}))
        .await;
    node.ack(&all(&received, "receipt")).await;
    fleet.expire().await;
    assert_eq!(kept().await, 3, "kept for replay");
    node.put("/v1/topics/t", json!({"keep_consumed": false}))
        .await;
    fleet.expire().await;
    assert_eq!(kept().await, 1);
    assert_eq!(bodies(&node).await, ["last"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_topic_that_is_made_again_begins_anew_on_both_nodes() {
    let fleet = Fleet::new().await;
    let (one, two) = (fleet.node().await, fleet.node().await);
    one.topic_and_subscription(json!({})).await;
    one.publish("old").await;
    two.publish("old").await;
    let received = two.receive(1).await;

    assert_eq!(one.delete("/v1/subscriptions/s").await.0, 204);
    assert_eq!(one.delete("/v1/topics/t").await.0, 204);
    one.topic_and_subscription(json!({})).await;

    // The other node notices within a round; until then it may still answer that the topic does not exist.
    let began = std::time::Instant::now();
    loop {
        let (status, answer) = two
            .post(
                "/v1/topics/t/messages/batch",
                json!({"messages": [{"body": "new"}]}),
            )
            .await;
        if status == 200 {
            break;
        }
        assert_eq!((status, &answer["code"]), (404, &json!("not_found")));
        assert!(began.elapsed() < Duration::from_secs(5), "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("the other node took {:?}", began.elapsed());
    assert_eq!(bodies(&one).await, ["new"]);
    assert_eq!(
        code(&one.ack(&[&received[0]["receipt"]]).await[0]),
        "receipt_invalid"
    );
    fleet.finish([one, two]).await;
}

#[tokio::test]
async fn what_was_published_on_a_node_that_stops_is_received_on_the_next() {
    let fleet = Fleet::new().await;
    let first = fleet.node().await;
    first.topic_and_subscription(json!({})).await;
    for body in ["a", "b", "c"] {
        first.publish(body).await;
    }
    let held = first.receive(1).await;
    first.stop().await;
    let second = fleet.node().await;
    assert_eq!(
        second.ack(&[&held[0]["receipt"]]).await,
        [json!({})],
        "receipts hold on every node"
    );
    assert_eq!(bodies(&second).await, ["b", "c"]);
    fleet.finish([second]).await;
}
