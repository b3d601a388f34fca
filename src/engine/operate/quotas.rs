//! Quotas: an operator sets the quota of a tenant, and the tenant reads it together with its use. A change takes effect
//! on a node when the node next polls the version of quotas (`fleet::watch`). A cap below the current use is refused.

use api::TenantName;
use api::quota::{Quota, QuotaStatus, QuotaUse};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::audit::{self, Change};
use crate::engine::access::{Access, Tenant};
use crate::engine::error::Error;
use crate::engine::limit::Policy;
use crate::engine::meter::capacity;
use crate::engine::operate::tenants;
use crate::engine::quota::{count_stored_bytes, quota_of};
use crate::store::quota::QuotaRow;
use crate::store::{self, Session, Store, TenantId};

/// The quota of a tenant; without limits if none was ever set.
///
/// # Errors
/// When the tenant does not exist, or the database call fails.
pub async fn get_quota(store: &Store, tenant: &TenantName) -> Result<Quota, Error> {
    let mut session = store.session().await?;
    let id = tenants::found(&mut session, tenant).await?.tenant_id;
    let row = store::quota::get(&mut session, id).await?;
    Ok(row.as_ref().map(quota_of).unwrap_or_default())
}

/// Replaces the quota of a tenant. A limit that is absent is removed.
///
/// # Errors
/// When a limit is out of range or below the current use, the tenant does not exist, or the database call fails.
pub async fn put_quota(
    store: &Store,
    by: &Access,
    tenant: &TenantName,
    quota: &Quota,
    now: Option<OffsetDateTime>,
) -> Result<Quota, Error> {
    let mut tx = store.tx("put_quota").await?;
    let id = store::quota::lock_tenant(&mut tx, tenant.as_str())
        .await?
        .ok_or_else(|| Error::not_found("tenant", tenant))?;
    refuse_below_use(&mut tx, id, tenant, quota).await?;
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
    Ok(quota_of(&row))
}

/// Fails if a cap is below the current use of the tenant.
async fn refuse_below_use(
    tx: &mut Session,
    id: TenantId,
    name: &TenantName,
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
        let used = count_stored_bytes(tx, id).await?;
        check(quota.stored_bytes, used, Policy::StoredBytes)?;
    }
    Ok(())
}

/// The row of a quota. Its limits are validated, so each fits its column.
fn row(tenant_id: TenantId, quota: &Quota, version: i64) -> QuotaRow {
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
    /// The quota of a tenant, and its current use.
    ///
    /// # Errors
    /// When the database call fails.
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
        if let Some(limited) = self.quotas().limited_before(tenant) {
            limited.add_use(&mut used);
        }
        let limits = row.as_ref().map(quota_of).unwrap_or_default();
        Ok(QuotaStatus { limits, used })
    }
}
