//! Tenants: create, suspend, list. Called for operators only; their scope may be limited to some names.

use api::limits::PAGE;
use api::list::Page;
use api::tenant::{PlanChoice, Suspension, Tenant as Shown, TenantSettings};
use api::{Permission, PlanName, TenantName};
use time::OffsetDateTime;

use crate::store::tenant::TenantRow;
use crate::store::{self, Session};

use super::access::Access;
use super::audit::{self, Change};
use super::error::Error;
use super::{Engine, Tenant};

impl Engine {
    /// Creates or changes; true when it is new.
    ///
    /// # Errors
    /// When there is no such plan, or the database does not answer.
    pub async fn put_tenant(
        &self,
        by: &Access,
        name: &TenantName,
        settings: &TenantSettings,
    ) -> Result<(Shown, bool), Error> {
        let now = self.clock().now();
        let mut tx = self.store().tx("put_tenant").await?;
        let (row, created) = put(&mut tx, by, name, (settings, now)).await?;
        tx.commit().await?;
        Ok((shown(row)?, created))
    }

    /// Suspends a tenant (`Some`) or lets it in again.
    ///
    /// # Errors
    /// When it does not exist, the reason is too long, or the database does not answer.
    pub async fn suspend_tenant(
        &self,
        by: &Access,
        name: &TenantName,
        why: Option<&Suspension>,
    ) -> Result<Shown, Error> {
        let errors = why.map(Suspension::validate).unwrap_or_default();
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let now = self.clock().now();
        let mut tx = self.store().tx("suspend_tenant").await?;
        let tenant = Tenant(found(&mut tx, name).await?.tenant_id);
        let how = (why.is_some(), why.and_then(|why| why.reason.as_deref()));
        if store::tenant::suspend(&mut tx, tenant.0, how, now).await? {
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
        tx.commit().await?;
        self.look_now().await;
        shown(row)
    }

    /// One tenant.
    ///
    /// # Errors
    /// When it does not exist, or the database does not answer.
    pub async fn tenant(&self, name: &TenantName) -> Result<Shown, Error> {
        let mut session = self.store().session().await?;
        shown(found(&mut session, name).await?)
    }

    /// A page of tenants by name, of those that the caller may operate.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tenants(
        &self,
        by: &Access,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Shown>, Error> {
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let like = by.like(&[Permission::Admin]);
        let mut session = self.store().session().await?;
        let after = after.unwrap_or("");
        let rows = store::tenant::list(&mut session, &like, after, i64::from(limit) + 1).await?;
        let items = rows.into_iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        Ok(super::page(items, limit, |tenant| tenant.name.to_string()))
    }
}

/// Creates or changes a tenant and writes that down; true when it is new.
pub(super) async fn put(
    tx: &mut Session,
    by: &Access,
    name: &TenantName,
    (settings, now): (&TenantSettings, Option<OffsetDateTime>),
) -> Result<(TenantRow, bool), Error> {
    let created = store::tenant::insert(tx, name.as_str(), now).await?;
    let tenant = Tenant(found(tx, name).await?.tenant_id);
    if set_plan(tx, tenant, settings, now).await? || created {
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

/// Gives a tenant the plan that its settings name, if they name one; whether that changes something.
async fn set_plan(
    tx: &mut Session,
    tenant: Tenant,
    settings: &TenantSettings,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let Some(PlanChoice(plan)) = &settings.plan else {
        return Ok(false);
    };
    let name = plan.as_ref().map(PlanName::as_str);
    match store::tenant::set_plan(tx, tenant.0, name, now).await {
        Err(store::Error::Conflict(constraint)) if constraint == "tenant_price_plan_fkey" => {
            Err(Error::not_found("plan", name.unwrap_or("")))
        }
        set => Ok(set?),
    }
}

/// The row of a tenant that is named.
pub(super) async fn found(session: &mut Session, name: &TenantName) -> Result<TenantRow, Error> {
    let row = store::tenant::by_name(session, name.as_str()).await?;
    row.ok_or_else(|| Error::not_found("tenant", name))
}

fn shown(row: TenantRow) -> Result<Shown, Error> {
    let corrupt = |_| store::Error::Corrupt {
        table: "tenant",
        column: "name",
        row: row.tenant_id.to_string(),
    };
    let plan = row.price_plan.clone().map(PlanName::try_from);
    Ok(Shown {
        name: row.name.clone().try_into().map_err(corrupt)?,
        plan: plan.transpose().map_err(corrupt)?,
        suspended: row.suspended_at.is_some(),
        suspended_reason: row.suspended_reason,
        created_at: row.created_at.into(),
        updated_at: row.updated_at.map(Into::into),
    })
}
