//! The audit log for operators: the changes of the control plane and their authors, newest first. `access::audit`
//! writes it.

use api::audit::AuditEntry;
use api::limits::PAGE;
use api::list::Page;
use api::{Permission, TenantName};

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::error::Error;
use crate::store;
use crate::store::audit::EntryRow;

impl Engine {
    /// A page of the log, newest first, of one tenant or of all. `after` is the `next` of the previous page.
    ///
    /// # Errors
    /// When the caller may not read it, there is no such tenant, or the database call fails.
    pub async fn audit_log(
        &self,
        by: &Access,
        tenant: Option<&TenantName>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<AuditEntry>, Error> {
        let mut session = self.store().session().await?;
        let tenant = match tenant {
            Some(name) => {
                by.check(&[Permission::Admin], Some(name.as_str()))?;
                let row = store::tenant::by_name(&mut session, name.as_str()).await?;
                Some(
                    row.ok_or_else(|| Error::not_found("tenant", name))?
                        .tenant_id,
                )
            }
            None => {
                by.check_all(Permission::Admin)?;
                None
            }
        };
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let before = after.unwrap_or(i64::MAX);
        let rows = store::audit::list(&mut session, tenant, before, i64::from(limit) + 1).await?;
        let page = crate::engine::page::page(rows, limit, |row| row.audit_id.to_string());
        let items = page.items.into_iter().map(entry);
        Ok(Page {
            items: items.collect::<Result<_, _>>()?,
            next: page.next,
        })
    }
}

fn entry(row: EntryRow) -> Result<AuditEntry, Error> {
    let corrupt = |column| store::Error::Corrupt {
        table: "audit",
        column,
        row: row.audit_id.to_string(),
    };
    let detail = serde_json::from_str(&row.detail).map_err(|_| corrupt("detail"))?;
    Ok(AuditEntry {
        at: row.at.into(),
        // A tenant that an older version created may have a name that is not valid today; it is omitted.
        tenant: row.tenant.and_then(|name| name.parse().ok()),
        actor: row.actor,
        action: row.action,
        target: row.target,
        detail,
    })
}
