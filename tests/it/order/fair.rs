//! Fairness inside a subscription over HTTP: the order of customers, its statistics, and its settings. `fair_life`
//! tests all else that happens to its leases.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::Connection;

use crate::harness::{Fleet, Node, text};

const BATCH: &str = "/v1/topics/t/messages/batch";

/// Publishes `count` messages, with or without a customer. Each body has the customer and a number.
pub(crate) async fn publish_of(node: &Node, customer: Option<&str>, count: usize) {
    let all: Vec<usize> = (0..count).collect();
    for some in all.chunks(100) {
        let message = |n: &usize| match customer {
            Some(name) => {
                json!({"body": format!("{name} {n}"), "attributes": {"fairness_key": name}})
            }
            None => json!({"body": format!("nobody {n}")}),
        };
        let messages: Vec<Value> = some.iter().map(message).collect();
        let (status, answer) = node.post(BATCH, json!({"messages": messages})).await;
        assert_eq!(status, 200, "{answer}");
    }
}

/// The number of these messages by customer.
pub(crate) fn whose(received: &[Value]) -> BTreeMap<String, usize> {
    let mut whose = BTreeMap::new();
    for message in received {
        let body = text(&message["body"]);
        let (customer, _) = body.split_once(' ').unwrap();
        *whose.entry(customer.to_owned()).or_default() += 1;
    }
    whose
}

pub(crate) fn count(received: &[Value], customer: &str) -> usize {
    whose(received).get(customer).copied().unwrap_or_default()
}

async fn fair(fleet: &Fleet, weights: Value) -> Node {
    let node = fleet.node().await;
    let fairness = json!({"fairness": {"weights": weights}});
    node.topic_and_subscription(fairness).await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_one_customer_does_not_delay_another() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    publish_of(&node, Some("acme"), 20_000).await;
    assert_eq!(count(&node.receive(10).await, "acme"), 10);
    publish_of(&node, Some("bell"), 10).await;

    // Each receive reads 4,096 of the 20,010 messages, so the fourth one from here reads the last. Then the customers
    // share.
    let (mut receives, mut of_bell, mut of_acme) = (0, 0, 0);
    while of_bell < 10 {
        let received = node.receive(10).await;
        assert_eq!(received.len(), 10);
        of_bell += count(&received, "bell");
        of_acme += count(&received, "acme");
        receives += 1;
    }
    println!("after {receives} receives of 10");
    assert!(receives <= 6, "{receives}");
    assert!(of_acme > 0);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn ten_customers_get_one_message_each_of_a_receive_of_ten() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    publish_of(&node, Some("c0"), 500).await;
    for customer in 1..9 {
        publish_of(&node, Some(&format!("c{customer}")), 10).await;
    }
    publish_of(&node, None, 10).await;
    for round in 0..10 {
        let received = node.receive(10).await;
        let whose = whose(&received);
        assert_eq!((received.len(), whose.len()), (10, 10), "{whose:?}");
        let last = format!("nobody {round}");
        assert!(received.iter().any(|message| message["body"] == last));
    }
    assert_eq!(whose(&node.receive(100).await).len(), 1);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn weights_hold_in_any_hundred_messages_while_both_wait() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({"acme": 3})).await;
    publish_of(&node, Some("bell"), 200).await;
    publish_of(&node, Some("acme"), 600).await;
    let mut tens = Vec::new();
    for size in [10, 10, 30, 10, 10, 10, 20, 100, 100, 10, 10, 10, 10, 10] {
        let received = node.receive(size).await;
        assert_eq!(received.len(), size as usize);
        let part = count(&received, "acme") * 4;
        assert!(part.abs_diff(received.len() * 3) <= 4, "{part} of {size}");
        tens.push((received.len(), count(&received, "acme")));
    }
    for from in 0..tens.len() {
        let (mut all, mut of_acme) = (0, 0);
        for (messages, own) in &tens[from..] {
            (all, of_acme) = (all + messages, of_acme + own);
            if all >= 100 {
                assert!((of_acme * 4).abs_diff(all * 3) <= 8, "{of_acme} of {all}");
            }
        }
    }
    // A changed weight holds from the next receive on, also for messages that wait already.
    let path = "/v1/subscriptions/s";
    node.put(path, json!({"fairness": {"weights": {"bell": 3}}}))
        .await;
    let received = node.receive(100).await;
    assert!(count(&received, "bell").abs_diff(75) <= 1);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn customers_take_turns_among_receivers_on_two_nodes() {
    let fleet = Fleet::new().await;
    let nodes = [fair(&fleet, json!({})).await, fleet.node().await];
    publish_of(&nodes[0], Some("acme"), 300).await;
    publish_of(&nodes[1], Some("bell"), 100).await;
    let mut received = Vec::new();
    while received.len() < 200 {
        let (one, other) = tokio::join!(nodes[0].receive(10), nodes[1].receive(10));
        received.extend(one.into_iter().chain(other));
    }
    assert_eq!(count(&received, "bell"), 100);
    assert_eq!(nodes[1].receive(100).await.len(), 100);
    fleet.finish(nodes).await;
}

#[tokio::test]
async fn stats_show_the_customers_that_wait_and_the_next_one() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({"acme": 2})).await;
    publish_of(&node, Some("acme"), 30).await;
    publish_of(&node, Some("bell"), 20).await;
    publish_of(&node, None, 1).await;
    let (_, before) = node.get("/v1/subscriptions/s/stats").await;
    assert_eq!(before["fairness"], json!({"keys": 0, "items": []}));
    assert_eq!(before["ready"], 51);

    assert_eq!(node.receive(7).await.len(), 7);
    fleet.advance(2);
    let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
    let item = |key: Value, weight: u32, [waiting, in_flight, handed_out]: [u32; 3]| json!({"key": key, "weight": weight, "waiting": waiting, "in_flight": in_flight, "handed_out": handed_out});
    let mut acme = item(json!("acme"), 2, [26, 4, 4]);
    let mut bell = item(json!("bell"), 1, [18, 2, 2]);
    acme["next_in"] = json!(0);
    bell["next_in"] = json!(1);
    let nobody = item(Value::Null, 1, [0, 1, 1]);
    let expected = json!({"keys": 3, "items": [acme, bell, nobody]});
    assert_eq!(stats["fairness"], expected, "{stats:#}");
    // Waiting messages are ready, not in flight.
    let numbers = ["ready", "in_flight", "delayed", "backlog"].map(|name| &stats[name]);
    assert_eq!(numbers, [44, 7, 0, 51]);
    assert_eq!(stats["oldest_ready_age_seconds"], 2.0);

    let (status, shown) = node.get("/v1/subscriptions/s").await;
    assert_eq!(
        (status, &shown["fairness"]),
        (200, &json!({"weights": {"acme": 2}}))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn at_most_twenty_customers_are_shown_those_with_most_messages_first() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    let names: Vec<String> = (1..=30).map(|n| format!("c{n}")).collect();
    for (name, count) in names.iter().zip(1..) {
        publish_of(&node, Some(name), count).await;
    }
    node.receive(1).await;
    let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
    let items = stats["fairness"]["items"].as_array().unwrap();
    assert_eq!((&stats["fairness"]["keys"], items.len()), (&json!(30), 20));
    for (item, waiting) in items.iter().zip((11..=30).rev()) {
        assert_eq!(
            (&item["waiting"], &item["key"]),
            (&json!(waiting), &json!(format!("c{waiting}")))
        );
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_plain_subscription_of_the_same_topic_reads_in_the_order_of_the_log() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({})).await;
    let (status, _) = node
        .put("/v1/subscriptions/plain", json!({"topic": "t"}))
        .await;
    assert_eq!(status, 201);
    publish_of(&node, Some("acme"), 150).await;
    publish_of(&node, Some("bell"), 50).await;
    assert_eq!(count(&node.receive(100).await, "bell"), 50);
    for _ in 0..2 {
        let ask = json!({"max_messages": 75});
        let (_, plain) = node.post("/v1/subscriptions/plain/receive", ask).await;
        assert_eq!(count(plain["messages"].as_array().unwrap(), "acme"), 75);
    }
    let (_, stats) = node.get("/v1/subscriptions/plain/stats").await;
    assert_eq!(stats.get("fairness"), None);
    let mut sql = fleet.database.connect().await;
    let fair: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM subscription s JOIN lease l USING (subscription_id)
         WHERE s.name = 'plain' AND (l.waiting OR l.order_key IS NOT NULL)",
    )
    .fetch_one(&mut sql)
    .await
    .unwrap();
    assert_eq!(fair, 0);
    sql.close().await.unwrap();
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_refused_by_its_pointer_and_changes_nothing() {
    let fleet = Fleet::new().await;
    let node = fair(&fleet, json!({"acme": 3})).await;
    let many: BTreeMap<String, u32> = (0..101).map(|n| (n.to_string(), 1)).collect();
    let long = "x".repeat(129);
    for (fairness, pointer) in [
        (json!({"weights": {"acme": 0}}), "/fairness/weights/acme"),
        (json!({"weights": {"a/b": 101}}), "/fairness/weights/a~1b"),
        (json!({"weights": {"": 1}}), "/fairness/weights/"),
        (
            json!({"weights": {&long: 1}}),
            &*format!("/fairness/weights/{long}"),
        ),
        (json!({"weights": {"acme": 1.5}}), "/fairness/weights/acme"),
        (json!({"weights": {"acme": "3"}}), "/fairness/weights/acme"),
        (json!({"weights": many}), "/fairness/weights"),
        (json!({"weights": []}), "/fairness/weights"),
        (json!({"weight": {}}), "/fairness/weight"),
        (json!([]), "/fairness"),
        (json!(true), "/fairness"),
    ] {
        let settings = json!({"fairness": fairness, "max_attempts": 7});
        let (status, problem) = node.put("/v1/subscriptions/s", settings).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")));
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let (_, shown) = node.get("/v1/subscriptions/s").await;
    assert_eq!(shown["fairness"], json!({"weights": {"acme": 3}}));
    assert_eq!(shown["max_attempts"], 16);

    // An absent setting and null keep it, `enabled` removes it, and an empty object of weights is fairness without weights.
    let put = async |settings: Value| {
        let (status, shown) = node.put("/v1/subscriptions/s", settings).await;
        assert_eq!(status, 200, "{shown}");
        shown.get("fairness").cloned()
    };
    let kept = json!({"weights": {"acme": 3}});
    assert_eq!(put(json!({"max_attempts": 5})).await, Some(kept.clone()));
    assert_eq!(put(json!({"fairness": null})).await, Some(kept));
    let off = json!({"fairness": {"enabled": false}});
    assert_eq!(put(off).await, None);
    assert_eq!(put(json!({"max_attempts": 6})).await, None);
    let none = json!({"weights": {}});
    assert_eq!(put(json!({"fairness": {}})).await, Some(none.clone()));
    assert_eq!(
        put(json!({"fairness": {"weights": null}})).await,
        Some(none)
    );
    fleet.finish([node]).await;
}
