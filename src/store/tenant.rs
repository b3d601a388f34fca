//! Table `tenant`: the owners of all other resources.

use time::OffsetDateTime;

use super::{Error, Session, TenantId};

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TenantRow {
    /// Internal number.
    pub tenant_id: TenantId,
    /// Its name.
    pub name: String,
    /// Its keys and tokens are refused from this time on; `None`: it is not suspended.
    pub suspended_at: Option<OffsetDateTime>,
    /// The reason for the suspension.
    pub suspended_reason: Option<String>,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change.
    pub updated_at: Option<OffsetDateTime>,
}

/// The tenant that a migration creates. It is the only one in embedded mode.
///
/// # Errors
/// When the database call fails.
pub async fn default(session: &mut Session) -> Result<TenantId, Error> {
    Ok(sqlx::query_scalar(
        "-- tenant.default
         SELECT tenant_id FROM tenant WHERE name = 'default'",
    )
    .fetch_one(session.run("tenant.default"))
    .await?)
}

/// Creates a tenant; `false`: one of this name exists.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    name: &str,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- tenant.insert
         INSERT INTO tenant (name, created_at) VALUES ($1, coalesce($2, now())) ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(now)
    .execute(session.run("tenant.insert"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Suspends or resumes a tenant; `false`: it already was in that state.
///
/// # Errors
/// When the database call fails.
pub async fn suspend(
    session: &mut Session,
    tenant: TenantId,
    suspended: bool,
    reason: Option<&str>,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- tenant.suspend
         UPDATE tenant SET suspended_at = CASE WHEN $2 THEN coalesce(suspended_at, $4, now()) END,
                suspended_reason = CASE WHEN $2 THEN $3 END, updated_at = coalesce($4, now())
         WHERE tenant_id = $1
           AND (suspended_at IS NOT NULL, suspended_reason) IS DISTINCT FROM ($2, CASE WHEN $2 THEN $3 END)",
    )
    .bind(tenant)
    .bind(suspended)
    .bind(reason)
    .bind(now)
    .execute(session.run("tenant.suspend"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Records the time of a change of a tenant.
///
/// # Errors
/// When the database call fails.
pub async fn touch(
    session: &mut Session,
    tenant: TenantId,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- tenant.touch
         UPDATE tenant SET updated_at = coalesce($2, now()) WHERE tenant_id = $1",
    )
    .bind(tenant)
    .bind(now)
    .execute(session.run("tenant.touch"))
    .await?;
    Ok(())
}

/// The name of a tenant.
///
/// # Errors
/// When the database call fails.
pub async fn name(session: &mut Session, tenant: TenantId) -> Result<String, Error> {
    Ok(sqlx::query_scalar(
        "-- tenant.name
         SELECT name FROM tenant WHERE tenant_id = $1",
    )
    .bind(tenant)
    .fetch_one(session.run("tenant.name"))
    .await?)
}

/// Finds a tenant by name.
///
/// # Errors
/// When the database call fails.
pub async fn by_name(session: &mut Session, name: &str) -> Result<Option<TenantRow>, Error> {
    Ok(sqlx::query_as(
        "-- tenant.by_name
         SELECT tenant_id, name, suspended_at, suspended_reason, created_at, updated_at FROM tenant WHERE name = $1",
    )
    .bind(name)
    .fetch_optional(session.run("tenant.by_name"))
    .await?)
}

/// Locks a tenant by name. Counts per tenant do not change meanwhile.
///
/// # Errors
/// When the database call fails.
pub async fn lock(session: &mut Session, name: &str) -> Result<Option<TenantRow>, Error> {
    Ok(sqlx::query_as(
        "-- tenant.lock
         SELECT tenant_id, name, suspended_at, suspended_reason, created_at, updated_at FROM tenant WHERE name = $1
         FOR NO KEY UPDATE",
    )
    .bind(name)
    .fetch_optional(session.run("tenant.lock"))
    .await?)
}

/// Tenants whose names match one of the patterns, in order of name, from the one after a name on.
///
/// # Errors
/// When the database call fails.
pub async fn list(
    session: &mut Session,
    like: &[String],
    after: &str,
    limit: i64,
) -> Result<Vec<TenantRow>, Error> {
    Ok(sqlx::query_as(
        "-- tenant.list
         SELECT tenant_id, name, suspended_at, suspended_reason, created_at, updated_at FROM tenant
         WHERE name > $2 AND name LIKE ANY ($1) ORDER BY name LIMIT $3",
    )
    .bind(like)
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("tenant.list"))
    .await?)
}
