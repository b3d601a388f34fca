//! Brings the schema up to date. Any number of nodes may start at once: they take turns by a lock on the table that lists
//! what was applied, and each file is applied in one transaction with its row there.

use sqlx::{AssertSqlSafe, Executor};

use super::{Error, Store};

/// The migrations, in order. Append only; a test holds them against `migrations/SHA256SUMS`.
const MIGRATIONS: [(&str, &str); 12] = [
    ("0001_core", include_str!("../../migrations/0001_core.sql")),
    ("0002_turn", include_str!("../../migrations/0002_turn.sql")),
    (
        "0003_access",
        include_str!("../../migrations/0003_access.sql"),
    ),
    (
        "0004_meter",
        include_str!("../../migrations/0004_meter.sql"),
    ),
    (
        "0005_quota",
        include_str!("../../migrations/0005_quota.sql"),
    ),
    (
        "0006_price",
        include_str!("../../migrations/0006_price.sql"),
    ),
    (
        "0007_event",
        include_str!("../../migrations/0007_event.sql"),
    ),
    (
        "0008_plan_history",
        include_str!("../../migrations/0008_plan_history.sql"),
    ),
    (
        "0009_budget",
        include_str!("../../migrations/0009_budget.sql"),
    ),
    (
        "0010_fairness",
        include_str!("../../migrations/0010_fairness.sql"),
    ),
    (
        "0011_hot_checks",
        include_str!("../../migrations/0011_hot_checks.sql"),
    ),
    ("0012_turn", include_str!("../../migrations/0012_turn.sql")),
];

/// Applies what is missing.
///
/// # Errors
/// When the database does not answer, or refuses a migration.
pub async fn migrate(store: &Store) -> Result<(), Error> {
    create_table(store).await?;
    let mut tx = store.tx("migrate").await?;
    sqlx::query("-- migrate.lock\nLOCK TABLE migration IN ACCESS EXCLUSIVE MODE")
        .execute(tx.run("migrate.lock"))
        .await?;
    let applied: Vec<String> =
        sqlx::query_scalar("-- migrate.list\nSELECT name FROM migration ORDER BY name")
            .fetch_all(tx.run("migrate.list"))
            .await?;
    for (name, sql) in MIGRATIONS {
        if applied.iter().any(|done| done == name) {
            continue;
        }
        tx.run("migrate.apply").execute(AssertSqlSafe(sql)).await?;
        sqlx::query(
            "-- migrate.insert\nINSERT INTO migration (name, applied_at) VALUES ($1, now())",
        )
        .bind(name)
        .execute(tx.run("migrate.insert"))
        .await?;
        tracing::info!(name, "migration applied");
    }
    tx.commit().await
}

/// `CREATE TABLE IF NOT EXISTS` of two nodes at once can fail in one of them, which then finds it on the second try.
async fn create_table(store: &Store) -> Result<(), Error> {
    let mut failure = None;
    for _ in 0..3 {
        let mut session = store.session().await?;
        let created = sqlx::query(
            "-- migrate.create\nCREATE TABLE IF NOT EXISTS migration (
                 name text COLLATE \"C\" PRIMARY KEY, applied_at timestamptz NOT NULL)",
        )
        .execute(session.run("migrate.create"))
        .await;
        match created {
            Ok(_) => return Ok(()),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}
