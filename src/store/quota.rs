//! Table `quota`: the limits of each tenant, which hold for all nodes together, and the counts that some of them are
//! compared with. Read when a quota changes and when a topic or subscription is created; no publish reads or writes it.

use time::OffsetDateTime;

use super::{Error, Session, TenantId};

/// A row; a limit of `None` means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct QuotaRow {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Guaranteed requests per second.
    pub requests_guaranteed: Option<i64>,
    /// Most requests per second.
    pub requests_ceiling: Option<i64>,
    /// Guaranteed published messages per second.
    pub messages_guaranteed: Option<i64>,
    /// Most published messages per second.
    pub messages_ceiling: Option<i64>,
    /// Guaranteed published bytes per second.
    pub bytes_guaranteed: Option<i64>,
    /// Most published bytes per second.
    pub bytes_ceiling: Option<i64>,
    /// Most requests at the same time.
    pub concurrent_requests: Option<i64>,
    /// Most bytes of stored payloads.
    pub stored_bytes: Option<i64>,
    /// Most topics.
    pub topics: Option<i64>,
    /// Most subscriptions.
    pub subscriptions: Option<i64>,
    /// Most messages that are handed out and not settled.
    pub in_flight: Option<i64>,
    /// Publishes and receives are refused until this time, because a budget is spent.
    pub stopped_until: Option<OffsetDateTime>,
    /// The version of the installation's quotas that this row was written with.
    pub version: i64,
}

/// The quota of a tenant.
///
/// # Errors
/// When the database call fails.
pub async fn get(session: &mut Session, tenant: TenantId) -> Result<Option<QuotaRow>, Error> {
    Ok(sqlx::query_as(
        "-- quota.get
         SELECT * FROM quota WHERE tenant_id = $1",
    )
    .bind(tenant)
    .fetch_optional(session.run("quota.get"))
    .await?)
}

/// Quotas that changed after a version, in the order of their changes.
///
/// # Errors
/// When the database call fails.
pub async fn changed_since(
    session: &mut Session,
    version: i64,
    limit: i64,
) -> Result<Vec<QuotaRow>, Error> {
    Ok(sqlx::query_as(
        "-- quota.changed_since
         SELECT * FROM quota WHERE version > $1 ORDER BY version LIMIT $2",
    )
    .bind(version)
    .bind(limit)
    .fetch_all(session.run("quota.changed_since"))
    .await?)
}

/// Locks the quota of a tenant. Transactions that create something that the quota counts run one after the other.
///
/// # Errors
/// When the database call fails.
pub async fn lock(session: &mut Session, tenant: TenantId) -> Result<Option<QuotaRow>, Error> {
    Ok(sqlx::query_as(
        "-- quota.lock
         SELECT * FROM quota WHERE tenant_id = $1 FOR UPDATE",
    )
    .bind(tenant)
    .fetch_optional(session.run("quota.lock"))
    .await?)
}

/// Finds a tenant by name and locks it. Creating a topic or subscription takes a shared lock on this row, because it
/// refers to it; so each such transaction has ended or waits.
///
/// # Errors
/// When the database call fails.
pub async fn lock_tenant(session: &mut Session, name: &str) -> Result<Option<TenantId>, Error> {
    Ok(sqlx::query_scalar(
        "-- quota.lock_tenant
         SELECT tenant_id FROM tenant WHERE name = $1 FOR UPDATE",
    )
    .bind(name)
    .fetch_optional(session.run("quota.lock_tenant"))
    .await?)
}

/// Locks a tenant by id, like [`lock_tenant`].
///
/// # Errors
/// When the database call fails.
pub async fn lock_tenant_id(session: &mut Session, tenant: TenantId) -> Result<(), Error> {
    sqlx::query(
        "-- quota.lock_tenant_id
         SELECT FROM tenant WHERE tenant_id = $1 FOR UPDATE",
    )
    .bind(tenant)
    .execute(session.run("quota.lock_tenant_id"))
    .await?;
    Ok(())
}

/// Refuses publishes and receives of a tenant until a time, or ends the refusal. Its limits stay as they are.
///
/// # Errors
/// When the database call fails.
pub async fn stop(
    session: &mut Session,
    tenant: TenantId,
    until: Option<OffsetDateTime>,
    version: i64,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- quota.stop
         INSERT INTO quota (tenant_id, stopped_until, version, updated_at) VALUES ($1, $2, $3, coalesce($4, now()))
         ON CONFLICT (tenant_id) DO UPDATE SET stopped_until = excluded.stopped_until, version = excluded.version",
    )
    .bind(tenant)
    .bind(until)
    .bind(version)
    .bind(now)
    .execute(session.run("quota.stop"))
    .await?;
    Ok(())
}

/// Writes the limits of a tenant. The stop by a budget stays as it is.
///
/// # Errors
/// When the database call fails.
pub async fn put(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    row: &QuotaRow,
) -> Result<(), Error> {
    sqlx::query(
        "-- quota.put
         INSERT INTO quota (tenant_id, requests_guaranteed, requests_ceiling, messages_guaranteed, messages_ceiling,
             bytes_guaranteed, bytes_ceiling, concurrent_requests, stored_bytes, topics, subscriptions, in_flight,
             version, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, coalesce($14, now()))
         ON CONFLICT (tenant_id) DO UPDATE SET
             requests_guaranteed = excluded.requests_guaranteed, requests_ceiling = excluded.requests_ceiling,
             messages_guaranteed = excluded.messages_guaranteed, messages_ceiling = excluded.messages_ceiling,
             bytes_guaranteed = excluded.bytes_guaranteed, bytes_ceiling = excluded.bytes_ceiling,
             concurrent_requests = excluded.concurrent_requests, stored_bytes = excluded.stored_bytes,
             topics = excluded.topics, subscriptions = excluded.subscriptions, in_flight = excluded.in_flight,
             version = excluded.version, updated_at = excluded.updated_at",
    )
    .bind(row.tenant_id)
    .bind(row.requests_guaranteed)
    .bind(row.requests_ceiling)
    .bind(row.messages_guaranteed)
    .bind(row.messages_ceiling)
    .bind(row.bytes_guaranteed)
    .bind(row.bytes_ceiling)
    .bind(row.concurrent_requests)
    .bind(row.stored_bytes)
    .bind(row.topics)
    .bind(row.subscriptions)
    .bind(row.in_flight)
    .bind(row.version)
    .bind(now)
    .execute(session.run("quota.put"))
    .await?;
    Ok(())
}

/// The number of topics of a tenant.
///
/// # Errors
/// When the database call fails.
pub async fn topics(session: &mut Session, tenant: TenantId) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- quota.topics
         SELECT count(*) FROM topic WHERE tenant_id = $1",
    )
    .bind(tenant)
    .fetch_one(session.run("quota.topics"))
    .await?)
}

/// The number of subscriptions of a tenant.
///
/// # Errors
/// When the database call fails.
pub async fn subscriptions(session: &mut Session, tenant: TenantId) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- quota.subscriptions
         SELECT count(*) FROM subscription WHERE tenant_id = $1",
    )
    .bind(tenant)
    .fetch_one(session.run("quota.subscriptions"))
    .await?)
}
