//! Acks that are sent again because their answer was lost: done is told from given to somebody else.

use cursus::engine::lease::expire_lost::ExpireLost;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, all, code};

/// The outcome of an ack of one receipt.
async fn ack(node: &Node, message: &Value) -> String {
    let results = node.ack(&[&message["receipt"]]).await;
    match results[0].get("error") {
        None => "done".to_owned(),
        Some(_) => code(&results[0]).to_owned(),
    }
}

/// Plain and fair subscriptions: the first by the turn, the others off the turn.
const KINDS: [&str; 2] = [r"{}", r#"{"fairness": {}}"#];

async fn start(fleet: &Fleet, kind: &str) -> Node {
    let node = fleet.node().await;
    let settings: Value = serde_json::from_str(kind).unwrap();
    node.topic_and_subscription(settings).await;
    node
}

#[tokio::test]
async fn a_repeated_ack_is_done_on_any_node_and_after_the_death_of_the_first() {
    for kind in KINDS {
        let fleet = Fleet::new().await;
        let (node, other) = (start(&fleet, kind).await, fleet.node().await);
        let batch: Vec<Value> = (0..10).map(|n| json!({"body": n.to_string()})).collect();
        node.post("/v1/topics/t/messages/batch", json!({"messages": batch}))
            .await;
        let received = node.receive(10).await;
        // A part of a lease, and a message that was kept for longer before.
        let keep = json!({"changes": [{"receipt": received[1]["receipt"], "visibility_timeout_seconds": 90}]});
        node.results("visibility", keep).await;
        assert_eq!(ack(&node, &received[0]).await, "done");
        assert_eq!(ack(&node, &received[1]).await, "done");
        assert_eq!(ack(&node, &received[0]).await, "done");
        node.stop().await;

        for message in &received {
            assert_eq!(ack(&other, message).await, "done");
        }
        fleet.advance(3_600);
        for message in &received {
            assert_eq!(ack(&other, message).await, "done", "long after");
        }
        assert_eq!(other.receive(10).await, [] as [Value; 0]);
        fleet.finish([other]).await;
    }
}

#[tokio::test]
async fn an_ack_is_lost_when_its_message_was_given_to_somebody_else_or_has_failed() {
    for kind in KINDS {
        let fleet = Fleet::new().await;
        let node = start(&fleet, kind).await;
        node.topic("dead").await;
        let settings = json!({"topic": "t", "dead_letter_topic": "dead"});
        node.put("/v1/subscriptions/s", settings).await;
        for body in ["expired", "nacked", "dead", "acked"] {
            node.publish(body).await;
        }
        let first = node.receive(4).await;
        let [expired, nacked, dead, acked] = [0, 1, 2, 3].map(|at| &first[at]);
        let items = json!([
            {"receipt": nacked["receipt"], "action": "nack"},
            {"receipt": dead["receipt"], "action": "dead_letter"},
            {"receipt": acked["receipt"], "action": "ack"},
        ]);
        assert_eq!(node.settle(items).await, vec![json!({}); 3]);
        fleet.advance(31);
        let second = node.receive(4).await;
        assert_eq!(second.len(), 2);

        // Before and after the others have done them.
        for _ in 0..2 {
            for lost in [expired, nacked, dead] {
                assert_eq!(ack(&node, lost).await, "lease_lost", "{lost}");
            }
            assert_eq!(ack(&node, acked).await, "done");
            for message in &second {
                assert_eq!(ack(&node, message).await, "done");
            }
        }
        // Other repeats cannot be told from late ones.
        for action in ["nack", "extend", "dead_letter"] {
            let item = json!([{"receipt": acked["receipt"], "action": action}]);
            assert_eq!(code(&node.settle(item).await[0]), "lease_lost");
        }
        fleet.finish([node]).await;
    }
}

#[tokio::test]
async fn what_is_not_known_any_more_is_lost_and_never_done() {
    let fleet = Fleet::new().await;
    let node = start(&fleet, "{}").await;
    for body in ["failed", "acked"] {
        node.publish(body).await;
    }
    let first = node.receive(1).await;
    let acked = node.receive(1).await;
    assert_eq!(ack(&node, &acked[0]).await, "done");
    fleet.advance(31);
    let again = node.receive(1).await;
    assert_eq!(all(&again, "body"), ["failed"]);

    fleet.advance(500);
    fleet.run(ExpireLost::default()).await;
    assert_eq!(ack(&node, &acked[0]).await, "done");
    assert_eq!(ack(&node, &first[0]).await, "lease_lost");
    fleet.advance(200);
    fleet.run(ExpireLost::default()).await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM lost_lease WHERE bits <> 0")
        .fetch_one(&mut fleet.database.connect().await)
        .await
        .unwrap();
    assert_eq!(kept, 0);
    assert_eq!(ack(&node, &first[0]).await, "lease_lost");
    // This lease is younger than all that was forgotten.
    assert_eq!(ack(&node, &again[0]).await, "done");
    assert_eq!(ack(&node, &again[0]).await, "done");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn two_acks_of_one_message_at_the_same_moment_are_both_done() {
    let fleet = Fleet::new().await;
    let node = start(&fleet, "{}").await;
    node.publish("a").await;
    let received = node.receive(1).await;
    let receipt = &received[0]["receipt"];

    let acks = futures_util::future::join_all((0..20).map(async |_| {
        // Twice in one request, too.
        node.ack(&[receipt, receipt]).await
    }));
    for results in acks.await {
        assert_eq!(results, [json!({}), json!({})]);
    }
    fleet.finish([node]).await;
}
