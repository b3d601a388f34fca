//! Duty `expire_dedup`: deletes the keys of idempotent publishes when their window is over. A publish does not depend
//! on it, because a key whose window is over counts as free.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::dedup;

/// Keys that one statement deletes at most.
const KEYS: i64 = 1_000;
/// A run ends after this time.
const TIME: Duration = Duration::from_millis(300);

/// The duty.
#[derive(Debug)]
pub struct ExpireDedup;

impl Duty for ExpireDedup {
    const NAME: &'static str = "expire_dedup";
    const BUSY: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(5);
    // Keys expire as fast as publishes create them, so the duty may run half of the time, and no more.
    const PAUSE_FACTOR: u32 = 1;

    /// Returns the number of keys deleted. Stops between two statements.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let began = Instant::now();
        let mut done = Done {
            count: 0,
            more: true,
        };
        let mut session = context.store.session().await?;
        while done.more && began.elapsed() < TIME && !stop.is_cancelled() {
            let deleted = dedup::expire(&mut session, context.clock.now(), KEYS).await?;
            done.count += deleted;
            done.more = deleted == KEYS.unsigned_abs();
        }
        Ok(done)
    }
}
