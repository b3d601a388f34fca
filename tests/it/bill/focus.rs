//! A month as a bill and as FOCUS 1.2: every column of every row is checked, and all of them add up to the month.

use std::collections::HashMap;

use api::Decimal;
use cursus::engine::bill::focus::COLUMNS;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bill::price::{decimal, priced};
use crate::harness::{Fleet, Node, is, refusal, send};
use crate::meter::usage::post;

pub(crate) type Row = HashMap<String, String>;

/// Reads CSV by RFC 4180: the head and the rows.
pub(crate) fn csv(text: &str) -> (Vec<String>, Vec<Row>) {
    let (mut lines, mut line, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut is_quoted, mut chars) = (false, text.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '"' if is_quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => line.push(std::mem::take(&mut field)),
            '\r' if !is_quoted => {
                assert_eq!(chars.next(), Some('\n'), "lines end in CRLF");
                line.push(std::mem::take(&mut field));
                lines.push(std::mem::take(&mut line));
            }
            other => field.push(other),
        }
    }
    assert!(
        field.is_empty() && line.is_empty() && !is_quoted,
        "the last line is whole"
    );
    let head = lines.remove(0);
    let row = |line: Vec<String>| {
        assert_eq!(line.len(), head.len());
        head.iter().cloned().zip(line).collect()
    };
    (head.clone(), lines.into_iter().map(row).collect())
}

fn amount(row: &Row, column: &str) -> Decimal {
    row[column]
        .parse()
        .unwrap_or_else(|_| panic!("{column} is no decimal: {}", row[column]))
}

/// The columns that are decimals, also where a value is whole.
const DECIMALS: [&str; 8] = [
    "BilledCost",
    "ConsumedQuantity",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "ListCost",
    "ListUnitPrice",
    "PricingQuantity",
];

/// Costs, prices and quantities are decimals that fit together.
fn check_money(row: &Row) {
    for column in ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost"] {
        assert_eq!(amount(row, column), amount(row, "BilledCost"), "{column}");
    }
    for column in ["ListUnitPrice", "ContractedUnitPrice"] {
        // A price by the quantity is the cost, but for the rounding of either.
        let product = amount(row, column).trillionths()
            * amount(row, "PricingQuantity").trillionths()
            / 10u128.pow(12);
        assert!(
            product.abs_diff(amount(row, "ListCost").trillionths()) <= 2,
            "{column}: {row:?}"
        );
    }
}

/// What FOCUS requires of each column.
fn check(row: &Row) {
    check_money(row);
    let one_of = |column: &str, allowed: &[&str]| {
        assert!(
            allowed.contains(&&*row[column]),
            "{column}: {}",
            row[column]
        );
    };
    for column in DECIMALS {
        assert!(row[column].contains('.'), "{column}: {}", row[column]);
    }
    for column in ["BillingCurrency", "PricingCurrency"] {
        one_of(column, &["EUR"]);
    }
    for column in [
        "BillingPeriodStart",
        "BillingPeriodEnd",
        "ChargePeriodStart",
        "ChargePeriodEnd",
    ] {
        let text = &row[column];
        let time: api::Timestamp = text.parse().unwrap();
        assert_eq!(time.to_string().replace(".000Z", "Z"), *text, "{column}");
    }
    assert!(row["BillingPeriodStart"] <= row["ChargePeriodStart"]);
    assert!(row["ChargePeriodStart"] < row["ChargePeriodEnd"]);
    assert!(row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]);
    one_of("ChargeCategory", &["Usage"]);
    one_of("ChargeClass", &[""]);
    one_of("ChargeFrequency", &["Usage-Based"]);
    one_of("PricingCategory", &["Standard"]);
    one_of("ServiceCategory", &["Integration"]);
    one_of("ServiceSubcategory", &["Messaging"]);
    one_of("ConsumedUnit", &["Units", "GiB", "GiB-Hours"]);
    one_of(
        "PricingUnit",
        &["Units", "1000000 Units", "GiB", "GiB-Hours"],
    );
    one_of("ResourceType", &["Topic", "Subscription"]);
    one_of("SubAccountType", &["Tenant"]);
    for column in [
        "BillingAccountId",
        "BillingAccountName",
        "ChargeDescription",
        "InvoiceIssuerName",
        "ProviderName",
        "PublisherName",
        "ServiceName",
        "SkuId",
        "SkuMeter",
        "SkuPriceId",
        "SubAccountName",
    ] {
        assert!(!row[column].is_empty(), "{column}");
    }
    assert_eq!(row["SubAccountId"], "default");
    assert!(row["ResourceId"].ends_with(&format!("/{}", row["ResourceName"])));
    let tags: HashMap<String, String> = serde_json::from_str(&row["Tags"]).unwrap();
    assert_eq!(tags["topic"], "t");
    let details: Value = serde_json::from_str(&row["SkuPriceDetails"]).unwrap();
    assert_eq!(details["x_Tier"].to_string(), row["x_Tier"]);
    assert!(row["SkuPriceId"].ends_with(&format!("/{}/{}", row["SkuId"], row["x_Tier"])));
    assert!(amount(row, "ConsumedQuantity") > Decimal::ZERO || row["ConsumedUnit"] != "Units");
    for column in ["x_ElasticUnits", "x_GuaranteedUnits"] {
        assert!(row[column].parse::<u64>().is_ok(), "{column}");
    }
    assert!(api::usage::Meter::of(&row["x_Meter"]).is_some());
}

/// Publishes and receives on two days, with a version that begins on the second.
pub(super) async fn used(fleet: &Fleet, node: &Node) {
    let prices = |first: &str| {
        json!({"currency": "EUR", "prices": {
            "publish_units": {"tiers": [{"size": "3", "unit_price": first}], "unit_price": "0.015"},
            "deliver_units": {"per": "1000000", "unit_price": "0.40"},
            "traffic_in": {"unit_price": "0.09"},
            "stored_hot": {"unit_price": "0.07"},
        }})
    };
    priced(node, "2030-01-01", prices("1")).await;
    let second = "/v1/admin/plans/standard/versions/2030-01-02";
    assert_eq!(node.put(second, prices("2")).await.0, 201);
    node.topic_and_subscription(json!({})).await;
    for _ in 0..2 {
        for _ in 0..2 {
            let publish = post(node, "/v1/topics/t/messages").body("x");
            assert_eq!(send(publish).await.0, 200);
            assert_eq!(node.receive(1).await.len(), 1);
        }
        fleet.meter().await;
        fleet.advance(86_400);
    }
    fleet.meter().await;
}

#[tokio::test]
async fn a_month_is_exported_as_focus_and_adds_up_to_its_cost() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let none = refusal(node.get("/v1/usage/focus").await);
    assert_eq!(none, is(409, "conflict", Value::Null));
    used(&fleet, &node).await;
    let other = fleet.node().await;
    node.stop().await;

    let path = "/v1/usage/focus?period=2030-01";
    let response = other.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "text/csv; charset=utf-8; header=present"
    );
    let (head, rows) = csv(&response.text().await.unwrap());
    assert_eq!(head, COLUMNS);
    rows.iter().for_each(check);
    assert!(
        rows.iter().all(|row| row["InvoiceId"].is_empty()),
        "the month is open"
    );
    let (_, month) = other.get("/v1/usage/month?period=2030-01").await;
    assert_eq!(month.get("invoice_id"), None);
    let sum: Decimal = rows.iter().map(|row| amount(row, "BilledCost")).sum();
    assert_eq!(sum, decimal(&month["cost"]));
    let published: Vec<_> = rows
        .iter()
        .filter(|row| row["SkuId"] == "publish_units")
        .map(|row| {
            (
                &*row["ChargePeriodStart"],
                &*row["SkuPriceId"],
                &*row["ConsumedQuantity"],
                &*row["BilledCost"],
            )
        })
        .collect();
    let (first, second) = ("2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z");
    assert_eq!(
        published,
        [
            (first, "standard/2030-01-01/publish_units/0", "2.0", "2.0"),
            (second, "standard/2030-01-02/publish_units/0", "1.0", "2.0"),
            (
                second,
                "standard/2030-01-02/publish_units/1",
                "1.0",
                "0.015"
            ),
        ]
    );
    let units: u64 = rows
        .iter()
        .map(|row| row["x_GuaranteedUnits"].parse::<u64>().unwrap())
        .sum();
    assert_eq!(units, 8, "four published, four delivered");
    let (_, empty) = csv(&other
        .request(Method::GET, "/v1/usage/focus?period=2031-01")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap());
    assert!(empty.is_empty());
    fleet.finish([other]).await;
}

#[tokio::test]
async fn a_month_shows_what_it_costs_so_far_and_what_it_will() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let (_, month) = node.get("/v1/usage/month").await;
    assert_eq!(
        (&month["period"], &month["meters"], month.get("cost")),
        (&json!("2030-01"), &json!([]), None)
    );
    used(&fleet, &node).await;
    let other = fleet.node().await;
    node.stop().await;

    let (status, month) = other.get("/v1/usage/month").await;
    assert_eq!(status, 200);
    let applied = |day: &str| json!({"plan": "standard", "valid_from": day, "applies_from": day});
    assert_eq!(
        month["plan_versions"],
        json!([applied("2030-01-01"), applied("2030-01-02")])
    );
    let line = |item: &str| {
        let lines = month["lines"].as_array().unwrap().iter();
        lines
            .clone()
            .find(|line| line["item"] == item)
            .unwrap()
            .clone()
    };
    // 4 in 2 of 31 days: 58 more, beyond the tier. What is billed is rounded to the even cent.
    assert_eq!(
        line("publish_units"),
        json!({
            "item": "publish_units", "unit": "Units", "quantity": "4", "cost": "4.015", "billed": "4.02", "estimate": "4.885",
        })
    );
    let delivered = line("deliver_units");
    assert_eq!(
        (&delivered["cost"], &delivered["billed"]),
        (&json!("0.0000016"), &json!("0.00"))
    );
    let sum: Decimal = month["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| decimal(&line["cost"]))
        .sum();
    let meters: Decimal = month["meters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|meter| decimal(&meter["cost"]))
        .sum();
    assert_eq!((sum, meters), (decimal(&month["cost"]), sum));
    for granularity in ["hour", "day"] {
        let path = format!(
            "/v1/usage?from=2030-01-01T00:00:00Z&granularity={granularity}&by=subscription&limit=1000"
        );
        let (_, page) = other.get(&path).await;
        let items: Decimal = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| decimal(&item["cost"]))
            .sum();
        assert_eq!(items, sum, "{granularity}");
    }
    let refused = refusal(other.get("/v1/usage/month?period=2030-13").await);
    assert_eq!(
        refused,
        is(400, "invalid_request", json!("parameter:period"))
    );
    fleet.finish([other]).await;
}
