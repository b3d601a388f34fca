//! Table `lost_lease`: the messages that leases have lost without an ack. An ack that finds its message not in its lease any
//! more asks here: when the lease has not lost it, an earlier ack by the same receipt has settled it. So acks, which are
//! many, cost nothing, and redelivery pays.
//!
//! Records are deleted when they are old. One row of each pair then says up to which lease: of older leases nothing is
//! known, and their receipts count as lost.

use time::OffsetDateTime;

use super::lease::LeaseKey;
use super::{Error, LaneId, LeaseId, Session, SubscriptionId, TopicId};

/// Messages of a lease, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseBits {
    /// Lane.
    pub lane: LaneId,
    /// The lease.
    pub lease: LeaseId,
    /// The messages.
    pub bits: u64,
}

/// Records that leases have lost messages.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    lost: &[(LeaseKey, u64)],
) -> Result<(), Error> {
    sqlx::query(
        "-- lost_lease.insert
         INSERT INTO lost_lease (lane_id, subscription_id, lease_id, bits, lost_at)
         SELECT l.*, coalesce($5, now())
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS l (lane_id, subscription_id, lease_id, bits)",
    )
    .bind(lost.iter().map(|(key, _)| key.lane).collect::<Vec<_>>())
    .bind(lost.iter().map(|(key, _)| key.subscription).collect::<Vec<_>>())
    .bind(lost.iter().map(|(key, _)| key.lease).collect::<Vec<_>>())
    .bind(lost.iter().map(|(_, bits)| bits.cast_signed()).collect::<Vec<_>>())
    .bind(now)
    .execute(session.run("lost_lease.insert"))
    .await?;
    Ok(())
}

/// Which of these messages, none of which is in its lease any more, the lease has not lost. 0 for a lease of which nothing
/// is known.
///
/// # Errors
/// When the database call fails.
pub async fn not_lost(
    session: &mut Session,
    subscription: SubscriptionId,
    asked: &[LeaseBits],
) -> Result<Vec<u64>, Error> {
    let bits: Vec<i64> = sqlx::query_scalar(
        "-- lost_lease.not_lost
         SELECT CASE WHEN k.lease_id <= f.lease_id THEN 0 ELSE k.bits & ~coalesce(l.bits, 0) END
         FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS k (lane_id, lease_id, bits, ordinal)
         LEFT JOIN LATERAL (
             SELECT bit_or(x.bits) AS bits FROM lost_lease x
             WHERE x.lane_id = k.lane_id AND x.subscription_id = $1 AND x.lease_id = k.lease_id
         ) l ON true
         LEFT JOIN LATERAL (
             SELECT x.lease_id FROM lost_lease x
             WHERE x.lane_id = k.lane_id AND x.subscription_id = $1 AND x.bits = 0
         ) f ON true
         ORDER BY k.ordinal",
    )
    .bind(subscription)
    .bind(asked.iter().map(|one| one.lane).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.lease).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.bits.cast_signed()).collect::<Vec<_>>())
    .fetch_all(session.run("lost_lease.not_lost"))
    .await?;
    Ok(bits.into_iter().map(i64::cast_unsigned).collect())
}

/// Deletes the oldest records that were made before `until`, none of which was made before `low`, and says so in the row
/// of their pair. Returns how many.
///
/// # Errors
/// When the database call fails.
pub async fn forget(
    session: &mut Session,
    low: Option<OffsetDateTime>,
    until: OffsetDateTime,
    limit: i64,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- lost_lease.forget
         WITH old AS MATERIALIZED (
             SELECT x.ctid AS row_at FROM lost_lease x
             WHERE x.bits <> 0 AND x.lost_at >= coalesce($1, '-infinity') AND x.lost_at < $2
             ORDER BY x.lost_at LIMIT $3
         ), gone AS (
             DELETE FROM lost_lease l USING old o WHERE l.ctid = o.row_at AND l.bits <> 0
             RETURNING l.lane_id, l.subscription_id, l.lease_id
         ), known AS (
             INSERT INTO lost_lease AS f (lane_id, subscription_id, lease_id, bits, lost_at)
             SELECT g.lane_id, g.subscription_id, max(g.lease_id), 0, $2 FROM gone g GROUP BY g.lane_id, g.subscription_id
             ORDER BY g.lane_id, g.subscription_id
             ON CONFLICT (lane_id, subscription_id) WHERE bits = 0
                 DO UPDATE SET lease_id = greatest(f.lease_id, excluded.lease_id), lost_at = excluded.lost_at
         )
         SELECT count(*) FROM gone",
    )
    .bind(low)
    .bind(until)
    .bind(limit)
    .fetch_one(session.run("lost_lease.forget"))
    .await?)
}

/// Deletes what is recorded of a subscription.
///
/// # Errors
/// When the database call fails.
pub async fn end(
    session: &mut Session,
    subscription: SubscriptionId,
    topic: TopicId,
) -> Result<(), Error> {
    sqlx::query(
        "-- lost_lease.end
         DELETE FROM lost_lease WHERE subscription_id = $1 AND lane_id IN (SELECT lane_id FROM lane WHERE topic_id = $2)",
    )
    .bind(subscription)
    .bind(topic)
    .execute(session.run("lost_lease.end"))
    .await?;
    Ok(())
}
