//! Price plans and what usage costs by them: versions that never change what was billed, tiers over a month, and windows
//! whose costs add up to the month's.

use api::Decimal;
use api::usage::Meter;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fleet, Node, is, refusal, send, text};
use crate::meter::usage::{post, usage};

const PLAN: &str = "/v1/admin/plans/standard/versions";

/// A million units cost 0.40 after the first two of a month, which cost one each.
pub(crate) fn prices() -> Value {
    json!({"currency": "EUR", "prices": {
        "publish_units": {"tiers": [{"size": "2", "unit_price": "1"}], "unit_price": "0.10"},
        "deliver_units": {"per": "1000000", "unit_price": "0.40"},
        "traffic_in": {"unit_price": "0.09"},
    }})
}

/// Makes the plan from a day on, and gives it to the tenant of an open fleet.
pub(crate) async fn priced(node: &Node, day: &str, prices: Value) {
    let (status, put) = node.put(&format!("{PLAN}/{day}"), prices).await;
    assert_eq!(status, 201, "{put}");
    let plan = json!({"plan": "standard"});
    let (status, tenant) = node.put("/v1/admin/tenants/default", plan).await;
    assert_eq!((status, &tenant["plan"]), (200, &json!("standard")));
}

pub(crate) fn decimal(value: &Value) -> Decimal {
    value.as_str().unwrap().parse().unwrap()
}

fn sum(items: &[Value]) -> Decimal {
    items.iter().map(|item| decimal(&item["cost"])).sum()
}

#[tokio::test]
async fn a_version_is_made_shown_changed_before_it_begins_and_never_after() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let at = |day: &str| format!("{PLAN}/{day}");
    let (status, made) = node.put(&at("2029-06-01"), prices()).await;
    assert_eq!(status, 201, "the first may begin in the past: {made}");
    assert_eq!(
        made["settings"]["prices"]["publish_units"],
        json!({"tiers": [{"size": "2", "unit_price": "1"}], "unit_price": "0.1"})
    );
    assert_eq!(node.get(&at("2029-06-01")).await, (200, made));
    assert_eq!(
        node.put(&at("2029-06-01"), prices()).await.0,
        200,
        "the same"
    );

    let mut other = prices();
    other["prices"]["traffic_out"] = json!({"per": "10", "unit_price": "999999.999999999"});
    for (day, status) in [
        ("2029-06-01", 409),
        ("2029-12-31", 409),
        ("2030-01-01", 201),
        ("2030-02-01", 201),
    ] {
        assert_eq!(node.put(&at(day), other.clone()).await.0, status, "{day}");
    }
    other["prices"]["traffic_out"]["unit_price"] = json!("0.07");
    let (status, changed) = node.put(&at("2030-02-01"), other.clone()).await;
    assert_eq!(
        (status, &changed["settings"]),
        (200, &other_without_per_of_one(&other))
    );
    other["currency"] = json!("USD");
    let refused = refusal(node.put(&at("2030-03-01"), other).await);
    assert_eq!(refused, is(409, "conflict", Value::Null));
    let (_, plans) = node.get("/v1/admin/plans").await;
    assert_eq!(
        plans["items"][0]["versions"],
        json!(["2029-06-01", "2030-01-01", "2030-02-01"])
    );

    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_plan_that_tenants_have_keeps_what_has_begun_and_changes_are_written_down() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let at = |day: &str| format!("{PLAN}/{day}");
    for day in ["2029-06-01", "2030-01-01", "2030-02-01"] {
        assert_eq!(node.put(&at(day), prices()).await.0, 201);
    }
    let plan = |plan: &str| json!({"plan": plan});
    let tenant = "/v1/admin/tenants/default";
    assert_eq!(
        refusal(node.put(tenant, plan("none")).await),
        is(404, "not_found", Value::Null)
    );
    assert_eq!(
        node.put(tenant, plan("standard")).await.1["plan"],
        "standard"
    );
    assert_eq!(
        node.put(tenant, json!({})).await.1["plan"],
        "standard",
        "absent keeps"
    );
    for (day, status) in [
        ("2030-01-01", 409),
        ("2030-02-01", 204),
        ("2030-02-01", 404),
    ] {
        assert_eq!(node.delete(&at(day)).await.0, status, "{day}");
    }
    assert_eq!(
        node.put(tenant, plan("")).await.1.get("plan"),
        None,
        "empty takes away"
    );
    for day in ["2030-01-01", "2029-06-01"] {
        assert_eq!(node.delete(&at(day)).await.0, 204, "{day}");
    }
    assert_eq!(node.get("/v1/admin/plans").await.1["items"], json!([]));
    let (_, log) = node.get("/v1/admin/audit?limit=1000").await;
    let count = |action: &str| {
        let entries = log["items"].as_array().unwrap().iter();
        entries.filter(|entry| entry["action"] == action).count()
    };
    assert_eq!(
        (count("plan.put"), count("plan.delete"), count("tenant.put")),
        (3, 3, 2)
    );
    fleet.finish([node]).await;
}

/// As it is shown: amounts without needless digits.
fn other_without_per_of_one(put: &Value) -> Value {
    let mut shown = put.clone();
    shown["prices"]["publish_units"]["unit_price"] = json!("0.1");
    shown["prices"]["deliver_units"]["unit_price"] = json!("0.4");
    shown
}

#[tokio::test]
async fn what_is_wrong_with_a_plan_is_named() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let at = format!("{PLAN}/2030-01-01");
    for (from, to, pointer) in [
        (r#""EUR""#, r#""euro""#, "/currency"),
        (r#""0.09""#, "0.09", "/prices/traffic_in/unit_price"),
        (r#""0.09""#, r#""1000000""#, "/prices/traffic_in/unit_price"),
        (r#""1000000""#, r#""3""#, "/prices/deliver_units/per"),
        (r#""2""#, r#""0""#, "/prices/publish_units/tiers/0/size"),
        ("traffic_in", "colour", "/prices/colour"),
    ] {
        let body = prices().to_string().replace(from, to);
        let put = node
            .request(Method::PUT, &at)
            .header("content-type", "application/json");
        let refused = refusal(send(put.body(body)).await);
        assert_eq!(refused, is(400, "invalid_request", json!(pointer)), "{to}");
    }
    let path = node.put(&format!("{PLAN}/2030-02-30"), prices()).await;
    assert_eq!(
        refusal(path),
        is(400, "invalid_request", json!("parameter:valid_from"))
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn windows_are_priced_at_their_place_in_the_month_and_add_up() {
    let mut fleet = Fleet::new().await;
    fleet.open = true;
    let node = fleet.node().await;
    let before = usage(&node, "").await;
    assert_eq!(before, [] as [Value; 0]);
    priced(&node, "2030-01-01", prices()).await;
    for topic in ["a", "b"] {
        node.topic(topic).await;
    }
    for _ in 0..3 {
        for topic in ["a", "b"] {
            let publish = post(&node, &format!("/v1/topics/{topic}/messages")).body("x");
            assert_eq!(send(publish).await.0, 200);
        }
        fleet.advance(3_600);
    }
    fleet.meter().await;
    let to = "to=2030-01-01T03:00:00Z";
    let hours: Vec<Value> = usage(&node, to)
        .await
        .into_iter()
        .filter(|item| item["meter"] == "publish")
        .collect();
    // Bytes cost next to nothing, but not nothing.
    let units: Vec<String> = hours
        .iter()
        .map(|item| decimal(&item["cost"]).round(6).to_string())
        .collect();
    assert_eq!(units, ["2", "0.2", "0.2"], "{hours:?}");
    assert_eq!(hours[0]["currency"], "EUR");
    let mut sums = Vec::new();
    for granularity in ["minute", "hour", "day"] {
        for by in ["meter", "topic", "subscription"] {
            let query = format!("{to}&granularity={granularity}&by={by}");
            let items: Vec<Value> = usage(&node, &query)
                .await
                .into_iter()
                .filter(|item| item["meter"] == "publish")
                .collect();
            sums.push(sum(&items));
        }
    }
    assert!(sums[0] > "2.4".parse().unwrap());
    assert!(sums.iter().all(|each| *each == sums[0]), "{sums:?}");
    // A page that begins in the middle knows what was before it, and so does a range.
    let (_, page) = node.get(&format!("/v1/usage?{to}&by=topic&limit=1")).await;
    assert_eq!(decimal(&page["items"][0]["cost"]).round(6).to_string(), "1");
    let next = text(&page["next"]);
    let (_, page) = node
        .get(&format!("/v1/usage?{to}&by=topic&limit=2&after={next}"))
        .await;
    let costs: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| decimal(&item["cost"]).round(6).to_string())
        .collect();
    assert_eq!(costs, ["1", "0.1"]);
    let late = usage(&node, "from=2030-01-01T02:00:00Z&to=2030-01-01T03:00:00Z").await;
    assert_eq!(
        late.iter().find(|item| item["meter"] == "publish"),
        Some(&hours[2])
    );
    fleet.finish([node]).await;
}

#[tokio::test]
async fn who_reads_the_usage_of_some_topics_sees_what_they_cost_among_all() {
    let fleet = Fleet::closed().await;
    let node = fleet.node_of("a").await;
    let operator = fleet.key_for("operators", &["admin"]).await;
    let ask =
        async |path: &str, body: Value| node.ask(&operator, Method::PUT, path, Some(body)).await.0;
    assert_eq!(ask(&format!("{PLAN}/2030-01-01"), prices()).await, 201);
    assert_eq!(
        ask("/v1/admin/tenants/a", json!({"plan": "standard"})).await,
        200
    );
    for name in ["a", "orders.eu"] {
        node.topic(name).await;
        for _ in 0..2 {
            assert_eq!(
                node.post(&format!("/v1/topics/{name}/messages"), json!("m"))
                    .await
                    .0,
                200
            );
        }
    }
    fleet.meter().await;
    // The topic before it has filled the first tier.
    let key = fleet.key_for("a", &["usage:orders.*"]).await;
    let (_, page) = node
        .ask(&key, Method::GET, "/v1/usage?by=topic", None)
        .await;
    let items = page["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(decimal(&items[0]["cost"]).round(6).to_string(), "0.2");
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_month_has_every_day_of_every_meter() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let mut sql = fleet.database.connect().await;
    let insert = sqlx::query(
        "INSERT INTO usage_day SELECT tenant_id, d, m, '', '', 0, 0, 0, 1, 0
         FROM tenant, unnest($1::text[]) m, generate_series(timestamptz '2029-12-01Z', '2029-12-31Z', '1 day') d
         WHERE tenant_id > 0",
    );
    let names = Meter::ALL.map(Meter::as_str);
    insert.bind(&names[..]).execute(&mut sql).await.unwrap();
    let (status, month) = node.get("/v1/usage/month?period=2029-12").await;
    assert_eq!(status, 200, "{month}");
    let shown = month["meters"].as_array().unwrap().iter();
    let shown: Vec<_> = shown
        .map(|item| (text(&item["meter"]), item["bytes"].as_u64()))
        .collect();
    assert_eq!(shown, names.map(|name| (name.to_owned(), Some(31))));
    // No block says that this was published.
    let made_up = sqlx::query("DELETE FROM usage_day").execute(&mut sql).await;
    assert_eq!(made_up.unwrap().rows_affected(), 31 * names.len() as u64);
    fleet.finish([node]).await;
}
