//! Table `lease`, off the turn: redelivery and changes of visibility lock the rows they look at, plan in Rust
//! (`engine/plan.rs`) and write the difference. Fresh leases and plain acks are the turn's.
//!
//! A waiting lease belongs to a subscription with an order of its own (`engine/order`): it was read ahead of the cursor and
//! not handed out yet, so it has attempt 0, is due at once and has no receipt.

use time::OffsetDateTime;

use super::{Error, Session};

/// What names a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// Lane.
    pub lane: i64,
    /// Subscription.
    pub subscription: i64,
    /// Lease.
    pub lease: i64,
    /// 0, or bit + 1 of a message that was split off.
    pub part: i16,
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its key.
    pub key: LeaseKey,
    /// Offset of bit 0.
    pub base: i64,
    /// Bits not settled.
    pub pending: u64,
    /// Until then nobody else gets them.
    pub deadline: OffsetDateTime,
    /// How many times they were handed out.
    pub attempt: i32,
    /// Given back with a delay.
    pub delayed: bool,
    /// First end of an attempt without an ack.
    pub first_failed_at: Option<OffsetDateTime>,
    /// Last end of an attempt without an ack.
    pub last_failed_at: Option<OffsetDateTime>,
    /// By what its messages are told apart, in a subscription with an order of its own.
    pub order_key: Option<i64>,
    /// Read ahead of the cursor and not handed out yet.
    pub waiting: bool,
}

/// A row as it is read.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    lane_id: i64,
    subscription_id: i64,
    lease_id: i64,
    part: i16,
    base: i64,
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

/// Locks leases past their deadline that no other node has locked, earliest first. `low` is a bound below which there is
/// none: the index keeps entries of deleted leases for as long as any transaction may see them.
///
/// # Errors
/// When the database does not answer.
pub async fn lock_due(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    subscription: i64,
    lane: i64,
    (low, limit): (Option<OffsetDateTime>, i64),
) -> Result<Vec<Lease>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- lease.lock_due
         SELECT * FROM lease
         WHERE lane_id = $1 AND subscription_id = $2
           AND attempt >= 0 AND deadline >= coalesce($3, '-infinity') AND deadline <= coalesce($4, now())
         ORDER BY deadline LIMIT $5
         FOR UPDATE SKIP LOCKED",
    )
    .bind(lane)
    .bind(subscription)
    .bind(low)
    .bind(now)
    .bind(limit)
    .fetch_all(session.run("lease.lock_due"))
    .await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// The database's time, and whether a lease of a subscription is past its deadline. Both ends of the range are known to the
/// planner (`now()`, never `clock_timestamp()`): while something holds back vacuum, the index keeps the entries of all
/// leases settled since, and only those between `low` and now are walked.
///
/// # Errors
/// When the database does not answer.
pub async fn is_due(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    subscription: i64,
    lanes: &[i64],
    low: Option<OffsetDateTime>,
) -> Result<(OffsetDateTime, bool), Error> {
    Ok(sqlx::query_as(
        "-- lease.is_due
         SELECT coalesce($1, now()), EXISTS (
             SELECT FROM unnest($3::bigint[]) AS k (lane_id)
             CROSS JOIN LATERAL (
                 SELECT FROM lease l
                 WHERE l.lane_id = k.lane_id AND l.subscription_id = $2
                   AND l.attempt >= 0 AND l.deadline >= coalesce($4, '-infinity') AND l.deadline <= coalesce($1, now())
                 ORDER BY l.deadline LIMIT 1
             ) d)",
    )
    .bind(now)
    .bind(subscription)
    .bind(lanes)
    .bind(low)
    .fetch_one(session.run("lease.is_due"))
    .await?)
}

/// Locks the leases with these ids, with all their parts, in the order of the turn.
///
/// # Errors
/// When the database does not answer.
pub async fn lock(
    session: &mut Session,
    subscription: i64,
    lanes: &[i64],
    leases: &[i64],
) -> Result<Vec<Lease>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- lease.lock
         SELECT l.* FROM unnest($2::bigint[], $3::bigint[]) AS k (lane_id, lease_id)
         JOIN lease l ON l.lane_id = k.lane_id AND l.subscription_id = $1 AND l.lease_id = k.lease_id
         ORDER BY l.lane_id, l.subscription_id, l.lease_id, l.part
         FOR UPDATE OF l",
    )
    .bind(subscription)
    .bind(lanes)
    .bind(leases)
    .fetch_all(session.run("lease.lock"))
    .await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// Deletes leases that the caller has locked; answers how many.
///
/// # Errors
/// When the database does not answer.
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

/// Writes bits and deadline of leases that the caller has locked; answers how many.
///
/// # Errors
/// When the database does not answer.
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

/// Inserts leases; answers their ids in order. A key with lease 0 gets a new id.
///
/// # Errors
/// When the database does not answer.
pub async fn insert(session: &mut Session, leases: &[Lease]) -> Result<Vec<i64>, Error> {
    let ids: Vec<(i64, i64)> = sqlx::query_as(
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

/// Messages that a subscription has in leases that were handed out.
///
/// # Errors
/// When the database does not answer.
pub async fn in_flight(
    session: &mut Session,
    subscription: i64,
    lanes: &[i64],
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

/// Messages that pairs of lane and subscription have in leases that were handed out: reads these leases, so it runs now
/// and then only.
///
/// # Errors
/// When the database does not answer.
pub async fn in_flight_of(
    session: &mut Session,
    lanes: &[i64],
    subscriptions: &[i64],
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

/// Ends the leases of a subscription, in the order of the turn, and answers how many; a claim or redelivery that ends
/// meanwhile may leave others.
///
/// # Errors
/// When the database does not answer.
pub async fn end(session: &mut Session, subscription: i64, topic: i64) -> Result<u64, Error> {
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
