//! The leases of a fair subscription: redelivery, dead letters, limits in flight, retention, switching fairness off and
//! on, deletion. Like all tests they end with the check of the invariants.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::{Fleet, Node, all, text, until};
use crate::order::fair::{count, publish_of, whose};
use crate::quota::rates::set;

async fn fair(fleet: &Fleet, mut settings: Value) -> Node {
    let node = fleet.node().await;
    settings["fairness"] = json!({});
    node.topic_and_subscription(settings).await;
    node
}

async fn settle(node: &Node, received: &[Value], action: &str) {
    for some in received.chunks(100) {
        let item = |message: &Value| json!({"receipt": message["receipt"], "action": action});
        let items: Vec<Value> = some.iter().map(item).collect();
        for result in node.settle(json!(items)).await {
            assert!(result.get("error").is_none(), "{result}");
        }
    }
}

async fn stats(node: &Node) -> Value {
    node.get("/v1/subscriptions/s/stats").await.1
}

async fn one(fleet: &Fleet, sql: &'static str) -> i64 {
    let mut connection = fleet.database.connect().await;
    let one = sqlx::query_scalar(sql).fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    one.unwrap()
}

#[tokio::test]
async fn messages_that_fail_take_half_of_a_receive_while_others_wait() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    publish_of(&node, Some("acme"), 100).await;
    let failing = node.receive(100).await;
    settle(&node, &failing, "nack").await;
    publish_of(&node, Some("bell"), 100).await;

    for _ in 0..10 {
        let received = node.receive(10).await;
        assert_eq!(count(&received, "bell"), 5, "{:?}", whose(&received));
        assert_eq!(received.len(), 10);
        let failed = received
            .iter()
            .filter(|m| text(&m["body"]).starts_with("acme"));
        settle(&node, &failed.cloned().collect::<Vec<_>>(), "nack").await;
    }
    // Received one by one, the customers alternate.
    let mut ones = Vec::new();
    for _ in 0..10 {
        let received = node.receive(1).await;
        if count(&received, "acme") == 1 {
            settle(&node, &received, "nack").await;
        }
        ones.extend(received);
    }
    assert_eq!((count(&ones, "acme"), count(&ones, "bell")), (5, 5));
    // When no other customer waits, messages due again fill the whole receive.
    node.receive(100).await;
    fleet.advance(31);
    assert_eq!(node.receive(100).await.len(), 100);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_message_that_failed_once_is_not_held_up_by_another_customers_failures() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    publish_of(&node, Some("acme"), 500).await;
    publish_of(&node, Some("bell"), 1).await;
    let mut failing = Vec::new();
    for _ in 0..6 {
        failing.extend(node.receive(100).await);
    }
    assert_eq!(failing.len(), 501);
    settle(&node, &failing, "nack").await;
    let received = node.receive(10).await;
    assert_eq!((count(&received, "bell"), received.len()), (1, 10));
    assert!(received.iter().all(|message| message["attempt"] == 2));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_expired_lease_comes_again_and_its_old_receipt_is_refused() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    publish_of(&node, Some("acme"), 70).await;
    let first = node.receive(60).await;
    fleet.advance(31);
    let again = node.receive(100).await;
    assert_eq!(again.len(), 70);
    let attempts = |n: u32| again.iter().filter(|m| m["attempt"] == n).count();
    assert_eq!((attempts(1), attempts(2)), (10, 60));
    let old: Vec<&Value> = first.iter().map(|message| &message["receipt"]).collect();
    let refused = node.ack(&old).await;
    assert!(refused.iter().all(|r| r["error"]["code"] == "lease_lost"));
    settle(&node, &again, "ack").await;
    assert_eq!(stats(&node).await["backlog"], 0);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn attempts_that_are_used_up_end_in_the_dead_letter_topic() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    let settings = json!({"fairness": {}, "max_attempts": 1, "dead_letter_topic": "dead"});
    node.topic_and_subscription(settings).await;
    publish_of(&node, Some("acme"), 3).await;
    publish_of(&node, Some("bell"), 5).await;
    let failing = node.receive(6).await;
    assert_eq!(count(&failing, "acme"), 3);
    fleet.advance(31);
    assert_eq!(node.receive(100).await.len(), 2);
    let dead = until("they are moved", async || {
        let (_, page) = node.get("/v1/topics/dead/messages").await;
        let items = page["items"].as_array().unwrap().clone();
        (items.len() == 6).then_some(items)
    })
    .await;
    assert_eq!(whose(&dead), whose(&failing));
    assert_eq!(dead[0]["attributes"]["cursus-dead-letter-attempts"], "1");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_waits_is_not_in_flight() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({"max_in_flight": 5})).await;
    publish_of(&node, Some("acme"), 100).await;
    let first = node.receive(10).await;
    assert_eq!((first.len(), node.receive(10).await.len()), (5, 0));
    let shown = stats(&node).await;
    assert_eq!(
        (&shown["ready"], &shown["in_flight"]),
        (&json!(95), &json!(5))
    );
    // A receiver that waits is served when messages may be handed out again.
    let waiting = node.receive_with(json!({"max_messages": 10, "wait_seconds": 20}));
    let acks = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        settle(&node, &first[..3], "ack").await;
    };
    let (received, ()) = tokio::join!(waiting, acks);
    assert_eq!(received.len(), 3);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn the_quota_of_messages_in_flight_does_not_count_what_waits() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    set(&fleet, &node, json!({"in_flight_messages": 20})).await;
    publish_of(&node, Some("acme"), 100).await;
    publish_of(&node, Some("bell"), 1).await;
    assert_eq!(node.receive(10).await.len(), 10);
    until("it is counted", async || {
        node.post(
            "/v1/subscriptions/s/receive",
            json!({"max_messages": 1, "visibility_timeout_seconds": 0}),
        )
        .await;
        let (_, quota) = node.get("/v1/quota").await;
        let used = quota["used"]["in_flight_messages"].as_u64();
        used.filter(|used| (10..=20).contains(used))
    })
    .await;
    let mut received = 10;
    let refused = until("the quota is met", async || {
        let (status, answer) = node
            .post("/v1/subscriptions/s/receive", json!({"max_messages": 10}))
            .await;
        received += answer["messages"].as_array().map_or(0, Vec::len);
        (status == 429).then_some(answer)
    })
    .await;
    assert_eq!(refused["violated-policies"], json!(["in-flight"]));
    assert!((20..=40).contains(&received), "{received}");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn switched_off_it_goes_on_with_what_waits_and_on_again_too() {
    let fleet = Fleet::new().await;
    let nodes = [fair(&fleet, json!({})).await, fleet.node().await];
    let path = "/v1/subscriptions/s";
    let mut seen = BTreeSet::new();
    let mut take = async |node: &Node, most: u32| {
        let received = node.receive(most).await;
        for message in &received {
            assert_eq!(message["attempt"], 1, "{message}");
            assert!(seen.insert(text(&message["id"])), "{message} comes twice");
        }
        received.len()
    };
    publish_of(&nodes[0], Some("acme"), 300).await;
    publish_of(&nodes[0], Some("bell"), 30).await;
    assert_eq!(take(&nodes[0], 10).await, 10);
    nodes[0]
        .put(path, json!({"fairness": {"enabled": false}}))
        .await;
    publish_of(&nodes[0], Some("acme"), 10).await;
    // Redelivery hands out waiting leases, because they are due; one of them in part.
    assert_eq!(take(&nodes[0], 100).await, 100);
    assert_eq!(take(&nodes[0], 7).await, 7);

    nodes[0].put(path, json!({"fairness": {}})).await;
    publish_of(&nodes[0], Some("cash"), 20).await;
    let mut left = 340 + 20 - 117;
    // The other node may not know the setting yet. If so it claims from the cursor, in the order of the log.
    while left > 0 {
        let taken = take(&nodes[left % 2], 50).await;
        assert!(taken > 0, "{left} are left");
        left -= taken;
    }
    assert_eq!(take(&nodes[0], 50).await, 0);
    let shown = stats(&nodes[0]).await;
    assert_eq!(
        (&shown["ready"], &shown["in_flight"]),
        (&json!(0), &json!(360))
    );
    // All messages are handed out again, also those handed out while fairness was off.
    fleet.advance(31);
    let mut again = 0;
    while again < 360 {
        let received = nodes[again % 2].receive(100).await;
        assert!(!received.is_empty(), "{again} of 360 came again");
        again += received.len();
    }
    fleet.finish(nodes).await;
}

#[tokio::test]
async fn waiting_messages_are_kept_until_retention_ends_and_end_with_it() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.put("/v1/topics/t", json!({"retention_seconds": 60}))
        .await;
    node.put("/v1/subscriptions/s", json!({"topic": "t", "fairness": {}}))
        .await;
    publish_of(&node, Some("acme"), 150).await;
    let received = node.receive(10).await;
    settle(&node, &received, "ack").await;
    fleet.advance(10);
    assert_eq!(fleet.expire().await, 0, "what waits is needed");
    let received = node.receive(10).await;
    assert_eq!(received.len(), 10);
    publish_of(&node, Some("bell"), 10).await;
    fleet.advance(55);
    fleet.expire().await;
    let waiting =
        "SELECT coalesce(sum(bit_count(pending::bit(64))), 0)::bigint FROM lease WHERE waiting";
    assert_eq!(one(&fleet, waiting).await, 0);
    // The line still counts acme's messages; the claim corrects it.
    let received = node.receive(5).await;
    assert_eq!((count(&received, "bell"), received.len()), (5, 5));
    publish_of(&node, Some("acme"), 10).await;
    let received = node.receive(10).await;
    assert_eq!((count(&received, "acme"), received.len()), (5, 10));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_deleted_subscription_leaves_nothing_and_its_receivers_learn_it() {
    let fleet = Fleet::new().await;
    let nodes = [fair(&fleet, json!({})).await, fleet.node().await];
    publish_of(&nodes[0], Some("acme"), 100).await;
    assert_eq!(nodes[1].receive(10).await.len(), 10);
    let (status, _) = nodes[0].delete("/v1/subscriptions/s").await;
    assert_eq!(status, 204);
    for table in [
        "SELECT count(*) FROM fairness",
        "SELECT count(*) FROM lease",
        "SELECT count(*) FROM cursor",
    ] {
        assert_eq!(one(&fleet, table).await, 0, "{table}");
    }
    let (status, _) = nodes[1]
        .post("/v1/subscriptions/s/receive", json!({}))
        .await;
    assert_eq!(status, 404);
    fleet.finish(nodes).await;
}

#[tokio::test]
async fn any_text_can_name_a_customer() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    let long = "ä".repeat(200);
    let names = ["", "a\u{0}b", "a\nb", "\u{1f600}", &long, "Ä"];
    let message = |name: &&str| json!({"body": "b", "attributes": {"fairness_key": name}});
    let messages: Vec<Value> = names.iter().map(message).collect();
    for _ in 0..2 {
        let batch = json!({"messages": messages});
        let (status, answer) = node.post("/v1/topics/t/messages/batch", batch).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(node.receive(6).await.len(), 6);
    let shown = stats(&node).await;
    let items = shown["fairness"]["items"].as_array().unwrap();
    let shown: BTreeSet<String> = all(items, "key")
        .iter()
        .map(|key| key.to_string())
        .collect();
    let expected = ["a\u{fffd}b", "a\nb", "\u{1f600}", &long[..256], "Ä"];
    let expected = expected.map(|name| json!(name).to_string());
    let expected: BTreeSet<String> = expected.into_iter().chain(["null".to_owned()]).collect();
    assert_eq!(shown, expected);
    assert_eq!(node.receive(10).await.len(), 6);
    // A header can set the key, too.
    let request = node.request(reqwest::Method::POST, "/v1/topics/t/messages");
    let sent = request.header("Cursus-Attr-fairness_key", "acme").body("b");
    assert_eq!(sent.send().await.unwrap().status(), 200);
    let received = node.receive(1).await;
    assert_eq!(received[0]["attributes"], json!({"fairness_key": "acme"}));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_block_that_is_corrupt_does_not_hold_up_those_behind_it() {
    let fleet = Fleet::new().await;
    let nodes = [fair(&fleet, json!({})).await, fleet.node().await];
    publish_of(&nodes[0], Some("first"), 1).await;
    publish_of(&nodes[0], Some("acme"), 3).await;
    let mut sql = fleet.database.connect().await;
    for slot in 0..8 {
        let spoil = format!(
            "UPDATE hot_payload_{slot} SET data = set_byte(data, 0, 255) WHERE first_offset = 1"
        );
        sqlx::query(AssertSqlSafe(spoil))
            .execute(&mut sql)
            .await
            .unwrap();
    }
    sql.close().await.unwrap();
    publish_of(&nodes[0], Some("bell"), 3).await;
    let received = nodes[1].receive(10).await;
    assert_eq!(
        (count(&received, "first"), count(&received, "bell")),
        (1, 3)
    );
    assert_eq!(received.len(), 4);
    // It is due again after a pause, and fails again.
    fleet.advance(6);
    publish_of(&nodes[0], Some("cash"), 2).await;
    assert_eq!(count(&nodes[1].receive(10).await, "cash"), 2);
    fleet.finish(nodes).await;
}

#[tokio::test]
async fn in_a_topic_of_two_lanes_each_is_fair_and_they_take_turns() {
    let fleet = Fleet::new().await;
    let (first, mut nodes) = fleet.two_lanes().await;
    let settings = json!({"topic": "t", "fairness": {}});
    let (status, _) = nodes[0].put("/v1/subscriptions/s", settings).await;
    assert_eq!(status, 201);
    for node in &nodes {
        publish_of(node, Some("acme"), 100).await;
    }
    publish_of(&nodes[1], Some("bell"), 10).await;

    let (mut seen, mut receives, mut last_of_bell) = (BTreeSet::new(), 0, 0);
    while seen.len() < 210 {
        let received = nodes[0].receive(10).await;
        receives += 1;
        assert!(!received.is_empty(), "{} of 210", seen.len());
        for message in &received {
            assert!(seen.insert(text(&message["id"])), "{message} comes twice");
        }
        if count(&received, "bell") > 0 {
            last_of_bell = receives;
        }
    }
    assert!(last_of_bell <= 5, "{last_of_bell}");
    nodes.push(first);
    fleet.finish(nodes).await;
}
