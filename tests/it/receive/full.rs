//! What one receive gets: messages that are due again and fresh ones together, and as many as it wants when there are as
//! many, also when many receive at once.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, all, until};
use crate::quota::rates::set;

/// Publishes this many messages, named by their numbers.
async fn publish(node: &Node, numbers: std::ops::Range<usize>) {
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(100) {
        let messages: Vec<Value> = some
            .iter()
            .map(|n| json!({"body": n.to_string()}))
            .collect();
        let (status, answer) = node
            .post("/v1/topics/t/messages/batch", json!({"messages": messages}))
            .await;
        assert_eq!(status, 200, "{answer}");
    }
}

#[tokio::test]
async fn messages_that_are_due_again_come_first_and_fresh_ones_fill_the_answer() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    publish(&node, 0..70).await;
    let first = node.receive(70).await;
    publish(&node, 70..200).await;
    // Three ways to be due again: at once, after a delay, and at the end of the lease.
    let nack = |n: usize, seconds: u64| json!({"receipt": first[n]["receipt"], "action": "nack", "delay_seconds": seconds});
    let results = node
        .settle(json!([nack(0, 0), nack(66, 0), nack(5, 20)]))
        .await;
    assert_eq!(results, vec![json!({}); 3]);

    let at_once = node.receive(4).await;
    fleet.advance(20);
    let delayed = node.receive(3).await;
    fleet.advance(10);
    let rest = node.receive(100).await;

    let attempts = |messages: &[Value]| -> Vec<u64> {
        messages
            .iter()
            .map(|message| message["attempt"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(attempts(&at_once), [2, 2, 1, 1]);
    let mut again = all(&at_once[..2], "body");
    again.sort_by_key(ToString::to_string);
    assert_eq!(
        (again, all(&at_once[2..], "body")),
        (
            vec![&json!("0"), &json!("66")],
            vec![&json!("70"), &json!("71")]
        )
    );
    assert_eq!(
        (attempts(&delayed), all(&delayed, "body")),
        (vec![2, 1, 1], vec![&json!("5"), &json!("72"), &json!("73")])
    );
    // 67 of the first lease are due, and 33 fresh ones make a hundred. Those of the second answer are due too.
    assert_eq!(rest.len(), 100);
    assert_eq!(
        rest.iter()
            .filter(|message| message["attempt"] == 1)
            .count(),
        100 - 67 - 4
    );
    let ids: HashSet<&Value> = all(&rest, "id").into_iter().collect();
    assert_eq!(ids.len(), 100);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn part_of_a_lease_that_is_due_is_handed_out_and_the_rest_keeps_its_receipts() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    publish(&node, 0..10).await;
    let first = node.receive(10).await;
    fleet.advance(31);

    let part = node.receive(4).await;
    let results = node.ack(&all(&first, "receipt")).await;

    assert_eq!(all(&part, "body"), all(&first[..4], "body"));
    assert_eq!(all(&part, "attempt"), [2; 4]);
    let lost = results.iter().map(|result| result.get("error").is_some());
    assert_eq!(
        lost.collect::<Vec<_>>(),
        [[true; 4].as_slice(), &[false; 6]].concat()
    );
    assert_eq!(node.ack(&all(&part, "receipt")).await, vec![json!({}); 4]);
    fleet.advance(3_600);
    assert_eq!(node.receive(10).await, [] as [Value; 0]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn messages_whose_attempts_are_used_up_do_not_hide_those_behind_them() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    let settings = json!({"dead_letter_topic": "dead", "max_attempts": 2});
    node.topic_and_subscription(settings).await;
    publish(&node, 0..3).await;
    for _ in 0..3 {
        assert_eq!(node.receive(1).await.len(), 1);
    }
    fleet.advance(31);
    for _ in 0..3 {
        assert_eq!(node.receive(1).await[0]["attempt"], 2);
    }
    fleet.advance(1);
    publish(&node, 3..5).await;
    assert_eq!(node.receive(2).await.len(), 2);
    // Three leases of one message are used up, and after them a lease of two is due.
    fleet.advance(31);

    let (one, other) = tokio::join!(node.receive(1), node.receive(1));

    let mut bodies = [one, other].concat();
    bodies.sort_by_key(|message| message["id"].to_string());
    assert_eq!(all(&bodies, "body"), ["3", "4"]);
    fleet.finish([node]).await;
}

/// Receives `most` from all nodes in turn, `receivers` at once; returns all bodies with the size of each answer.
async fn receive_at_once(nodes: &[Node], receivers: usize, most: u32) -> (Vec<String>, Vec<usize>) {
    let nodes = nodes.iter().cycle().take(receivers);
    let answers = join_all(nodes.map(|node| node.receive(most))).await;
    let sizes = answers.iter().map(Vec::len).collect();
    let bodies = answers
        .iter()
        .flatten()
        .map(|message| crate::harness::text(&message["body"]));
    (bodies.collect(), sizes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_at_once_all_get_as_many_as_they_want() {
    let fleet = Fleet::new().await;
    let node = [fleet.node().await];
    node[0].topic_and_subscription(json!({})).await;
    publish(&node[0], 0..6_400).await;

    let (fresh, fresh_sizes) = receive_at_once(&node, 64, 100).await;
    fleet.advance(31);
    let (due, due_sizes) = receive_at_once(&node, 64, 100).await;

    assert_eq!(fresh_sizes, vec![100; 64]);
    assert_eq!(due_sizes, vec![100; 64]);
    for bodies in [fresh, due] {
        assert_eq!(bodies.into_iter().collect::<HashSet<_>>().len(), 6_400);
    }
    let [node] = node;
    fleet.finish([node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_receivers_than_one_claim_serves_all_get_as_many_as_they_want() {
    let fleet = Fleet::new().await;
    let node = [fleet.node().await];
    node[0].topic_and_subscription(json!({})).await;
    // More than one turn claims, in messages and, as each is a lease of its own when it is due, in leases.
    publish(&node[0], 0..9_000).await;

    let (fresh, sizes) = receive_at_once(&node, 90, 100).await;

    assert_eq!(sizes, vec![100; 90]);
    assert_eq!(fresh.into_iter().collect::<HashSet<_>>().len(), 9_000);
    let [node] = node;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_tenant_with_too_much_in_flight_gets_only_what_is_due_again() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    publish(&node, 0..20).await;
    set(&fleet, &node, json!({"in_flight_messages": 6})).await;
    let first = node.receive(4).await;
    assert_eq!(first.len(), 4);
    fleet.advance(10);
    assert_eq!(node.receive(9).await.len(), 2, "no more than fit");

    fleet.advance(21);
    let again = until("it is counted", async || {
        let (status, answer) = node
            .post("/v1/subscriptions/s/receive", json!({"max_messages": 9}))
            .await;
        let messages = answer["messages"].as_array().cloned().unwrap_or_default();
        assert!(status == 200 || status == 429, "{answer}");
        (!messages.is_empty()).then_some(messages)
    })
    .await;
    let (status, refused) = node
        .post("/v1/subscriptions/s/receive", json!({"max_messages": 9}))
        .await;

    assert_eq!(all(&again, "body"), all(&first, "body"), "none is fresh");
    assert_eq!((status, &refused["code"]), (429, &json!("quota_exceeded")));
    // Nacked, they come back although nothing else may.
    let nacks: Vec<Value> = again[..2]
        .iter()
        .map(|message| json!({"receipt": message["receipt"], "action": "nack"}))
        .collect();
    assert_eq!(node.settle(json!(nacks)).await, vec![json!({}); 2]);
    let nacked = node.receive(9).await;
    assert_eq!(
        (nacked.len(), all(&nacked, "attempt")),
        (2, vec![&json!(3); 2])
    );
    fleet.finish([node]).await;
}
