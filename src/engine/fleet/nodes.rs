//! The nodes of the fleet, for operators of all tenants.

use api::Permission;
use api::list::Page;
use api::node::ServiceNode;

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::error::Error;
use crate::store;

/// Most nodes returned; no fleet has as many.
const NODES_MAX: i64 = 10_000;

impl Engine {
    /// The running nodes.
    ///
    /// # Errors
    /// When the caller does not operate all tenants, or the database call fails.
    pub async fn nodes(&self, by: &Access) -> Result<Page<ServiceNode>, Error> {
        by.check_all(Permission::Admin)?;
        let mut session = self.store().session().await?;
        let rows = store::node::list(&mut session, NODES_MAX).await?;
        let shown = rows.into_iter().map(|row| ServiceNode {
            id: row.node_id.to_string(),
            version: row.version,
            started_at: row.started_at.into(),
            seen_at: row.seen_at.into(),
        });
        Ok(Page {
            items: shown.collect(),
            next: None,
        })
    }
}
