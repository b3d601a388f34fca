//! Table `budget`: the monthly budgets of tenants. The rows of a tenant change only under its lock
//! (`quota.lock_tenant_id`). Amounts are passed as text, so that no digit is lost.

use time::OffsetDateTime;

use super::{Error, Session, TenantId};

/// A budget.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BudgetRow {
    /// Internal number.
    pub budget_id: i64,
    /// Its name.
    pub name: String,
    /// The amount of a month, a decimal number.
    pub amount: String,
    /// Percentages of the amount at which an alert is sent, rising.
    pub alert_percents: Vec<i16>,
    /// Whether reaching the amount stops publishes and receives of the tenant.
    pub hard_stop: bool,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change.
    pub updated_at: OffsetDateTime,
}

/// The settings of a budget, to be written.
#[derive(Debug, Clone)]
pub struct NewBudget<'a> {
    /// Its name.
    pub name: &'a str,
    /// The amount of a month, a decimal number.
    pub amount: &'a str,
    /// Percentages of the amount at which an alert is sent, rising.
    pub alert_percents: &'a [i16],
    /// Whether reaching the amount stops publishes and receives of the tenant.
    pub hard_stop: bool,
}

/// The budgets of a tenant in order of name; a tenant has few.
///
/// # Errors
/// When the database call fails.
pub async fn of_tenant(session: &mut Session, tenant: TenantId) -> Result<Vec<BudgetRow>, Error> {
    Ok(sqlx::query_as(
        "-- budget.of_tenant
         SELECT budget_id, name, trim_scale(amount)::text AS amount, alert_percents, hard_stop, created_at, updated_at
         FROM budget WHERE tenant_id = $1 ORDER BY name",
    )
    .bind(tenant)
    .fetch_all(session.run("budget.of_tenant"))
    .await?)
}

/// Tenants that have a budget, in order of id, from the one after `after` on.
///
/// # Errors
/// When the database call fails.
pub async fn tenants(
    session: &mut Session,
    after: TenantId,
    limit: i64,
) -> Result<Vec<TenantId>, Error> {
    Ok(sqlx::query_scalar(
        "-- budget.tenants
         SELECT DISTINCT tenant_id FROM budget WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("budget.tenants"))
    .await?)
}

/// Creates a budget of a tenant or changes it.
///
/// # Errors
/// When the database call fails.
pub async fn put(
    session: &mut Session,
    tenant: TenantId,
    budget: &NewBudget<'_>,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- budget.put
         INSERT INTO budget (tenant_id, name, amount, alert_percents, hard_stop, created_at, updated_at)
         VALUES ($1, $2, $3::numeric, $4, $5, coalesce($6, now()), coalesce($6, now()))
         ON CONFLICT (tenant_id, name) DO UPDATE
         SET amount = excluded.amount, alert_percents = excluded.alert_percents, hard_stop = excluded.hard_stop,
             updated_at = excluded.updated_at",
    )
    .bind(tenant)
    .bind(budget.name)
    .bind(budget.amount)
    .bind(budget.alert_percents)
    .bind(budget.hard_stop)
    .bind(now)
    .execute(session.run("budget.put"))
    .await?;
    Ok(())
}

/// Deletes a budget of a tenant and its alerts; `false`: there is no such budget.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, tenant: TenantId, name: &str) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- budget.delete
         DELETE FROM budget WHERE tenant_id = $1 AND name = $2",
    )
    .bind(tenant)
    .bind(name)
    .execute(session.run("budget.delete"))
    .await?;
    Ok(done.rows_affected() == 1)
}
