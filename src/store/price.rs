//! Tables `price_plan`, `price_version` and `price`: what usage costs. Amounts come and go as text, so that no digit is
//! lost on the way.

use time::{Date, OffsetDateTime};

use super::{Error, Session};

/// A plan, with the days from which its versions apply.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PlanRow {
    /// Its name.
    pub name: String,
    /// ISO 4217.
    pub currency: String,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// In order of time.
    pub versions: Vec<Date>,
}

/// A version of a plan.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct VersionRow {
    /// Of which plan.
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

/// A tier of a price.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PriceRow {
    /// Of which plan.
    pub plan: String,
    /// Of which version.
    pub valid_from: Date,
    /// What is priced.
    pub item: String,
    /// Its place.
    pub tier: i16,
    /// For how many units the price is.
    pub per: i32,
    /// How much it holds; `None`: all that is left.
    pub size: Option<i64>,
    /// A decimal number.
    pub unit_price: String,
}

/// Creates a plan; false when one of this name exists.
///
/// # Errors
/// When the database does not answer.
pub async fn insert_plan(
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

/// Locks a plan: its versions do not change meanwhile, and no tenant gets it. Its currency, if there is such a plan.
///
/// # Errors
/// When the database does not answer.
pub async fn lock_plan(session: &mut Session, name: &str) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- price_plan.lock
         SELECT currency FROM price_plan WHERE name = $1 FOR UPDATE",
    )
    .bind(name)
    .fetch_optional(session.run("price_plan.lock"))
    .await?)
}

/// Keeps a plan from being deleted; its currency, if there is such a plan.
///
/// # Errors
/// When the database does not answer.
pub async fn share_plan(session: &mut Session, name: &str) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- price_plan.share
         SELECT currency FROM price_plan WHERE name = $1 FOR KEY SHARE",
    )
    .bind(name)
    .fetch_optional(session.run("price_plan.share"))
    .await?)
}

/// Whether a tenant has a plan, had it or will have it.
///
/// # Errors
/// When the database does not answer.
pub async fn has_tenants(session: &mut Session, name: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "-- price_plan.has_tenants
         SELECT EXISTS (SELECT FROM tenant_plan WHERE plan = $1)",
    )
    .bind(name)
    .fetch_one(session.run("price_plan.has_tenants"))
    .await?)
}

/// All plans, in order of name; there are few.
///
/// # Errors
/// When the database does not answer.
pub async fn plans(session: &mut Session) -> Result<Vec<PlanRow>, Error> {
    Ok(sqlx::query_as(
        "-- price_plan.all
         SELECT p.name, p.currency, p.created_at,
                ARRAY(SELECT v.valid_from FROM price_version v WHERE v.plan = p.name ORDER BY v.valid_from) AS versions
         FROM price_plan p ORDER BY p.name",
    )
    .fetch_all(session.run("price_plan.all"))
    .await?)
}

/// The versions of some plans, in order of plan and time; a plan has few.
///
/// # Errors
/// When the database does not answer.
pub async fn versions(session: &mut Session, plans: &[&str]) -> Result<Vec<VersionRow>, Error> {
    Ok(sqlx::query_as(
        "-- price_version.of_plans
         SELECT v.plan, p.currency, v.valid_from, v.created_at, v.updated_at
         FROM price_version v JOIN price_plan p ON p.name = v.plan WHERE v.plan = ANY ($1) ORDER BY v.plan, v.valid_from",
    )
    .bind(plans)
    .fetch_all(session.run("price_version.of_plans"))
    .await?)
}

/// The prices of all versions of some plans, in order of plan, version, item and tier.
///
/// # Errors
/// When the database does not answer.
pub async fn of_plans(session: &mut Session, plans: &[&str]) -> Result<Vec<PriceRow>, Error> {
    Ok(sqlx::query_as(
        "-- price.of_plans
         SELECT plan, valid_from, item, tier, per, size, trim_scale(unit_price)::text AS unit_price
         FROM price WHERE plan = ANY ($1) ORDER BY plan, valid_from, item, tier",
    )
    .bind(plans)
    .fetch_all(session.run("price.of_plans"))
    .await?)
}

/// Creates a version, or notes that its prices change; true when created.
///
/// # Errors
/// When the database does not answer.
pub async fn put_version(
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

/// Deletes the prices of a version.
///
/// # Errors
/// When the database does not answer.
pub async fn clear(session: &mut Session, plan: &str, valid_from: Date) -> Result<(), Error> {
    sqlx::query(
        "-- price.clear
         DELETE FROM price WHERE plan = $1 AND valid_from = $2",
    )
    .bind(plan)
    .bind(valid_from)
    .execute(session.run("price.clear"))
    .await?;
    Ok(())
}

/// Writes prices.
///
/// # Errors
/// When the database does not answer.
pub async fn insert(session: &mut Session, rows: &[PriceRow]) -> Result<(), Error> {
    sqlx::query(
        "-- price.insert
         INSERT INTO price (plan, valid_from, item, tier, per, size, unit_price)
         SELECT r.plan, r.valid_from, r.item, r.tier, r.per, r.size, r.unit_price::numeric
         FROM unnest($1::text[], $2::date[], $3::text[], $4::smallint[], $5::integer[], $6::bigint[], $7::text[])
             AS r (plan, valid_from, item, tier, per, size, unit_price)",
    )
    .bind(rows.iter().map(|row| &*row.plan).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.valid_from).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.item).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.tier).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.per).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.size).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.unit_price).collect::<Vec<_>>())
    .execute(session.run("price.insert"))
    .await?;
    Ok(())
}

/// Deletes a version with its prices; false when there is none.
///
/// # Errors
/// When the database does not answer.
pub async fn delete_version(
    session: &mut Session,
    plan: &str,
    valid_from: Date,
) -> Result<bool, Error> {
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

/// Deletes a plan that has no version left.
///
/// # Errors
/// When the database does not answer.
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
