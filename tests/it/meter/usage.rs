//! Usage over HTTP: what is billed is what was stored and handed out, to the unit, whatever dies, ages, moves
//! or is deleted meanwhile (I8).

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

use crate::harness::postgres::ADMIN;
use crate::harness::{Fleet, Node, is, refusal, send, text, until};

/// The header with the cost of a call, and the answer.
async fn costs(request: RequestBuilder) -> (Option<u64>, Value) {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let units = response.headers().get("cursus-units");
    let units = units.map(|units| units.to_str().unwrap().parse().unwrap());
    (units, response.json().await.unwrap())
}

pub(crate) async fn usage(node: &Node, query: &str) -> Vec<Value> {
    let (status, page) = node.get(&format!("/v1/usage?{query}")).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().clone()
}

/// Meter, topic, subscription, messages and units of each item.
fn short(items: &[Value]) -> Vec<(&str, &str, &str, u64, u64)> {
    let short = items.iter().map(|item| {
        let text = |name: &str| item[name].as_str().unwrap_or("");
        let number = |name: &str| item[name].as_u64().unwrap();
        assert_eq!(
            number("guaranteed_units") + number("elastic_units"),
            number("units")
        );
        let (messages, units) = (number("messages"), number("units"));
        (
            text("meter"),
            text("topic"),
            text("subscription"),
            messages,
            units,
        )
    });
    short.collect()
}

pub(crate) fn post(node: &Node, path: &str) -> RequestBuilder {
    node.request(Method::POST, path)
}

#[tokio::test]
async fn a_publish_costs_what_its_messages_weigh_however_it_is_made() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic("dead").await;
    node.topic_and_subscription(json!({"dead_letter_topic": "dead"}))
        .await;
    let (raw, batch) = ("/v1/topics/t/messages", "/v1/topics/t/messages/batch");
    let batch_of = |messages: Value| post(&node, batch).json(&json!({"messages": messages}));

    let single = costs(post(&node, raw).body("x")).await;
    let long = "x".repeat(70_000);
    let three = costs(batch_of(
        json!([{"body": "a"}, {"body": long}, {"body": "c"}]),
    ))
    .await;
    let partly = costs(batch_of(json!([{"body": "a"}, {"tag": ""}]))).await;
    let streamed = costs(post(&node, raw).body(vec![1; 300_000])).await;
    let large = (0..10).map(|_| json!({"body": long}));
    let large = costs(batch_of(large.collect())).await;
    let keyed = || {
        post(&node, raw)
            .header("idempotency-key", "\"k\"")
            .body("x")
    };
    let keyed = (costs(keyed()).await, costs(keyed()).await);
    let keyed_large = || {
        let publish = post(&node, raw).header("idempotency-key", "\"l\"");
        publish.body(vec![2; 300_000])
    };
    let keyed_large = (costs(keyed_large()).await, costs(keyed_large()).await);
    let twins = costs(batch_of(
        json!([{"body": "a", "dedup_id": "d"}, {"body": "b", "dedup_id": "d"}, {"body": long}]),
    ));
    let twins = twins.await;

    assert_eq!((single.0, three.0, partly.0), (Some(1), Some(4), Some(1)));
    assert_eq!((streamed.0, large.0), (Some(5), Some(20)));
    assert_eq!((keyed.0.0, keyed.1.0), (Some(1), Some(0)));
    assert_eq!((keyed_large.0.0, keyed_large.1.0), (Some(5), Some(0)));
    assert_eq!(twins.0, Some(3));
    let dead = node.receive(1).await;
    let item = json!({"receipt": dead[0]["receipt"], "action": "dead_letter"});
    assert_eq!(node.settle(json!([item])).await, [json!({})]);
    fleet.meter().await;
    let items = until("the delivery is flushed", async || {
        let items = usage(&node, "by=topic").await;
        let is_flushed = items.iter().any(|item| item["meter"] == "deliver_pull");
        is_flushed.then_some(items)
    })
    .await;
    let published: Vec<_> = short(&items)
        .into_iter()
        .filter(|item| item.0 != "deliver_pull")
        .collect();
    let units = 1 + 4 + 1 + 5 + 20 + 1 + 5 + 3;
    assert_eq!(
        published,
        [
            ("dead_letter", "dead", "", 1, 0),
            ("publish", "t", "", 1 + 3 + 1 + 1 + 10 + 1 + 1 + 2, units)
        ]
    );
    assert_eq!(items[0]["start"], "2030-01-01T00:00:00.000Z");
    assert_eq!(fleet.meter().await, 0, "each block once");
    assert_eq!(usage(&node, "by=topic").await.len(), items.len());
    fleet.finish([node]).await;
}

#[tokio::test]
async fn every_delivery_costs_and_nothing_else_does() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({"visibility_timeout_seconds": 10}))
        .await;
    let receive = || post(&node, "/v1/subscriptions/s/receive").json(&json!({"max_messages": 10}));
    assert_eq!(costs(receive()).await, (Some(0), json!({"messages": []})));
    let id = node.publish("a").await;
    node.publish(&"b".repeat(70_000)).await;

    let (first, messages) = costs(receive()).await;
    fleet.advance(11);
    let (again, messages_again) = costs(receive()).await;
    let receipts: Vec<&Value> = messages_again["messages"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    let receipts = json!({"receipts": receipts.iter().map(|m| &m["receipt"]).collect::<Vec<_>>()});
    let ack = costs(post(&node, "/v1/subscriptions/s/ack").json(&receipts)).await;
    let get = costs(node.request(Method::GET, &format!("/v1/messages/{id}"))).await;
    let browse = costs(node.request(Method::GET, "/v1/topics/t/messages")).await;

    assert_eq!((first, again), (Some(3), Some(3)));
    assert_eq!(messages["messages"].as_array().unwrap().len(), 2);
    assert_eq!((ack.0, get.0, browse.0), (None, None, None));
    let mut items = until("it is flushed", async || {
        let items = usage(&node, "by=subscription").await;
        short(&items)
            .contains(&("deliver_pull", "t", "s", 4, 6))
            .then_some(items)
    })
    .await;
    // The node counts publishes when it comes round to it.
    items.retain(|item| item["meter"] != "publish" && item.get("gib_hours").is_none());
    assert_eq!(
        items.len(),
        1,
        "an empty receive leaves no trace: {items:?}"
    );
    assert!(items[0]["bytes"].as_u64().unwrap() > 140_000);
    // The last second before a node stops is flushed too.
    node.publish("c").await;
    assert_eq!(node.receive(1).await.len(), 1);
    let other = fleet.node().await;
    node.stop().await;
    let items = usage(&other, "by=subscription").await;
    let delivered = short(&items);
    let delivered: Vec<_> = delivered
        .iter()
        .filter(|item| item.0 == "deliver_pull")
        .collect();
    assert_eq!(delivered, [&("deliver_pull", "t", "s", 5, 7)]);
    fleet.meter().await;
    fleet.finish([other]).await;
}

#[tokio::test]
async fn deliveries_are_counted_when_the_database_answers_again() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    for n in 0..5 {
        node.publish(&n.to_string()).await;
    }
    let name = fleet.database.options.get_database().unwrap().to_owned();
    let mut sql = fleet.database.options.clone().database(ADMIN);
    sql = sql.application_name("the operator");
    let mut sql = sql.connect().await.unwrap();
    let cut =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    for n in 1..=3 {
        // The turn's connection may be gone: the next request gets the message.
        let one = until("a message", async || {
            let ask = json!({"max_messages": 1});
            let (status, answer) = node.post("/v1/subscriptions/s/receive", ask).await;
            (status == 200 && answer["messages"].as_array().unwrap().len() == 1).then_some(())
        });
        one.await;
        for allow in [false, true] {
            let allowed = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allow}");
            sql.execute(AssertSqlSafe(allowed)).await.unwrap();
            sql.execute(AssertSqlSafe(cut.clone())).await.unwrap();
            tokio::time::sleep(Duration::from_millis(700 * n * u64::from(!allow))).await;
        }
    }
    let counted = until("all is flushed", async || {
        let (status, page) = node.get("/v1/usage?by=subscription").await;
        let items = page["items"].as_array().filter(|_| status == 200)?.clone();
        let counted = short(&items)
            .into_iter()
            .find(|item| item.0 == "deliver_pull")?
            .3;
        (counted >= 3).then_some(counted)
    })
    .await;
    assert_eq!(counted, 3);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let items = usage(&node, "by=meter").await;
    let deliveries = short(&items)
        .into_iter()
        .filter(|item| item.0 == "deliver_pull");
    assert_eq!(
        deliveries.collect::<Vec<_>>(),
        [("deliver_pull", "", "", 3, 3)]
    );
    fleet.meter().await;
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_deleted_topic_leaves_its_usage_and_one_of_the_same_name_adds_to_it() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let mut sql = fleet.database.connect().await;
    for n in 1..=2 {
        node.topic("t").await;
        for _ in 0..5 {
            node.publish("a").await;
        }
        assert_eq!(node.delete("/v1/topics/t").await.0, 204);
        // The node's own retention would clear it away within seconds.
        until("the lane is gone", async || {
            fleet.expire().await;
            let lanes: i64 = sqlx::query_scalar("SELECT count(*) FROM lane")
                .fetch_one(&mut sql)
                .await
                .unwrap();
            (lanes == 0).then_some(())
        })
        .await;
        let items = usage(&node, "by=topic").await;
        assert_eq!(short(&items), [("publish", "t", "", 5 * n, 5 * n)]);
    }
    fleet.finish([node]).await;
}

#[tokio::test]
async fn cold_reads_are_metered_by_what_is_handed_out() {
    let mut fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    // Beyond the head that a look at it reads; its body streams from object storage.
    let large = post(&node, "/v1/topics/t/messages").body("b".repeat(2 << 20));
    let id = text(&send(large).await.1["id"]);
    for _ in 0..10 {
        node.publish(&"a".repeat(1_000)).await;
    }
    fleet.offload().await;
    node.stop().await;
    // It has nothing in memory, and its first read takes more than what is asked for.
    fleet.cache_bytes = 64 << 20;
    let node = fleet.node().await;
    for first in [0, 0, 1_000_000] {
        let path = format!("/v1/messages/{id}/body");
        let range = format!("bytes={first}-{}", first + 99);
        let part = node.request(Method::GET, &path).header("range", range);
        let part = part.send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(part.bytes().await.unwrap().len(), 100);
    }
    // A link to the large body costs nothing, and each of the others what it is.
    assert_eq!(node.receive(1).await.len(), 1);
    assert_eq!(node.get(&format!("/v1/messages/{id}")).await.0, 200);
    assert_eq!(node.receive(1).await.len(), 1);
    let bytes = until("it is flushed", async || {
        let items = usage(&node, "by=topic").await;
        let mut items = items.iter();
        let cold = items.find(|item| item["meter"] == "cold_read")?;
        cold["bytes"].as_u64().filter(|bytes| *bytes >= 1_300)
    })
    .await;
    assert!(bytes < 1_400, "{bytes}");
    let items = usage(&node, "by=topic").await;
    let mut items = items.into_iter();
    let cold = items.find(|item| item["meter"] == "cold_read").unwrap();
    let expected = json!({
        "start": "2030-01-01T00:00:00.000Z", "meter": "cold_read", "topic": "t", "units": 0, "guaranteed_units": 0,
        "elastic_units": 0, "messages": 0, "bytes": bytes,
    });
    assert_eq!(cold, expected);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn usage_is_read_in_pages_and_bad_ranges_are_refused() {
    let fleet = Fleet::closed().await;
    let (mut node, mut other) = (fleet.node().await, fleet.node().await);
    node.with_key(&fleet.key("a").await);
    other.with_key(&fleet.key("b").await);
    for topic in ["a", "b", "c.d_e-f"] {
        node.topic(topic).await;
    }
    for _ in 0..2 {
        for topic in ["a", "b", "c.d_e-f"] {
            let publish = post(&node, &format!("/v1/topics/{topic}/messages")).body("x");
            assert_eq!(send(publish).await.0, 200);
        }
        fleet.advance(60);
    }
    fleet.advance(120);
    fleet.meter().await;
    let (_, all) = node.get("/v1/usage?granularity=minute&by=topic").await;
    assert_eq!(all["metered_until"], "2030-01-01T00:02:00.000Z");
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), 6);
    let mut path = "/v1/usage?granularity=minute&by=topic&limit=4".to_owned();
    let mut paged = Vec::new();
    for pages in 1.. {
        let response = node.request(Method::GET, &path).send().await.unwrap();
        let link = response
            .headers()
            .get("link")
            .map(|l| l.to_str().unwrap().to_owned());
        let page: Value = response.json().await.unwrap();
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(link) = link else {
            assert_eq!(pages, 2);
            break;
        };
        path = link[1..link.find('>').unwrap()].to_owned();
    }
    assert_eq!(&paged, items);
    assert_eq!(
        other.get("/v1/usage").await.1["items"],
        json!([]),
        "a neighbour's bill"
    );
    let total = usage(&node, "").await;
    assert_eq!(short(&total), [("publish", "", "", 6, 6)]);

    for (query, name) in [
        ("from=2030-01-02T00:00:00Z&to=2030-01-01T00:00:00Z", "to"),
        ("from=2030-01-01T00:00:00Z&to=2030-03-01T00:00:00Z", "to"),
        ("from=2028-01-01T00:00:00Z&to=2028-01-02T00:00:00Z", "from"),
        ("granularity=second", "granularity"),
        ("by=tenant", "by"),
        ("after=1", "after"),
        ("price=1", "price"),
    ] {
        let refused = refusal(node.get(&format!("/v1/usage?{query}")).await);
        let pointer = json!(format!("parameter:{name}"));
        assert_eq!(refused, is(400, "invalid_request", pointer), "{query}");
    }
    fleet.finish([node, other]).await;
}
