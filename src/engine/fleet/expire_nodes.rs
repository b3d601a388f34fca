//! Duty `expire_nodes`: deletes the rows of nodes that crashed. A node that stops deletes its own row (`heartbeat`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::node;

/// A node without a heartbeat for this long is deleted.
const SILENT_FOR: Duration = Duration::from_secs(600);

/// The duty.
#[derive(Debug)]
pub struct ExpireNodes;

impl Duty for ExpireNodes {
    const NAME: &'static str = "expire_nodes";
    const BUSY: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);

    /// Counts deleted nodes.
    async fn run(&mut self, context: &Context, _: &CancellationToken) -> Result<Done, DutyError> {
        let mut session = context.store.session().await?;
        // By the database's time, as heartbeats are.
        let count = node::delete_stale(&mut session, SILENT_FOR, None).await?;
        Ok(Done { count, more: false })
    }
}
