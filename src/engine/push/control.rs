//! What the loop that assigns endpoints says to a driver, and what it learns from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::engine::push::endpoint::Endpoint;
use crate::engine::push::status::Status;

/// What a driver is to take over.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The endpoint has other settings.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// Messages fall due after this time.
    pub(super) due_after: Option<Duration>,
    /// There may be messages now.
    pub(super) look: bool,
}

/// The control of one driver.
#[derive(Debug)]
pub(super) struct Control {
    /// When the driver began.
    pub(super) began: Instant,
    /// Ends it.
    pub(super) stop: CancellationToken,
    /// How deliveries go.
    pub(super) status: Status,
    change: Mutex<Change>,
    notify: Notify,
}

impl Control {
    pub(super) fn new(status: Status) -> Self {
        Self {
            began: Instant::now(),
            stop: CancellationToken::new(),
            status,
            change: Mutex::default(),
            notify: Notify::new(),
        }
    }

    /// Changes something.
    pub(super) fn put(&self, change: impl FnOnce(&mut Change)) {
        change(&mut self.change.lock());
        self.notify.notify_one();
    }

    /// Resolves when something was changed.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Takes what was changed.
    pub(super) fn take(&self) -> Change {
        std::mem::take(&mut *self.change.lock())
    }
}
