//! Table `budget`: what tenants mean to spend in a month. A tenant's rows change under its lock (`quota.lock_tenant_id`).
//! Amounts come and go as text, so that no digit is lost on the way.

use time::OffsetDateTime;

use super::{Error, Session};

/// A budget.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BudgetRow {
    /// Internal number.
    pub budget_id: i64,
    /// Its name.
    pub name: String,
    /// A decimal number.
    pub amount: String,
    /// In rising order.
    pub alert_percents: Vec<i16>,
    /// Whether it stops the tenant.
    pub hard_stop: bool,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change.
    pub updated_at: OffsetDateTime,
}

/// What is written of a budget.
#[derive(Debug, Clone)]
pub struct NewBudget<'a> {
    /// Its name.
    pub name: &'a str,
    /// A decimal number.
    pub amount: &'a str,
    /// In rising order.
    pub alert_percents: &'a [i16],
    /// Whether it stops the tenant.
    pub hard_stop: bool,
}

/// The budgets of a tenant by name; there are few.
///
/// # Errors
/// When the database does not answer.
pub async fn of_tenant(session: &mut Session, tenant: i64) -> Result<Vec<BudgetRow>, Error> {
    Ok(sqlx::query_as(
        "-- budget.of_tenant
         SELECT budget_id, name, trim_scale(amount)::text AS amount, alert_percents, hard_stop, created_at, updated_at
         FROM budget WHERE tenant_id = $1 ORDER BY name",
    )
    .bind(tenant)
    .fetch_all(session.run("budget.of_tenant"))
    .await?)
}

/// Tenants in order of id after `after` that have a budget.
///
/// # Errors
/// When the database does not answer.
pub async fn tenants(session: &mut Session, after: i64, limit: i64) -> Result<Vec<i64>, Error> {
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
/// When the database does not answer.
pub async fn put(
    session: &mut Session,
    tenant: i64,
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

/// Deletes a budget of a tenant with its alerts; false when there is none.
///
/// # Errors
/// When the database does not answer.
pub async fn delete(session: &mut Session, tenant: i64, name: &str) -> Result<bool, Error> {
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
