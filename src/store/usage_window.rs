//! Reading `usage_minute`, `usage_hour` and `usage_day` by time alone: where there is usage, and whose.

use time::OffsetDateTime;

use super::{Error, Session};

/// The first usage from a time on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct FirstUse {
    /// The first minute with usage.
    pub minute: Option<OffsetDateTime>,
    /// The first hour with usage that is not kept by the minute, from the hour of that time on.
    pub hour: Option<OffsetDateTime>,
}

/// The first usage from a time on, of a tenant or of all.
///
/// # Errors
/// When the database does not answer.
pub async fn first(
    session: &mut Session,
    tenant: Option<i64>,
    from: OffsetDateTime,
) -> Result<FirstUse, Error> {
    let Some(tenant) = tenant else {
        return Ok(sqlx::query_as(
            "-- usage.first
             SELECT (SELECT at FROM usage_minute WHERE at >= $1 ORDER BY at LIMIT 1) AS minute,
                    (SELECT at FROM usage_hour WHERE at >= date_trunc('hour', $1) ORDER BY at LIMIT 1) AS hour",
        )
        .bind(from)
        .fetch_one(session.run("usage.first"))
        .await?);
    };
    Ok(sqlx::query_as(
        "-- usage.first_of
         SELECT (SELECT at FROM usage_minute WHERE tenant_id = $1 AND at >= $2 ORDER BY at LIMIT 1) AS minute,
                (SELECT at FROM usage_hour WHERE tenant_id = $1 AND at >= date_trunc('hour', $2) ORDER BY at LIMIT 1) AS hour",
    )
    .bind(tenant)
    .bind(from)
    .fetch_one(session.run("usage.first_of"))
    .await?)
}

/// Tenants after `after`, in order of number, that have usage from `from` to `to`; what is kept by the hour or day counts
/// from `hours_from` on.
///
/// # Errors
/// When the database does not answer.
pub async fn tenants(
    session: &mut Session,
    (from, to): (OffsetDateTime, OffsetDateTime),
    hours_from: OffsetDateTime,
    (after, limit): (i64, i64),
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar(
        "-- usage.tenants
         SELECT u.tenant_id
         FROM (SELECT tenant_id FROM usage_minute WHERE at >= $1 AND at < $2
               UNION SELECT tenant_id FROM usage_hour WHERE at >= $3 AND at < $2
               UNION SELECT tenant_id FROM usage_day WHERE at >= $3 AND at < $2) u
         WHERE u.tenant_id > $4 ORDER BY u.tenant_id LIMIT $5",
    )
    .bind(from)
    .bind(to)
    .bind(hours_from)
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("usage.tenants"))
    .await?)
}
