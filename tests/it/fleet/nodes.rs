//! What nodes learn of each other: settings that change, subscriptions that go, room that others make, transactions that
//! meet.

use std::sync::Arc;
use std::time::Duration;

use cursus::store::turn::{self, Claim, TurnInput};
use cursus::store::{LaneId, SubscriptionId};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::harness::{Fleet, all, code, until};

async fn one(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

/// Waits until a session waits for a lock in this database.
async fn a_session_waits(look: &mut PgConnection) {
    until("a session waits for a lock", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (one(look, waiting).await > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_another_node_acked_makes_room_under_max_in_flight() {
    let fleet = Fleet::new().await;
    let (a, b) = (fleet.node().await, fleet.node().await);
    a.topic_and_subscription(json!({"max_in_flight": 10})).await;
    for n in 0..20 {
        a.publish(&n.to_string()).await;
    }
    let first = a.receive(100).await;
    assert_eq!((first.len(), a.receive(100).await.len()), (10, 0));
    b.ack(&all(&first, "receipt")).await;

    let more = until("the first node counts again", async || {
        let more = a.receive(100).await;
        (!more.is_empty()).then_some(more)
    })
    .await;
    assert_eq!(more.len(), 10);
    // A node that comes up now does not begin at zero.
    let c = fleet.node().await;
    a.publish("one too many").await;
    assert_eq!(c.receive(100).await, [] as [Value; 0]);
    fleet.finish([a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_learns_that_its_subscription_was_deleted_on_another_node() {
    let fleet = Fleet::new().await;
    let (a, b) = (Arc::new(fleet.node().await), fleet.node().await);
    a.topic_and_subscription(json!({})).await;
    // Before and after the other node has asked by name again.
    for made_again in [false, true] {
        let waiting = {
            let a = a.clone();
            tokio::spawn(async move {
                let ask = json!({"wait_seconds": 20});
                a.post("/v1/subscriptions/s/receive", ask).await
            })
        };
        let mut look = fleet.database.connect().await;
        until("it waits", async || {
            let seen = "SELECT count(*) FROM node";
            let (_, stats) = a.get("/v1/subscriptions/s/stats").await;
            (one(&mut look, seen).await == 2 && stats["ready"] == 0).then_some(())
        })
        .await;
        b.delete("/v1/subscriptions/s").await;
        if made_again {
            b.put("/v1/subscriptions/s", json!({"topic": "t"})).await;
            until("the other node has noticed", async || {
                a.post("/v1/subscriptions/s/receive", json!({})).await;
                waiting.is_finished().then_some(())
            })
            .await;
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        let (status, answer) = ended.expect("it does not wait to the end").unwrap();
        assert_eq!((status, &answer["code"]), (404, &json!("not_found")));
        b.put("/v1/subscriptions/s", json!({"topic": "t"})).await;
    }
    let a = Arc::into_inner(a).expect("the receivers have ended");
    fleet.finish([a, b]).await;
}

#[tokio::test]
async fn a_put_that_changes_nothing_is_no_news_to_other_nodes() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({"max_attempts": 7}))
        .await;
    let mut connection = fleet.database.connect().await;
    let version = "SELECT catalog_version FROM installation";
    let before = one(&mut connection, version).await;
    let (_, topic) = node.get("/v1/topics/t").await;
    fleet.advance(5);
    for _ in 0..3 {
        let (status, same) = node.put("/v1/topics/t", json!({})).await;
        assert_eq!((status, &same), (200, &topic));
        let settings = json!({"topic": "t", "max_attempts": 7});
        let (status, answer) = node.put("/v1/subscriptions/s", settings).await;
        assert_eq!((status, &answer["max_attempts"]), (200, &json!(7)));
    }
    assert_eq!(one(&mut connection, version).await, before);
    node.put("/v1/topics/t", json!({"keep_consumed": true}))
        .await;
    node.put("/v1/subscriptions/s", json!({"max_attempts": 8}))
        .await;
    assert_eq!(one(&mut connection, version).await, before + 2);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn keys_that_are_over_are_cleared_away_as_fast_as_they_come() {
    let fleet = Fleet::new().await;
    let mut connection = fleet.database.connect().await;
    let mut come = 0;
    let mut add = async |connection: &mut PgConnection, count: i64| {
        let keys = "INSERT INTO dedup (topic_id, scope, key, fingerprint, expires_at)
                    SELECT 1, 0, n::text, '', '2029-01-01' FROM generate_series($1 + 1, $1 + $2) n";
        let keys = sqlx::query(keys).bind(come).bind(count);
        keys.execute(connection).await.unwrap();
        come += count;
    };
    let left = "SELECT count(*) FROM dedup";
    add(&mut connection, 60_000).await;
    let node = fleet.node().await;
    until("the backlog is cleared away while more come", async || {
        add(&mut connection, 100).await;
        (one(&mut connection, left).await <= 1_000).then_some(())
    })
    .await;
    until("all are cleared away", async || {
        (one(&mut connection, left).await == 0).then_some(())
    })
    .await;
    fleet.finish([node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_with_each_others_topics_are_made_at_the_same_time() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("one").await;
    node.topic("two").await;
    for n in 0..25 {
        let (a, b) = (
            format!("/v1/subscriptions/a{n}"),
            format!("/v1/subscriptions/b{n}"),
        );
        let (a, b) = tokio::join!(
            node.put(&a, json!({"topic": "one", "dead_letter_topic": "two"})),
            node.put(&b, json!({"topic": "two", "dead_letter_topic": "one"})),
        );
        assert_eq!((a.0, b.0), (201, 201), "{} {}", a.1, b.1);
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_message_that_is_split_off_while_it_is_extended_keeps_its_receipt() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let batch = json!({"messages": [{"body": "a"}, {"body": "b"}]});
    node.post("/v1/topics/t/messages/batch", batch).await;
    let received = node.receive(2).await;
    let mut other = fleet.database.connect().await;
    let mut look = fleet.database.connect().await;
    // Another node extends the second message.
    let mut split = other.begin().await.unwrap();
    for sql in [
        "UPDATE lease SET pending = 1",
        "INSERT INTO lease SELECT lane_id, subscription_id, lease_id, 2, base, 2, deadline, attempt, delayed FROM lease",
    ] {
        sqlx::query(sql).execute(&mut *split).await.unwrap();
    }
    let item = json!([{"receipt": received[1]["receipt"], "action": "extend"}]);
    let extend = node.settle(item);
    let commit = async {
        a_session_waits(&mut look).await;
        split.commit().await.unwrap();
    };
    let (results, ()) = tokio::join!(extend, commit);
    assert!(results[0].get("error").is_none(), "{results:?}");
    assert_eq!(
        node.ack(&all(&received, "receipt")).await,
        vec![json!({}); 2]
    );
    let again = node.ack(&[&received[1]["receipt"]]).await;
    assert_eq!(code(&again[0]), "lease_lost");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_claim_that_ends_while_its_subscription_is_deleted_leaves_no_lease() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for body in ["a", "b"] {
        node.publish(body).await;
    }
    node.receive(1).await;
    let mut look = fleet.database.connect().await;
    let lane = LaneId::new(one(&mut look, "SELECT lane_id FROM lane").await);
    let subscription = one(&mut look, "SELECT subscription_id FROM subscription").await;
    let subscription = SubscriptionId::new(subscription);
    // Another node claims the second message.
    let store = fleet.database.store();
    let mut claim = store.tx("claim").await.unwrap();
    let claims = vec![Claim {
        lane,
        subscription,
        wanted: 1,
        visibility_seconds: 30,
    }];
    let input = TurnInput {
        claims,
        ..TurnInput::default()
    };
    let output = turn::run(&mut claim, fleet.clock.now(), &input).await;
    assert_eq!(output.unwrap().leased.len(), 1);
    let commit = async {
        a_session_waits(&mut look).await;
        claim.commit().await.unwrap();
    };
    let (deleted, ()) = tokio::join!(node.delete("/v1/subscriptions/s"), commit);
    assert_eq!(deleted.0, 204, "{}", deleted.1);
    for left in ["SELECT count(*) FROM lease", "SELECT count(*) FROM cursor"] {
        assert_eq!(one(&mut look, left).await, 0, "{left}");
    }
    store.close().await;
    fleet.finish([node]).await;
}
