//! Duty `expire`: the loop around `engine::expire`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Context, Duty};
use crate::engine::duty::{Done, DutyError};
use crate::engine::lifecycle::expire;

#[derive(Default)]
pub(super) struct Expire(expire::Expire);

impl Duty for Expire {
    const NAME: &'static str = "expire";
    const BUSY: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(5);
    // A round looks at every lane of the installation.
    const REST: u32 = 9;

    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        let Context {
            store,
            clock,
            settings,
            ..
        } = context;
        self.0.run(store, clock, &settings.expire, stop).await
    }
}
