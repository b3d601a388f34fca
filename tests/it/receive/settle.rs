//! Settling over HTTP: cases where the order of items matters, and items that fail.

use serde_json::{Value, json};

use crate::harness::{Fleet, all, code};

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

    assert_eq!(
        outcomes(&results),
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

/// The code of each error, or `ok`.
fn outcomes(results: &[Value]) -> Vec<&str> {
    let outcome = |result| match Value::get(result, "error") {
        Some(_) => code(result),
        None => "ok",
    };
    results.iter().map(outcome).collect()
}

/// An item of a settle.
fn item(message: &Value, action: &str) -> Value {
    json!({"receipt": message["receipt"], "action": action})
}

/// An item that hides a message for some seconds.
fn extend(message: &Value, seconds: u32) -> Value {
    json!({"receipt": message["receipt"], "action": "extend", "visibility_timeout_seconds": seconds})
}

#[tokio::test]
async fn a_whole_lease_and_a_part_of_one_are_extended_and_acked_by_both_receipts() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let messages: Vec<Value> = (0..100).map(|n| json!({"body": n.to_string()})).collect();
    node.post("/v1/topics/t/messages/batch", json!({"messages": messages}))
        .await;
    // The first lease has 64 messages, the second has 36.
    let received = node.receive(100).await;
    let (whole, second) = received.split_at(64);
    let (part, rest) = second.split_at(20);

    let items: Vec<Value> = whole
        .iter()
        .chain(part)
        .map(|message| extend(message, 300))
        .collect();
    let extended = node.settle(json!(items)).await;
    fleet.advance(31);
    let due = node.receive(100).await;

    assert_eq!(
        all(&extended, "visible_until"),
        ["2030-01-01T00:05:00.000Z"; 84]
    );
    assert_eq!(all(&due, "body"), all(rest, "body"));
    let old = node.ack(&all(&whole[..32], "receipt")).await;
    let new = node.ack(&all(&extended[32..], "receipt")).await;
    let late = node.ack(&all(rest, "receipt")).await;
    assert_eq!(
        (outcomes(&old), outcomes(&new)),
        (vec!["ok"; 32], vec!["ok"; 52])
    );
    assert_eq!(outcomes(&late), ["lease_lost"; 16]);
    assert_eq!(outcomes(&node.ack(&all(&due, "receipt")).await), ["ok"; 16]);
    fleet.advance(3_600);
    assert_eq!(node.receive(100).await, [] as [Value; 0]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn parts_of_a_lease_that_are_extended_again_and_again_keep_their_receipts() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let messages: Vec<Value> = (0..64).map(|n| json!({"body": n.to_string()})).collect();
    node.post("/v1/topics/t/messages/batch", json!({"messages": messages}))
        .await;
    let received = node.receive(64).await;

    // Halves, quarters and so on: each piece has a deadline of its own.
    for round in 0..6_u32 {
        let items = received.iter().zip(0..64_u32);
        let items =
            items.map(|(message, n)| extend(message, 100 * (round + 1) + (n >> (5 - round))));
        let results = node.settle(json!(items.collect::<Vec<_>>())).await;
        assert_eq!(outcomes(&results), ["ok"; 64], "round {round}");
    }
    fleet.advance(599);
    assert_eq!(node.receive(64).await, [] as [Value; 0]);
    fleet.advance(33);
    let due = node.receive(64).await;
    assert_eq!(
        all(&due, "body"),
        all(&received[..33], "body"),
        "in order of their deadlines"
    );
    assert_eq!(
        outcomes(&node.ack(&all(&received[33..40], "receipt")).await),
        ["ok"; 7]
    );
    assert_eq!(outcomes(&node.ack(&all(&due, "receipt")).await), ["ok"; 33]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn items_that_fail_leave_their_neighbours_unharmed_and_have_their_own_errors() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for body in ["a", "b", "c", "d", "e", "f"] {
        node.publish(body).await;
    }
    let lost = node.receive(1).await;
    fleet.advance(31);
    let received = node.receive(6).await;
    assert_eq!(received[0]["id"], lost[0]["id"]);

    let results = node
        .settle(json!([
            item(&received[0], "nack"),
            {"receipt": "none", "action": "ack"},
            item(&received[1], "ack"),
            item(&lost[0], "ack"),
            {"receipt": received[2]["receipt"], "action": "nack", "delay_seconds": 50},
            item(&received[3], "dead_letter"),
            item(&received[3], "ack"),
            item(&lost[0], "nack"),
            extend(&received[4], 60),
        ]))
        .await;
    let now = node.receive(6).await;
    fleet.advance(50);
    let later = node.receive(6).await;

    assert_eq!(
        outcomes(&results),
        [
            "ok",
            "receipt_invalid",
            "ok",
            "lease_lost",
            "ok",
            "conflict",
            "ok",
            "lease_lost",
            "ok"
        ]
    );
    let statuses: Vec<&Value> = [1, 3, 5].map(|at| &results[at]["error"]["status"]).into();
    assert_eq!(statuses, [&json!(400), &json!(409), &json!(409)]);
    assert_eq!(all(&now, "body"), ["a"]);
    let mut bodies = all(&later, "body");
    bodies.sort_by_key(ToString::to_string);
    assert_eq!(bodies, ["a", "c", "f"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_message_in_many_items_is_changed_in_their_order() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for body in ["a", "b", "c"] {
        node.publish(body).await;
    }
    let received = node.receive(3).await;
    let [a, b, c] = [&received[0], &received[1], &received[2]];

    let results = node
        .settle(json!([
            extend(a, 100),
            extend(b, 200),
            extend(a, 300),
            item(c, "nack"),
            extend(a, 10),
            item(b, "ack"),
            extend(c, 5),
            extend(b, 5),
        ]))
        .await;
    let now = node.receive(3).await;
    fleet.advance(10);
    let later = node.receive(3).await;

    assert_eq!(
        outcomes(&results),
        [
            "ok",
            "ok",
            "ok",
            "ok",
            "ok",
            "ok",
            "lease_lost",
            "lease_lost"
        ]
    );
    let until = [0, 1, 2, 4].map(|at| &results[at]["visible_until"]);
    let seconds = ["01:40", "03:20", "05:00", "00:10"];
    assert_eq!(
        until.map(Clone::clone),
        seconds.map(|at| json!(format!("2030-01-01T00:{at}.000Z")))
    );
    assert_eq!(
        (all(&now, "body"), all(&later, "body")),
        (vec![&json!("c")], vec![&json!("a")])
    );
    fleet.finish([node]).await;
}
