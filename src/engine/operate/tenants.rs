//! Tenants: put, suspend, resume, read and list. Only operators call this; the scope of an operator may be restricted
//! to some names. A tenant cannot be deleted.

use std::collections::HashMap;

use api::limits::PAGE;
use api::list::Page;
use api::tenant::{self, Suspension, TenantSettings};
use api::{Day, Permission, TenantName};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::audit::{self, Change};
use crate::engine::access::{Access, Tenant};
use crate::engine::bill::{plans, tenant_plans};
use crate::engine::error::Error;
use crate::store::tenant::TenantRow;
use crate::store::tenant_plan::TenantPlanRow;
use crate::store::{self, Session, TenantId};

impl Engine {
    /// Creates a tenant or changes its plan. Returns `true` if it is new.
    ///
    /// # Errors
    /// When the plan does not exist or cannot begin on its day, or the database call fails.
    pub async fn put_tenant(
        &self,
        by: &Access,
        name: &TenantName,
        settings: &TenantSettings,
    ) -> Result<(tenant::Tenant, bool), Error> {
        let now = self.clock().now();
        let mut tx = self.store().tx("put_tenant").await?;
        let (row, created) = put(&mut tx, by, name, settings, now).await?;
        let tenant = shown(&mut tx, row, now).await?;
        tx.commit().await?;
        Ok((tenant, created))
    }

    /// Suspends a tenant (`Some`) or resumes it.
    ///
    /// # Errors
    /// When it does not exist, or the database call fails.
    pub async fn suspend_tenant(
        &self,
        by: &Access,
        name: &TenantName,
        why: Option<&Suspension>,
    ) -> Result<tenant::Tenant, Error> {
        let now = self.clock().now();
        let mut tx = self.store().tx("suspend_tenant").await?;
        let tenant = Tenant(found(&mut tx, name).await?.tenant_id);
        let reason = why.and_then(|why| why.reason.as_deref());
        if store::tenant::suspend(&mut tx, tenant.0, why.is_some(), reason, now).await? {
            let change = Change {
                tenant: Some(tenant),
                action: why.map_or("tenant.resume", |_| "tenant.suspend"),
                target: name.as_str(),
                detail: &why.cloned().unwrap_or_default(),
            };
            audit::record(&mut tx, by, change, now).await?;
            store::installation::bump_access(&mut tx).await?;
        }
        let row = found(&mut tx, name).await?;
        let tenant = shown(&mut tx, row, now).await?;
        tx.commit().await?;
        self.poll_now().await;
        Ok(tenant)
    }

    /// One tenant.
    ///
    /// # Errors
    /// When it does not exist, or the database call fails.
    pub async fn tenant(&self, name: &TenantName) -> Result<tenant::Tenant, Error> {
        let mut session = self.store().session().await?;
        let row = found(&mut session, name).await?;
        shown(&mut session, row, self.clock().now()).await
    }

    /// A page of the tenants that the caller may operate, in order of name.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn tenants(
        &self,
        by: &Access,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<tenant::Tenant>, Error> {
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let like = by.like(&[Permission::Admin]);
        let mut session = self.store().session().await?;
        let after = after.unwrap_or("");
        let rows = store::tenant::list(&mut session, &like, after, i64::from(limit) + 1).await?;
        let items = all_shown(&mut session, rows, self.clock().now()).await?;
        Ok(crate::engine::page::page(items, limit, |tenant| {
            tenant.name.to_string()
        }))
    }
}

/// Creates a tenant or changes its plan. Any change is recorded in the audit log. Returns `true` if the tenant is new.
pub(in crate::engine) async fn put(
    tx: &mut Session,
    by: &Access,
    name: &TenantName,
    settings: &TenantSettings,
    now: Option<OffsetDateTime>,
) -> Result<(TenantRow, bool), Error> {
    let created = store::tenant::insert(tx, name.as_str(), now).await?;
    let row = store::tenant::lock(tx, name.as_str())
        .await?
        .ok_or_else(|| Error::not_found("tenant", name))?;
    let tenant = Tenant(row.tenant_id);
    if tenant_plans::set(tx, tenant, settings, now).await? || created {
        let change = Change {
            tenant: Some(tenant),
            action: "tenant.put",
            target: name.as_str(),
            detail: settings,
        };
        audit::record(tx, by, change, now).await?;
    }
    Ok((found(tx, name).await?, created))
}

/// The row of the tenant with this name.
pub(in crate::engine) async fn found(
    session: &mut Session,
    name: &TenantName,
) -> Result<TenantRow, Error> {
    let row = store::tenant::by_name(session, name.as_str()).await?;
    row.ok_or_else(|| Error::not_found("tenant", name))
}

/// A tenant with its plans as an API object.
async fn shown(
    session: &mut Session,
    row: TenantRow,
    now: Option<OffsetDateTime>,
) -> Result<tenant::Tenant, Error> {
    let mut all = all_shown(session, vec![row], now).await?;
    all.pop().ok_or(Error::Internal)
}

/// Tenants with their plans as API objects.
async fn all_shown(
    session: &mut Session,
    rows: Vec<TenantRow>,
    now: Option<OffsetDateTime>,
) -> Result<Vec<tenant::Tenant>, Error> {
    let today = plans::today(session, now).await?;
    let ids: Vec<TenantId> = rows.iter().map(|row| row.tenant_id).collect();
    let all = store::tenant_plan::of(session, &ids).await?;
    let by_tenant: HashMap<TenantId, _> = all
        .chunk_by(|one, next| one.tenant_id == next.tenant_id)
        .map(|rows| (rows[0].tenant_id, rows))
        .collect();
    let shown = |row: TenantRow| {
        let plans = by_tenant.get(&row.tenant_id).copied();
        with_plans(row, plans.unwrap_or_default(), today)
    };
    rows.into_iter().map(shown).collect()
}

fn with_plans(
    row: TenantRow,
    plans: &[TenantPlanRow],
    today: Day,
) -> Result<tenant::Tenant, Error> {
    let corrupt = |_| store::Error::Corrupt {
        table: "tenant",
        column: "name",
        row: row.tenant_id.to_string(),
    };
    let (plan, plans) = tenant_plans::shown(plans, today)?;
    Ok(tenant::Tenant {
        name: row.name.clone().try_into().map_err(corrupt)?,
        plan,
        plans,
        suspended: row.suspended_at.is_some(),
        suspended_reason: row.suspended_reason,
        created_at: row.created_at.into(),
        updated_at: row.updated_at.map(Into::into),
    })
}
