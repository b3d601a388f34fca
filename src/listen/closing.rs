//! The end of a listener as its connections see it, and the time that a slow peer has left.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Time that a peer in a pause has left when the listener closes: a stop does not wait for those that do not read.
const PAUSE_WHILE_CLOSING: Duration = if cfg!(test) {
    Duration::from_millis(100)
} else {
    Duration::from_secs(3)
};

/// A timer that ends a wait for a peer.
pub(super) type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Signals all connections of a listener to close after their current requests.
///
/// The token alone would suffice, but polling it takes two locks that all connections share, and a connection is polled
/// at least once per request. So a connection polls the token once, to be woken by it, and afterwards checks the flag.
#[derive(Clone, Debug, Default)]
pub(super) struct Closing {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Closing {
    pub(super) fn begin(&self) {
        // Set before the token, because a task woken by the token checks the flag.
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub(super) fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Waits until a pause of a peer is too long: for `limit`, or less when the listener closes.
    pub(super) async fn out_of_time(self, limit: Duration) {
        tokio::select! {
            () = sleep(limit) => {}
            () = self.begun() => sleep(limit.min(PAUSE_WHILE_CLOSING)).await,
        }
    }
}
