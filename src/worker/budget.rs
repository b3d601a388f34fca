//! Duty `budget`: the loop around `engine::spend`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Context, Duty};
use crate::engine::bill::spend;
use crate::engine::duty::{Done, DutyError};

pub(super) struct Budget;

impl Duty for Budget {
    const NAME: &'static str = "budget";
    const BUSY: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(10);
    // What a month costs is added up for each tenant that has a budget.
    const REST: u32 = 9;

    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        spend::run(&context.store, &context.clock, stop).await
    }
}
