//! Which tenants are limited, as far as this node knows. A tenant's quota is read with its first request, and updated
//! when `fleet::watch` sees that the installation's quota version has changed. In an installation where no quota was
//! ever set, nothing is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use api::quota::{Quota, RateQuota};
use foldhash::HashMap;
use parking_lot::RwLock;

use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::engine::quota::Quotas;
use crate::engine::quota::limited::Limited;
use crate::store::quota::QuotaRow;
use crate::store::{self, Session, TenantId};

/// Most tenants remembered. When there are more, those without demand are forgotten, and read again when needed.
const TENANTS_MAX: usize = 100_000;
/// Below the version of every change.
const NONE_READ: i64 = -1;
/// Changes read by one statement.
const CHANGES: i64 = 1_000;

/// The tenants that have sent requests to this node, with their limits.
#[derive(Debug, Default)]
pub(super) struct KnownTenants {
    /// The version of the installation's quotas up to which changes were read.
    version: AtomicI64,
    /// By tenant; `None`: the tenant has no limits.
    tenants: RwLock<HashMap<TenantId, Option<Arc<Limited>>>>,
}

impl KnownTenants {
    /// The limited tenants for which `is_wanted` returns true.
    pub(super) fn limited_where(&self, is_wanted: impl Fn(&Limited) -> bool) -> Vec<Arc<Limited>> {
        let tenants = self.tenants.read();
        let limited = tenants.values().flatten();
        limited.filter(|one| is_wanted(one)).cloned().collect()
    }

    fn is_empty(&self) -> bool {
        self.tenants.read().is_empty()
    }

    fn get(&self, tenant: TenantId) -> Option<Option<Arc<Limited>>> {
        self.tenants.read().get(&tenant).cloned()
    }
}

/// The limits that a row holds.
pub fn quota_of(row: &QuotaRow) -> Quota {
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

impl Quotas {
    /// The limits of a tenant; `None` when it has none.
    ///
    /// # Errors
    /// When the database does not respond.
    pub(super) async fn limited(&self, tenant: Tenant) -> Result<Option<Arc<Limited>>, Error> {
        if !self.in_use.get() {
            return Ok(None);
        }
        match self.known.get(tenant.0) {
            Some(limited) => Ok(limited.filter(|limited| limited.has_limits())),
            None => Box::pin(self.read_quota(tenant)).await,
        }
    }

    /// The limits of a tenant, if it is remembered; `None` also when it is not. Never reads the database.
    pub fn limited_before(&self, tenant: Tenant) -> Option<Arc<Limited>> {
        let known = self.in_use.get().then(|| self.known.get(tenant.0));
        known??.filter(|limited| limited.has_limits())
    }

    async fn read_quota(&self, tenant: Tenant) -> Result<Option<Arc<Limited>>, Error> {
        let mut session = self.store.session().await?;
        loop {
            let version = self.known.version.load(Ordering::Acquire);
            let row = store::quota::get(&mut session, tenant.0).await?;
            let mut tenants = self.known.tenants.write();
            if self.known.version.load(Ordering::Acquire) != version {
                // Other changes were applied meanwhile, so this row may be out of date.
                continue;
            }
            if tenants.len() >= TENANTS_MAX {
                tenants.retain(|_, known| known.as_ref().is_some_and(|known| known.is_awake()));
                if tenants.len() >= TENANTS_MAX {
                    tenants.clear();
                }
            }
            let limited = row.map(|row| self.new_limited(&row));
            let limited = tenants.entry(tenant.0).or_insert(limited).clone();
            return Ok(limited.filter(|limited| limited.has_limits()));
        }
    }

    /// Forgets all quotas, because the database has lost some. They are read again at the next poll; until then nothing
    /// is limited.
    pub fn forget(&self) {
        let tenants = self.known.tenants.write();
        for limited in tenants.values().flatten() {
            limited.forget();
        }
        self.known.version.store(NONE_READ, Ordering::Release);
    }

    /// Reads the quotas that have changed, when `version` of the installation is newer than what was read.
    pub async fn observe(&self, session: &mut Session, version: i64) -> Result<(), Error> {
        if self.known.version.load(Ordering::Acquire) < version && self.known.is_empty() {
            self.apply(&[], version);
        }
        while self.known.version.load(Ordering::Acquire) < version {
            let seen = self.known.version.load(Ordering::Acquire);
            let rows = store::quota::changed_since(session, seen, CHANGES).await?;
            let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < CHANGES);
            let last = rows.last().map_or(version, |row| row.version);
            self.apply(&rows, if is_last { last.max(version) } else { last });
        }
        Ok(())
    }
}

impl Quotas {
    fn new_limited(&self, row: &QuotaRow) -> Arc<Limited> {
        Arc::new(Limited::new(row, self.nodes(), self.now()))
    }

    /// Applies changes to the tenants that are remembered. Others are read with their next request.
    pub(super) fn apply(&self, rows: &[QuotaRow], version: i64) {
        let mut tenants = self.known.tenants.write();
        for row in rows {
            let Some(known) = tenants.get_mut(&row.tenant_id) else {
                continue;
            };
            match known {
                None => *known = Some(self.new_limited(row)),
                Some(limited) => {
                    if limited.change(row) {
                        limited.begin_anew(self.nodes(), self.now());
                        // The shares of the new quota need the other nodes' demand.
                        self.exchange_at_once(limited);
                    }
                }
            }
        }
        self.known.version.store(version, Ordering::Release);
        self.in_use.0.store(true, Ordering::Relaxed);
    }
}
