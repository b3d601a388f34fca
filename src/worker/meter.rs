//! Duty `meter`: the loop around `engine::meter`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Context, Duty};
use crate::engine::duty::{Done, DutyError};
use crate::engine::meter::blocks;

/// A round looks at every lane of the installation, and bills can wait: a twentieth of one core of Postgres, spread evenly.
const REST: u32 = 19;

pub(super) struct Meter;

impl Duty for Meter {
    const NAME: &'static str = "meter";
    const BUSY: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(5);
    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        blocks::run(&context.store, &context.clock, REST, stop).await
    }
}
