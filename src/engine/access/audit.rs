//! The audit log: each change of the control plane is written down by its own transaction, so that there is no change
//! without an entry and no entry without a change. Requests that were refused are not changes; they are in the node's log.

use serde::Serialize;
use time::OffsetDateTime;

use crate::store::audit::NewEntry;
use crate::store::{self, Session};

use crate::engine::access::{Access, Tenant};
use crate::engine::error::Error;

/// The detail of a change of which the target says all.
#[derive(Debug, Serialize)]
pub struct Nothing {}

/// A change: what was done to what, and what was asked for.
#[derive(Debug)]
pub struct Change<'a, T> {
    /// The tenant it belongs to; `None` for what belongs to the installation.
    pub tenant: Option<Tenant>,
    /// `thing.verb`.
    pub action: &'static str,
    /// A name or an id.
    pub target: &'a str,
    /// As it stands in the request; never with a secret.
    pub detail: &'a T,
}

/// Writes a change down, in its transaction.
///
/// # Errors
/// When the database does not answer.
pub async fn record<T: Serialize>(
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
