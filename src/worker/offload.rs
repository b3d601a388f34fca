//! Duty `offload`: the loop around `engine::offload`. While object storage is down it tries again ever more rarely, up to
//! once a minute, and says how much waits.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Context, Duty, Metrics};
use crate::engine::duty::{Done, DutyError};
use crate::engine::lifecycle::offload;

#[derive(Default)]
pub(super) struct Offload(offload::Waits);

impl Duty for Offload {
    const NAME: &'static str = "offload";
    const BUSY: Duration = Duration::from_millis(500);
    const IDLE: Duration = Duration::from_secs(5);

    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let offload = offload::Offload {
            store: &context.store,
            blob: &context.blob,
            clock: &context.clock,
            settings: &context.settings.offload,
        };
        let outcome = offload.run(&mut self.0, stop).await;
        // Above all when it failed.
        match offload.backlog().await {
            Ok(backlog) => {
                context.metrics.backlog_bytes.set(backlog.bytes);
                context
                    .metrics
                    .oldest_age_seconds
                    .set(backlog.oldest_age_seconds);
            }
            // Only figures.
            Err(error) => tracing::warn!(%error, "how much waits for object storage is unknown"),
        }
        outcome
    }

    fn rest(&mut self, metrics: &Metrics) {
        self.0 = offload::Waits::default();
        metrics.backlog_bytes.set(0);
        metrics.oldest_age_seconds.set(0.0);
    }
}
