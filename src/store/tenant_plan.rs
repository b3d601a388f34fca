//! Table `tenant_plan`: the price plan of each tenant, by the day from which it applies. The rows of a tenant change
//! only under its lock (`tenant.lock`).

use time::{Date, OffsetDateTime};

use super::{Error, Session, TenantId};

/// A row, with the currency of the plan.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TenantPlanRow {
    /// The tenant.
    pub tenant_id: TenantId,
    /// From the start of this day (UTC) on, until the next row.
    pub valid_from: Date,
    /// Name of the plan; `None`: usage has no price.
    pub plan: Option<String>,
    /// Currency of the plan (ISO 4217); `None` without a plan.
    pub currency: Option<String>,
}

/// The rows of some tenants, in order of tenant and time; a tenant has few.
///
/// # Errors
/// When the database call fails.
pub async fn of(session: &mut Session, tenants: &[TenantId]) -> Result<Vec<TenantPlanRow>, Error> {
    Ok(sqlx::query_as(
        "-- tenant_plan.of
         SELECT t.tenant_id, t.valid_from, t.plan, p.currency
         FROM tenant_plan t LEFT JOIN price_plan p ON p.name = t.plan
         WHERE t.tenant_id = ANY ($1) ORDER BY t.tenant_id, t.valid_from",
    )
    .bind(tenants)
    .fetch_all(session.run("tenant_plan.of"))
    .await?)
}

/// Writes a row.
///
/// # Errors
/// When the database call fails.
pub async fn put(
    session: &mut Session,
    row: &TenantPlanRow,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- tenant_plan.put
         INSERT INTO tenant_plan (tenant_id, valid_from, plan, created_at) VALUES ($1, $2, $3, coalesce($4, now()))
         ON CONFLICT (tenant_id, valid_from) DO UPDATE SET plan = excluded.plan, created_at = excluded.created_at",
    )
    .bind(row.tenant_id)
    .bind(row.valid_from)
    .bind(&row.plan)
    .bind(now)
    .execute(session.run("tenant_plan.put"))
    .await?;
    Ok(())
}

/// Deletes a row.
///
/// # Errors
/// When the database call fails.
pub async fn delete(
    session: &mut Session,
    tenant: TenantId,
    valid_from: Date,
) -> Result<(), Error> {
    sqlx::query(
        "-- tenant_plan.delete
         DELETE FROM tenant_plan WHERE tenant_id = $1 AND valid_from = $2",
    )
    .bind(tenant)
    .bind(valid_from)
    .execute(session.run("tenant_plan.delete"))
    .await?;
    Ok(())
}
