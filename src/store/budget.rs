//! Tables `budget` and `budget_alert`: what tenants mean to spend in a month, and what they were told. A tenant's rows
//! change under its lock (`quota.lock_tenant_id`). Amounts come and go as text, so that no digit is lost on the way.

use time::{Date, OffsetDateTime};

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

/// An alert that was sent.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AlertRow {
    /// Of which budget.
    pub budget_id: i64,
    /// The percent of the amount that was spent.
    pub percent: i16,
    /// What had been spent, a decimal number.
    pub cost: String,
    /// When that was seen.
    pub at: OffsetDateTime,
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

/// The alerts of a tenant in a month, in order of budget and percent.
///
/// # Errors
/// When the database does not answer.
pub async fn alerts(
    session: &mut Session,
    tenant: i64,
    month: Date,
) -> Result<Vec<AlertRow>, Error> {
    Ok(sqlx::query_as(
        "-- budget_alert.of_tenant
         SELECT a.budget_id, a.percent, trim_scale(a.cost)::text AS cost, a.at
         FROM budget b JOIN budget_alert a ON a.budget_id = b.budget_id AND a.month = $2
         WHERE b.tenant_id = $1 ORDER BY a.budget_id, a.percent",
    )
    .bind(tenant)
    .bind(month)
    .fetch_all(session.run("budget_alert.of_tenant"))
    .await?)
}

/// Notes an alert; false when it was sent before.
///
/// # Errors
/// When the database does not answer.
pub async fn insert_alert(
    session: &mut Session,
    (budget, month, percent): (i64, Date, i16),
    cost: &str,
    at: OffsetDateTime,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- budget_alert.insert
         INSERT INTO budget_alert (budget_id, month, percent, cost, at) VALUES ($1, $2, $3, $4::numeric, $5)
         ON CONFLICT (budget_id, month, percent) DO NOTHING",
    )
    .bind(budget)
    .bind(month)
    .bind(percent)
    .bind(cost)
    .bind(at)
    .execute(session.run("budget_alert.insert"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets the alerts of a budget in a month above `percent`: it was changed, and they are to be sent again.
///
/// # Errors
/// When the database does not answer.
pub async fn forget_alerts(
    session: &mut Session,
    (budget, month): (i64, Date),
    percent: i16,
) -> Result<(), Error> {
    sqlx::query(
        "-- budget_alert.forget
         DELETE FROM budget_alert WHERE budget_id = $1 AND month = $2 AND percent > $3",
    )
    .bind(budget)
    .bind(month)
    .bind(percent)
    .execute(session.run("budget_alert.forget"))
    .await?;
    Ok(())
}

/// Deletes alerts of months before `before`, `limit` rows at most.
///
/// # Errors
/// When the database does not answer.
pub async fn delete_alerts(session: &mut Session, before: Date, limit: i64) -> Result<(), Error> {
    sqlx::query(
        "-- budget_alert.delete
         DELETE FROM budget_alert a
         USING (SELECT budget_id, month, percent FROM budget_alert WHERE month < $1 ORDER BY month LIMIT $2) o
         WHERE (a.budget_id, a.month, a.percent) = (o.budget_id, o.month, o.percent)",
    )
    .bind(before)
    .bind(limit)
    .execute(session.run("budget_alert.delete"))
    .await?;
    Ok(())
}
