//! Reserved and elastic capacity together: usage shows, by the minute, what was inside the guarantee and what was above it.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, until};
use crate::meter::usage::usage;
use crate::quota::rates::set;

const GUARANTEED: u64 = 5;
const MESSAGES: u64 = 100;

/// The usage of a meter in this minute: units, and of these the elastic ones.
async fn units(node: &Node, meter: &str) -> Option<(u64, u64)> {
    let items = usage(node, "granularity=minute").await;
    let item = items.iter().find(|item| item["meter"] == meter)?;
    let number = |name: &str| item[name].as_u64().unwrap();
    assert_eq!(
        number("guaranteed_units") + number("elastic_units"),
        number("units")
    );
    Some((number("units"), number("elastic_units")))
}

#[tokio::test]
async fn usage_shows_what_was_inside_the_guarantee_and_what_was_elastic() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    let rate = json!({"guaranteed": GUARANTEED, "ceiling": 1_000});
    let quota = json!({"requests_per_second": rate, "messages_per_second": rate});
    set(&fleet, &node, quota).await;

    let began = Instant::now();
    for number in 0..MESSAGES {
        // With a key and without one, alone and in a batch: all of them are told apart.
        let (path, body) = match number % 4 {
            0 => ("messages/batch", json!({"messages": [{"body": "b"}]})),
            1 => {
                let with_id = json!({"body": "d", "dedup_id": number.to_string()});
                ("messages/batch", json!({"messages": [with_id]}))
            }
            _ => ("messages", json!("m")),
        };
        let path = format!("/v1/topics/t/{path}");
        assert_eq!(node.post(&path, body).await.0, 200);
    }
    // The bucket was full, and what came in meanwhile is guaranteed, too.
    let inside = |began: Instant| GUARANTEED + began.elapsed().as_secs() * GUARANTEED + GUARANTEED;
    let published_inside = inside(began);
    let began = Instant::now();
    let mut received = 0;
    while received < MESSAGES {
        received += node.receive(1).await.len() as u64;
    }
    let received_inside = inside(began);
    fleet.meter().await;

    let (published, elastic) = units(&node, "publish").await.unwrap();
    assert_eq!(published, MESSAGES);
    assert!(
        elastic >= MESSAGES.saturating_sub(published_inside),
        "{elastic}"
    );
    assert!(elastic > 0 && elastic < MESSAGES, "{elastic}");
    let stored: (i64, i64) = sqlx::query_as("SELECT sum(units), sum(elastic_units) FROM block")
        .fetch_one(&mut fleet.database.connect().await)
        .await
        .unwrap();
    assert_eq!(stored, (published.cast_signed(), elastic.cast_signed()));
    let delivered = async || {
        units(&node, "deliver_pull")
            .await
            .filter(|(all, _)| *all == MESSAGES)
    };
    let (_, elastic) = until("deliveries are flushed", delivered).await;
    assert!(
        elastic >= MESSAGES.saturating_sub(received_inside),
        "{elastic}"
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn an_operator_sets_a_quota_and_the_tenant_sees_it() {
    let fleet = Fleet::closed().await;
    let mut node = fleet.node().await;
    node.with_key(&fleet.key_for("operators", &["admin"]).await);
    let tenant = fleet.key("shop").await;
    let path = "/v1/admin/tenants/shop/quota";
    assert_eq!(node.get(path).await, (200, json!({})), "no limits");
    let quota =
        json!({"messages_per_second": {"guaranteed": 1_000, "ceiling": 5_000}, "topics": 1});

    assert_eq!(node.put(path, quota.clone()).await, (200, quota.clone()));
    let sees = async || {
        let seen = node.ask(&tenant, Method::GET, "/v1/quota", None).await;
        (seen.1["limits"] == quota).then_some(())
    };
    until("the tenant sees it", sees).await;
    let topic = async |name: &str| {
        let path = format!("/v1/topics/{name}");
        node.ask(&tenant, Method::PUT, &path, Some(json!({}))).await
    };
    assert_eq!(topic("one").await.0, 201);
    let (status, refused) = topic("two").await;
    assert_eq!(
        (status, &refused["violated-policies"]),
        (429, &json!(["topics"]))
    );
    let (_, log) = node.get("/v1/admin/audit?tenant=shop").await;
    assert_eq!(
        (
            &log["items"][1]["action"],
            &log["items"][1]["detail"]["topics"]
        ),
        (&json!("quota.put"), &json!(1))
    );
    let wrong = json!({"bytes_per_second": {"guaranteed": 2, "ceiling": 1}});
    let (status, problem) = node.put(path, wrong).await;
    let pointer: &Value = &problem["errors"][0]["pointer"];
    assert_eq!(
        (status, pointer),
        (400, &json!("/bytes_per_second/guaranteed"))
    );
    assert_eq!(node.get(path).await.1["topics"], 1, "nothing is half set");
    fleet.finish([node]).await;
}
