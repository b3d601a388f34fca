//! Table `price_version`: the versions of price plans, each with the day from which its prices apply.

use time::{Date, OffsetDateTime};

use super::{Error, Session};

/// A version of a plan.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct VersionRow {
    /// Name of the plan.
    pub plan: String,
    /// The currency of the plan.
    pub currency: String,
    /// The day from which it applies.
    pub valid_from: Date,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change.
    pub updated_at: OffsetDateTime,
}

/// The versions of some plans, in order of plan and time; a plan has few.
///
/// # Errors
/// When the database call fails.
pub async fn of_plans(session: &mut Session, plans: &[&str]) -> Result<Vec<VersionRow>, Error> {
    Ok(sqlx::query_as(
        "-- price_version.of_plans
         SELECT v.plan, p.currency, v.valid_from, v.created_at, v.updated_at
         FROM price_version v JOIN price_plan p ON p.name = v.plan WHERE v.plan = ANY ($1) ORDER BY v.plan, v.valid_from",
    )
    .bind(plans)
    .fetch_all(session.run("price_version.of_plans"))
    .await?)
}

/// Creates a version, or records that its prices change; `true`: created.
///
/// # Errors
/// When the database call fails.
pub async fn put(
    session: &mut Session,
    plan: &str,
    valid_from: Date,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "-- price_version.put
         INSERT INTO price_version (plan, valid_from, created_at, updated_at)
         VALUES ($1, $2, coalesce($3, now()), coalesce($3, now()))
         ON CONFLICT (plan, valid_from) DO UPDATE SET updated_at = excluded.updated_at
         -- 0 in a row that was inserted
         RETURNING xmax = 0",
    )
    .bind(plan)
    .bind(valid_from)
    .bind(now)
    .fetch_one(session.run("price_version.put"))
    .await?)
}

/// Deletes a version and its prices; `false`: there is none.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, plan: &str, valid_from: Date) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- price_version.delete
         DELETE FROM price_version WHERE plan = $1 AND valid_from = $2",
    )
    .bind(plan)
    .bind(valid_from)
    .execute(session.run("price_version.delete"))
    .await?;
    Ok(done.rows_affected() == 1)
}
