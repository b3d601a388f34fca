//! Duty `expire_audit`: deletes entries of the audit log that are older than `AUDIT_DAYS`. A run deletes at most one
//! statement's worth of entries and leaves the rest to the next run.

use std::time::Duration;

use api::limits::AUDIT_DAYS;
use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::audit;

/// Entries deleted by one statement.
const ENTRIES: i64 = 1_000;

/// The duty.
#[derive(Debug)]
pub struct ExpireAudit;

impl Duty for ExpireAudit {
    const NAME: &'static str = "expire_audit";
    const BUSY: Duration = Duration::from_secs(60);
    const IDLE: Duration = Duration::from_secs(600);

    /// Deletes old entries, and returns how many.
    async fn run(&mut self, context: &Context, _: &CancellationToken) -> Result<Done, DutyError> {
        let mut session = context.store.session().await?;
        let count = audit::expire(&mut session, AUDIT_DAYS, ENTRIES, context.clock.now()).await?;
        Ok(Done { count, more: false })
    }
}
