//! What events go through to the URLs of sinks: in order, by the node that drives the endpoint, out of reach of tenants, and
//! at no cost.

use std::time::{Duration, Instant};

use cursus::engine::events;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::events::deliver::{emit, numbers, until_idle, url_sink};
use crate::events::sinks::sink;
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;
use crate::harness::{Fleet, Node, all, until};

/// The node of these that drives the only endpoint.
async fn driver(fleet: &Fleet, nodes: [Node; 2]) -> (Node, Node) {
    let mut sql = fleet.database.connect().await;
    let id = until("a node drives it", async || {
        sqlx::query_scalar::<_, Option<uuid::Uuid>>("SELECT driver FROM push_endpoint")
            .fetch_one(&mut sql)
            .await
            .unwrap()
    })
    .await;
    let [one, other] = nodes;
    if one.engine.node() == id {
        (one, other)
    } else {
        (other, one)
    }
}

/// Relays what waits, and forgets what was delivered, whichever node has the duty.
pub(super) async fn relay(node: &Node) {
    for relay in events::claim(&node.engine, 32).await.unwrap() {
        relay.run(&CancellationToken::new()).await;
    }
    events::settle(&node.engine).await.unwrap();
}

/// How many rows of the system there are in these tables.
async fn of_system(fleet: &Fleet) -> i64 {
    let count = "SELECT (SELECT count(*) FROM topic WHERE tenant_id < 0) + (SELECT count(*) FROM subscription WHERE tenant_id < 0)
                      + (SELECT count(*) FROM push_endpoint WHERE tenant_id < 0)";
    let mut sql = fleet.database.connect().await;
    sqlx::query_scalar(count).fetch_one(&mut sql).await.unwrap()
}

#[tokio::test]
async fn events_keep_their_order_while_each_is_refused_at_first() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    url_sink(&node, "e", &receiver).await;
    for _ in 0..12 {
        receiver.next([Does::Says(500), Does::Says(204)]);
    }
    for number in 0..12 {
        emit(&fleet, "default", number).await;
    }
    until("all is delivered", async || {
        fleet.advance(3_600);
        (sink(&node, "e").await["waiting"] == 0).then_some(())
    })
    .await;
    let expected: Vec<u64> = (0..12).flat_map(|number| [number, number]).collect();
    assert_eq!(numbers(&receiver), expected);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_list_that_is_refused_comes_again_before_what_came_meanwhile() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    let settings = json!({"url": receiver.url(), "events": ["budget"], "batch": true});
    assert_eq!(node.put("/v1/event-sinks/e", settings.clone()).await.0, 201);
    receiver.next([Does::Says(500), Does::Says(500)]);
    for number in 0..70 {
        emit(&fleet, "default", number).await;
    }
    for attempts in 1..=2 {
        until("it fails", async || {
            let sink = sink(&node, "e").await;
            (sink["failed_attempts"] == attempts).then_some(())
        })
        .await;
        emit(&fleet, "default", 69 + attempts).await;
        fleet.advance(3_600);
    }
    until_idle(&node, "e").await;
    let of = |sent: &crate::harness::endpoint::Posted| -> Vec<u64> {
        let events = sent.json();
        let events = events.as_array().unwrap().iter();
        events
            .map(|event| event["data"]["number"].as_u64().unwrap())
            .collect()
    };
    let sent: Vec<Vec<u64>> = receiver.sent().iter().map(of).collect();
    let taken: Vec<u64> = sent[2..].concat();
    assert_eq!(taken, (0..72).collect::<Vec<u64>>());
    assert!(sent.iter().all(|sent| sent.is_sorted()), "{sent:?}");
    assert_eq!((sent[0][0], sent[1][0], sent[2][0]), (0, 0, 0));
    let first = &receiver.sent()[0];
    assert_eq!(
        first.headers["content-type"],
        "application/cloudevents-batch+json"
    );
    let ours = first.headers.keys().filter(|name| {
        let name = name.as_str();
        name.starts_with("cursus-") || name.starts_with("ce-")
    });
    assert_eq!(ours.count(), 0, "{:?}", first.headers);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn the_sinks_of_a_node_that_died_are_taken_over_within_ten_seconds() {
    let fleet = Fleet::new().await;
    let nodes = [fleet.node().await, fleet.node().await];
    let receiver = Endpoint::new().await;
    url_sink(&nodes[0], "e", &receiver).await;
    let (dead, alive) = driver(&fleet, nodes).await;
    emit(&fleet, "default", 1).await;
    until_idle(&alive, "e").await;
    dead.fall_silent();
    let began = Instant::now();
    let mut sql = fleet.database.connect().await;
    sqlx::query(
        "INSERT INTO node (node_id, version, started_at, seen_at) VALUES ($1, 'x', now(), now() - interval '2 s')
         ON CONFLICT (node_id) DO NOTHING",
    )
    .bind(dead.engine.node())
    .execute(&mut sql)
    .await
    .unwrap();
    emit(&fleet, "default", 2).await;
    until("another node drives it", async || {
        let of: Option<uuid::Uuid> = sqlx::query_scalar("SELECT driver FROM push_endpoint")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (of == Some(alive.engine.node())).then_some(())
    })
    .await;
    emit(&fleet, "default", 3).await;
    until("all is sent", async || {
        relay(&alive).await;
        (receiver.sent().len() == 3).then_some(())
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(numbers(&receiver), [1, 2, 3]);
    fleet.finish([dead, alive]).await;
}

#[tokio::test]
async fn a_node_that_drains_hands_its_sinks_over_and_their_pauses_too() {
    let fleet = Fleet::new().await;
    let nodes = [fleet.node().await, fleet.node().await];
    let receiver = Endpoint::new().await;
    url_sink(&nodes[0], "e", &receiver).await;
    let (first, second) = driver(&fleet, nodes).await;
    receiver.next([Does::Says(503)]);
    for number in 1..=3 {
        emit(&fleet, "default", number).await;
    }
    let before = until("it fails", async || {
        let sink = sink(&second, "e").await;
        (sink["failed_attempts"] == 1).then_some(sink)
    })
    .await;
    first.stop().await;
    let mut sql = fleet.database.connect().await;
    until("another node drives it", async || {
        let of: Option<uuid::Uuid> = sqlx::query_scalar("SELECT driver FROM push_endpoint")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (of == Some(second.engine.node())).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = sink(&second, "e").await;
    assert_eq!(numbers(&receiver), [1], "it pauses");
    for kept in ["failed_attempts", "next_attempt_at", "last_failure"] {
        assert_eq!(after[kept], before[kept], "{kept}");
    }
    fleet.advance(60);
    until("all is delivered", async || {
        relay(&second).await;
        (sink(&second, "e").await["waiting"] == 0).then_some(())
    })
    .await;
    assert_eq!(numbers(&receiver), [1, 1, 2, 3]);
    fleet.finish([second]).await;
}

#[tokio::test]
async fn a_lease_that_another_node_still_has_is_waited_for() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    url_sink(&node, "e", &receiver).await;
    emit(&fleet, "default", 1).await;
    until_idle(&node, "e").await;
    // As of a node that died, or only seems to be dead, between its request and the settle.
    let mut sql = fleet.database.connect().await;
    let held = "INSERT INTO lease (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed)
                SELECT c.lane_id, c.subscription_id, nextval('lease_id_seq'), 0, c.next_offset, 1, '2030-01-01 00:10Z', 1, false
                FROM cursor c JOIN subscription USING (subscription_id)";
    let mut tx = sqlx::Connection::begin(&mut sql).await.unwrap();
    sqlx::query("SELECT FROM lane FOR UPDATE")
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query(held).execute(&mut *tx).await.unwrap();
    sqlx::query("UPDATE cursor SET next_offset = next_offset + 1, version = version + 1")
        .execute(&mut *tx)
        .await
        .unwrap();
    emit(&fleet, "default", 2).await;
    emit(&fleet, "default", 3).await;
    tx.commit().await.unwrap();
    until("both are published", async || {
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM event_outbox WHERE published_offset IS NULL")
                .fetch_one(&mut sql)
                .await
                .unwrap();
        (left == 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(numbers(&receiver), [1], "the third does not overtake");
    fleet.advance(601);
    until_idle(&node, "e").await;
    assert_eq!(numbers(&receiver), [1, 2, 3]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn no_tenant_sees_or_reaches_what_events_go_through() {
    let fleet = Fleet::closed().await;
    let mut node = fleet.node().await;
    node.with_key(
        &fleet
            .key_for("a", &["publish", "receive", "manage", "usage", "admin"])
            .await,
    );
    let receiver = Endpoint::new().await;
    url_sink(&node, "e", &receiver).await;
    emit(&fleet, "a", 1).await;
    until_idle(&node, "e").await;
    assert_eq!(of_system(&fleet).await, 3);
    let mut sql = fleet.database.connect().await;
    let name: String = sqlx::query_scalar("SELECT name FROM topic")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    let subscription = format!("/v1/subscriptions/{name}");
    for list in ["/v1/topics", "/v1/subscriptions"] {
        assert_eq!(node.get(list).await.1["items"], json!([]), "{list}");
    }
    let (_, tenants) = node.get("/v1/admin/tenants").await;
    let tenants = tenants["items"].as_array().unwrap();
    assert_eq!(all(tenants, "name"), ["a", "default"]);
    let message = json!({"messages": [{"body": "x"}]});
    for (method, path, body) in [
        (Method::GET, format!("/v1/topics/{name}"), None),
        (Method::DELETE, format!("/v1/topics/{name}"), None),
        (Method::GET, format!("/v1/topics/{name}/stats"), None),
        (Method::GET, format!("/v1/topics/{name}/messages"), None),
        (
            Method::POST,
            format!("/v1/topics/{name}/messages/batch"),
            Some(message),
        ),
        (Method::GET, subscription.clone(), None),
        (Method::DELETE, subscription.clone(), None),
        (Method::GET, format!("{subscription}/stats"), None),
        (
            Method::POST,
            format!("{subscription}/receive"),
            Some(json!({})),
        ),
        (
            Method::PUT,
            "/v1/subscriptions/mine".to_owned(),
            Some(json!({ "topic": name })),
        ),
    ] {
        let mut request = node.request(method.clone(), &path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let status = request.send().await.unwrap().status();
        assert_eq!(status, 404, "{method} {path}");
    }
    // The same name is free for a topic of the tenant.
    let (status, _) = node.put(&format!("/v1/topics/{name}"), json!({})).await;
    assert_eq!(status, 201);
    let (_, stats) = node.get(&format!("/v1/topics/{name}/stats")).await;
    assert_eq!(stats["published"], 0);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn events_to_a_url_cost_nothing_and_no_quota_stops_them() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    let operator = fleet.key_for("a", &["manage", "usage", "admin"]).await;
    let receiver = Endpoint::new().await;
    node.topic_and_subscription(json!({})).await;
    fleet
        .quota(
            "a",
            json!({"stored_bytes": 1, "topics": 1, "subscriptions": 1, "in_flight_messages": 1}),
        )
        .await;
    node.publish("more than there is room for").await;
    let settings = json!({"url": receiver.url(), "events": ["budget"]});
    let put = node.ask(&operator, Method::PUT, "/v1/event-sinks/e", Some(settings));
    assert_eq!(put.await.0, 201);
    until("the quota is reached", async || {
        let message = node
            .request(Method::POST, "/v1/topics/t/messages")
            .body("more");
        (message.send().await.unwrap().status() == 429).then_some(())
    })
    .await;
    for number in 0..20 {
        emit(&fleet, "a", number).await;
    }
    until_idle(&node, "e").await;
    assert_eq!(numbers(&receiver), (0..20).collect::<Vec<u64>>());
    fleet.advance(2 * 3_600);
    fleet.meter().await;
    let mut sql = fleet.database.connect().await;
    let used: Vec<(String, String)> = sqlx::query_as(
        "SELECT DISTINCT meter, topic FROM (SELECT meter, topic FROM usage_minute UNION ALL SELECT meter, topic FROM usage_hour) u
         ORDER BY 1",
    )
    .fetch_all(&mut sql)
    .await
    .unwrap();
    assert!(used.iter().all(|(_, topic)| topic == "t"), "{used:?}");
    assert_eq!(
        used.iter().filter(|(meter, _)| meter == "publish").count(),
        1
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_suspended_tenant_gets_no_events_at_its_url() {
    let fleet = Fleet::closed().await;
    let mut node = fleet.node().await;
    let operator = fleet.key_for("ops", &["admin"]).await;
    node.with_key(&fleet.key_for("a", &["manage", "usage", "admin"]).await);
    let receiver = Endpoint::new().await;
    url_sink(&node, "e", &receiver).await;
    receiver.next([Does::Says(500)]);
    emit(&fleet, "a", 1).await;
    until("it fails", async || {
        (sink(&node, "e").await["failed_attempts"] == 1).then_some(())
    })
    .await;
    let [suspend, resume] = ["suspend", "resume"].map(|verb| format!("/v1/admin/tenants/a/{verb}"));
    let suspended = node.ask(&operator, Method::POST, &suspend, Some(json!({})));
    assert_eq!(suspended.await.0, 200);
    // Endpoints are read again every five seconds.
    tokio::time::sleep(Duration::from_secs(7)).await;
    fleet.advance(3_600);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(numbers(&receiver), [1]);
    let resumed = node.ask(&operator, Method::POST, &resume, None);
    assert_eq!(resumed.await.0, 200);
    until("its key is let in", async || {
        (node.get("/v1/event-sinks/e").await.0 == 200).then_some(())
    })
    .await;
    until_idle(&node, "e").await;
    assert_eq!(numbers(&receiver), [1, 1]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_a_url_did_not_take_goes_to_the_topic_that_replaces_it() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    node.topic_and_subscription(json!({})).await;
    url_sink(&node, "e", &receiver).await;
    receiver.decides(|_| Does::Says(500));
    for number in 1..=3 {
        emit(&fleet, "default", number).await;
    }
    until("it fails", async || {
        (sink(&node, "e").await["failed_attempts"] == 1).then_some(())
    })
    .await;
    let to_topic = json!({"topic": "t", "events": ["budget"]});
    assert_eq!(node.put("/v1/event-sinks/e", to_topic).await.0, 200);
    assert_eq!(of_system(&fleet).await, 0);
    until_idle(&node, "e").await;
    let messages = node.receive(10).await;
    let bodies = messages.iter().map(|message| {
        let event: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        event["data"]["number"].as_u64().unwrap()
    });
    assert_eq!(bodies.collect::<Vec<_>>(), [1, 2, 3]);

    // And back: a new topic, whose offsets begin again.
    receiver.decides(|_| Does::Says(204));
    let before = receiver.sent().len();
    let to_url = json!({"url": receiver.url(), "events": ["budget"]});
    assert_eq!(node.put("/v1/event-sinks/e", to_url).await.0, 200);
    emit(&fleet, "default", 4).await;
    until("it comes", async || {
        (sink(&node, "e").await["waiting"] == 0).then_some(())
    })
    .await;
    assert_eq!(numbers(&receiver)[before..], [4]);
    assert_eq!(node.delete("/v1/event-sinks/e").await.0, 204);
    assert_eq!(of_system(&fleet).await, 0);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_sink_of_an_earlier_version_gets_its_subscription_with_its_first_event() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    let mut sql = fleet.database.connect().await;
    let put = "INSERT INTO event_sink (tenant_id, name, url, secret, kinds, granularity, all_tenants, batch, created_at,
                                       updated_at, next_attempt_at)
               SELECT tenant_id, 'e', $1, $2, '{budget}', 'hour', false, false, '2030-01-01Z', '2030-01-01Z', '2030-01-01Z'
               FROM tenant WHERE name = 'default'";
    sqlx::query(put)
        .bind(receiver.url())
        .bind([7_u8; 32].as_slice())
        .execute(&mut sql)
        .await
        .unwrap();
    for number in 1..=3 {
        emit(&fleet, "default", number).await;
    }
    until_idle(&node, "e").await;
    assert_eq!(numbers(&receiver), [1, 2, 3]);
    let secret = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    assert!(receiver.sent().iter().all(|sent| sent.is_signed(secret)));
    assert_eq!(of_system(&fleet).await, 3);
    fleet.finish([node]).await;
}
