//! Dead letters of many messages at once: they arrive as one block, each with its own history, large ones too.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row;

use crate::harness::{Fleet, Node, all, code, text};

/// Nodes with a topic `t`, its subscription `s`, and the dead-letter topic `dead` with a subscription `d`.
async fn node_with_dead_letters(fleet: &Fleet) -> Node {
    let node = fleet.node().await;
    node.topic("dead").await;
    node.put("/v1/subscriptions/d", json!({"topic": "dead"}))
        .await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    node
}

async fn dead_letters(node: &Node) -> Vec<Value> {
    let ask = json!({"max_messages": 100});
    let (status, answer) = node.post("/v1/subscriptions/d/receive", ask).await;
    assert_eq!(status, 200, "{answer}");
    answer["messages"].as_array().unwrap().clone()
}

/// Number of messages of each block of the dead-letter topic, with whether it is in object storage.
async fn blocks(fleet: &Fleet) -> Vec<(i32, bool)> {
    let blocks = "SELECT b.count, b.object_id IS NOT NULL FROM block b JOIN lane l USING (lane_id) JOIN topic t USING (topic_id)
                  WHERE t.name = 'dead' ORDER BY b.first_offset";
    let blocks = sqlx::query(blocks)
        .fetch_all(&mut fleet.database.connect().await)
        .await;
    blocks
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

fn item(message: &Value) -> Value {
    let reason = format!("no {}", message["body"].as_str().unwrap_or("large"));
    json!({"receipt": message["receipt"], "action": "dead_letter", "reason": reason})
}

#[tokio::test]
async fn a_hundred_dead_letters_of_one_request_arrive_as_one_block_with_their_own_reasons() {
    let fleet = Fleet::new().await;
    let node = node_with_dead_letters(&fleet).await;
    let messages: Vec<Value> = (0..100).map(|n| json!({"body": n.to_string()})).collect();
    node.post("/v1/topics/t/messages/batch", json!({"messages": messages}))
        .await;
    let received = node.receive(100).await;

    let items: Vec<Value> = received.iter().map(item).collect();
    let results = node.settle(json!(items)).await;
    let again = node.settle(json!(items)).await;

    assert_eq!(results, vec![json!({}); 100]);
    assert!(again.iter().all(|result| code(result) == "lease_lost"));
    assert_eq!(blocks(&fleet).await, [(100, false)]);
    let dead = dead_letters(&node).await;
    assert_eq!(all(&dead, "body"), all(&received, "body"));
    for (letter, message) in dead.iter().zip(&received) {
        let attributes = &letter["attributes"];
        let reason = format!("no {}", text(&message["body"]));
        assert_eq!(attributes["cursus-dead-letter-reason"], reason);
        assert_eq!(attributes["cursus-dead-letter-id"], message["id"]);
        assert_eq!(attributes["cursus-dead-letter-attempts"], "1");
    }
    fleet.advance(3_600);
    assert_eq!(node.receive(100).await, [] as [Value; 0]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_large_message_among_dead_letters_is_moved_by_itself() {
    let fleet = Fleet::new().await;
    let node = node_with_dead_letters(&fleet).await;
    let large = "x".repeat(1 << 20);
    for body in ["a", &large, "b", "c"] {
        node.publish(body).await;
    }
    let received = node.receive(10).await;
    assert_eq!(received.len(), 4);

    let items: Vec<Value> = received.iter().map(item).collect();
    let results = node.settle(json!(items)).await;

    assert_eq!(results, vec![json!({}); 4]);
    let mut moved = blocks(&fleet).await;
    moved.sort_unstable();
    assert_eq!(moved, [(1, true), (3, false)]);
    let dead = dead_letters(&node).await;
    let mut reasons: Vec<&str> = dead
        .iter()
        .map(|letter| {
            letter["attributes"]["cursus-dead-letter-reason"]
                .as_str()
                .unwrap()
        })
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["no a", "no b", "no c", "no large"]);
    let of_large = dead
        .iter()
        .find(|letter| letter.get("body_url").is_some())
        .unwrap();
    let request = node.request(Method::GET, of_large["body_url"].as_str().unwrap());
    assert_eq!(request.send().await.unwrap().text().await.unwrap(), large);
    fleet.advance(3_600);
    assert_eq!(node.receive(100).await, [] as [Value; 0]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_old_receipt_has_no_part_in_the_dead_letter_of_a_new_one() {
    let fleet = Fleet::new().await;
    let node = node_with_dead_letters(&fleet).await;
    node.publish("a").await;
    let old = node.receive(1).await;
    fleet.advance(31);
    let new = node.receive(1).await;
    let item = |message: &Value, reason: &str| json!({"receipt": message["receipt"], "action": "dead_letter", "reason": reason});

    let results = node
        .settle(json!([item(&old[0], "old"), item(&new[0], "new")]))
        .await;

    assert_eq!(code(&results[0]), "lease_lost");
    assert_eq!(results[1], json!({}));
    let dead = dead_letters(&node).await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["attributes"]["cursus-dead-letter-reason"], "new");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn used_up_messages_of_many_leases_move_together_and_others_are_handed_out() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.put("/v1/subscriptions/d", json!({"topic": "dead"}))
        .await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead", "max_attempts": 1}))
        .await;
    for number in 0..30 {
        node.publish(&number.to_string()).await;
    }
    // Thirty leases of one message each.
    for _ in 0..30 {
        assert_eq!(node.receive(1).await.len(), 1);
    }
    fleet.advance(31);
    node.publish("fresh").await;

    let received = node.receive(100).await;

    assert_eq!(all(&received, "body"), ["fresh"]);
    let dead = crate::harness::until("all are moved", async || {
        let (_, dead) = node.get("/v1/topics/dead/messages").await;
        (dead["items"].as_array().unwrap().len() == 30).then_some(dead)
    })
    .await;
    for letter in dead["items"].as_array().unwrap() {
        let attributes = &letter["attributes"];
        assert_eq!(attributes["cursus-dead-letter-reason"], "max_attempts");
        assert_eq!(attributes["cursus-dead-letter-attempts"], "1");
        assert_eq!(
            attributes["cursus-dead-letter-last-failed-at"],
            "2030-01-01T00:00:30.000Z"
        );
    }
    assert!(blocks(&fleet).await.len() < 30, "many move as one block");
    fleet.finish([node]).await;
}

/// The messages of the dead-letter topic when there are this many. Nobody receives meanwhile.
async fn moved(node: &Node, count: usize) -> Vec<Value> {
    crate::harness::until("they are moved", async || {
        let (_, dead) = node.get("/v1/topics/dead/messages").await;
        let items = dead["items"].as_array().unwrap().clone();
        (items.len() == count).then_some(items)
    })
    .await
}

/// What the subscription `s` has ready, in flight and delayed.
async fn stats(node: &Node) -> [u64; 3] {
    let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
    ["ready", "in_flight", "delayed"].map(|of| stats[of].as_u64().unwrap())
}

#[tokio::test]
async fn a_dead_letter_that_is_due_needs_no_receiver_and_is_not_ready() {
    for attempts in [1, 2] {
        let fleet = Fleet::new().await;
        let node = node_with_dead_letters(&fleet).await;
        let settings = json!({"topic": "t", "max_attempts": attempts});
        assert_eq!(node.put("/v1/subscriptions/s", settings).await.0, 200);
        let batch = json!({"messages": [{"body": "a"}, {"body": "b"}, {"body": "c"}]});
        node.post("/v1/topics/t/messages/batch", batch).await;
        for _ in 1..attempts {
            assert_eq!(node.receive(3).await.len(), 3);
            fleet.advance(31);
        }
        let last = node.receive(3).await;
        assert_eq!(stats(&node).await, [0, 3, 0]);
        // One is acked, one fails by time, and one is kept for longer.
        let keep =
            json!({"changes": [{"receipt": last[2]["receipt"], "visibility_timeout_seconds": 60}]});
        node.ack(&[&last[0]["receipt"]]).await;
        node.results("visibility", keep).await;

        fleet.advance(31);
        let [ready, in_flight, _] = stats(&node).await;
        assert_eq!((ready, in_flight), (0, 1));
        let dead = moved(&node, 1).await;
        assert_eq!(dead[0]["body"], "b");
        let attributes = &dead[0]["attributes"];
        assert_eq!(
            attributes["cursus-dead-letter-attempts"],
            json!(attempts.to_string())
        );
        assert_eq!(stats(&node).await, [0, 1, 0]);
        fleet.advance(30);
        assert_eq!(all(&moved(&node, 2).await, "body"), ["b", "c"]);
        assert_eq!(stats(&node).await, [0, 0, 0]);
        fleet.finish([node]).await;
    }
}

#[tokio::test]
async fn a_last_attempt_that_is_given_back_is_a_dead_letter_after_the_delay() {
    let fleet = Fleet::new().await;
    let node = node_with_dead_letters(&fleet).await;
    let settings = json!({"topic": "t", "max_attempts": 1});
    node.put("/v1/subscriptions/s", settings).await;
    for body in ["now", "later"] {
        node.publish(body).await;
    }
    let last = node.receive(2).await;

    let items = json!([
        {"receipt": last[0]["receipt"], "action": "nack"},
        {"receipt": last[1]["receipt"], "action": "nack", "delay_seconds": 5},
    ]);
    assert_eq!(node.settle(items).await, [json!({}), json!({})]);

    assert_eq!(moved(&node, 1).await[0]["body"], "now");
    assert_eq!(stats(&node).await, [0, 0, 1]);
    fleet.advance(5);
    assert_eq!(all(&moved(&node, 2).await, "body"), ["now", "later"]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn fewer_attempts_or_a_new_topic_make_dead_letters_of_what_has_failed_before() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"fairness": {}})).await;
    for body in ["a", "b"] {
        node.publish(body).await;
    }
    assert_eq!(node.receive(2).await.len(), 2);
    fleet.advance(31);
    assert_eq!(node.receive(1).await.len(), 1);
    fleet.advance(31);
    assert_eq!(stats(&node).await, [2, 0, 0]);

    let settings = json!({"topic": "t", "dead_letter_topic": "dead", "max_attempts": 2});
    node.put("/v1/subscriptions/s", settings).await;
    assert_eq!(stats(&node).await[0], 1);
    assert_eq!(all(&moved(&node, 1).await, "body"), ["a"]);
    let settings = json!({"topic": "t", "max_attempts": 1});
    node.put("/v1/subscriptions/s", settings).await;
    assert_eq!(all(&moved(&node, 2).await, "body"), ["a", "b"]);
    assert_eq!(stats(&node).await, [0, 0, 0]);
    fleet.finish([node]).await;
}
