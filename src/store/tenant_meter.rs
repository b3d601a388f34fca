//! Table `tenant_meter`: what was counted in the lanes of a tenant that are gone (I8).

use super::lane_meter::Totals;
use super::{Error, Session};

/// Adds what was counted in a lane that is gone, in the transaction that deletes its meter.
///
/// # Errors
/// When the database does not answer.
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
