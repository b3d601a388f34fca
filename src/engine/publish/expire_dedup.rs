//! Duty `expire_dedup`: truncates tables of keys whose windows are all over. A publish does not depend on it, because a
//! key whose window is over counts as free.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::dedup;

/// The duty.
#[derive(Debug)]
pub struct ExpireDedup;

impl Duty for ExpireDedup {
    const NAME: &'static str = "expire_dedup";
    const BUSY: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(5);

    /// Returns the number of tables truncated.
    async fn run(&mut self, context: &Context, _: &CancellationToken) -> Result<Done, DutyError> {
        let mut session = context.store.session().await?;
        let over = dedup::over(&mut session, context.clock.now()).await?;
        drop(session);
        let mut done = Done::default();
        for table in over {
            let mut tx = context.store.tx("expire_dedup").await?;
            if dedup::truncate(&mut tx, table).await? {
                tx.commit().await?;
                done.count += 1;
            }
        }
        Ok(done)
    }
}
