//! Settling over HTTP: cases where the order of items matters, and items that fail.

use serde_json::{Value, json};

use crate::harness::{Fleet, code};

#[tokio::test]
async fn items_of_one_message_take_effect_in_the_order_of_the_call() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    for body in ["a", "b", "c", "d"] {
        node.publish(body).await;
    }
    let received = node.receive(4).await;
    let [a, b, c, d] = [0, 1, 2, 3].map(|index| received[index]["receipt"].clone());

    let results = node
        .settle(json!([
            {"receipt": a, "action": "extend", "visibility_timeout_seconds": 60},
            {"receipt": a, "action": "ack"},
            {"receipt": b, "action": "nack"},
            {"receipt": b, "action": "ack"},
            {"receipt": c, "action": "dead_letter"},
            {"receipt": c, "action": "ack"},
            {"receipt": d, "action": "ack"},
            {"receipt": d, "action": "dead_letter"},
        ]))
        .await;
    let again = node.receive(4).await;

    let outcome = |result: &Value| match result.get("error") {
        Some(_) => code(result).to_owned(),
        None => "ok".to_owned(),
    };
    let outcomes: Vec<String> = results.iter().map(outcome).collect();
    assert_eq!(
        outcomes,
        [
            "ok",
            "ok",
            "ok",
            "lease_lost",
            "ok",
            "lease_lost",
            "ok",
            "lease_lost"
        ]
    );
    assert_eq!(results[0]["visible_until"], "2030-01-01T00:01:00.000Z");
    assert_eq!(again.len(), 1);
    assert_eq!(again[0]["body"], "b");
    let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
    assert_eq!(
        (&stats["in_flight"], &stats["ready"]),
        (&json!(1), &json!(0))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_dead_letter_that_could_not_be_moved_is_not_called_done() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    node.publish("a").await;
    let receipt = node.receive(1).await[0]["receipt"].clone();
    // The state that another node leaves when it deletes the topic at the same moment.
    let mut sql = fleet.database.connect().await;
    let close = "UPDATE lane SET closed = true
                 WHERE topic_id = (SELECT topic_id FROM topic WHERE name = 'dead')";
    sqlx::query(close).execute(&mut sql).await.unwrap();

    let results = node
        .settle(json!([{"receipt": receipt, "action": "dead_letter"}]))
        .await;
    fleet.advance(61);
    let again = node.receive(1).await;

    assert_eq!(code(&results[0]), "conflict");
    assert_eq!(again[0]["body"], "a", "it is not lost");
    fleet.finish([node]).await;
}
