//! The audit log: each change of the control plane is written down by its own transaction, so that there is no change
//! without an entry and no entry without a change. Requests that were refused are not changes; they are in the node's log.

use api::audit::AuditEntry;
use api::limits::PAGE;
use api::list::Page;
use api::{Permission, TenantName};
use serde::Serialize;
use time::OffsetDateTime;

use crate::store::audit::{EntryRow, NewEntry};
use crate::store::{self, Session};

use crate::engine::access::Access;
use crate::engine::error::Error;
use crate::engine::{Engine, Tenant};

/// The detail of a change of which the target says all.
#[derive(Serialize)]
pub(in crate::engine) struct Nothing {}

/// A change: what was done to what, and what was asked for.
pub(in crate::engine) struct Change<'a, T> {
    /// Whose thing it is; `None`: nobody's.
    pub(in crate::engine) tenant: Option<Tenant>,
    /// `thing.verb`.
    pub(in crate::engine) action: &'static str,
    /// A name or an id.
    pub(in crate::engine) target: &'a str,
    /// As it stands in the request; never with a secret.
    pub(in crate::engine) detail: &'a T,
}

/// Writes a change down, in its transaction.
pub(in crate::engine) async fn record<T: Serialize>(
    tx: &mut Session,
    by: &Access,
    change: Change<'_, T>,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    let detail = serde_json::to_string(change.detail).map_err(|_| Error::Internal)?;
    // A text of Postgres knows no such character.
    let actor = by.actor().replace('\0', "\u{fffd}");
    let entry = NewEntry {
        tenant: change.tenant.map(|tenant| tenant.0),
        actor: &actor,
        action: change.action,
        target: change.target,
        detail: &detail,
    };
    Ok(store::audit::insert(tx, &entry, now).await?)
}

impl Engine {
    /// A page of the log, the latest first: of one tenant, or of all. `after` is the `next` of the page before.
    ///
    /// # Errors
    /// When the caller may not read it, there is no such tenant, or the database does not answer.
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
                let row = row.ok_or_else(|| Error::not_found("tenant", name))?;
                Some(row.tenant_id)
            }
            None => {
                by.check_all(Permission::Admin)?;
                None
            }
        };
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let before = after.unwrap_or(i64::MAX);
        let rows = store::audit::list(&mut session, tenant, before, i64::from(limit) + 1).await?;
        let page = crate::engine::page(rows, limit, |row| row.audit_id.to_string());
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
        // A tenant of the first version may have a name that is none today.
        tenant: row.tenant.and_then(|name| name.parse().ok()),
        actor: row.actor,
        action: row.action,
        target: row.target,
        detail,
    })
}
