//! Table `price`: the prices of a version, one row per tier. Amounts are passed as text, so that no digit is lost.

use time::Date;

use super::{Error, Session};

/// A tier of a price.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PriceRow {
    /// Name of the plan.
    pub plan: String,
    /// The day from which the version applies.
    pub valid_from: Date,
    /// The priced item.
    pub item: String,
    /// Position of the tier.
    pub tier: i16,
    /// Number of units that the price is for.
    pub per: i32,
    /// Units in the tier; `None`: all that remain.
    pub size: Option<i64>,
    /// The price, a decimal number.
    pub unit_price: String,
}

/// The prices of all versions of some plans, in order of plan, version, item and tier.
///
/// # Errors
/// When the database call fails.
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

/// Deletes the prices of a version.
///
/// # Errors
/// When the database call fails.
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
/// When the database call fails.
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
