//! Table `price_plan`: price plans, each in one currency.

use time::{Date, OffsetDateTime};

use super::{Error, Session};

/// A plan, with the days from which its versions apply.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PlanRow {
    /// Its name.
    pub name: String,
    /// Currency (ISO 4217).
    pub currency: String,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// The days from which its versions apply, rising.
    pub versions: Vec<Date>,
}

/// Creates a plan; `false`: one of this name exists.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    name: &str,
    currency: &str,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- price_plan.insert
         INSERT INTO price_plan (name, currency, created_at) VALUES ($1, $2, coalesce($3, now()))
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(currency)
    .bind(now)
    .execute(session.run("price_plan.insert"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Locks a plan, so that its versions do not change and no tenant is given it. Returns its currency, or `None` if there
/// is no such plan.
///
/// # Errors
/// When the database call fails.
pub async fn lock(session: &mut Session, name: &str) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- price_plan.lock
         SELECT currency FROM price_plan WHERE name = $1 FOR UPDATE",
    )
    .bind(name)
    .fetch_optional(session.run("price_plan.lock"))
    .await?)
}

/// Locks a plan against deletion. Returns its currency, or `None` if there is no such plan.
///
/// # Errors
/// When the database call fails.
pub async fn share(session: &mut Session, name: &str) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- price_plan.share
         SELECT currency FROM price_plan WHERE name = $1 FOR KEY SHARE",
    )
    .bind(name)
    .fetch_optional(session.run("price_plan.share"))
    .await?)
}

/// Whether any tenant has the plan, had it or will have it.
///
/// # Errors
/// When the database call fails.
pub async fn has_tenants(session: &mut Session, name: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "-- price_plan.has_tenants
         SELECT EXISTS (SELECT FROM tenant_plan WHERE plan = $1)",
    )
    .bind(name)
    .fetch_one(session.run("price_plan.has_tenants"))
    .await?)
}

/// All plans, in order of name; an installation has few.
///
/// # Errors
/// When the database call fails.
pub async fn all(session: &mut Session) -> Result<Vec<PlanRow>, Error> {
    Ok(sqlx::query_as(
        "-- price_plan.all
         SELECT p.name, p.currency, p.created_at,
                ARRAY(SELECT v.valid_from FROM price_version v WHERE v.plan = p.name ORDER BY v.valid_from) AS versions
         FROM price_plan p ORDER BY p.name",
    )
    .fetch_all(session.run("price_plan.all"))
    .await?)
}

/// Deletes a plan that has no versions.
///
/// # Errors
/// When the database call fails.
pub async fn delete_empty(session: &mut Session, plan: &str) -> Result<(), Error> {
    sqlx::query(
        "-- price_plan.delete_empty
         DELETE FROM price_plan p WHERE p.name = $1 AND NOT EXISTS (SELECT FROM price_version v WHERE v.plan = p.name)",
    )
    .bind(plan)
    .execute(session.run("price_plan.delete_empty"))
    .await?;
    Ok(())
}
