//! Duty `rotate`: the loop around `engine::rotate`. Looks every second, because a slot can fill in one.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Context, Duty, Metrics};
use crate::engine::duty::{Done, DutyError};
use crate::engine::lifecycle::rotate::rotate;
use crate::store::hot_payload;

pub(super) struct Rotate;

impl Duty for Rotate {
    const NAME: &'static str = "rotate";
    const BUSY: Duration = Duration::from_millis(500);
    const IDLE: Duration = Duration::from_secs(1);

    async fn run(&mut self, context: &Context, _: &CancellationToken) -> Result<Done, DutyError> {
        let (done, free) = rotate(&context.store, &context.clock, &context.settings.rotate).await?;
        context
            .metrics
            .slots_free
            .set(i64::try_from(free).unwrap_or(i64::MAX));
        Ok(done)
    }

    fn rest(&mut self, metrics: &Metrics) {
        metrics.slots_free.set(i64::from(hot_payload::SLOTS));
    }
}
