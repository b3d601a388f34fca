//! Table `node`: the running nodes, and the hints that they send each other. A row is valid for a time: a node without
//! heartbeats is deleted. The times are the database's (I10).

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Session};

/// Records that a node is up, and returns the time of this heartbeat.
///
/// # Errors
/// When the database call fails.
pub async fn heartbeat(
    session: &mut Session,
    node: Uuid,
    version: &str,
    now: Option<OffsetDateTime>,
) -> Result<OffsetDateTime, Error> {
    Ok(sqlx::query_scalar(
        "-- node.heartbeat
         INSERT INTO node (node_id, version, started_at, seen_at) VALUES ($1, $2, coalesce($3, now()), coalesce($3, now()))
         ON CONFLICT (node_id) DO UPDATE SET seen_at = excluded.seen_at
         RETURNING seen_at",
    )
    .bind(node)
    .bind(version)
    .bind(now)
    .fetch_one(session.run("node.heartbeat"))
    .await?)
}

/// Writes what a heartbeat writes, but for the row of a node that has deleted it. For readiness.
///
/// # Errors
/// When the database call fails.
pub async fn touch(
    session: &mut Session,
    node: Uuid,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- node.touch
         UPDATE node SET seen_at = coalesce($2, now()) WHERE node_id = $1",
    )
    .bind(node)
    .bind(now)
    .execute(session.run("node.touch"))
    .await?;
    Ok(())
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct NodeRow {
    /// Random id, new at every start.
    pub node_id: Uuid,
    /// Version of the program.
    pub version: String,
    /// Time of start.
    pub started_at: OffsetDateTime,
    /// Time of the last heartbeat.
    pub seen_at: OffsetDateTime,
}

/// The nodes in order of their start, at most `limit`.
///
/// # Errors
/// When the database call fails.
pub async fn list(session: &mut Session, limit: i64) -> Result<Vec<NodeRow>, Error> {
    Ok(sqlx::query_as(
        "-- node.list
         SELECT node_id, version, started_at, seen_at FROM node ORDER BY started_at, node_id LIMIT $1",
    )
    .bind(limit)
    .fetch_all(session.run("node.list"))
    .await?)
}

/// The number of nodes with a heartbeat within the last `within`.
///
/// # Errors
/// When the database call fails.
pub async fn count_alive(
    session: &mut Session,
    within: Duration,
    now: Option<OffsetDateTime>,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- node.count_alive
         SELECT count(*) FROM node WHERE seen_at > coalesce($2, now()) - $1 * interval '1 second'",
    )
    .bind(within.as_secs_f64())
    .bind(now)
    .fetch_one(session.run("node.count_alive"))
    .await?)
}

/// Deletes a node that stops, and releases its duties.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, node: Uuid) -> Result<(), Error> {
    sqlx::query(
        "-- node.delete
         WITH free AS (DELETE FROM duty WHERE holder = $1)
         DELETE FROM node WHERE node_id = $1",
    )
    .bind(node)
    .execute(session.run("node.delete"))
    .await?;
    Ok(())
}

/// Deletes nodes without a heartbeat for `older_than`, and returns their number.
///
/// # Errors
/// When the database call fails.
pub async fn delete_stale(
    session: &mut Session,
    older_than: Duration,
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let deleted = sqlx::query(
        "-- node.delete_stale
         DELETE FROM node WHERE seen_at < coalesce($2, now()) - $1 * interval '1 second'",
    )
    .bind(older_than.as_secs_f64())
    .bind(now)
    .execute(session.run("node.delete_stale"))
    .await?;
    Ok(deleted.rows_affected())
}

/// The channel of hints between nodes.
pub const HINTS: &str = "cursus_hints";

/// The hint that endpoints of push subscriptions are to be taken over.
pub const PUSH_HINT: &str = "push";

/// Sends a hint when the transaction commits. Nothing is lost with a hint, so the commit does not wait for the disk.
///
/// # Errors
/// When the database call fails.
pub async fn hint(session: &mut Session, text: &str) -> Result<(), Error> {
    sqlx::query(
        "-- node.hint
         SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)",
    )
    .bind(HINTS)
    .bind(text)
    .execute(session.run("node.hint"))
    .await?;
    Ok(())
}
