//! Duty `expire_lost`: deletes old records of what leases have lost (`store::lost_lease`). A repeated ack is told from a late
//! one at least for as long as they are kept.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::{lost_lease, session};

/// How long records are kept: for longer than clients repeat a request.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// A turn commits within this time of the time that it reads, or not at all: it may add a record as far in the past.
const COMMIT_WITHIN: Duration = Duration::from_secs(120);
/// Records deleted by one statement.
const RECORDS: i64 = 2_000;

/// The duty.
#[derive(Debug, Default)]
pub struct ExpireLost {
    /// No record is older. It skips index entries of deleted ones, which stay as long as any transaction may see them.
    low: Option<OffsetDateTime>,
}

impl Duty for ExpireLost {
    const NAME: &'static str = "expire_lost";
    const BUSY: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(10);
    const PAUSE_FACTOR: u32 = 2;

    /// Counts the records that it deletes.
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let mut session = context.store.session().await?;
        let until = session::now(&mut session, context.clock.now()).await? - KEPT_FOR;
        let mut done = Done::default();
        while !stop.is_cancelled() {
            let forgotten = lost_lease::forget(&mut session, self.low, until, RECORDS).await?;
            done.count += forgotten.unsigned_abs();
            if forgotten < RECORDS {
                self.low = Some(until - COMMIT_WITHIN);
                break;
            }
        }
        Ok(done)
    }

    fn stand_by(&mut self) {
        self.low = None;
    }
}
