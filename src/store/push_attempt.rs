//! Table `push_attempt`: attempts to deliver messages, many in a row. A row covers a range of offsets, and what it holds
//! is for the service alone to read, so that a million deliveries cost some hundred rows.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Error, LaneId, Offset, Session, SubscriptionId};

/// Offsets that a row covers at most, so that a look-up by offset reads few rows.
pub const SPAN: i64 = 256;

/// Attempts of one subscription in one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// The lane.
    pub lane: LaneId,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Lowest offset.
    pub first: Offset,
    /// Highest offset.
    pub last: Offset,
    /// The attempts, compressed.
    pub attempts: Vec<u8>,
}

/// Appends attempts.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    rows: &[Attempts],
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    let lanes: Vec<LaneId> = rows.iter().map(|row| row.lane).collect();
    let subscriptions: Vec<SubscriptionId> = rows.iter().map(|row| row.subscription).collect();
    let first: Vec<Offset> = rows.iter().map(|row| row.first).collect();
    let last: Vec<Offset> = rows.iter().map(|row| row.last).collect();
    let attempts: Vec<&[u8]> = rows.iter().map(|row| row.attempts.as_slice()).collect();
    sqlx::query(
        "-- push_attempt.insert
         INSERT INTO push_attempt (lane_id, subscription_id, first_offset, last_offset, attempts, at)
         SELECT r.*, coalesce($6, now())
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[]) r",
    )
    .bind(lanes)
    .bind(subscriptions)
    .bind(first)
    .bind(last)
    .bind(attempts)
    .bind(now)
    .execute(session.run("push_attempt.insert"))
    .await?;
    Ok(())
}

/// Attempts of one subscription, among them some of a message.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Found {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// The attempts, compressed.
    pub attempts: Vec<u8>,
}

/// Rows that may have attempts of a message, the latest first, at most `limit`.
///
/// # Errors
/// When the database call fails.
pub async fn of_message(
    session: &mut Session,
    lane: LaneId,
    offset: Offset,
    limit: i64,
) -> Result<Vec<Found>, Error> {
    Ok(sqlx::query_as(
        "-- push_attempt.of_message
         SELECT subscription_id, attempts FROM push_attempt
         WHERE lane_id = $1 AND last_offset BETWEEN $2 AND $2 + $4 AND first_offset <= $2 ORDER BY attempt_id DESC LIMIT $3",
    )
    .bind(lane)
    .bind(offset)
    .bind(limit)
    .bind(SPAN)
    .fetch_all(session.run("push_attempt.of_message"))
    .await?)
}

/// Deletes up to `limit` rows that are older than `age`, and returns their number.
///
/// # Errors
/// When the database call fails.
pub async fn delete_old(
    session: &mut Session,
    age: Duration,
    limit: i64,
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- push_attempt.delete_old
         DELETE FROM push_attempt WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM push_attempt WHERE at < coalesce($3, now()) - $1 * interval '1 second'
             ORDER BY at LIMIT $2))",
    )
    .bind(age.as_secs_f64())
    .bind(limit)
    .bind(now)
    .execute(session.run("push_attempt.delete_old"))
    .await?;
    Ok(done.rows_affected())
}
