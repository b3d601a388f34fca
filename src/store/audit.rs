//! Table `audit`: who changed what in the control plane. Written by the transaction of the change.

use time::OffsetDateTime;

use super::{Error, Session};

/// An entry to write.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// Whose thing was changed.
    pub tenant: Option<i64>,
    /// Who changed it.
    pub actor: &'a str,
    /// What was done.
    pub action: &'a str,
    /// To what.
    pub target: &'a str,
    /// What was asked for, as JSON.
    pub detail: &'a str,
}

/// An entry, with the name of its tenant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EntryRow {
    /// Internal number, rising.
    pub audit_id: i64,
    /// When.
    pub at: OffsetDateTime,
    /// Whose thing was changed.
    pub tenant: Option<String>,
    /// Who changed it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// What was asked for, as JSON.
    pub detail: String,
}

/// Adds an entry.
///
/// # Errors
/// When the database does not answer.
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

/// Entries from the latest on, those before `before`: of one tenant, or of all.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    session: &mut Session,
    tenant: Option<i64>,
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

/// Forgets entries that are older than `days`, `limit` of them at most, and returns how many.
///
/// # Errors
/// When the database does not answer.
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
