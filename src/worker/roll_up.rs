//! Duty `roll_up`: the loop around `engine::roll_up`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Context, Duty};
use crate::engine::duty::{Done, DutyError};
use crate::engine::meter::roll_up;

pub(super) struct RollUp;

impl Duty for RollUp {
    const NAME: &'static str = "roll_up";
    const BUSY: Duration = Duration::from_secs(60);
    const IDLE: Duration = Duration::from_secs(60);
    // An hour of minutes comes due at once, and nobody waits for it.
    const REST: u32 = 9;

    async fn run(
        &mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<Done, DutyError> {
        roll_up::run(&context.store, &context.clock, stop).await
    }
}
