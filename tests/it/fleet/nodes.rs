//! What nodes learn of each other: settings that change, subscriptions that go, room that others make, transactions that
//! meet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cursus::store::turn::{self, Claim, LeaseAction, LeaseChange, TurnInput};
use cursus::store::{LaneId, LeaseId, SubscriptionId, dedup};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::harness::{Fleet, all, until};

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
async fn tables_of_keys_are_truncated_when_all_their_windows_are_over() {
    let fleet = Fleet::new().await;
    let mut connection = fleet.database.connect().await;
    for table in 0..dedup::TABLES {
        let key = format!(
            "INSERT INTO dedup_{table} (lane_id, key, first_offset, expires_at) VALUES (1, gen_random_uuid(), 0, '2029-01-01')"
        );
        sqlx::query(AssertSqlSafe(key))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let mut filled = async || -> Vec<i64> {
        let count = "SELECT ARRAY[(SELECT count(*) FROM dedup_0), (SELECT count(*) FROM dedup_1), (SELECT count(*) FROM dedup_2),
                                  (SELECT count(*) FROM dedup_3), (SELECT count(*) FROM dedup_4), (SELECT count(*) FROM dedup_5)]";
        let counts = sqlx::query_scalar(count).fetch_one(&mut connection).await;
        counts.unwrap()
    };
    // To the middle of a time in which the tables 1 and 4 take new keys.
    let (short, long) = (
        i64::from(dedup::SHORT_SECONDS),
        i64::from(dedup::LONG_SECONDS),
    );
    let middle = long + long / 2 + short + short / 2;
    let now = fleet.clock.now().unwrap().unix_timestamp();
    let seconds = (middle - now).rem_euclid(3 * long);
    fleet
        .clock
        .advance(Duration::from_secs(seconds.unsigned_abs()));
    let node = fleet.node().await;
    until("the tables that are over are truncated", async || {
        (filled().await == [1, 1, 0, 1, 1, 0]).then_some(())
    })
    .await;
    fleet.clock.advance(Duration::from_secs(600));
    until("one more is truncated", async || {
        (filled().await == [0, 1, 0, 1, 1, 0]).then_some(())
    })
    .await;
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
    assert_eq!(again, [json!({})]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn two_nodes_can_extend_different_parts_of_a_lease_at_once() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let batch = json!({"messages": [{"body": "a"}, {"body": "b"}, {"body": "c"}, {"body": "d"}]});
    node.post("/v1/topics/t/messages/batch", batch).await;
    let received = node.receive(4).await;
    let extend = |message: &Value, seconds: u32| json!({"receipt": message["receipt"], "action": "extend", "visibility_timeout_seconds": seconds});
    let parts = json!([extend(&received[2], 100), extend(&received[3], 100)]);
    node.settle(parts).await;
    let mut look = fleet.database.connect().await;
    let lane = LaneId::new(one(&mut look, "SELECT lane_id FROM lane").await);
    let subscription = one(&mut look, "SELECT subscription_id FROM subscription").await;
    let lease = LeaseId::new(one(&mut look, "SELECT min(lease_id) FROM lease").await);
    // Another node extends the first message, which is in one part, and this one the third, which is in the other.
    let store = fleet.database.store();
    let mut other = store.tx("extend").await.unwrap();
    let change = LeaseChange {
        lane,
        subscription: SubscriptionId::new(subscription),
        lease,
        action: LeaseAction::Hide(200),
        mask: 0b0001,
        max_attempts: None,
    };
    let input = TurnInput {
        changes: vec![change],
        ..TurnInput::default()
    };
    let output = turn::run(&mut other, fleet.clock.now(), &input).await;
    assert_eq!(output.unwrap().changed, [0b0001]);
    let commit = async {
        a_session_waits(&mut look).await;
        other.commit().await.unwrap();
    };
    let (results, ()) = tokio::join!(node.settle(json!([extend(&received[2], 300)])), commit);
    assert_eq!(results[0]["visible_until"], "2030-01-01T00:05:00.000Z");
    assert_eq!(
        node.ack(&all(&received, "receipt")).await,
        vec![json!({}); 4]
    );
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
        fresh: 1,
        visibility_seconds: 30,
        max_attempts: None,
        scan: None,
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

#[tokio::test]
async fn what_waits_behind_a_stuck_transaction_is_refused_in_time() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({"fairness": {}})).await;
    node.publish("a").await;
    let mut stuck = fleet.database.connect().await;
    let hold = [
        "BEGIN",
        "SELECT FROM topic FOR UPDATE",
        "SELECT FROM cursor FOR UPDATE",
    ];
    for sql in hold {
        sqlx::query(sql).execute(&mut stuck).await.unwrap();
    }

    let began = Instant::now();
    let new = node.request(Method::PUT, "/v1/subscriptions/new");
    let receive = node.request(Method::POST, "/v1/subscriptions/s/receive");
    let (new, receive) = tokio::join!(
        new.json(&json!({"topic": "t"})).send(),
        receive.json(&json!({})).send()
    );
    let took = began.elapsed();
    for answer in [new.unwrap(), receive.unwrap()] {
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "unavailable", "{problem}");
    }
    assert!(took < Duration::from_secs(15), "{took:?}");
    // What needs none of these locks goes on.
    node.publish("b").await;

    sqlx::query("ROLLBACK").execute(&mut stuck).await.unwrap();
    let (status, _) = node
        .put("/v1/subscriptions/new", json!({"topic": "t"}))
        .await;
    assert_eq!(status, 201);
    assert_eq!(all(&node.receive(10).await, "body"), ["a", "b"]);
    fleet.finish([node]).await;
}
