//! Returns messages whose receivers disconnected before they got them, so that the next receiver gets them at once.

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::lease::plan::Step;

impl Engine {
    /// Returns such messages until `stop`. Any that remain then become visible when their leases expire.
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
