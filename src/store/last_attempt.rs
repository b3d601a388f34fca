//! Table `last_attempt`: leases that were handed out for the last time, each with the time at which its messages become
//! dead letters. Turns and transactions that make leases insert entries, the duty `used_up` takes them. An entry is a hint:
//! the lease itself says whether it is due.

use time::OffsetDateTime;

use super::lease::Lease;
use super::{CursorKey, Error, LaneId, LeaseId, Session, SubscriptionId};

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct LastAttempt {
    /// Lane of the lease.
    pub lane_id: LaneId,
    /// Its subscription.
    pub subscription_id: SubscriptionId,
    /// The lease.
    pub lease_id: LeaseId,
    /// Its deadline, as far as it was known.
    pub due_at: OffsetDateTime,
}

impl LastAttempt {
    /// The entry of a lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        Self {
            lane_id: lease.key.lane,
            subscription_id: lease.key.subscription,
            lease_id: lease.key.lease,
            due_at: lease.deadline,
        }
    }
}

/// Adds entries.
///
/// # Errors
/// When the database call fails.
pub async fn insert(session: &mut Session, entries: &[LastAttempt]) -> Result<(), Error> {
    sqlx::query(
        "-- last_attempt.insert
         INSERT INTO last_attempt (lane_id, subscription_id, lease_id, due_at)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[])",
    )
    .bind(entries.iter().map(|e| e.lane_id).collect::<Vec<_>>())
    .bind(
        entries
            .iter()
            .map(|e| e.subscription_id)
            .collect::<Vec<_>>(),
    )
    .bind(entries.iter().map(|e| e.lease_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|e| e.due_at).collect::<Vec<_>>())
    .execute(session.run("last_attempt.insert"))
    .await?;
    Ok(())
}

/// Adds an entry for each lease of a lane and subscription that has no attempt left, after the limit was lowered. Leases
/// that have an entry get another one.
///
/// # Errors
/// When the database call fails.
pub async fn insert_all(
    session: &mut Session,
    key: CursorKey,
    max_attempts: i32,
) -> Result<(), Error> {
    sqlx::query(
        "-- last_attempt.insert_all
         INSERT INTO last_attempt (lane_id, subscription_id, lease_id, due_at)
         SELECT e.lane_id, e.subscription_id, e.lease_id, e.deadline FROM lease e
         WHERE e.lane_id = $1 AND e.subscription_id = $2 AND e.attempt >= $3",
    )
    .bind(key.lane)
    .bind(key.subscription)
    .bind(max_attempts)
    .execute(session.run("last_attempt.insert_all"))
    .await?;
    Ok(())
}

/// The first entries that are due, and the database's time. No entry below `low` is needed: it skips the index entries of
/// deleted ones, which stay as long as any transaction may see them.
///
/// # Errors
/// When the database call fails.
pub async fn due(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    low: Option<OffsetDateTime>,
    limit: i64,
) -> Result<Vec<LastAttempt>, Error> {
    Ok(sqlx::query_as(
        "-- last_attempt.due
         SELECT lane_id, subscription_id, lease_id, due_at FROM last_attempt
         WHERE due_at >= coalesce($2, '-infinity') AND due_at <= coalesce($1, now())
         ORDER BY due_at LIMIT $3",
    )
    .bind(now)
    .bind(low)
    .bind(limit)
    .fetch_all(session.run("last_attempt.due"))
    .await?)
}

/// Deletes entries.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, entries: &[LastAttempt]) -> Result<(), Error> {
    sqlx::query(
        "-- last_attempt.delete
         DELETE FROM last_attempt a
         USING unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[]) AS e (lane_id, subscription_id, lease_id, due_at)
         WHERE a.due_at = e.due_at AND a.lane_id = e.lane_id AND a.subscription_id = e.subscription_id
           AND a.lease_id = e.lease_id",
    )
    .bind(entries.iter().map(|e| e.lane_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|e| e.subscription_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|e| e.lease_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|e| e.due_at).collect::<Vec<_>>())
    .execute(session.run("last_attempt.delete"))
    .await?;
    Ok(())
}
