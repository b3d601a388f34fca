//! Table `lease`, for statements outside the turn: subscriptions with an order of their own lock rows, compute their new
//! state in Rust (`engine/lease/plan.rs`) and write the difference. The turn creates and changes all other leases.
//!
//! A waiting lease belongs to a subscription with an order of its own (`engine/order`). Its messages were read ahead of
//! the cursor and are not handed out yet. It has attempt 0, is due at once and has no receipt.

use time::OffsetDateTime;

use super::{CursorKey, Error, LaneId, LeaseId, Offset, Session, SubscriptionId, TopicId};

/// The key of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// Lane.
    pub lane: LaneId,
    /// Subscription.
    pub subscription: SubscriptionId,
    /// Lease.
    pub lease: LeaseId,
    /// 0, or the number of a part that was split off when its messages were hidden for longer.
    pub part: i16,
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its key.
    pub key: LeaseKey,
    /// Offset of bit 0.
    pub base: Offset,
    /// Bits of the messages that are not settled.
    pub pending: u64,
    /// Its messages are hidden from other receives until then.
    pub deadline: OffsetDateTime,
    /// How often its messages were handed out.
    pub attempt: i32,
    /// Whether it was returned with a delay.
    pub delayed: bool,
    /// End of the first attempt that had no ack.
    pub first_failed_at: Option<OffsetDateTime>,
    /// End of the last attempt that had no ack.
    pub last_failed_at: Option<OffsetDateTime>,
    /// Key that groups its messages, in a subscription with an order of its own.
    pub order_key: Option<i64>,
    /// Whether it was read ahead of the cursor and is not handed out yet.
    pub waiting: bool,
}

/// A row as read from the database.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    lane_id: LaneId,
    subscription_id: SubscriptionId,
    lease_id: LeaseId,
    part: i16,
    base: Offset,
    pending: i64,
    deadline: OffsetDateTime,
    attempt: i32,
    delayed: bool,
    first_failed_at: Option<OffsetDateTime>,
    last_failed_at: Option<OffsetDateTime>,
    order_key: Option<i64>,
    waiting: bool,
}

impl From<Row> for Lease {
    fn from(row: Row) -> Self {
        Self {
            key: LeaseKey {
                lane: row.lane_id,
                subscription: row.subscription_id,
                lease: row.lease_id,
                part: row.part,
            },
            base: row.base,
            pending: row.pending.cast_unsigned(),
            deadline: row.deadline,
            attempt: row.attempt,
            delayed: row.delayed,
            first_failed_at: row.first_failed_at,
            last_failed_at: row.last_failed_at,
            order_key: row.order_key,
            waiting: row.waiting,
        }
    }
}

/// A search for leases past their deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueRange {
    /// The lane and subscription of the leases.
    pub key: CursorKey,
    /// A lower bound of their deadlines. It skips index entries of deleted leases, which stay as long as any
    /// transaction may see them.
    pub low: Option<OffsetDateTime>,
    /// Most leases to return.
    pub limit: i64,
}

/// Locks leases with all of their parts, in the order of the keys, which the caller has sorted, as a turn does.
///
/// # Errors
/// When the database call fails.
pub async fn lock(
    session: &mut Session,
    keys: &[(LaneId, SubscriptionId, LeaseId)],
) -> Result<Vec<Lease>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- lease.lock
         SELECT y.* FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS k (lane_id, subscription_id, lease_id)
         CROSS JOIN LATERAL (
             SELECT * FROM lease x
             WHERE x.lane_id = k.lane_id AND x.subscription_id = k.subscription_id AND x.lease_id = k.lease_id
             ORDER BY x.part FOR UPDATE
         ) y",
    )
    .bind(keys.iter().map(|key| key.0).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.1).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.2).collect::<Vec<_>>())
    .fetch_all(session.run("lease.lock"))
    .await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// Deletes leases that the caller has locked; returns their number.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, keys: &[LeaseKey]) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- lease.delete
         DELETE FROM lease l USING unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[])
             AS k (lane_id, subscription_id, lease_id, part)
         WHERE l.lane_id = k.lane_id AND l.subscription_id = k.subscription_id AND l.lease_id = k.lease_id AND l.part = k.part",
    )
    .bind(keys.iter().map(|k| k.lane).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.subscription).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.lease).collect::<Vec<_>>())
    .bind(keys.iter().map(|k| k.part).collect::<Vec<_>>())
    .execute(session.run("lease.delete"))
    .await?;
    Ok(done.rows_affected())
}

/// Writes the bits and deadlines of leases that the caller has locked; returns their number.
///
/// # Errors
/// When the database call fails.
pub async fn update(session: &mut Session, leases: &[Lease]) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- lease.update
         UPDATE lease l SET pending = k.pending, deadline = k.deadline, attempt = k.attempt
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::bigint[], $6::timestamptz[], $7::integer[])
             AS k (lane_id, subscription_id, lease_id, part, pending, deadline, attempt)
         WHERE l.lane_id = k.lane_id AND l.subscription_id = k.subscription_id AND l.lease_id = k.lease_id AND l.part = k.part",
    )
    .bind(leases.iter().map(|l| l.key.lane).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.key.subscription).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.key.lease).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.key.part).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.pending.cast_signed()).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.deadline).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.attempt).collect::<Vec<_>>())
    .execute(session.run("lease.update"))
    .await?;
    Ok(done.rows_affected())
}

/// Inserts leases and returns their ids in order. A key with [`LeaseId::UNASSIGNED`] gets a new id.
///
/// # Errors
/// When the database call fails.
pub async fn insert(session: &mut Session, leases: &[Lease]) -> Result<Vec<LeaseId>, Error> {
    let ids: Vec<(i64, LeaseId)> = sqlx::query_as(
        "-- lease.insert
         WITH new AS MATERIALIZED (
             SELECT k.*, CASE WHEN k.lease_id = 0 THEN nextval('lease_id_seq') ELSE k.lease_id END AS id
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[], $7::timestamptz[],
                         $8::integer[], $9::boolean[], $10::timestamptz[], $11::timestamptz[], $12::bigint[], $13::boolean[]) WITH ORDINALITY
                 AS k (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed,
                       first_failed_at, last_failed_at, order_key, waiting, ordinal)
         ), done AS (
             INSERT INTO lease (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed,
                                first_failed_at, last_failed_at, order_key, waiting)
             SELECT lane_id, subscription_id, id, part, base, pending, deadline, attempt, delayed, first_failed_at, last_failed_at,
                    order_key, waiting
             FROM new
         )
         SELECT ordinal, id FROM new ORDER BY ordinal",
    )
    .bind(leases.iter().map(|l| l.key.lane).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.key.subscription).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.key.lease).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.key.part).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.base).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.pending.cast_signed()).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.deadline).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.attempt).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.delayed).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.first_failed_at).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.last_failed_at).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.order_key).collect::<Vec<_>>())
    .bind(leases.iter().map(|l| l.waiting).collect::<Vec<_>>())
    .fetch_all(session.run("lease.insert"))
    .await?;
    Ok(ids.into_iter().map(|(_, id)| id).collect())
}

/// The number of messages in leases of a subscription that were handed out.
///
/// # Errors
/// When the database call fails.
pub async fn in_flight(
    session: &mut Session,
    subscription: SubscriptionId,
    lanes: &[LaneId],
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- lease.in_flight
         SELECT coalesce(sum(bit_count(pending::bit(64))), 0)::bigint FROM lease
         WHERE lane_id = ANY ($2) AND subscription_id = $1 AND NOT waiting",
    )
    .bind(subscription)
    .bind(lanes)
    .fetch_one(session.run("lease.in_flight"))
    .await?)
}

/// The number of messages in leases that were handed out, by lane and subscription. Reads all of these leases, so
/// callers run it rarely.
///
/// # Errors
/// When the database call fails.
pub async fn in_flight_of(
    session: &mut Session,
    lanes: &[LaneId],
    subscriptions: &[SubscriptionId],
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- lease.in_flight_of
         SELECT coalesce(sum(o.messages), 0)::bigint
         FROM unnest($1::bigint[], $2::bigint[]) AS k (lane_id, subscription_id)
         CROSS JOIN LATERAL (
             SELECT sum(bit_count(e.pending::bit(64))) AS messages FROM lease e
             WHERE e.lane_id = k.lane_id AND e.subscription_id = k.subscription_id AND NOT e.waiting
         ) o",
    )
    .bind(lanes)
    .bind(subscriptions)
    .fetch_one(session.run("lease.in_flight_of"))
    .await?)
}

/// When the first lease of a subscription falls due.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct NextDue {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// Seconds until then; none or less: it is due.
    pub after_seconds: f64,
}

/// Of pairs of a lane and a subscription that reads it, when the first lease of each subscription falls due.
///
/// # Errors
/// When the database call fails.
pub async fn next_due(
    session: &mut Session,
    lanes: &[LaneId],
    subscriptions: &[SubscriptionId],
    now: Option<OffsetDateTime>,
) -> Result<Vec<NextDue>, Error> {
    Ok(sqlx::query_as(
        "-- lease.next_due
         SELECT k.subscription_id, extract(epoch FROM min(d.deadline) - coalesce($3, now()))::float8 AS after_seconds
         FROM unnest($1::bigint[], $2::bigint[]) AS k (lane_id, subscription_id)
         CROSS JOIN LATERAL (SELECT y.deadline FROM lease y
             WHERE y.lane_id = k.lane_id AND y.subscription_id = k.subscription_id AND y.attempt >= 0
             ORDER BY y.deadline LIMIT 1) d
         GROUP BY k.subscription_id",
    )
    .bind(lanes)
    .bind(subscriptions)
    .bind(now)
    .fetch_all(session.run("lease.next_due"))
    .await?)
}

/// The lowest offset in a lease of a subscription apart from these leases; `None`: there is no other lease.
///
/// # Errors
/// When the database call fails.
pub async fn lowest_other(
    session: &mut Session,
    key: CursorKey,
    leases: &[LeaseId],
) -> Result<Option<Offset>, Error> {
    Ok(sqlx::query_scalar(
        "-- lease.lowest_other
         SELECT min(base + position('1' IN reverse(pending::bit(64)::text)) - 1)
         FROM lease WHERE lane_id = $1 AND subscription_id = $2 AND lease_id <> ALL ($3)",
    )
    .bind(key.lane)
    .bind(key.subscription)
    .bind(leases)
    .fetch_one(session.run("lease.lowest_other"))
    .await?)
}

/// Makes all messages in leases of a subscription due now, in the lock order of the turn.
///
/// # Errors
/// When the database call fails.
pub async fn expire(
    session: &mut Session,
    subscription: SubscriptionId,
    lanes: &[LaneId],
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- lease.expire
         WITH held AS MATERIALIZED (
             SELECT ctid AS row_at FROM lease WHERE lane_id = ANY ($1) AND subscription_id = $2
             ORDER BY lane_id, lease_id, part FOR UPDATE
         )
         UPDATE lease l SET deadline = least(l.deadline, coalesce($3, now())) FROM held h WHERE l.ctid = h.row_at",
    )
    .bind(lanes)
    .bind(subscription)
    .bind(now)
    .execute(session.run("lease.expire"))
    .await?;
    Ok(())
}

/// Deletes the leases of a subscription in the lock order of the turn, and returns their number. A claim or redelivery
/// that commits meanwhile may leave others.
///
/// # Errors
/// When the database call fails.
pub async fn end(
    session: &mut Session,
    subscription: SubscriptionId,
    topic: TopicId,
) -> Result<u64, Error> {
    let ended = sqlx::query(
        "-- lease.end
         WITH all_of_it AS MATERIALIZED (
             SELECT e.lane_id, e.subscription_id, e.lease_id, e.part
             FROM lane l JOIN lease e ON e.lane_id = l.lane_id AND e.subscription_id = $1
             WHERE l.topic_id = $2
             ORDER BY e.lane_id, e.lease_id, e.part FOR UPDATE OF e
         )
         DELETE FROM lease e USING all_of_it a
         WHERE e.lane_id = a.lane_id AND e.subscription_id = a.subscription_id AND e.lease_id = a.lease_id AND e.part = a.part",
    )
    .bind(subscription)
    .bind(topic)
    .execute(session.run("lease.end"))
    .await?;
    Ok(ended.rows_affected())
}
