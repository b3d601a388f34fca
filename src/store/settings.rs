//! The settings of a session: what the statements rely on. A role or a database may have other defaults, and they must
//! not reach a session. They are given with the start of a session, and once more by its first statement, because a pooler
//! in session mode refuses or drops the former. A pooler in another mode drops the latter too, which `are_kept` finds out.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::Error;

/// A setting and its value.
pub(super) type Setting = (&'static str, &'static str);

/// Settings of every session.
pub(super) const ALL: [Setting; 12] = [
    // A statement is cancelled after this time; those of the hot path take milliseconds.
    ("statement_timeout", "30s"),
    // The server ends a transaction that is idle for this long. No network call runs inside a transaction, so its node
    // has vanished, and its locks block others.
    ("idle_in_transaction_session_timeout", "10s"),
    // The connection of a turn loop may be idle for long.
    ("idle_session_timeout", "0"),
    // A statement waits this long for a lock, so that what queues behind a stuck transaction ends with a clear refusal
    // before the client has given up. No transaction of a node holds a lock for longer than some statements take.
    ("lock_timeout", "5s"),
    // A turn reads what others have committed after it took its locks.
    ("default_transaction_isolation", "read committed"),
    ("jit", "off"),
    // A plan that was made for a small table stays in use while the table grows. Every look-up has an index.
    ("enable_seqscan", "off"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    // The server probes an idle connection after 30 s, then every 10 s, and closes it after 3 probes without a response.
    // Otherwise the locks of a node that vanished during a statement would stay for hours.
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];

/// The settings of a turn loop. It caches plans, and they always scan their arrays in order, so that rows are locked in
/// the order of the caller.
pub(super) const OF_TURN: [Setting; 6] = [
    // The other lanes of a turn wait with it (`engine::turn`).
    ("lock_timeout", "200ms"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
    ("enable_bitmapscan", "off"),
];

/// Longest wait of the check whether settings are kept.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The first statement of a session. It gives all settings, makes commits durable before they are answered (I1; what waits
/// for standbys stays as the operator has set it), and returns what kind of server it is.
pub(super) fn prepare(more: &[Setting]) -> String {
    let set = ALL.iter().chain(more);
    let set: Vec<String> = set
        .map(|(name, value)| format!("set_config('{name}', '{value}', false)"))
        .collect();
    format!(
        "-- settings.prepare
         SELECT {},
                CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
                     THEN set_config('synchronous_commit', 'on', false) END,
                current_setting('transaction_read_only')::bool AS is_read_only,
                pg_is_in_recovery() AS is_standby,
                (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started_at",
        set.join(", ")
    )
}

/// Whether a session keeps its settings from one transaction to the next. A pooler in transaction mode gives it another
/// connection to the server when the one before is in use: `other` has it in a transaction meanwhile.
pub(super) async fn are_kept(
    mut session: PgConnection,
    mut other: PgConnection,
) -> Result<bool, Error> {
    let mark = format!("{:016x}", rand::random::<u64>());
    let check = async {
        let set = format!("-- settings.mark\nSELECT set_config('cursus.mark', '{mark}', false)");
        session.execute(sqlx::raw_sql(AssertSqlSafe(set))).await?;
        other
            .execute(sqlx::raw_sql("-- settings.occupy\nBEGIN; SELECT 1"))
            .await?;
        let read = "-- settings.read\nSELECT current_setting('cursus.mark', true)";
        let row = session.fetch_one(sqlx::raw_sql(read)).await?;
        let found: Option<String> = row.try_get(0)?;
        Ok::<_, sqlx::Error>(found.as_deref() == Some(&mark))
    };
    let kept = tokio::time::timeout(CHECK_TIMEOUT, check).await;
    let kept = kept.map_err(|_| Error::timed_out())?;
    // A pooler that gives a connection for each statement refuses to begin a transaction.
    if matches!(kept, Err(sqlx::Error::Database(_))) {
        return Ok(false);
    }
    let kept = kept?;
    let end = other.execute(sqlx::raw_sql("-- settings.release\nROLLBACK"));
    end.await?;
    session.close().await?;
    other.close().await?;
    Ok(kept)
}
