//! Settles the messages of requests that were answered: many in one turn. If the database does not answer it is tried
//! again, because a message whose ack is lost is sent twice.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::push::drive::Drive;
use crate::engine::push::endpoint::Endpoint;
use crate::engine::receive::Action;

/// Attempts to settle.
const ATTEMPTS: u32 = 6;
/// Pause between two.
const PAUSE: Duration = Duration::from_millis(500);

/// A settle that runs. Its output is the pauses after which messages fall due again.
pub(super) type Settling = Pin<Box<dyn Future<Output = Vec<Duration>> + Send>>;

/// Settles messages.
pub(super) async fn settle(
    engine: Engine,
    endpoint: Arc<Endpoint>,
    items: Vec<(String, Action)>,
) -> Vec<Duration> {
    if items.is_empty() {
        return Vec::new();
    }
    for attempt in 1..=ATTEMPTS {
        let by_receipt = items.iter();
        let by_receipt = by_receipt.map(|(receipt, action)| (receipt.as_str(), action.clone()));
        let settled = engine.settle(
            endpoint.tenant(),
            &endpoint.subscription,
            by_receipt.collect(),
        );
        match settled.await {
            Ok(_) => break,
            Err(error @ (Error::Unavailable(_) | Error::Limited(_))) if attempt < ATTEMPTS => {
                tracing::debug!(%error, "deliveries are settled again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                let subscription = endpoint.subscription.as_str();
                tracing::warn!(%error, subscription, "deliveries were not settled; their messages are sent again");
                break;
            }
        }
    }
    let pauses = items.iter().filter_map(|(_, action)| match action {
        Action::Nack { delay_seconds } => Some(Duration::from_secs(u64::from(*delay_seconds))),
        Action::GiveBack => Some(Duration::ZERO),
        Action::Ack | Action::Extend { .. } | Action::DeadLetter { .. } => None,
    });
    pauses.collect()
}

impl Drive {
    /// Takes over that messages were settled, and fall due after these pauses.
    pub(super) fn settled(&mut self, pauses: Vec<Duration>) {
        for pause in pauses {
            self.due_after(pause);
        }
    }
}
