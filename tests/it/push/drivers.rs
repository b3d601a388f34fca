//! Who drives an endpoint: switches between pull and push, nodes that drain or die, and many endpoints.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::ConnectOptions;

use super::SUBSCRIPTION;
use super::deliver::{pushed, set, stats, until_delivered, until_sent};
use crate::harness::behaviour::Does;
use crate::harness::endpoint::Endpoint;
use crate::harness::invariants::check_invariants;
use crate::harness::process::{Place, kill};
use crate::harness::{Fleet, client, until};

/// How often each body was sent.
fn counts(endpoint: &Endpoint) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for sent in endpoint.sent() {
        let body = String::from_utf8(sent.body.to_vec()).unwrap();
        *counts.entry(body).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_switch_between_pull_and_push_loses_nothing_and_repeats_nothing() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    node.topic_and_subscription(json!({"visibility_timeout_seconds": 300}))
        .await;
    let mut pulled = HashMap::new();
    let mut next = 0;
    for round in 0..6 {
        for _ in 0..30 {
            node.publish(&next.to_string()).await;
            next += 1;
        }
        if round % 2 == 0 {
            set(&node, &endpoint, json!({}), json!({})).await;
            let (status, problem) = node
                .post(&format!("{SUBSCRIPTION}/receive"), json!({}))
                .await;
            assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
            until_sent(&endpoint, 1 + 10 * round).await;
        } else {
            let (status, _) = node
                .put(SUBSCRIPTION, json!({"push": {"enabled": false}}))
                .await;
            assert_eq!(status, 200);
            let ask = json!({"max_messages": 15});
            let (_, got) = node.post(&format!("{SUBSCRIPTION}/receive"), ask).await;
            let messages = got["messages"].as_array().unwrap();
            let receipts: Vec<_> = messages.iter().map(|message| &message["receipt"]).collect();
            for message in messages {
                *pulled
                    .entry(message["body"].as_str().unwrap().to_owned())
                    .or_insert(0) += 1;
            }
            if !receipts.is_empty() {
                let acks = json!({"receipts": receipts});
                let (_, acked) = node.post(&format!("{SUBSCRIPTION}/ack"), acks).await;
                assert!(
                    acked["results"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|one| one == &json!({}))
                );
            }
        }
    }
    set(&node, &endpoint, json!({}), json!({})).await;
    until_delivered(&node).await;
    let mut all = counts(&endpoint);
    for (body, count) in pulled {
        *all.entry(body).or_default() += count;
    }
    assert_eq!(all.len(), next);
    let twice: Vec<_> = all.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "given twice: {twice:?}");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_node_that_drains_hands_over_at_once() {
    let fleet = Fleet::new().await;
    let (first, second) = (fleet.node().await, fleet.node().await);
    let endpoint = Endpoint::new().await;
    pushed(&first, &endpoint, json!({}), json!({})).await;
    first.publish("a").await;
    until_delivered(&first).await;
    let began = std::time::Instant::now();
    let (one, other) = tokio::join!(first.stop(), async {
        second.publish("b").await;
        until_delivered(&second).await;
        began.elapsed()
    });
    let () = one;
    assert!(other < Duration::from_secs(4), "{other:?}");
    assert!(counts(&endpoint).values().all(|count| *count == 1));
    fleet.finish([second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_delivers_loses_nothing_and_repeats_what_was_open() {
    const MESSAGES: usize = 300;
    let place = Place::new("crash-push");
    let node = place.start();
    let endpoint = Endpoint::new().await;
    endpoint.always(Does::Late(200, Duration::from_millis(50)));
    let url = |path: &str| format!("http://{}{path}", place.address());
    let put = async |path: &str, body: Value| {
        let answer = client().put(url(path)).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    };
    put("/v1/topics/t", json!({})).await;
    let push = json!({"url": endpoint.url(), "limits": {"concurrency": 4}});
    put(SUBSCRIPTION, json!({"topic": "t", "push": push})).await;
    for hundred in 0..MESSAGES / 100 {
        let bodies = (0..100).map(|n| json!({"body": (100 * hundred + n).to_string()}));
        let bodies: Vec<Value> = bodies.collect();
        let batch = client().post(url("/v1/topics/t/messages/batch"));
        let batch = batch.json(&json!({"messages": bodies})).send().await;
        assert_eq!(batch.unwrap().status(), 200);
    }
    until_sent(&endpoint, MESSAGES / 3).await;
    kill(node.pid(), Signal::KILL);
    node.wait();

    let node = place.start();
    let (began, sent) = (std::time::Instant::now(), endpoint.received());
    until_sent(&endpoint, sent + 1).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    let mut sql = place.options().connect().await.unwrap();
    // The leases of the node that died would be over in half a minute.
    sqlx::query("UPDATE lease SET deadline = now()")
        .execute(&mut sql)
        .await
        .unwrap();
    until("all is delivered", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM lease")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (left == 0 && counts(&endpoint).len() == MESSAGES).then_some(())
    })
    .await;
    let counts = counts(&endpoint);
    // What was answered shortly before may not have been settled.
    let again: usize = counts.values().map(|count| count - 1).sum();
    assert!(again <= 40, "{again}");
    check_invariants(&mut sql).await;
    drop(node);
}

#[tokio::test]
async fn what_is_answered_while_a_node_stops_is_settled_recorded_and_metered() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    pushed(&node, &endpoint, json!({}), json!({})).await;
    endpoint.next([Does::Late(200, Duration::from_secs(1))]);
    let id = node.publish("a").await;
    until_sent(&endpoint, 1).await;
    node.stop().await;
    let next = fleet.node().await;
    let (_, attempts) = next.get(&format!("/v1/messages/{id}/attempts")).await;
    assert_eq!(attempts["items"][0]["status"], 200, "{attempts}");
    let stats = stats(&next).await;
    assert_eq!(
        (&stats["backlog"], &stats["in_flight"]),
        (&json!(0), &json!(0))
    );
    until("it is metered", async || {
        let (_, page) = next.get("/v1/usage").await;
        let mut items = page["items"].as_array().unwrap().iter();
        items
            .any(|item| item["meter"] == "deliver_push" && item["units"] == 1)
            .then_some(())
    })
    .await;
    assert_eq!(endpoint.sent().len(), 1);
    fleet.finish([next]).await;
}

#[tokio::test]
async fn a_late_410_does_not_disable_the_endpoint_that_was_set_meanwhile() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let (old, new) = (Endpoint::new().await, Endpoint::new().await);
    let retry = json!({"policy": "list", "delays_seconds": [1]});
    pushed(&node, &old, json!({}), json!({"retry": retry})).await;
    for pause in [Duration::from_millis(1_500), Duration::from_millis(5)] {
        old.next([Does::Late(410, pause)]);
        let sent = old.received();
        set(&node, &old, json!({}), json!({"retry": retry})).await;
        until("the old endpoint has one", async || {
            node.publish("a").await;
            (old.received() > sent).then_some(())
        })
        .await;
        set(&node, &new, json!({}), json!({"retry": retry})).await;
        until("the new endpoint has all", async || {
            fleet.advance(1);
            (stats(&node).await["backlog"] == 0).then_some(())
        })
        .await;
        assert_eq!(stats(&node).await["push"]["state"], "active");
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn the_endpoints_of_a_node_that_died_are_taken_over_within_ten_seconds() {
    let fleet = Fleet::new().await;
    let first = fleet.node().await;
    let endpoint = Endpoint::new().await;
    pushed(&first, &endpoint, json!({}), json!({})).await;
    first.publish("a").await;
    until_delivered(&first).await;
    let second = fleet.node().await;
    // Its row stays, as it would after a crash.
    let mut sql = fleet.database.connect().await;
    let holder: uuid::Uuid = sqlx::query_scalar("SELECT driver FROM push_endpoint")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(holder, first.engine.node());
    first.fall_silent();
    sqlx::query("INSERT INTO node (node_id, version, started_at, seen_at) VALUES ($1, 'x', now(), now() - interval '2 s')
                 ON CONFLICT (node_id) DO NOTHING")
        .bind(holder)
        .execute(&mut sql)
        .await
        .unwrap();
    let began = std::time::Instant::now();
    until("another node drives it", async || {
        let holder: Option<uuid::Uuid> = sqlx::query_scalar("SELECT driver FROM push_endpoint")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (holder == Some(second.engine.node())).then_some(())
    })
    .await;
    second.publish("b").await;
    until_delivered(&second).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    fleet.finish([first, second]).await;
}

#[tokio::test]
async fn two_nodes_share_endpoints_and_each_message_is_sent_once() {
    let fleet = Fleet::new().await;
    let (first, second) = (fleet.node().await, fleet.node().await);
    let endpoint = Endpoint::new().await;
    first.topic("t").await;
    for number in 0..6 {
        let push = json!({"url": endpoint.at(&format!("/{number}"))});
        let path = format!("/v1/subscriptions/s{number}");
        let (status, _) = first.put(&path, json!({"topic": "t", "push": push})).await;
        assert_eq!(status, 201);
    }
    let mut sql = fleet.database.connect().await;
    until("both nodes drive some", async || {
        let of: Vec<(Option<uuid::Uuid>, i64)> =
            sqlx::query_as("SELECT driver, count(*) FROM push_endpoint GROUP BY 1")
                .fetch_all(&mut sql)
                .await
                .unwrap();
        (of.len() == 2
            && of
                .iter()
                .all(|(driver, count)| driver.is_some() && *count == 3))
        .then_some(())
    })
    .await;
    for number in 0..20 {
        let node = if number % 2 == 0 { &first } else { &second };
        node.publish(&number.to_string()).await;
    }
    until_sent(&endpoint, 120).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut sent = HashMap::new();
    for request in endpoint.sent() {
        *sent.entry((request.path, request.body)).or_insert(0) += 1;
    }
    assert_eq!(sent.len(), 120);
    assert!(sent.values().all(|count| *count == 1));
    fleet.finish([first, second]).await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_delays_no_other() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    endpoint.decides(|sent| match sent.path.as_str() {
        "/hangs" => Does::Hangs,
        _ => Does::Says(200),
    });
    node.topic("t").await;
    for path in ["/hangs", "/good"] {
        let name = &path[1..];
        let push = json!({"url": endpoint.at(path), "timeout_seconds": 2});
        let settings = json!({"topic": "t", "push": push});
        node.put(&format!("/v1/subscriptions/{name}"), settings)
            .await;
    }
    let began = std::time::Instant::now();
    for number in 0..200 {
        node.publish(&number.to_string()).await;
    }
    let good = || {
        endpoint
            .sent()
            .iter()
            .filter(|sent| sent.path == "/good")
            .count()
    };
    until("the other gets all", async || (good() == 200).then_some(())).await;
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let state = until("the breaker opens", async || {
        let (_, stats) = node.get("/v1/subscriptions/hangs/stats").await;
        (stats["push"]["state"] == "open").then_some(stats["push"].clone())
    })
    .await;
    assert_eq!(state["last_failure"]["detail"], "no response within 2 s");
    assert_eq!(stats_of(&node, "good").await["failed"], 0);
    fleet.finish([node]).await;
}

async fn stats_of(node: &crate::harness::Node, name: &str) -> serde_json::Value {
    let (_, mut stats) = node.get(&format!("/v1/subscriptions/{name}/stats")).await;
    stats["push"].take()
}

#[tokio::test]
async fn changed_settings_reach_the_driver() {
    let fleet = Fleet::new().await;
    let (node, other) = (fleet.node().await, fleet.node().await);
    let (old, new) = (Endpoint::new().await, Endpoint::new().await);
    pushed(&node, &old, json!({}), json!({})).await;
    node.publish("a").await;
    until_delivered(&node).await;
    // Whichever node drives it.
    set(&other, &new, json!({}), json!({})).await;
    until("the new endpoint gets messages", async || {
        node.publish("b").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        (!new.sent().is_empty()).then_some(())
    })
    .await;
    until_delivered(&node).await;
    let before = old.sent().len();
    node.publish("c").await;
    until_delivered(&node).await;
    assert_eq!(old.sent().len(), before);
    assert_eq!(stats(&node).await["push"]["state"], "active");
    fleet.finish([node, other]).await;
}

#[tokio::test]
async fn an_endpoint_that_is_disabled_is_an_event() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let endpoint = Endpoint::new().await;
    node.topic("events").await;
    node.put("/v1/subscriptions/e", json!({"topic": "events"}))
        .await;
    let sink = json!({"topic": "events", "events": ["endpoint"]});
    let (status, sink) = node.put("/v1/event-sinks/e", sink).await;
    assert_eq!(status, 201, "{sink}");
    pushed(&node, &endpoint, json!({}), json!({})).await;
    endpoint.next([Does::Says(410)]);
    node.publish("a").await;
    let event = until("the event", async || {
        let (_, got) = node.post("/v1/subscriptions/e/receive", json!({})).await;
        got["messages"].as_array()?.first().cloned()
    })
    .await;
    let event: serde_json::Value = serde_json::from_str(event["body"].as_str().unwrap()).unwrap();
    assert_eq!(event["type"], "cursus.endpoint");
    let data = json!({"subscription": "s", "reason": "answered with status 410"});
    assert_eq!(event["data"], data);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_subscription_is_pushed_to_a_topic() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("t").await;
    node.topic("other").await;
    node.put("/v1/subscriptions/o", json!({"topic": "other"}))
        .await;
    let url = format!("http://{}/v1/topics/other/messages", node.address);
    let settings = json!({"topic": "t", "push": {"url": url}});
    let (status, answer) = node.put(SUBSCRIPTION, settings).await;
    assert_eq!(status, 201, "{answer}");
    let request = node.request(reqwest::Method::POST, "/v1/topics/t/messages");
    let request = request
        .header("cursus-tag", "eu")
        .header("cursus-attr-a", "1");
    request.body("hello").send().await.unwrap();
    until_delivered(&node).await;
    let (_, got) = node.post("/v1/subscriptions/o/receive", json!({})).await;
    let message = &got["messages"][0];
    assert_eq!(
        (&message["body"], &message["tag"]),
        (&json!("hello"), &json!("eu"))
    );
    assert_eq!(message["attributes"]["a"], "1");
    fleet.finish([node]).await;
}
