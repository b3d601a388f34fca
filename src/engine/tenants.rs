//! Tenants: create, suspend, list. Called for operators only; their scope may be limited to some names.

use api::limits::PAGE;
use api::list::Page;
use api::tenant::{Tenant as Shown, TenantSettings};
use api::{Permission, TenantName};

use crate::store::tenant::TenantRow;
use crate::store::{self, Session};

use super::access::Access;
use super::audit::{self, Change};
use super::error::Error;
use super::{Engine, Tenant};

impl Engine {
    /// Creates or updates; true when created.
    ///
    /// # Errors
    /// When a setting is out of range, or the database does not answer.
    pub async fn put_tenant(
        &self,
        by: &Access,
        name: &TenantName,
        settings: &TenantSettings,
    ) -> Result<(Shown, bool), Error> {
        let errors = settings.validate();
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let now = self.clock().now();
        let mut tx = self.store().tx("put_tenant").await?;
        let created = store::tenant::insert(&mut tx, name.as_str(), now).await?;
        let mut row = found(&mut tx, name).await?;
        let mut changed = created;
        if let Some(suspended) = settings.suspended {
            let how = (suspended, settings.suspended_reason.as_deref());
            changed |= store::tenant::suspend(&mut tx, row.tenant_id, how, now).await?;
            row = found(&mut tx, name).await?;
        }
        if changed {
            let change = Change {
                tenant: Some(Tenant(row.tenant_id)),
                action: "tenant.put",
                target: name.as_str(),
                detail: settings,
            };
            audit::record(&mut tx, by, change, now).await?;
            store::installation::bump_access(&mut tx).await?;
        }
        tx.commit().await?;
        self.look_now().await;
        Ok((shown(row)?, created))
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
    Ok(Shown {
        name: row.name.clone().try_into().map_err(corrupt)?,
        suspended: row.suspended_at.is_some(),
        suspended_reason: row.suspended_reason,
        created_at: row.created_at.into(),
        updated_at: row.updated_at.map(Into::into),
    })
}
