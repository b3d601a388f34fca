//! Table `budget_alert`: the alerts about budgets that were sent. Each is sent once a month. The rows of a tenant
//! change only under its lock (`quota.lock_tenant_id`). Amounts are passed as text, so that no digit is lost.

use time::{Date, OffsetDateTime};

use super::{Error, Session, TenantId};

/// An alert that was sent.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AlertRow {
    /// The budget.
    pub budget_id: i64,
    /// The percentage of the amount that was reached.
    pub percent: i16,
    /// The spend at that time, a decimal number.
    pub cost: String,
    /// Time when the spend was computed.
    pub at: OffsetDateTime,
}

/// The alerts of a tenant for a month, in order of budget and percentage.
///
/// # Errors
/// When the database call fails.
pub async fn of_tenant(
    session: &mut Session,
    tenant: TenantId,
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

/// Records an alert of a month; `false`: it was sent before.
///
/// # Errors
/// When the database call fails.
pub async fn insert(session: &mut Session, month: Date, alert: &AlertRow) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- budget_alert.insert
         INSERT INTO budget_alert (budget_id, month, percent, cost, at) VALUES ($1, $2, $3, $4::numeric, $5)
         ON CONFLICT (budget_id, month, percent) DO NOTHING",
    )
    .bind(alert.budget_id)
    .bind(month)
    .bind(alert.percent)
    .bind(&alert.cost)
    .bind(alert.at)
    .execute(session.run("budget_alert.insert"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes the alerts of a budget for a month above `percent`, so that they are sent again after a change of the
/// budget.
///
/// # Errors
/// When the database call fails.
pub async fn forget(
    session: &mut Session,
    budget: i64,
    month: Date,
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

/// Deletes alerts of months before `before`, at most `limit` rows.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, before: Date, limit: i64) -> Result<(), Error> {
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
