//! Table `capacity_meter`: the time up to which the guaranteed capacity of each tenant is in `usage` (I8). A row is
//! locked before it is posted or changed. Every statement after the lock takes the time that the lock returned.

use time::OffsetDateTime;

use super::{Error, Session, TenantId};

/// Tenants that are due: capacity was last posted before `posted_before`, or in an hour that is over. In order of id,
/// from the one after `after` on.
///
/// # Errors
/// When the database call fails.
pub async fn due(
    session: &mut Session,
    after: TenantId,
    limit: i64,
    posted_before: OffsetDateTime,
    at: OffsetDateTime,
) -> Result<Vec<TenantId>, Error> {
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

/// Locks the rows of tenants in order of id. Returns the database's time after that, or `None` if no tenant has a row.
///
/// # Errors
/// When the database call fails.
pub async fn lock(
    session: &mut Session,
    tenants: &[TenantId],
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

/// Adds the capacity of locked tenants up to `at` to `usage`, split by hour.
///
/// # Errors
/// When the database call fails.
pub async fn post(
    session: &mut Session,
    tenants: &[TenantId],
    at: OffsetDateTime,
) -> Result<(), Error> {
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

/// Sets the guarantee of a tenant, which is above zero, from `at` on (`None`: the database's time).
///
/// # Errors
/// When the database call fails.
pub async fn set(
    session: &mut Session,
    tenant: TenantId,
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

/// Removes the guarantee of a tenant. The caller has posted it up to now.
///
/// # Errors
/// When the database call fails.
pub async fn end(session: &mut Session, tenant: TenantId) -> Result<(), Error> {
    sqlx::query(
        "-- capacity_meter.end
         DELETE FROM capacity_meter WHERE tenant_id = $1",
    )
    .bind(tenant)
    .execute(session.run("capacity_meter.end"))
    .await?;
    Ok(())
}
