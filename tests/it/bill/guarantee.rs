//! The price of guaranteed capacity: what was guaranteed for how long is billed to the second, once, whichever node counts it.

use std::time::Duration;

use api::Decimal;
use cursus::engine::duty::{Context, Duty};
use cursus::engine::meter::blocks::Meter;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use tokio_util::sync::CancellationToken;

use crate::bill::focus::csv;
use crate::bill::price::decimal;
use crate::harness::{Fleet, Node};

const QUOTA: &str = "/v1/admin/tenants/shop/quota";

fn guaranteed(messages: u64) -> Value {
    json!({"messages_per_second": {"guaranteed": messages, "ceiling": 10_000}})
}

/// A node whose requests come from `shop`, which has a plan, and the key of an operator.
async fn shop(fleet: &Fleet) -> (Node, String) {
    let node = fleet.node_of("shop").await;
    let operator = fleet.key_for("operators", &["admin"]).await;
    let prices = json!({"currency": "EUR", "prices": {
        "guaranteed_capacity": {"per": "1000", "tiers": [{"size": "1000", "unit_price": "0.2"}], "unit_price": "0.1"},
    }});
    let ask = async |path: &str, body: Value| {
        let (status, answer) = node.ask(&operator, Method::PUT, path, Some(body)).await;
        assert!(status < 300, "{answer}");
    };
    ask("/v1/admin/plans/p/versions/2030-01-01", prices).await;
    ask("/v1/admin/tenants/shop", json!({"plan": "p"})).await;
    (node, operator)
}

/// The starts of windows, what was guaranteed in them, and what that costs.
async fn windows(node: &Node, query: &str) -> Vec<(String, String, String)> {
    let (_, page) = node.get(&format!("/v1/usage?{query}")).await;
    let items = page["items"].as_array().unwrap().iter();
    let items = items.map(|item| {
        assert_eq!(
            (&item["meter"], &item["units"], &item["bytes"]),
            (&json!("guaranteed_capacity"), &json!(0), &json!(0))
        );
        let text = |name: &str| item[name].as_str().unwrap().to_owned();
        (
            text("start")[8..16].to_owned(),
            text("capacity_hours"),
            text("cost"),
        )
    });
    items.collect()
}

fn is(windows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let own = |(start, hours, cost): &(&str, &str, &str)| {
        [start, hours, cost].map(|text| (*text).to_owned()).into()
    };
    windows.iter().map(own).collect()
}

/// The export has two charges, of two tiers, and the same cost.
async fn check_export(node: &Node, cost: Decimal) {
    let export = node.request(Method::GET, "/v1/usage/focus").send().await;
    let (_, rows) = csv(&export.unwrap().text().await.unwrap());
    for row in &rows {
        assert_eq!(
            [
                &row["PricingUnit"],
                &row["ConsumedUnit"],
                &row["ResourceId"],
                &row["x_Meter"]
            ],
            [
                "1000 Capacity-Hours",
                "Capacity-Hours",
                "",
                "guaranteed_capacity"
            ]
        );
    }
    let sum =
        |column: &str| -> Decimal { rows.iter().map(|row| decimal(&json!(row[column]))).sum() };
    assert_eq!((rows.len(), sum("BilledCost")), (2, cost));
    assert_eq!(
        sum("ConsumedQuantity").round(9).to_string(),
        "3000.722222222"
    );
}

#[tokio::test]
async fn guaranteed_capacity_costs_by_the_time_that_it_is_guaranteed() {
    let fleet = Fleet::closed().await;
    let (node, operator) = shop(&fleet).await;
    let put = async |quota: Value| {
        let put = node.ask(&operator, Method::PUT, QUOTA, Some(quota));
        assert_eq!(put.await.0, 200);
    };
    // 1,000 for half an hour, 2,000 for a quarter; then none, and what has no guarantee has no price.
    for (quota, seconds) in [
        (guaranteed(1_000), 1_800),
        (guaranteed(2_000), 900),
        (json!({"messages_per_second": {"ceiling": 10_000}}), 400),
        (guaranteed(0), 500),
        (guaranteed(3_600), 1),
        (guaranteed(1_000), 3_599 + 1_800),
    ] {
        put(quota).await;
        fleet.advance(seconds);
    }
    // It goes on while the tenant is suspended.
    let suspend = "/v1/admin/tenants/shop/suspend";
    let suspended = node.ask(&operator, Method::POST, suspend, None);
    assert_eq!(suspended.await.0, 200);
    fleet.advance(1_800);
    fleet.meter().await;

    let hours = is(&[
        ("01T00:00", "1000", "0.2"),
        ("01T01:00", "1000.722222222", "0.100072222222"),
        ("01T02:00", "1000", "0.1"),
    ]);
    assert_eq!(windows(&node, "granularity=hour").await, hours);
    let day = is(&[("01T00:00", "3000.722222222", "0.400072222222")]);
    assert_eq!(windows(&node, "granularity=day").await, day);
    assert!(windows(&node, "granularity=minute").await.is_empty());
    let (_, month) = node.get("/v1/usage/month").await;
    let line = &month["lines"][0];
    assert_eq!(
        [
            &line["item"],
            &line["unit"],
            &line["quantity"],
            &line["billed"]
        ],
        [
            "guaranteed_capacity",
            "Capacity-Hours",
            "3000.722222222222",
            "0.40"
        ]
    );
    assert_eq!(month["meters"][0]["capacity_hours"], "3000.722222222");
    // Three hours of 744.
    let estimate = decimal(&line["estimate"]).round(2).to_string();
    assert_eq!(estimate, "74.52");
    check_export(&node, decimal(&month["cost"])).await;
    fleet.finish([node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_second_of_capacity_is_counted_once_whichever_node_posts_it() {
    let fleet = Fleet::closed().await;
    let (node, _) = shop(&fleet).await;
    let context = Context {
        store: fleet.database.store(),
        clock: fleet.clock.clone(),
    };
    let stop = CancellationToken::new();
    let post = async || Meter::without_pauses().run(&context, &stop).await;
    fleet.quota("shop", guaranteed(1_000)).await;
    for round in 0..12 {
        fleet.advance(400);
        let change = fleet.quota("shop", guaranteed(1_000 + round % 2));
        let (posted, ()) = tokio::join!(join_all([post(), post(), post()]), change);
        assert!(posted.iter().all(Result::is_ok), "{posted:?}");
    }
    // One that is given up in the middle has posted nothing, and the next does.
    fleet.advance(3_600);
    let mut sql = fleet.database.connect().await;
    let mut theirs = sql.begin().await.unwrap();
    theirs
        .execute("SELECT FROM usage_hour FOR UPDATE")
        .await
        .unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(300), post()).await;
    assert!(given_up.is_err(), "it waits for the hour");
    theirs.rollback().await.unwrap();
    post().await.unwrap();
    post().await.unwrap();

    let found = "SELECT sum(over_time)::bigint FROM usage_hour WHERE meter = 'guaranteed_capacity'";
    let found: i64 = sqlx::query_scalar(found).fetch_one(&mut sql).await.unwrap();
    // 1,000 until the second round, then 1,001 and 1,000 in turn, and 1,001 in the last hour.
    let rounds: i64 = (1..12).map(|round| 400 * (1_000 + (round + 1) % 2)).sum();
    assert_eq!(found, 400 * 1_000 + rounds + 3_600 * 1_001);
    context.store.close().await;
    fleet.finish([node]).await;
}
