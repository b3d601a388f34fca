//! Table `lease`, for subscriptions with an order of their own. These statements tell leases that were handed out from
//! waiting ones, and find waiting ones by order key. `store/lease.rs` writes both.

use time::OffsetDateTime;

use super::lease::{DueRange, Lease, Row};
use super::{CursorKey, Error, LaneId, Offset, Session, SubscriptionId};

/// Locks leases of a lane that were handed out and are past their deadline, earliest first. Waiting leases are in the
/// scanned range, too, because they are due at once: the bound `low` should be near.
///
/// # Errors
/// When the database call fails.
pub async fn lock_due_again(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    range: DueRange,
) -> Result<Vec<Lease>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- lease_waiting.lock_due_again
         SELECT * FROM lease
         WHERE lane_id = $1 AND subscription_id = $2
           AND NOT waiting AND attempt >= 0 AND deadline >= coalesce($3, '-infinity') AND deadline <= coalesce($4, now())
         ORDER BY deadline LIMIT $5
         FOR UPDATE SKIP LOCKED",
    )
    .bind(range.key.lane)
    .bind(range.key.subscription)
    .bind(range.low)
    .bind(now)
    .bind(range.limit)
    .fetch_all(session.run("lease_waiting.lock_due_again"))
    .await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// The database's time, and the earliest deadline before it of a lease that was handed out.
///
/// # Errors
/// When the database call fails.
pub async fn earliest_due_again(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    subscription: SubscriptionId,
    lanes: &[LaneId],
    low: Option<OffsetDateTime>,
) -> Result<(OffsetDateTime, Option<OffsetDateTime>), Error> {
    Ok(sqlx::query_as(
        "-- lease_waiting.earliest_due_again
         SELECT coalesce($1, now()), (
             SELECT min(d.deadline) FROM unnest($3::bigint[]) AS k (lane_id)
             CROSS JOIN LATERAL (
                 SELECT l.deadline FROM lease l
                 WHERE l.lane_id = k.lane_id AND l.subscription_id = $2 AND NOT l.waiting
                   AND l.attempt >= 0 AND l.deadline >= coalesce($4, '-infinity') AND l.deadline <= coalesce($1, now())
                 ORDER BY l.deadline LIMIT 1
             ) d)",
    )
    .bind(now)
    .bind(subscription)
    .bind(lanes)
    .bind(low)
    .fetch_one(session.run("lease_waiting.earliest_due_again"))
    .await?)
}

/// A search for waiting leases of an order key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingRange {
    /// The order key.
    pub order_key: i64,
    /// The lowest base to return.
    pub base: Offset,
    /// Most leases to return.
    pub limit: i64,
}

/// Locks the first waiting leases of some order keys. Those that another transaction has locked are skipped.
///
/// # Errors
/// When the database call fails.
pub async fn lock(
    session: &mut Session,
    key: CursorKey,
    ranges: &[WaitingRange],
) -> Result<Vec<Lease>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- lease_waiting.lock
         SELECT y.* FROM unnest($3::bigint[], $4::bigint[], $5::bigint[]) AS k (order_key, base, wanted)
         CROSS JOIN LATERAL (
             SELECT * FROM lease x
             WHERE x.lane_id = $1 AND x.subscription_id = $2 AND x.waiting AND x.order_key = k.order_key AND x.base >= k.base
             ORDER BY x.base LIMIT k.wanted FOR UPDATE SKIP LOCKED
         ) y",
    )
    .bind(key.lane)
    .bind(key.subscription)
    .bind(ranges.iter().map(|range| range.order_key).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| range.base).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| range.limit).collect::<Vec<_>>())
    .fetch_all(session.run("lease_waiting.lock"))
    .await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// What waits of an order key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingCount {
    /// Messages.
    pub messages: i64,
    /// Leases.
    pub leases: i64,
}

/// The number of waiting messages and leases of each order key, including locked ones.
///
/// # Errors
/// When the database call fails.
pub async fn count(
    session: &mut Session,
    key: CursorKey,
    order_keys: &[i64],
) -> Result<Vec<WaitingCount>, Error> {
    let counts: Vec<(i64, i64)> = sqlx::query_as(
        "-- lease_waiting.count
         SELECT coalesce(sum(bit_count(x.pending::bit(64))), 0)::bigint, count(x.lease_id)
         FROM unnest($3::bigint[]) WITH ORDINALITY AS k (order_key, ordinal)
         LEFT JOIN lease x ON x.lane_id = $1 AND x.subscription_id = $2 AND x.waiting AND x.order_key = k.order_key
         GROUP BY k.ordinal ORDER BY k.ordinal",
    )
    .bind(key.lane)
    .bind(key.subscription)
    .bind(order_keys)
    .fetch_all(session.run("lease_waiting.count"))
    .await?;
    let counts = counts.into_iter();
    Ok(counts
        .map(|(messages, leases)| WaitingCount { messages, leases })
        .collect())
}

/// The leases of an order key, counted in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct OfKey {
    /// The order key.
    pub order_key: i64,
    /// Messages in waiting leases.
    pub waiting: i64,
    /// Messages that were handed out and are hidden.
    pub in_flight: i64,
}

/// The leases of each order key of a subscription: one scan of its leases.
///
/// # Errors
/// When the database call fails.
pub async fn of_keys(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    subscription: SubscriptionId,
    lanes: &[LaneId],
) -> Result<Vec<OfKey>, Error> {
    Ok(sqlx::query_as(
        "-- lease_waiting.of_keys
         SELECT order_key, coalesce(sum(bit_count(pending::bit(64))) FILTER (WHERE waiting), 0)::bigint AS waiting,
                coalesce(sum(bit_count(pending::bit(64)))
                    FILTER (WHERE NOT waiting AND deadline > coalesce($3, now()) AND NOT delayed), 0)::bigint AS in_flight
         FROM lease
         WHERE lane_id = ANY ($2) AND subscription_id = $1 AND order_key IS NOT NULL
         GROUP BY order_key",
    )
    .bind(subscription)
    .bind(lanes)
    .bind(now)
    .fetch_all(session.run("lease_waiting.of_keys"))
    .await?)
}
