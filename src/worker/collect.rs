//! Duty `collect`: the loop around `engine::collect`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Context, Duty};
use crate::engine::duty::{Done, DutyError};
use crate::engine::lifecycle::collect;

#[derive(Default)]
pub(super) struct Collect(collect::Collect);

impl Duty for Collect {
    const NAME: &'static str = "collect";
    const BUSY: Duration = Duration::from_secs(60);
    const IDLE: Duration = Duration::from_secs(600);

    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let Context {
            store,
            blob,
            clock,
            settings,
            ..
        } = context;
        self.0
            .run((store, blob, clock), &settings.collect, stop)
            .await
    }
}
