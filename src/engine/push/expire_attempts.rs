//! Duty: deletes attempts of deliveries that are too old.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::duty::{Context, Done, Duty, DutyError};
use crate::store::push_attempt;

/// How long attempts are kept.
const KEPT: Duration = Duration::from_secs(3 * 86_400);
/// Rows of one statement.
const ROWS_MAX: i64 = 1_000;

/// Deletes attempts.
#[derive(Debug)]
pub struct ExpireAttempts;

impl Duty for ExpireAttempts {
    const NAME: &'static str = "expire_attempts";
    const BUSY: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(60);

    async fn run(&mut self, context: &Context, _: &CancellationToken) -> Result<Done, DutyError> {
        let mut session = context.store.session().await?;
        let now = context.clock.now();
        let count = push_attempt::delete_old(&mut session, KEPT, ROWS_MAX, now).await?;
        Ok(Done {
            count,
            more: i64::try_from(count).unwrap_or(i64::MAX) == ROWS_MAX,
        })
    }
}
