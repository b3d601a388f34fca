//! Usage and time: what is stored is added up over it, and windows grow coarser with it while their sums stay (I8).

use std::time::Duration;

use cursus::engine::meter::roll_up::RollUp;
use serde_json::{Value, json};

use crate::harness::log::{Log, noise};
use crate::harness::{Fleet, Node, is, refusal, send, until};
use crate::meter::usage::{post, usage};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

async fn roll(log: &Log) -> u64 {
    log.run_duty(&mut RollUp).await.unwrap()
}

/// The hour, the meter and billionths of GiB-hours of what was stored.
async fn stored(node: &Node, query: &str) -> Vec<(String, String, u64)> {
    let mut found = Vec::new();
    for item in usage(node, query).await {
        let Some(text) = item["gib_hours"].as_str() else {
            continue;
        };
        let (whole, places) = text.split_once('.').unwrap_or((text, ""));
        let nanos = format!("{whole}{places:0<9}").parse().unwrap();
        let hour = item["start"].as_str().unwrap()[11..13].to_owned();
        found.push((hour, item["meter"].as_str().unwrap().to_owned(), nanos));
    }
    found
}

/// Equal but for the rounding.
fn near(found: &[(String, String, u64)], expected: &[(String, String, u64)]) {
    let alike = found
        .iter()
        .zip(expected)
        .all(|(a, b)| (&a.0, &a.1) == (&b.0, &b.1) && a.2.abs_diff(b.2) <= 1);
    assert!(
        alike && found.len() == expected.len(),
        "{found:?} {expected:?}"
    );
}

#[tokio::test]
async fn what_is_stored_costs_by_tier_and_time() {
    let mut fleet = Fleet::new().await;
    fleet.hot_limit_bytes = 1 << 20;
    let node = fleet.node().await;
    node.topic("t").await;
    let body: Vec<u8> = noise(900_000);
    let published = post(&node, "/v1/topics/t/messages").body(body);
    assert_eq!(send(published).await.0, 200);
    let mut sql = fleet.database.connect().await;
    let bytes: i64 = sqlx::query_scalar("SELECT sum(bytes)::bigint FROM block")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    let is = |hour: &str, meter: &str, quarters: i64| {
        let nanos = bytes * quarters * 1_000_000_000 / (4 << 30);
        (hour.to_owned(), meter.to_owned(), nanos.unsigned_abs())
    };

    fleet.meter().await;
    fleet.advance(1_800);
    // The node does so too.
    until("it is moved", async || {
        fleet.offload().await;
        let hot: i64 = sqlx::query_scalar("SELECT count(*) FROM block WHERE slot IS NOT NULL")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (hot == 0).then_some(())
    })
    .await;
    fleet.advance(7_200);
    fleet.meter().await;
    let hours = [
        is("00", "stored_hot", 2),
        is("00", "stored_object", 2),
        is("01", "stored_object", 4),
        is("02", "stored_object", 2),
    ];
    near(&stored(&node, "to=2030-01-01T03:00:00Z").await, &hours);
    fleet.meter().await;
    near(&stored(&node, "to=2030-01-01T03:00:00Z").await, &hours);
    let days = [is("00", "stored_hot", 2), is("00", "stored_object", 8)];
    near(&stored(&node, "granularity=day").await, &days);
    assert!(stored(&node, "granularity=minute").await.is_empty());
    // Deleted with its topic: until then it was stored.
    fleet.advance(900);
    assert_eq!(node.delete("/v1/topics/t").await.0, 204);
    until("the lane is gone", async || {
        fleet.expire().await;
        let lanes: i64 = sqlx::query_scalar("SELECT count(*) FROM lane")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (lanes == 0).then_some(())
    })
    .await;
    fleet.advance(7_200);
    fleet.meter().await;
    let days = [is("00", "stored_hot", 2), is("00", "stored_object", 9)];
    near(&stored(&node, "granularity=day").await, &days);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn usage_rolls_up_and_stays_the_same() {
    let fleet = Fleet::new().await;
    let node = fleet.node().await;
    let log = Log::over(&fleet).await;
    node.put(
        "/v1/topics/t",
        json!({"retention_seconds": 2_678_400, "keep_consumed": true}),
    )
    .await;
    // In two hours of one day and in one of the next.
    for pause in [HOUR, 23 * HOUR, Duration::from_secs(60)] {
        node.publish("a").await;
        node.publish("b").await;
        fleet.clock.advance(pause);
    }
    fleet.meter().await;
    let ask = async |granularity: &str| {
        let range = "from=2030-01-01T00:00:00Z&to=2030-01-03T00:00:00Z&by=topic";
        let items = usage(&node, &format!("{range}&granularity={granularity}")).await;
        let published = items.into_iter().filter(|item| item["meter"] == "publish");
        let window = |item: Value| {
            (
                item["start"].as_str().unwrap()[8..16].to_owned(),
                item["units"].as_u64().unwrap(),
            )
        };
        published.map(window).collect::<Vec<_>>()
    };
    let at = |windows: &[(&str, u64)]| {
        let windows = windows
            .iter()
            .map(|(start, units)| ((*start).to_owned(), *units));
        windows.collect::<Vec<_>>()
    };
    let hours = at(&[("01T00:00", 2), ("01T01:00", 2), ("02T00:00", 2)]);
    let days = at(&[("01T00:00", 4), ("02T00:00", 2)]);
    assert_eq!(
        (ask("hour").await, ask("day").await),
        (hours.clone(), days.clone())
    );
    assert_eq!(roll(&log).await, 0, "nothing is old");

    fleet.clock.advance(8 * DAY - 12 * HOUR);
    assert_eq!(roll(&log).await, 2, "of the first day");
    assert_eq!(
        (ask("hour").await, ask("day").await),
        (hours.clone(), days.clone())
    );
    let refused = node
        .get("/v1/usage?granularity=minute&from=2030-01-01T00:00:00Z&to=2030-01-01T01:00:00Z")
        .await;
    assert_eq!(
        refusal(refused),
        is(400, "invalid_request", json!("parameter:from"))
    );

    fleet.clock.advance(400 * DAY - 8 * DAY);
    assert!(roll(&log).await > 0);
    assert_eq!(ask("day").await, days);
    assert_eq!(roll(&log).await, 0);
    fleet.clock.advance(2 * DAY);
    assert!(roll(&log).await > 0);
    assert_eq!(ask("day").await, days);
    let tables =
        "SELECT format('%s %s', (SELECT count(*) FROM usage_minute WHERE meter = 'publish'),
                                (SELECT count(*) FROM usage_hour WHERE meter = 'publish'))";
    let left: String = sqlx::query_scalar(tables)
        .fetch_one(&mut fleet.database.connect().await)
        .await
        .unwrap();
    assert_eq!(left, "0 0");
    fleet.finish([node]).await;
}
