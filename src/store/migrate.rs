//! Brings the schema up to date: the migrations of `migrations/`, then the functions of the turn (`turn.sql`). Every
//! node runs this at startup. If nothing is missing it only reads, so that the role of a node needs no right to change
//! the schema. Else nodes that start at the same time run it one after the other, under a lock on the table of applied
//! migrations. All changes of one run are one transaction.

use sqlx::{AssertSqlSafe, Executor};

use super::hot_payload::SLOTS;
use super::{Error, Session, Store, dedup, turn};

/// Names of migrations with their texts.
macro_rules! migrations {
    [$($name:literal),+ $(,)?] => {
        [$(($name, include_str!(concat!("../../migrations/", $name, ".sql")))),+]
    };
}

/// The migrations in order. Append only: a test compares them with `migrations/SHA256SUMS`.
#[rustfmt::skip]
const MIGRATIONS: [(&str, &str); 17] = migrations![
    "0001_access", "0002_catalog", "0003_fleet", "0004_log", "0005_delivery", "0006_usage", "0007_quota", "0008_price",
    "0009_budget", "0010_event", "0011_dedup", "0015_issuer_scopes", "0016_history", "0017_last_attempt",
    "0018_lost_lease", "0019_push", "0020_sink_push",
];

/// Applies the missing migrations.
///
/// # Errors
/// When the database call fails, or refuses a migration.
pub async fn migrate(store: &Store) -> Result<(), Error> {
    if is_current(store).await? {
        return Ok(());
    }
    create_table(store).await?;
    let mut tx = store.tx("migrate").await?;
    // Another node may apply many. The changes themselves wait for a lock no longer than other statements do, because
    // everything else waits behind them.
    for sql in [
        "-- migrate.lock\nSET LOCAL lock_timeout = '30s'",
        "-- migrate.lock\nLOCK TABLE migration IN ACCESS EXCLUSIVE MODE",
        "-- migrate.lock\nSET LOCAL lock_timeout = '5s'",
    ] {
        tx.run("migrate.lock").execute(sqlx::raw_sql(sql)).await?;
    }
    let applied = applied(&mut tx).await?;
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
    install_turn(&mut tx, turn::VERSION).await?;
    tx.commit().await
}

/// Whether nothing is to be done.
async fn is_current(store: &Store) -> Result<bool, Error> {
    let mut session = store.session().await?;
    let is_there: bool = sqlx::query_scalar(
        "-- migrate.is_there
         SELECT to_regclass(format('%I.migration', current_schema())) IS NOT NULL",
    )
    .fetch_one(session.run("migrate.is_there"))
    .await?;
    if !is_there {
        return Ok(false);
    }
    let applied = applied(&mut session).await?;
    let is_applied = |(name, _): &(&str, &str)| applied.iter().any(|done| done == name);
    let version = i64::from(turn::VERSION);
    let turns = turns(&mut session).await?;
    Ok(MIGRATIONS.iter().all(is_applied)
        && turns.iter().any(|(_, found)| *found == version)
        && !turns.iter().any(|(_, found)| is_old(*found, version)))
}

/// The names of the applied migrations.
async fn applied(session: &mut Session) -> Result<Vec<String>, Error> {
    Ok(
        sqlx::query_scalar("-- migrate.list\nSELECT name FROM migration ORDER BY name")
            .fetch_all(session.run("migrate.list"))
            .await?,
    )
}

/// The functions of the turn, each with its version.
async fn turns(session: &mut Session) -> Result<Vec<(String, i64)>, Error> {
    Ok(sqlx::query_as(
        "-- migrate.turns
         SELECT p.oid::regprocedure::text, substring(p.proname FROM '[0-9]+$')::bigint
         FROM pg_proc p
         WHERE p.pronamespace = current_schema()::regnamespace AND p.proname ~ '^turn_(block_)?[0-9]{1,9}$'",
    )
    .fetch_all(session.run("migrate.turns"))
    .await?)
}

/// Whether no node of this version or the one before uses a turn.
fn is_old(found: i64, version: i64) -> bool {
    found <= version - 2
}

/// Installs the functions of the turn in the current version if they are missing, and drops those that are two or more
/// versions older. During an upgrade, nodes of this version and of the previous one run at the same time, each with its
/// own functions.
///
/// # Errors
/// When the database call fails, or refuses the text.
pub async fn install_turn(tx: &mut Session, version: u32) -> Result<(), Error> {
    let version = i64::from(version);
    let found = turns(tx).await?;
    for (function, old) in &found {
        if is_old(*old, version) {
            let drop = format!("DROP FUNCTION {function}");
            tx.run("migrate.apply").execute(AssertSqlSafe(drop)).await?;
            tracing::info!(function, "turn dropped");
        }
    }
    if !found.iter().any(|(_, found)| *found == version) {
        let text = rendered(turn::TEMPLATE, version);
        tx.run("migrate.apply").execute(AssertSqlSafe(text)).await?;
        tracing::info!(version, "turn installed");
    }
    Ok(())
}

/// Expands a template: the text between `{for slot}` or `{for dedup}` and `{end}` is repeated for each table, and the
/// version and other numbers are filled in.
fn rendered(template: &str, version: i64) -> String {
    repeated(&repeated(template, "slot", SLOTS), "dedup", dedup::TABLES)
        .replace("{version}", &version.to_string())
        .replace("{short}", &dedup::SHORT_SECONDS.to_string())
        .replace("{long}", &dedup::LONG_SECONDS.to_string())
        .replace("{due}", &turn::DUE_LEASES_MAX.to_string())
        .replace("{strict}", turn::STRICT)
}

/// Repeats the text between `{for <name>}` and `{end}`, with each number below `count` for `{<name>}`.
fn repeated(template: &str, name: &str, count: i16) -> String {
    let (mut text, mut rest) = (String::new(), template);
    while let Some((before, from_loop)) = rest.split_once(&format!("{{for {name}}}")) {
        let (body, after) = from_loop.split_once("{end}").unwrap_or((from_loop, ""));
        text.push_str(before);
        for number in 0..count {
            text.push_str(&body.replace(&format!("{{{name}}}"), &number.to_string()));
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// When two nodes run `CREATE TABLE IF NOT EXISTS` at once, it can fail in one of them. A second try succeeds.
async fn create_table(store: &Store) -> Result<(), Error> {
    let mut failure = None;
    for _ in 0..3 {
        let mut session = store.session().await?;
        let created = sqlx::query(
            "-- migrate.create
             CREATE TABLE IF NOT EXISTS migration (
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_repeats_its_loop_for_each_slot_and_names_its_version() {
        let text = rendered(
            "f_{version} {for slot}[{slot}]{end} '{}' {for slot}{slot}{end}. {for dedup}{dedup}{end} {short} {long} {due} {strict}",
            3,
        );
        assert_eq!(
            text,
            "f_3 [0][1][2][3][4][5][6][7] '{}' 01234567. 012345 600 86400 1024 CU001"
        );
    }
}
