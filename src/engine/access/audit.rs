//! The audit log. The transaction of each change of the control plane also inserts its audit entry, so a change and its
//! entry commit together or not at all. Refused requests change nothing and get no entry, with one exception: what
//! the ceiling of an issuer forbids (`ceiling`).

use serde::Serialize;
use time::OffsetDateTime;

use crate::engine::access::{Access, Tenant};
use crate::engine::error::Error;
use crate::store::audit::NewEntry;
use crate::store::{self, Session};

/// The detail of a change that its action and target describe completely.
#[derive(Debug, Serialize)]
pub struct Nothing {}

/// A change: the action, its target, and the settings in the request.
#[derive(Debug)]
pub struct Change<'a, T> {
    /// The tenant that owns the target; `None` when the target belongs to the whole installation.
    pub tenant: Option<Tenant>,
    /// The kind of target and the verb, as `plan.put`.
    pub action: &'static str,
    /// Name or id of the target.
    pub target: &'a str,
    /// The settings as in the request; never a secret.
    pub detail: &'a T,
}

/// Inserts the audit entry of a change into the transaction that makes the change.
///
/// # Errors
/// When the database does not respond.
pub async fn record<T: Serialize>(
    tx: &mut Session,
    by: &Access,
    change: Change<'_, T>,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    let detail = serde_json::to_string(change.detail).map_err(|_| Error::Internal)?;
    // A Postgres `text` cannot hold a NUL character.
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
