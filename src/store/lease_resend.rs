//! Table `lease`, for messages that are handed out again on request: leases that are due at once, as if their messages had
//! been returned.

use time::OffsetDateTime;

use super::{CursorKey, Error, Offset, Session};

/// Makes leases of the messages of a range of offsets that are in no lease. The caller has locked the cursor, and the
/// range ends before it, so that each of them was handed out and is done. Returns how many there are.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    key: CursorKey,
    (first, end): (Offset, Offset),
    now: Option<OffsetDateTime>,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- lease_resend.insert
         WITH held AS (
             SELECT y.base + bit AS at FROM lease y CROSS JOIN generate_series(0, 63) AS bit
             WHERE y.lane_id = $1 AND y.subscription_id = $2 AND y.base > $3 - 64 AND y.base < $4
               AND (y.pending >> bit) & 1 = 1
         ), done AS (
             SELECT at FROM generate_series($3, $4 - 1) AS at WHERE at NOT IN (SELECT held.at FROM held)
         ), made AS (
             INSERT INTO lease (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed)
             SELECT $1, $2, nextval('lease_id_seq'), 0, g.base, g.pending, coalesce($5, now()), 0, true
             FROM (SELECT $3 + (at - $3) / 64 * 64 AS base, bit_or(1::bigint << ((at - $3) % 64)::integer) AS pending
                   FROM done GROUP BY (at - $3) / 64 ORDER BY (at - $3) / 64) g
             RETURNING pending
         )
         SELECT coalesce(sum(bit_count(pending::bit(64))), 0)::bigint FROM made",
    )
    .bind(key.lane)
    .bind(key.subscription)
    .bind(first)
    .bind(end)
    .bind(now)
    .fetch_one(session.run("lease_resend.insert"))
    .await?)
}
