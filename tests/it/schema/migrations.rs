//! The schema: migrations that were published never change, nodes may apply them at the same moment, and the constraints
//! repeat the limits of the contract.

use std::fmt::{Display, Write as _};
use std::path::Path;

use api::event::EventKind;
use api::limits;
use cursus::store::migrate;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::harness::postgres::Database;

#[test]
fn published_migrations_do_not_change() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let entries = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.ends_with(".sql")).collect();
    names.sort_unstable();
    let mut sums = String::new();
    for name in names {
        let digest = Sha256::digest(std::fs::read(folder.join(&name)).unwrap());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(sums, "{hex}  {name}").unwrap();
    }
    let committed = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_eq!(
        sums, committed,
        "a migration is append-only: write a new one (see migrations/README.md)"
    );
}

#[tokio::test]
async fn nodes_that_start_at_once_apply_each_migration_once() {
    let database = Database::new().await;
    let mut sql = database.connect().await;
    sql.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await
        .unwrap();

    let nodes = (0..4).map(|_| {
        let store = database.store();
        tokio::spawn(async move { migrate::migrate(&store).await })
    });
    for node in nodes.collect::<Vec<_>>() {
        node.await.unwrap().unwrap();
    }

    let applied: Vec<String> = sqlx::query_scalar("SELECT name FROM migration ORDER BY name")
        .fetch_all(&mut sql)
        .await
        .unwrap();
    let published = include_str!("../../../migrations/SHA256SUMS");
    let published = published
        .lines()
        .map(|line| line.split_once("  ").unwrap().1);
    let published: Vec<_> = published
        .map(|file| file.trim_end_matches(".sql"))
        .collect();
    assert_eq!(applied, published);
    sql.close().await.unwrap();
}

/// The definitions of the constraints of a table.
async fn checks(table: &str) -> Vec<String> {
    let database = Database::new().await;
    let sql = format!(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'c'"
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_all(&mut database.connect().await)
        .await
        .unwrap()
}

fn range(column: &str, from: &dyn Display, to: &dyn Display) -> String {
    format!("CHECK ((({column} >= {from}) AND ({column} <= {to})))")
}

#[tokio::test]
async fn the_constraints_of_tenants_repeat_the_limits() {
    let (scopes, named) = (limits::SCOPES_MAX, limits::KEY_NAME_CHARS_MAX);
    let api_key = checks("api_key").await;
    for expected in [
        range("cardinality(scopes)", &1, &scopes),
        range("length(name)", &1, &named),
    ] {
        assert!(api_key.contains(&expected), "{expected} in {api_key:#?}");
    }
    let (skew, claim, url) = (
        limits::CLOCK_SKEW_SECONDS,
        limits::CLAIM_CHARS_MAX,
        limits::URL_CHARS_MAX,
    );
    let issuer = checks("issuer").await;
    for expected in [
        range("clock_skew_seconds", skew.start(), skew.end()),
        range("length(scope_claim)", &1, &claim),
        range("length(issuer)", &1, &url),
    ] {
        assert!(issuer.contains(&expected), "{expected} in {issuer:#?}");
    }
    let quota = checks("quota").await;
    let (all, guaranteed) = (limits::QUOTA, limits::QUOTA_GUARANTEED);
    let quoted = |limit: &u64| match limit {
        limit if *limit > u64::from(u32::MAX) => format!("'{limit}'::bigint"),
        limit => limit.to_string(),
    };
    let caps = ["requests_ceiling", "messages_ceiling", "bytes_ceiling"].into_iter();
    let caps = caps.chain(["concurrent_requests", "stored_bytes", "topics"]);
    let caps = caps.chain(["subscriptions", "in_flight"]);
    let caps = caps.map(|column| range(column, all.start(), &quoted(all.end())));
    let parts = [
        "requests_guaranteed",
        "messages_guaranteed",
        "bytes_guaranteed",
    ]
    .into_iter();
    let parts = parts.map(|column| range(column, guaranteed.start(), &quoted(guaranteed.end())));
    for expected in caps.chain(parts) {
        assert!(quota.contains(&expected), "{expected} in {quota:#?}");
    }
}

#[tokio::test]
async fn the_constraints_of_event_sinks_repeat_the_limits() {
    let sink = checks("event_sink").await;
    let kinds = EventKind::ALL.map(|kind| format!("'{}'::text", kind.as_str()));
    for expected in [
        range("length(url)", &1, &limits::URL_CHARS_MAX),
        format!("(cardinality(kinds) <= {})", EventKind::ALL.len()),
        format!("ARRAY[{}]", kinds.join(", ")),
    ] {
        let found = sink.iter().any(|check| check.contains(&expected));
        assert!(found, "{expected} in {sink:#?}");
    }
}

#[tokio::test]
async fn the_constraints_of_budgets_repeat_the_limits() {
    let budget = checks("budget").await;
    let percent = limits::ALERT_PERCENT;
    for expected in [
        format!("cardinality(alert_percents) <= {}", limits::ALERTS_MAX),
        format!("{} <= ALL (alert_percents)", percent.start()),
        format!("{} >= ALL (alert_percents)", percent.end()),
        format!("{{0,{}}}$", limits::NAME_CHARS_MAX - 1),
    ] {
        let is_there = budget.iter().any(|check| check.contains(&expected));
        assert!(is_there, "{expected} in {budget:#?}");
    }
    let alert = checks("budget_alert").await;
    let expected = range("percent", percent.start(), percent.end());
    assert!(alert.contains(&expected), "{expected} in {alert:#?}");
    let [whole, places] = limits::BUDGET_DIGITS;
    let amount = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
                  WHERE attrelid = 'budget'::regclass AND attname = 'amount'";
    let database = Database::new().await;
    let amount: String = sqlx::query_scalar(amount)
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(amount, format!("numeric({},{places})", whole + places));
}

#[tokio::test]
async fn the_constraints_repeat_the_limits() {
    let name = format!(
        "'^[A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}$'",
        limits::NAME_CHARS_MAX - 1
    );
    let (retention, window) = (limits::RETENTION_SECONDS, limits::DEDUP_WINDOW_SECONDS);
    let topic = checks("topic").await;
    for expected in [
        range("retention_seconds", retention.start(), retention.end()),
        range("dedup_window_seconds", window.start(), window.end()),
    ] {
        assert!(topic.contains(&expected), "{expected} in {topic:#?}");
    }
    let (visibility, attempts, in_flight) = (
        limits::VISIBILITY_SECONDS,
        limits::ATTEMPTS,
        limits::IN_FLIGHT,
    );
    let subscription = checks("subscription").await;
    for expected in [
        range("visibility_seconds", visibility.start(), visibility.end()),
        range("max_attempts", attempts.start(), attempts.end()),
        range("max_in_flight", in_flight.start(), in_flight.end()),
    ] {
        assert!(
            subscription.contains(&expected),
            "{expected} in {subscription:#?}"
        );
    }
    let contains = |checks: &[String], part: &str| {
        let found = checks.iter().any(|check| check.contains(part));
        assert!(found, "{part} in {checks:#?}");
    };
    let (weight, weights) = (limits::FAIRNESS_WEIGHT, limits::FAIRNESS_WEIGHTS_MAX);
    contains(
        &subscription,
        &format!("(cardinality(fairness_names) <= {weights})"),
    );
    contains(
        &subscription,
        &format!("({} <= ALL (fairness_weights))", weight.start()),
    );
    contains(
        &subscription,
        &format!("({} >= ALL (fairness_weights))", weight.end()),
    );
    // Two places are not of one customer.
    let places = limits::FAIRNESS_KEYS_MAX + 2;
    contains(
        &checks("fairness").await,
        &format!("(cardinality(slots) <= {places})"),
    );
    for table in [
        topic,
        subscription,
        checks("issuer").await,
        checks("tenant").await,
    ] {
        assert!(
            table.iter().any(|check| check.contains(&name)),
            "{name} in {table:#?}"
        );
    }
}
