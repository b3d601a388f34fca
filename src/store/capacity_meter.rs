//! Table `capacity_meter`: until when the guaranteed capacity of tenants is posted (I8). Rows are locked before they are
//! posted or changed, and every statement after the lock is told the time that the lock gave.

use time::OffsetDateTime;

use super::{Error, Session};

/// Tenants in order of id after `after` whose capacity was last posted before `posted_before`, or in an hour that is over.
///
/// # Errors
/// When the database does not answer.
pub async fn due(
    session: &mut Session,
    after: i64,
    limit: i64,
    (posted_before, at): (OffsetDateTime, OffsetDateTime),
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar(
        "-- capacity_meter.due
         SELECT tenant_id FROM capacity_meter
         WHERE tenant_id > $1 AND posted_at < greatest($3, date_trunc('hour', $4::timestamptz))
         ORDER BY tenant_id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .bind(posted_before)
    .bind(at)
    .fetch_all(session.run("capacity_meter.due"))
    .await?)
}

/// Locks the rows of tenants, in order of id; the database's time then, or `None` when none of them has a row.
///
/// # Errors
/// When the database does not answer.
pub async fn lock(
    session: &mut Session,
    tenants: &[i64],
    now: Option<OffsetDateTime>,
) -> Result<Option<OffsetDateTime>, Error> {
    let at: Vec<OffsetDateTime> = sqlx::query_scalar(
        "-- capacity_meter.lock
         SELECT coalesce($2, clock_timestamp()) AS at
         FROM capacity_meter WHERE tenant_id = ANY ($1) ORDER BY tenant_id FOR UPDATE",
    )
    .bind(tenants)
    .bind(now)
    .fetch_all(session.run("capacity_meter.lock"))
    .await?;
    Ok(at.into_iter().max())
}

/// Posts the capacity of locked tenants up to `at`, each hour its part.
///
/// # Errors
/// When the database does not answer.
pub async fn post(session: &mut Session, tenants: &[i64], at: OffsetDateTime) -> Result<(), Error> {
    sqlx::query(
        "-- capacity_meter.post
         WITH meter AS MATERIALIZED (
             SELECT m.* FROM capacity_meter m WHERE m.tenant_id = ANY ($1) AND m.posted_at < $2
         ), posted AS (
             UPDATE capacity_meter m SET posted_at = $2 FROM meter o WHERE m.tenant_id = o.tenant_id
         )
         INSERT INTO usage_hour AS u
             (tenant_id, at, meter, topic, subscription, units, elastic_units, messages, bytes, over_time)
         SELECT o.tenant_id, h.at, 'guaranteed_capacity', '', '', 0, 0, 0, 0, o.guaranteed * s.seconds
         FROM meter o
         CROSS JOIN LATERAL generate_series(date_trunc('hour', o.posted_at), $2, interval '1 hour') AS h (at)
         CROSS JOIN LATERAL (
             SELECT extract(epoch FROM least(h.at + interval '1 hour', $2) - greatest(h.at, o.posted_at)) AS seconds
         ) s
         WHERE s.seconds > 0
         ORDER BY o.tenant_id, h.at
         ON CONFLICT (tenant_id, at, meter, topic, subscription) DO UPDATE
         SET over_time = u.over_time + excluded.over_time",
    )
    .bind(tenants)
    .bind(at)
    .execute(session.run("capacity_meter.post"))
    .await?;
    Ok(())
}

/// From `at` on, the database's time when `None`, a tenant has this guarantee, which is above zero.
///
/// # Errors
/// When the database does not answer.
pub async fn set(
    session: &mut Session,
    tenant: i64,
    guaranteed: i64,
    at: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- capacity_meter.set
         INSERT INTO capacity_meter (tenant_id, guaranteed, posted_at) VALUES ($1, $2, coalesce($3, clock_timestamp()))
         ON CONFLICT (tenant_id) DO UPDATE SET guaranteed = excluded.guaranteed",
    )
    .bind(tenant)
    .bind(guaranteed)
    .bind(at)
    .execute(session.run("capacity_meter.set"))
    .await?;
    Ok(())
}

/// A tenant has no guarantee any more; what it had was posted.
///
/// # Errors
/// When the database does not answer.
pub async fn end(session: &mut Session, tenant: i64) -> Result<(), Error> {
    sqlx::query(
        "-- capacity_meter.end
         DELETE FROM capacity_meter WHERE tenant_id = $1",
    )
    .bind(tenant)
    .execute(session.run("capacity_meter.end"))
    .await?;
    Ok(())
}
