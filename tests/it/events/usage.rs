//! Usage events: they add up to what `/v1/usage` shows and to what was published, in windows that are over, whichever
//! node makes them, however far a sink is behind and whatever is rolled up meanwhile (I8).

use std::collections::BTreeMap;

use cursus::engine::bill::usage_events;
use cursus::engine::duty::Context;
use cursus::engine::meter::roll_up::RollUp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::bill::price::{priced, prices};
use crate::events::sinks::sink;
use crate::harness::endpoint::Endpoint;
use crate::harness::{Fleet, Node, until};
use crate::meter::usage::usage;

const DAY: u64 = 86_400;

/// The usage events that came, each once, by their ids; two with the same id are the same.
fn distinct(receiver: &Endpoint) -> BTreeMap<String, Value> {
    let mut events = BTreeMap::new();
    for sent in receiver.sent() {
        let event = sent.json();
        let event = event.as_array().cloned().unwrap_or_else(|| vec![event]);
        for event in event {
            assert_eq!(event["type"], "cursus.usage", "{event}");
            let id = event["id"].as_str().unwrap().to_owned();
            let before = events.insert(id, event.clone());
            assert!(before.is_none_or(|before| before == event));
        }
    }
    events
}

/// The usage in events, as items of usage, in the order of these.
fn items(events: &BTreeMap<String, Value>) -> Vec<Value> {
    let mut items: Vec<Value> = events.values().map(|event| event["data"].clone()).collect();
    items.sort_by_key(|item| {
        let text = |name: &str| item[name].as_str().unwrap_or("").to_owned();
        ["start", "meter", "topic", "subscription"].map(text)
    });
    for item in &mut items {
        let item = item.as_object_mut().unwrap();
        assert!(item.remove("tenant").is_some() && item.remove("end").is_some());
    }
    items
}

/// What they add up to, by meter: messages, units and bytes.
fn sums(items: &[Value]) -> BTreeMap<String, [u64; 3]> {
    let mut sums = BTreeMap::<String, [u64; 3]>::new();
    for item in items {
        let sum = sums.entry(item["meter"].to_string()).or_default();
        for (sum, name) in sum.iter_mut().zip(["messages", "units", "bytes"]) {
            *sum += item[name].as_u64().unwrap();
        }
    }
    sums
}

/// Publishes, and hands out what it can.
async fn use_some(node: &Node, messages: usize) {
    for n in 0..messages {
        node.publish(&n.to_string()).await;
    }
    node.receive(2).await;
    until("deliveries are flushed", async || {
        let (_, stats) = node.get("/v1/subscriptions/s/stats").await;
        let (_, page) = node.get("/v1/usage?by=meter").await;
        let handed_out = stats["in_flight"].as_u64().unwrap();
        let items = page["items"].as_array().unwrap().iter();
        let counted = items.filter(|item| item["meter"] == "deliver_pull");
        let counted: u64 = counted.map(|item| item["messages"].as_u64().unwrap()).sum();
        (counted >= handed_out && handed_out > 0).then_some(())
    })
    .await;
}

/// Until usage was made into events up to a time, and all of them are delivered.
async fn until_delivered(fleet: &Fleet, node: &Node, name: &str, time: &str) {
    until("events are made and delivered", async || {
        fleet.meter().await;
        let sink = sink(node, name).await;
        let is_made = sink["usage_until"].as_str().unwrap() >= time;
        (is_made && sink["waiting"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_hour_that_is_over_is_reported_in_events_which_add_up_to_usage() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    node.topic_and_subscription(json!({})).await;
    priced(&node, "2029-12-01", prices()).await;
    let (_, made) = node
        .put("/v1/event-sinks/e", json!({"url": receiver.url()}))
        .await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    use_some(&node, 3).await;
    // What is not counted yet is not stored yet.
    fleet.meter().await;
    fleet.advance(3_600);
    node.publish("of the next hour").await;
    fleet.advance(60);
    fleet.meter().await;
    fleet.advance(180);
    fleet.meter().await;
    // Two minutes for what commits late, five for storage: it is not final, and nothing may come.
    let context = Context {
        store: fleet.database.store(),
        clock: fleet.clock.clone(),
    };
    let made = usage_events::fill(&context, &CancellationToken::new())
        .await
        .unwrap();
    context.store.close().await;
    assert_eq!((made.count, receiver.sent().len()), (0, 0));
    fleet.advance(200);
    until_delivered(&fleet, &node, "e", "2030-01-01T01:00:00.000Z").await;

    let sent = receiver.sent();
    let events = distinct(&receiver);
    assert_eq!(sent.len(), events.len(), "each came once");
    for sent in &sent {
        let event = sent.json();
        assert!(sent.is_signed(&secret));
        assert_eq!(sent.headers["content-type"], "application/cloudevents+json");
        assert_eq!(sent.headers["webhook-id"], event["id"].as_str().unwrap());
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["subject"], "default");
        assert_eq!(event["time"], "2030-01-01T01:00:00.000Z");
        assert_eq!(event["data"]["end"], event["time"]);
        assert_eq!(event["data"]["tenant"], "default");
        let source = event["source"].as_str().unwrap();
        assert!(
            source.starts_with("urn:uuid:") && source.len() == 45,
            "{source}"
        );
    }
    let hour = "from=2030-01-01T00:00:00Z&to=2030-01-01T01:00:00Z&by=subscription";
    let usage = usage(&node, hour).await;
    assert_eq!(items(&events), usage);
    let meters: Vec<_> = usage
        .iter()
        .map(|item| item["meter"].as_str().unwrap())
        .collect();
    assert_eq!(meters, ["deliver_pull", "publish", "stored_hot"]);
    assert_eq!(
        (&usage[1]["units"], &usage[1]["cost"]),
        (&json!(3), &json!("2.10000000352")),
        "two units at 1, one at 0.1, and 42 bytes"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn minutes_come_by_the_minute_and_their_storage_with_the_last_of_the_hour() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    node.topic_and_subscription(json!({})).await;
    let guaranteed = json!({"messages_per_second": {"guaranteed": 1_000}});
    fleet.quota("default", guaranteed).await;
    let minutes = json!({"url": receiver.url(), "granularity": "minute", "batch": true});
    node.put("/v1/event-sinks/e", minutes).await;
    for _ in 0..3 {
        use_some(&node, 2).await;
        fleet.advance(60);
    }
    fleet.advance(120);
    until_delivered(&fleet, &node, "e", "2030-01-01T00:03:00.000Z").await;
    let published = |items: &[Value]| {
        let published = items.iter().filter(|item| item["meter"] == "publish");
        let minutes = published.map(|item| item["start"].as_str().unwrap()[11..16].to_owned());
        minutes.collect::<Vec<_>>()
    };
    assert_eq!(
        published(&items(&distinct(&receiver))),
        ["00:00", "00:01", "00:02"]
    );
    assert!(receiver.sent().iter().all(|sent| {
        sent.headers["content-type"] == "application/cloudevents-batch+json"
            && sent.json().is_array()
    }));

    fleet.advance(3_600);
    fleet.advance(300);
    until_delivered(&fleet, &node, "e", "2030-01-01T01:00:00.000Z").await;
    let items = items(&distinct(&receiver));
    let stored = items
        .iter()
        .find(|item| item["meter"] == "stored_hot")
        .unwrap();
    assert_eq!(stored["start"], "2030-01-01T00:00:00.000Z");
    let hour = "from=2030-01-01T00:00:00Z&to=2030-01-01T01:00:00Z&by=subscription";
    let usage = usage(&node, hour).await;
    let of_hour: Vec<Value> = items
        .into_iter()
        .filter(|item| item["start"].as_str() < Some("2030-01-01T01"))
        .collect();
    assert_eq!(sums(&of_hour), sums(&usage));
    let hours = |items: &[Value]| {
        let of = |meter: &str, hours: &str| {
            let mut items = items.iter().filter(|item| item["meter"] == meter);
            let found = items.next().unwrap()[hours].clone();
            assert!(items.next().is_none(), "{meter} once");
            found
        };
        [
            of("stored_hot", "gib_hours"),
            of("guaranteed_capacity", "capacity_hours"),
        ]
    };
    assert_eq!(hours(&of_hour), hours(&usage));
    assert_eq!(hours(&usage)[1], "1000");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn two_nodes_that_make_events_at_once_make_each_once() {
    let fleet = Fleet::closed().await;
    let (mut node, other) = (fleet.node().await, fleet.node().await);
    let operator = fleet
        .key_for("ops", &["publish", "receive", "manage", "usage", "admin"])
        .await;
    node.with_key(&operator);
    let receiver = Endpoint::new().await;
    let all = json!({"url": receiver.url(), "tenants": "all", "batch": true});
    assert_eq!(node.put("/v1/event-sinks/e", all).await.0, 201);
    for tenant in 0..60 {
        let key = fleet.key(&format!("t{tenant}")).await;
        let topic = node.ask(&key, reqwest::Method::PUT, "/v1/topics/t", Some(json!({})));
        assert_eq!(topic.await.0, 201);
        let message = node.ask(
            &key,
            reqwest::Method::POST,
            "/v1/topics/t/messages",
            Some(json!(1)),
        );
        assert_eq!(message.await.0, 200);
    }
    fleet.advance(2 * 3_600);
    fleet.meter().await;
    let context = |_| Context {
        store: fleet.database.store(),
        clock: fleet.clock.clone(),
    };
    let contexts: Vec<Context> = (0..4).map(context).collect();
    let stop = CancellationToken::new();
    let filling = contexts.iter().map(|context| async {
        for _ in 0..5 {
            usage_events::fill(context, &stop).await.unwrap();
        }
    });
    futures_util::future::join_all(filling).await;
    until_delivered(&fleet, &node, "e", "2030-01-01T01:00:00.000Z").await;

    let events = distinct(&receiver);
    let of_tenants = events
        .values()
        .filter(|event| event["data"]["meter"] == "publish");
    let subjects: Vec<_> = of_tenants.map(|event| event["subject"].clone()).collect();
    assert_eq!(subjects.len(), 60);
    let came: usize = receiver
        .sent()
        .iter()
        .map(|sent| sent.json().as_array().unwrap().len())
        .sum();
    assert_eq!(came, events.len(), "each came once");
    for context in contexts {
        context.store.close().await;
    }
    fleet.finish([node, other]).await;
}

#[tokio::test]
async fn a_tenant_gets_events_of_its_own_usage_only() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    node.topic_and_subscription(json!({})).await;
    let other = fleet.key("b").await;
    node.ask(
        &other,
        reqwest::Method::PUT,
        "/v1/topics/secret",
        Some(json!({})),
    )
    .await;
    node.put("/v1/event-sinks/e", json!({"topic": "t"})).await;
    node.ask(
        &other,
        reqwest::Method::POST,
        "/v1/topics/secret/messages",
        Some(json!(1)),
    )
    .await;
    fleet.advance(2 * 3_600);
    until_delivered(&fleet, &node, "e", "2030-01-01T01:00:00.000Z").await;
    assert!(node.receive(10).await.is_empty(), "it used nothing");
    let month = node.ask(&other, reqwest::Method::GET, "/v1/usage/month", None);
    assert_ne!(month.await.1["meters"], json!([]), "the other did");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_sink_that_falls_far_behind_gets_all_of_it_in_coarser_windows() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    let topic = json!({"retention_seconds": 2_678_400, "keep_consumed": true});
    node.put("/v1/topics/t", topic).await;
    node.put("/v1/subscriptions/s", json!({"topic": "t"})).await;
    let minutes = json!({"url": receiver.url(), "granularity": "minute"});
    node.put("/v1/event-sinks/e", minutes).await;
    use_some(&node, 2).await;
    fleet.advance(60);
    use_some(&node, 1).await;
    // The first minute is reported; then so much waits that the rest has to.
    fleet.advance(120);
    until_delivered(&fleet, &node, "e", "2030-01-01T00:01:00.000Z").await;
    let told = distinct(&receiver).len();
    let mut sql = fleet.database.connect().await;
    for stuck in [
        "UPDATE event_sink SET next_attempt_at = next_attempt_at + interval '1 year'",
        "INSERT INTO event_outbox (sink_id, event_id, event)
         SELECT sink_id, lpad(to_hex(n), 32, '0'), '{}' FROM event_sink, generate_series(1, 10000) n",
    ] {
        sqlx::query(stuck).execute(&mut sql).await.unwrap();
    }
    fleet.advance(3_600);
    use_some(&node, 4).await;
    fleet.advance(9 * DAY);
    fleet.meter().await;
    assert_eq!(
        rolled(&fleet).await,
        (true, false),
        "the hour that is begun"
    );
    assert_eq!(sink(&node, "e").await["waiting"], 10_000);
    assert_eq!(distinct(&receiver).len(), told);

    for freed in [
        "DELETE FROM event_outbox",
        "UPDATE event_sink SET next_attempt_at = created_at",
    ] {
        sqlx::query(freed).execute(&mut sql).await.unwrap();
    }
    until_delivered(&fleet, &node, "e", "2030-01-09T00:00:00.000Z").await;
    let events = distinct(&receiver);
    let length = |event: &Value| {
        let of = |text: &Value| text.as_str().unwrap()[11..16].to_owned();
        (of(&event["data"]["start"]), of(&event["data"]["end"]))
    };
    let published = events
        .values()
        .filter(|event| event["data"]["meter"] == "publish");
    let mut windows: Vec<_> = published.map(length).collect();
    windows.sort();
    let window = |start: &str, end: &str| (start.to_owned(), end.to_owned());
    let expected = [
        window("00:00", "00:01"),
        window("00:01", "00:02"),
        window("01:00", "02:00"),
    ];
    assert_eq!(windows, expected);
    let days = "from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z&granularity=day&by=subscription";
    let of_first_day: Vec<Value> = items(&events)
        .into_iter()
        .filter(|item| item["start"].as_str() < Some("2030-01-02"))
        .collect();
    assert_eq!(sums(&of_first_day), sums(&usage(&node, days).await));
    assert_eq!(rolled(&fleet).await, (false, false), "nobody needs them");
    fleet.finish([node]).await;
}

/// Rolls up; whether there are still minutes of the first hour and of the second.
async fn rolled(fleet: &Fleet) -> (bool, bool) {
    fleet.run(RollUp).await;
    let left = "SELECT coalesce(bool_or(at < '2030-01-01 01:00Z'), false), coalesce(bool_or(at >= '2030-01-01 01:00Z'), false)
                FROM usage_minute WHERE at < '2030-01-01 02:00Z'";
    sqlx::query_as(left)
        .fetch_one(&mut fleet.database.connect().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_window_with_very_many_names_comes_whole_and_once() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let receiver = Endpoint::new().await;
    let mut sql = fleet.database.connect().await;
    for (name, granularity, tenants) in [("own", "minute", "own"), ("all", "hour", "all")] {
        let settings = json!({
            "url": receiver.url(), "granularity": granularity, "tenants": tenants, "batch": true,
        });
        let path = format!("/v1/event-sinks/{name}");
        assert_eq!(node.put(&path, settings).await.0, 201);
    }
    // As other meters than those that are held against blocks: three and a half pages.
    for used in [
        "INSERT INTO usage_minute (tenant_id, at, meter, topic, subscription, units, elastic_units, messages, bytes)
         SELECT tenant_id, '2030-01-01 00:59Z', 'cold_read', 't' || n, '', 0, 0, 0, n FROM tenant, generate_series(1, 2000) n
         WHERE tenant_id > 0",
        "INSERT INTO usage_hour (tenant_id, at, meter, topic, subscription, units, elastic_units, messages, bytes, over_time)
         SELECT tenant_id, '2030-01-01 00:00Z', 'stored_hot', 't' || n, '', 0, 0, 0, 0, n FROM tenant, generate_series(1, 1500) n
         WHERE tenant_id > 0",
    ] {
        sqlx::query(used).execute(&mut sql).await.unwrap();
    }
    fleet.advance(2 * 3_600);
    for name in ["own", "all"] {
        until_delivered(&fleet, &node, name, "2030-01-01T01:00:00.000Z").await;
    }
    let events = distinct(&receiver);
    // Of minutes and hours; storage has hours in both.
    let count = |meter: &str| {
        let of_meter = events
            .values()
            .filter(|event| event["data"]["meter"] == meter);
        of_meter.count()
    };
    assert_eq!((count("cold_read"), count("stored_hot")), (4_000, 1_500));
    let came = receiver
        .sent()
        .into_iter()
        .map(|sent| sent.json().as_array().unwrap().len());
    assert_eq!(came.sum::<usize>(), 2 * 3_500, "each sink got each once");
    fleet.finish([node]).await;
}
