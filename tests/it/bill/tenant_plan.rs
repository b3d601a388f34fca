//! The plans of a tenant over time: what is past keeps its prices, what comes has those of the plan of its day.

use api::Decimal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bill::focus::csv;
use crate::bill::price::decimal;
use crate::harness::{Fleet, Node, is, refusal, send};
use crate::meter::usage::{post, usage};

const TENANT: &str = "/v1/admin/tenants/default";

/// A plan that prices published units: the first `n` at one price, the others at another one.
async fn plan(node: &Node, name: &str, currency: &str, (size, first, then): (&str, &str, &str)) {
    let path = format!("/v1/admin/plans/{name}/versions/2029-06-01");
    let tiers = json!([{"size": size, "unit_price": first}]);
    let prices = json!({"publish_units": {"tiers": tiers, "unit_price": then}});
    let put = json!({"currency": currency, "prices": prices});
    let (status, put) = node.put(&path, put).await;
    assert_eq!(status, 201, "{put}");
}

async fn publish(node: &Node, many: u32) {
    for _ in 0..many {
        let publish = post(node, "/v1/topics/t/messages").body("x");
        assert_eq!(send(publish).await.0, 200);
    }
}

/// The costs of the published messages of each day, or null.
async fn by_day(node: &Node) -> Vec<Value> {
    let range = "granularity=day&from=2030-01-01T00:00:00Z";
    let items = usage(node, range).await.into_iter();
    let published = items.filter(|item| item["meter"] == "publish");
    published.map(|item| item["cost"].clone()).collect()
}

#[tokio::test]
async fn another_plan_prices_what_comes_and_leaves_what_was() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    plan(&node, "first", "EUR", ("2", "1", "0.10")).await;
    plan(&node, "second", "EUR", ("4", "0.01", "0.001")).await;
    node.topic("t").await;
    publish(&node, 1).await;
    let set = async |settings: Value| {
        let (status, tenant) = node.put(TENANT, settings).await;
        assert_eq!(status, 200, "{tenant}");
        tenant
    };
    set(json!({"plan": "first"})).await;
    publish(&node, 2).await;
    fleet.meter().await;
    fleet.advance(86_400);
    let tenant = set(json!({"plan": "second"})).await;
    assert_eq!(
        (&tenant["plan"], &tenant["plans"]),
        (
            &json!("second"),
            &json!([
                {"valid_from": "2030-01-01", "plan": "first"},
                {"valid_from": "2030-01-02", "plan": "second"},
            ])
        )
    );
    publish(&node, 3).await;
    fleet.advance(86_400);
    set(json!({"plan": ""})).await;
    publish(&node, 5).await;
    fleet.advance(86_400);
    set(json!({"plan": "first"})).await;
    publish(&node, 1).await;
    fleet.meter().await;

    // The three of the first day have filled the tier of the second plan but for one, those of the third count on.
    let costs = [json!("2.1"), json!("0.012"), Value::Null, json!("0.1")];
    assert_eq!(by_day(&node).await, costs);
    let (_, month) = node.get("/v1/usage/month").await;
    assert_eq!(
        (&month["cost"], &month["currency"]),
        (&json!("2.212"), &json!("EUR"))
    );
    let applied = |plan: &str, from: &str| json!({"plan": plan, "valid_from": "2029-06-01", "applies_from": from});
    assert_eq!(
        month["plan_versions"],
        json!([
            applied("first", "2030-01-01"),
            applied("second", "2030-01-02"),
            applied("first", "2030-01-04"),
        ])
    );
    let export = node.request(Method::GET, "/v1/usage/focus").send().await;
    let (_, rows) = csv(&export.unwrap().text().await.unwrap());
    let skus: Vec<_> = rows.iter().map(|row| &*row["SkuPriceId"]).collect();
    assert_eq!(
        skus,
        [
            "first/2029-06-01/publish_units/0",
            "first/2029-06-01/publish_units/1",
            "second/2029-06-01/publish_units/0",
            "second/2029-06-01/publish_units/1",
            "first/2029-06-01/publish_units/1",
        ]
    );
    let costs = rows.iter().map(|row| decimal(&json!(row["BilledCost"])));
    assert_eq!(costs.sum::<Decimal>(), decimal(&month["cost"]));
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_plan_may_be_given_for_a_day_to_come() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    plan(&node, "a", "EUR", ("1", "1", "1")).await;
    plan(&node, "b", "EUR", ("1", "2", "2")).await;
    let from = |plan: &str, day: &str| json!({"plan": plan, "plan_from": day});
    // The first one may begin in the past.
    let (_, tenant) = node.put(TENANT, from("a", "2029-07-01")).await;
    assert_eq!(tenant["plan"], "a");
    let (_, tenant) = node.put(TENANT, from("b", "2030-02-01")).await;
    let rows = |days: &[(&str, &str)]| {
        let row = |(day, plan): &(&str, &str)| match *plan {
            "" => json!({"valid_from": day}),
            plan => json!({"valid_from": day, "plan": plan}),
        };
        Value::Array(days.iter().map(row).collect())
    };
    let both = rows(&[("2029-07-01", "a"), ("2030-02-01", "b")]);
    assert_eq!((&tenant["plan"], &tenant["plans"]), (&json!("a"), &both));
    assert_eq!(node.get(TENANT).await, (200, tenant.clone()));
    let (_, again) = node.put(TENANT, from("b", "2030-02-01")).await;
    assert_eq!(again, tenant, "the same is no change");
    let (_, listed) = node.get("/v1/admin/tenants").await;
    assert_eq!(listed["items"][0]["plans"], both);

    for (from, to) in [("a", "2030-02-01"), ("", "2030-03-01")] {
        assert_eq!(
            node.put(TENANT, json!({"plan": from, "plan_from": to}))
                .await
                .0,
            200
        );
    }
    let (_, tenant) = node.get(TENANT).await;
    let ends = rows(&[("2029-07-01", "a"), ("2030-03-01", "")]);
    assert_eq!(tenant["plans"], ends, "the change to b is taken back");
    fleet.advance(60 * 86_400);
    let (_, tenant) = node.get(TENANT).await;
    assert_eq!((tenant.get("plan"), &tenant["plans"]), (None, &ends));
    let (_, log) = node.get("/v1/admin/audit?limit=1000").await;
    let entries = log["items"].as_array().unwrap().iter();
    let puts = entries.filter(|entry| entry["action"] == "tenant.put");
    assert_eq!(puts.count(), 4);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn what_was_billed_and_the_currency_of_a_month_stay() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    for (name, currency) in [("eur", "EUR"), ("other", "EUR"), ("usd", "USD")] {
        plan(&node, name, currency, ("1", "1", "1")).await;
    }
    let from = |plan: &str, day: &str| json!({"plan": plan, "plan_from": day});
    assert_eq!(node.put(TENANT, from("eur", "2029-07-01")).await.0, 200);
    fleet.advance(9 * 86_400);
    let before = node.get(TENANT).await;
    let bad = is(400, "invalid_request", json!("/plan_from"));
    for settings in [
        from("other", "2030-01-09"),
        from("", "2029-07-01"),
        from("eur", "2029-06-30"),
        from("usd", "2030-01-10"),
        from("usd", "2030-02-02"),
        from("usd", "2030-02-30"),
        json!({"plan": "usd"}),
        json!({"plan_from": "2030-02-01"}),
    ] {
        let refused = refusal(node.put(TENANT, settings.clone()).await);
        assert_eq!(refused, bad, "{settings}");
    }
    let unknown = refusal(node.put(TENANT, from("none", "2030-02-01")).await);
    assert_eq!(unknown, is(404, "not_found", Value::Null));
    assert_eq!(node.get(TENANT).await, before, "nothing is half done");
    assert_eq!(node.put(TENANT, from("usd", "2030-02-01")).await.0, 200);
    // Neither what is past nor what is to come can lose its prices.
    assert_eq!(node.put(TENANT, json!({"plan": "other"})).await.0, 200);
    for name in ["eur", "other", "usd"] {
        let path = format!("/v1/admin/plans/{name}/versions/2029-06-01");
        let refused = refusal(node.delete(&path).await);
        assert_eq!(refused, is(409, "conflict", Value::Null), "{name}");
    }
    fleet.finish([node]).await;
}
