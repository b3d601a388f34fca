//! Delivery of events, at least once and in order, to receivers that refuse, are slow, hang up, are gone or share a node
//! with such, from nodes that are killed, and to topics.

use std::time::Duration;

use api::event::EventKind;
use cursus::engine::events::{self, Event};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection};
use time::macros::datetime;
use tokio_util::sync::CancellationToken;

use crate::events::sinks::sink;
use crate::events::transport::relay;
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;
use crate::harness::invariants::check_invariants;
use crate::harness::process::{Place, kill};
use crate::harness::{Fleet, Node, all, client, until};

/// Keeps an event of a tenant for its sinks, as the engine does.
pub(super) async fn emit(fleet: &Fleet, tenant: &str, number: u32) {
    let store = fleet.database.store();
    let mut tx = store.tx("test").await.unwrap();
    let row = cursus::store::tenant::by_name(&mut tx, tenant)
        .await
        .unwrap()
        .unwrap();
    let event = Event {
        kind: EventKind::Budget,
        identity: &["monthly", &number.to_string()],
        at: datetime!(2030-01-01 0:00 UTC),
        data: json!({ "number": number }),
    };
    events::emit(&mut tx, row.tenant_id, &event).await.unwrap();
    tx.commit().await.unwrap();
    store.close().await;
}

pub(super) async fn url_sink(node: &Node, name: &str, receiver: &Endpoint) -> Value {
    let settings = json!({"url": receiver.url(), "events": ["budget"]});
    let (status, sink) = node.put(&format!("/v1/event-sinks/{name}"), settings).await;
    assert_eq!(status, 201, "{sink}");
    sink
}

/// The numbers of the events that were sent, in order.
pub(super) fn numbers(receiver: &Endpoint) -> Vec<u64> {
    let sent = receiver.sent();
    let number =
        |sent: &crate::harness::endpoint::Posted| sent.json()["data"]["number"].as_u64().unwrap();
    sent.iter().map(number).collect()
}

/// Whether nothing is relayed now, and nothing is sent for some rounds of the driver of an endpoint.
async fn nothing_is_due(node: &Node, receiver: &Endpoint) -> bool {
    let sent = receiver.sent().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let claimed = events::claim(&node.engine, 32).await.unwrap();
    claimed.is_empty() && receiver.sent().len() == sent
}

pub(super) async fn until_idle(node: &Node, name: &str) -> Value {
    until("all is delivered", async || {
        let sink = sink(node, name).await;
        (sink["waiting"] == 0 && !sink["delivered_at"].is_null()).then_some(sink)
    })
    .await
}

#[tokio::test]
async fn what_is_not_taken_comes_again_in_its_order_with_the_same_id_until_it_is() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    let made = url_sink(&node, "e", &receiver).await;
    let secret = made["secret"].as_str().unwrap();
    receiver.next([
        // So that the next request has a connection of its own: on one that was used before it may be sent again at once.
        Does::Closes(500),
        Does::Resets,
        Does::says_with(503, &[("retry-after", "1800")]),
        Does::says_with(307, &[("location", "http://127.0.0.1:1/")]),
        Does::Late(202, Duration::from_secs(1)),
    ]);
    for number in 1..=3 {
        emit(&fleet, "default", number).await;
    }
    let failures = [
        "answered with status 500",
        "the connection was closed before the response",
        "answered with status 503",
        "answered with status 307",
    ];
    for (attempts, failure) in (1..).zip(failures) {
        let sink = until("an attempt fails", async || {
            let sink = sink(&node, "e").await;
            (sink["failed_attempts"] == attempts).then_some(sink)
        })
        .await;
        assert_eq!(sink["last_failure"]["detail"], failure);
        assert_eq!(
            (&sink["waiting"], sink.get("disabled_at")),
            (&json!(3), None)
        );
        let pause = if attempts == 3 { 1_799 } else { 3 };
        fleet.advance(pause);
        assert!(
            nothing_is_due(&node, &receiver).await,
            "not before its time"
        );
        assert_eq!(receiver.sent().len(), attempts);
        fleet.advance(3_600);
    }
    until_idle(&node, "e").await;
    // The driver reports every second.
    let sink = until("the success is reported", async || {
        let sink = sink(&node, "e").await;
        (sink["failed_attempts"] == 0).then_some(sink)
    })
    .await;
    assert_eq!(
        sink["last_failure"]["detail"], failures[3],
        "for the record"
    );
    assert!(sink.get("next_attempt_at").is_none());
    assert_eq!(numbers(&receiver), [1, 1, 1, 1, 1, 2, 3]);
    let sent = receiver.sent();
    assert!(sent.iter().all(|sent| sent.is_signed(secret)));
    let ids: Vec<_> = sent
        .iter()
        .map(|sent| &sent.headers["webhook-id"])
        .collect();
    assert!(ids[..5].iter().all(|id| *id == ids[0]) && ids[5] != ids[0]);
    let times: Vec<_> = sent
        .iter()
        .map(|sent| &sent.headers["webhook-timestamp"])
        .collect();
    assert_ne!(times[0], times[1], "of the attempt");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_sink_that_is_gone_is_left_alone_until_it_is_put_again() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    url_sink(&node, "e", &receiver).await;
    receiver.next([Does::Says(410)]);
    emit(&fleet, "default", 1).await;
    until("it is disabled", async || {
        let sink = sink(&node, "e").await;
        (!sink["disabled_at"].is_null()).then_some(())
    })
    .await;
    emit(&fleet, "default", 2).await;
    fleet.advance(2 * 3_600);
    assert!(nothing_is_due(&node, &receiver).await);
    assert_eq!(numbers(&receiver), [1]);
    assert_eq!(sink(&node, "e").await["waiting"], 2);

    let again = json!({"url": receiver.url(), "events": ["budget"]});
    let (status, put) = node.put("/v1/event-sinks/e", again).await;
    assert_eq!((status, put.get("disabled_at")), (200, None));
    until_idle(&node, "e").await;
    assert_eq!(numbers(&receiver), [1, 1, 2]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_sink_that_does_not_respond_delays_no_other() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let (silent, prompt) = (Endpoint::new().await, Endpoint::new().await);
    url_sink(&node, "silent", &silent).await;
    silent.next([Does::Hangs]);
    emit(&fleet, "default", 1).await;
    until("it is asked", async || {
        (!silent.sent().is_empty()).then_some(())
    })
    .await;
    url_sink(&node, "prompt", &prompt).await;
    for number in 2..=4 {
        emit(&fleet, "default", number).await;
    }
    until_idle(&node, "prompt").await;
    assert_eq!(numbers(&prompt), [2, 3, 4]);
    let waits = sink(&node, "silent").await;
    assert_eq!(
        (&waits["waiting"], &waits["failed_attempts"]),
        (&json!(4), &json!(0)),
        "still asked"
    );
    until("it took too long", async || {
        let failed = sink(&node, "silent").await["failed_attempts"] == 1;
        failed.then_some(())
    })
    .await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn two_nodes_send_each_event_once() {
    let fleet = Fleet::new().await;
    let nodes = [fleet.node().await, fleet.node().await];
    let receiver = Endpoint::new().await;
    url_sink(&nodes[0], "e", &receiver).await;
    receiver.next([Does::Late(202, Duration::from_millis(500))]);
    for number in 0..150 {
        emit(&fleet, "default", number).await;
    }
    // Whichever node has the duty, both of them claim all the time.
    let claiming = nodes.iter().map(|node| async {
        for _ in 0..50 {
            let stop = CancellationToken::new();
            for delivery in events::claim(&node.engine, 32).await.unwrap() {
                delivery.run(&stop).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    futures_util::future::join_all(claiming).await;
    until_idle(&nodes[0], "e").await;
    assert_eq!(numbers(&receiver), (0..150).collect::<Vec<u64>>());
    fleet.finish(nodes).await;
}

#[tokio::test]
async fn a_node_that_stops_leaves_its_sinks_to_the_next() {
    let fleet = Fleet::new().await;
    let first = fleet.node().await;
    let receiver = Endpoint::new().await;
    url_sink(&first, "e", &receiver).await;
    receiver.next([Does::Hangs]);
    for number in 1..=2 {
        emit(&fleet, "default", number).await;
    }
    until("it is asked", async || {
        (!receiver.sent().is_empty()).then_some(())
    })
    .await;
    let second = fleet.node().await;
    first.stop().await;
    // So that what was given back first is due first.
    fleet.advance(1);
    until("all is delivered", async || {
        relay(&second).await;
        (sink(&second, "e").await["waiting"] == 0).then_some(())
    })
    .await;
    assert_eq!(numbers(&receiver), [1, 1, 2]);
    fleet.finish([second]).await;
}

#[tokio::test]
async fn a_topic_gets_each_event_once_as_a_message() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    node.topic_and_subscription(json!({})).await;
    assert_eq!(
        node.put("/v1/event-sinks/e", json!({"topic": "t"})).await.0,
        201
    );
    for number in [1, 2, 2] {
        emit(&fleet, "a", number).await;
    }
    until_idle(&node, "e").await;
    // Made and sent again, as by a node that died before it could forget them.
    emit(&fleet, "a", 1).await;
    until_idle(&node, "e").await;
    let messages = node.receive(10).await;
    assert_eq!(
        all(&messages, "content_type"),
        ["application/cloudevents+json"; 2]
    );
    for (number, message) in (1..).zip(&messages) {
        let event: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        assert_eq!(event["data"], json!({ "number": number }));
        let expected = json!({
            "ce-id": event["id"], "ce-source": event["source"], "ce-specversion": "1.0", "ce-subject": "a",
            "ce-time": "2030-01-01T00:00:00.000Z", "ce-type": "cursus.budget",
        });
        assert_eq!(message["attributes"], expected);
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_quota_or_a_suspension_makes_events_wait() {
    let fleet = Fleet::closed().await;
    let mut node = fleet.node().await;
    let operator = fleet.key_for("ops", &["admin"]).await;
    node.with_key(&fleet.key("a").await);
    node.topic_and_subscription(json!({})).await;
    node.put("/v1/event-sinks/e", json!({"topic": "t"})).await;
    fleet.quota("a", json!({"stored_bytes": 1})).await;
    node.publish("more than there is room for").await;
    until("the quota is reached", async || {
        let message = node
            .request(Method::POST, "/v1/topics/t/messages")
            .body("more");
        let refused = message.send().await.unwrap();
        (refused.status() == 429).then_some(())
    })
    .await;
    emit(&fleet, "a", 1).await;
    let waits = until("the quota refuses", async || {
        let sink = sink(&node, "e").await;
        (sink["failed_attempts"] == 1).then_some(sink)
    })
    .await;
    let detail = waits["last_failure"]["detail"].as_str().unwrap();
    assert!(detail.contains("the quota is 1 "), "{detail}");
    assert_eq!(waits["waiting"], 1);

    let [suspend, resume] = ["suspend", "resume"].map(|verb| format!("/v1/admin/tenants/a/{verb}"));
    let suspend = node.ask(&operator, Method::POST, &suspend, Some(json!({})));
    assert_eq!(suspend.await.0, 200);
    fleet.quota("a", json!({})).await;
    fleet.advance(2 * 3_600);
    let due = events::claim(&node.engine, 32).await.unwrap();
    assert!(due.is_empty(), "nothing goes to who is suspended");
    let mut sql = fleet.database.connect().await;
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM event_outbox")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(waiting, 1);
    let resume = node.ask(&operator, Method::POST, &resume, None);
    assert_eq!(resume.await.0, 200);
    until("its key is let in", async || {
        let (status, _) = node.get("/v1/event-sinks/e").await;
        (status == 200).then_some(())
    })
    .await;
    until_idle(&node, "e").await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn more_events_than_may_wait_are_left_out() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    url_sink(&node, "e", &receiver).await;
    let mut sql = fleet.database.connect().await;
    sqlx::query("UPDATE event_sink SET next_attempt_at = next_attempt_at + interval '1 year'")
        .execute(&mut sql)
        .await
        .unwrap();
    let full = "INSERT INTO event_outbox (sink_id, event_id, event)
                SELECT sink_id, lpad(to_hex(n), 32, '0'), '{}' FROM event_sink, generate_series(1, 10999) n";
    sqlx::query(full).execute(&mut sql).await.unwrap();
    for number in 1..=3 {
        emit(&fleet, "default", number).await;
    }
    assert_eq!(sink(&node, "e").await["waiting"], 11_000);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn metrics_say_what_was_delivered_failed_and_waits() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    url_sink(&node, "e", &receiver).await;
    receiver.next([Does::Says(500)]);
    for number in 1..=2 {
        emit(&fleet, "default", number).await;
    }
    let shows = async |wanted: &str| {
        until(wanted, async || {
            let response = node.request(Method::GET, "/metrics").send().await.unwrap();
            let text = response.text().await.unwrap();
            text.lines().any(|line| line == wanted).then_some(())
        })
        .await;
    };
    shows("cursus_events_failed_attempts_total{target=\"url\"} 1").await;
    shows("cursus_events_waiting 2").await;
    fleet.advance(3_600);
    shows("cursus_events_delivered_total{target=\"url\"} 2").await;
    fleet.finish([node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_before_it_forgets_sends_the_same_again() {
    let place = Place::new("crash-events");
    let node = place.start();
    let receiver = Endpoint::new().await;
    receiver.next([Does::Says(204), Does::Hangs]);
    let url = format!("http://{}/v1/event-sinks/e", place.address());
    let put = client().put(&url).json(&json!({"url": receiver.url()}));
    assert_eq!(put.send().await.unwrap().status(), 201);
    let mut sql = place.options().connect().await.unwrap();
    let wait = "INSERT INTO event_outbox (sink_id, event_id, event)
                SELECT sink_id, lpad(to_hex(n), 32, '0'), format('{\"data\":{\"number\":%s}}', n)
                FROM event_sink, generate_series(1, 4) n";
    sqlx::query(wait).execute(&mut sql).await.unwrap();
    until("the second is on its way", async || {
        (receiver.sent().len() == 2).then_some(())
    })
    .await;
    kill(node.pid(), Signal::KILL);
    node.wait();
    sql.close().await.ok();

    let node = place.start();
    let mut sql = place.options().connect().await.unwrap();
    // What the node held is let go by time; the test does not wait for that.
    for let_go in [
        "DELETE FROM duty",
        "UPDATE event_sink SET claimed_until = NULL WHERE claimed_until IS NOT NULL",
        "UPDATE lease SET deadline = now()",
    ] {
        sqlx::query(let_go).execute(&mut sql).await.unwrap();
    }
    until("all is delivered", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM event_outbox")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(numbers(&receiver), [1, 2, 2, 3, 4]);
    let sent = receiver.sent();
    assert_eq!(sent[1].headers["webhook-id"], sent[2].headers["webhook-id"]);
    check_invariants(&mut sql).await;
    assert!(node.end(Signal::TERM).success(), "{}", place.log());
}
