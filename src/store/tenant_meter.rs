//! Table `tenant_meter`: the totals of the deleted lanes of each tenant (I8).

use super::lane_meter::Totals;
use super::{Error, Session};

/// Adds the totals of a lane, in the transaction that deletes its meter.
///
/// # Errors
/// When the database call fails.
pub async fn add(session: &mut Session, totals: &Totals) -> Result<(), Error> {
    sqlx::query(
        "-- tenant_meter.add
         INSERT INTO tenant_meter AS t (tenant_id, messages_total, units_total) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id) DO UPDATE
         SET messages_total = t.messages_total + excluded.messages_total, units_total = t.units_total + excluded.units_total",
    )
    .bind(totals.tenant_id)
    .bind(totals.messages_total)
    .bind(totals.units_total)
    .execute(session.run("tenant_meter.add"))
    .await?;
    Ok(())
}
