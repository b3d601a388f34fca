//! What an operator sets and a tenant sees: the quota as it is kept, and how much of it is in use. A change takes effect on
//! all nodes when they look next (`watch`). A cap below what is in use is refused.

use api::TenantName;
use api::quota::{Quota, QuotaStatus, QuotaUse, RateQuota};
use time::OffsetDateTime;

use crate::engine::access::Access;
use crate::engine::audit::{self, Change};
use crate::engine::error::Error;
use crate::engine::limit::Policy;
use crate::engine::{Engine, Tenant, capacity, tenants};
use crate::store::quota::QuotaRow;
use crate::store::{self, Session, Store};

/// The quota of a tenant; no limits when it never had any.
///
/// # Errors
/// When there is no such tenant, or the database does not answer.
pub async fn get_quota(store: &Store, tenant: &TenantName) -> Result<Quota, Error> {
    let mut session = store.session().await?;
    let id = tenants::found(&mut session, tenant).await?.tenant_id;
    let row = store::quota::get(&mut session, id).await?;
    Ok(row.as_ref().map(quota).unwrap_or_default())
}

/// Sets the quota of a tenant as a whole: what is absent is no limit any more.
///
/// # Errors
/// When a limit is below what is in use, there is no such tenant, or the database does not answer.
pub async fn put_quota(
    store: &Store,
    by: &Access,
    (tenant, quota): (&TenantName, &Quota),
    now: Option<OffsetDateTime>,
) -> Result<Quota, Error> {
    let mut tx = store.tx("put_quota").await?;
    let id = store::quota::lock_tenant(&mut tx, tenant.as_str()).await?;
    let id = id.ok_or_else(|| Error::not_found("tenant", tenant))?;
    refuse_below_use(&mut tx, (id, tenant), quota).await?;
    let change = Change {
        tenant: Some(Tenant(id)),
        action: "quota.put",
        target: tenant.as_str(),
        detail: quota,
    };
    audit::record(&mut tx, by, change, now).await?;
    let guaranteed = quota.messages_per_second.and_then(|rate| rate.guaranteed);
    capacity::change(&mut tx, id, guaranteed, now).await?;
    let version = store::installation::bump_quota(&mut tx).await?;
    let row = row(id, quota, version);
    store::quota::put(&mut tx, now, &row).await?;
    tx.commit().await?;
    Ok(self::quota(&row))
}

async fn refuse_below_use(
    tx: &mut Session,
    (id, name): (i64, &TenantName),
    quota: &Quota,
) -> Result<(), Error> {
    let check = |cap: Option<u64>, used: i64, policy: Policy| match cap {
        Some(cap) if used.unsigned_abs() > cap => Err(Error::Conflict(format!(
            "tenant {name} uses {used} of {}, more than a quota of {cap}; what is above must be deleted first",
            policy.name()
        ))),
        _ => Ok(()),
    };
    if quota.topics.is_some() {
        let used = store::quota::topics(tx, id).await?;
        check(quota.topics, used, Policy::Topics)?;
    }
    if quota.subscriptions.is_some() {
        let used = store::quota::subscriptions(tx, id).await?;
        check(quota.subscriptions, used, Policy::Subscriptions)?;
    }
    if quota.stored_bytes.is_some() {
        let used = store::quota::stored_bytes(tx, id).await?;
        check(quota.stored_bytes, used, Policy::StoredBytes)?;
    }
    Ok(())
}

/// A row as the limits in it.
pub(super) fn quota(row: &QuotaRow) -> Quota {
    let cap = |cap: Option<i64>| cap.map(i64::unsigned_abs);
    let rate = |guaranteed, ceiling| {
        let rate = RateQuota {
            guaranteed: cap(guaranteed),
            ceiling: cap(ceiling),
        };
        (rate != RateQuota::default()).then_some(rate)
    };
    Quota {
        requests_per_second: rate(row.requests_guaranteed, row.requests_ceiling),
        messages_per_second: rate(row.messages_guaranteed, row.messages_ceiling),
        bytes_per_second: rate(row.bytes_guaranteed, row.bytes_ceiling),
        concurrent_requests: cap(row.concurrent_requests),
        stored_bytes: cap(row.stored_bytes),
        topics: cap(row.topics),
        subscriptions: cap(row.subscriptions),
        in_flight_messages: cap(row.in_flight),
    }
}

/// The other way round; limits are validated, so none is too large for a column.
fn row(tenant_id: i64, quota: &Quota, version: i64) -> QuotaRow {
    let cap = |cap: Option<u64>| cap.map(u64::cast_signed);
    let [requests, messages, bytes] = quota.rates().map(Option::unwrap_or_default);
    QuotaRow {
        tenant_id,
        requests_guaranteed: cap(requests.guaranteed),
        requests_ceiling: cap(requests.ceiling),
        messages_guaranteed: cap(messages.guaranteed),
        messages_ceiling: cap(messages.ceiling),
        bytes_guaranteed: cap(bytes.guaranteed),
        bytes_ceiling: cap(bytes.ceiling),
        concurrent_requests: cap(quota.concurrent_requests),
        stored_bytes: cap(quota.stored_bytes),
        topics: cap(quota.topics),
        subscriptions: cap(quota.subscriptions),
        in_flight: cap(quota.in_flight_messages),
        stopped_until: None,
        version,
    }
}

impl Engine {
    /// The quota of a tenant, and what it uses at the moment.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn quota_status(&self, tenant: Tenant) -> Result<QuotaStatus, Error> {
        let mut session = self.store().session().await?;
        let row = store::quota::get(&mut session, tenant.0).await?;
        let topics = store::quota::topics(&mut session, tenant.0).await?;
        let subscriptions = store::quota::subscriptions(&mut session, tenant.0).await?;
        let mut used = QuotaUse {
            topics: topics.unsigned_abs(),
            subscriptions: subscriptions.unsigned_abs(),
            ..QuotaUse::default()
        };
        if let Some(limited) = self.limited_before(tenant) {
            let rates = limited.paces.lock().map(|pace| pace.rate());
            [
                used.requests_per_second,
                used.messages_per_second,
                used.bytes_per_second,
            ] = rates.map(super::share::whole);
            used.concurrent_requests = limited.places.taken();
            let (stored, in_flight) = (&limited.stored, &limited.in_flight);
            used.stored_bytes = stored.is_counted().then(|| stored.used());
            used.in_flight_messages = in_flight.is_counted().then(|| in_flight.used());
        }
        let limits = row.as_ref().map(quota).unwrap_or_default();
        Ok(QuotaStatus { limits, used })
    }
}
