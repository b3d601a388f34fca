//! Table `audit`: every change in the control plane, with its author. The transaction of the change writes the entry.

use time::OffsetDateTime;

use super::{Error, Session, TenantId};

/// An entry to write.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// The tenant that the changed resource belongs to.
    pub tenant: Option<TenantId>,
    /// The caller that made the change.
    pub actor: &'a str,
    /// The action.
    pub action: &'a str,
    /// The changed resource.
    pub target: &'a str,
    /// The content of the request, as JSON.
    pub detail: &'a str,
}

/// An entry, with the name of its tenant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EntryRow {
    /// Internal number; it rises with every entry.
    pub audit_id: i64,
    /// Time of the change.
    pub at: OffsetDateTime,
    /// The tenant that the changed resource belongs to.
    pub tenant: Option<String>,
    /// The caller that made the change.
    pub actor: String,
    /// The action.
    pub action: String,
    /// The changed resource.
    pub target: String,
    /// The content of the request, as JSON.
    pub detail: String,
}

/// Adds an entry.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    entry: &NewEntry<'_>,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- audit.insert
         INSERT INTO audit (at, tenant_id, actor, action, target, detail) VALUES (coalesce($6, now()), $1, $2, $3, $4, $5::jsonb)",
    )
    .bind(entry.tenant)
    .bind(entry.actor)
    .bind(entry.action)
    .bind(entry.target)
    .bind(entry.detail)
    .bind(now)
    .execute(session.run("audit.insert"))
    .await?;
    Ok(())
}

/// Entries before `before`, latest first, of one tenant or of all.
///
/// # Errors
/// When the database call fails.
pub async fn list(
    session: &mut Session,
    tenant: Option<TenantId>,
    before: i64,
    limit: i64,
) -> Result<Vec<EntryRow>, Error> {
    Ok(sqlx::query_as(
        "-- audit.list
         SELECT a.audit_id, a.at, t.name AS tenant, a.actor, a.action, a.target, a.detail::text AS detail
         FROM audit a LEFT JOIN tenant t USING (tenant_id)
         WHERE a.audit_id < $2 AND ($1::bigint IS NULL OR a.tenant_id = $1)
         ORDER BY a.audit_id DESC LIMIT $3",
    )
    .bind(tenant)
    .bind(before)
    .bind(limit)
    .fetch_all(session.run("audit.list"))
    .await?)
}

/// Deletes entries older than `days`, at most `limit` of them, and returns their number.
///
/// # Errors
/// When the database call fails.
pub async fn expire(
    session: &mut Session,
    days: u32,
    limit: i64,
    now: Option<OffsetDateTime>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "-- audit.expire
         DELETE FROM audit WHERE audit_id IN (
             SELECT audit_id FROM audit WHERE at < coalesce($3, now()) - $1 * interval '1 day' ORDER BY at LIMIT $2)",
    )
    .bind(f64::from(days))
    .bind(limit)
    .bind(now)
    .execute(session.run("audit.expire"))
    .await?;
    Ok(done.rows_affected())
}
