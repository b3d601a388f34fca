//! Gives back messages whose receivers went away before they got them, so that the next receiver gets them at once.

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::lease::plan::Step;

impl Engine {
    /// Gives back what receivers left, until `stop`: what is left then is due again when its lease expires.
    pub(super) async fn return_unwanted(self, stop: CancellationToken) {
        let returns = &self.turns().returns;
        while let Some(unwanted) = stop.run_until_cancelled(returns.take()).await {
            for (subscriber, grants) in unwanted {
                self.leases()
                    .give_back(&subscriber, &grants, Step::GiveBack(0))
                    .await;
            }
        }
    }
}
