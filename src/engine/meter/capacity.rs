//! Meters guaranteed capacity: guaranteed messages per second, multiplied by the time that the guarantee lasts. The
//! transaction that changes a quota posts the capacity guaranteed until then, and the duty `meter` posts the rest. Both
//! lock the tenant's meter first, so each second counts once (I8). A guarantee counts whether it is used or not, also
//! while the tenant is suspended, because its capacity stays reserved.

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::duty::DutyError;
use crate::store::{self, Session, Store, TenantId, capacity_meter};

/// Tenants posted in one transaction.
const TENANTS: i64 = 1_000;

/// Posts the capacity of the tenants that are due: those last posted before `posted_before`, or in an hour that has
/// ended at `at`.
pub(in crate::engine) async fn post_due(
    store: &Store,
    clock: &Clock,
    posted_before: OffsetDateTime,
    at: OffsetDateTime,
    stop: &CancellationToken,
) -> Result<(), DutyError> {
    let mut after = TenantId::BEFORE_ALL;
    while !stop.is_cancelled() {
        let mut tx = store.tx("meter_capacity").await?;
        let due = capacity_meter::due(&mut tx, after, TENANTS, posted_before, at).await?;
        let Some(last) = due.last() else { break };
        after = *last;
        post(&mut tx, &due, clock.now()).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Posts the capacity of some tenants until now.
async fn post(
    tx: &mut Session,
    tenants: &[TenantId],
    now: Option<OffsetDateTime>,
) -> Result<(), store::Error> {
    match capacity_meter::lock(tx, tenants, now).await? {
        Some(at) => capacity_meter::post(tx, tenants, at).await,
        None => Ok(()),
    }
}

/// Sets the messages per second that are guaranteed to a tenant from now on. The caller's transaction has locked the
/// tenant.
pub(in crate::engine) async fn change(
    tx: &mut Session,
    tenant: TenantId,
    guaranteed: Option<u64>,
    now: Option<OffsetDateTime>,
) -> Result<(), store::Error> {
    post(tx, &[tenant], now).await?;
    match guaranteed.map(u64::cast_signed) {
        None | Some(0) => capacity_meter::end(tx, tenant).await,
        Some(guaranteed) => capacity_meter::set(tx, tenant, guaranteed, now).await,
    }
}
