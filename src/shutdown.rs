//! How the program ends. `main` makes one `Shutdown`; every task that outlives a call is spawned on its `tracker` and ends
//! when `token` is cancelled. The first SIGTERM or SIGINT asks for that; a second one ends the waiting.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The wish to end, and the tasks to wait for.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled when the program is asked to end: take nothing new, finish what is in flight.
    pub token: CancellationToken,
    /// Cancelled when the user cannot wait: drop what is in flight.
    pub now: CancellationToken,
    /// The tasks to wait for.
    pub tracker: TaskTracker,
}

impl Shutdown {
    /// Listens for signals until the program ends.
    ///
    /// # Errors
    ///
    /// When the signal handlers cannot be installed.
    pub fn listen(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (token, now) = (self.token.clone(), self.now.clone());
        // Not on the tracker: it waits for signals that may never come, and must still hear them while the rest drains.
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let first = next().await;
            tracing::info!(
                signal = first,
                "shutting down; a second signal ends at once"
            );
            token.cancel();
            let second = next().await;
            tracing::warn!(signal = second, "ending at once");
            now.cancel();
        });
        Ok(())
    }

    /// Waits for the tracked tasks; false when `patience` ran out or the user did not want to wait.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => true,
            () = tokio::time::sleep(patience) => false,
            () = self.now.cancelled() => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_waits_for_tasks_that_end_and_not_for_those_that_do_not() {
        let shutdown = Shutdown::default();
        let token = shutdown.token.clone();
        shutdown
            .tracker
            .spawn(async move { token.cancelled().await });
        assert!(shutdown.drain(Duration::from_secs(10)).await);

        let shutdown = Shutdown::default();
        shutdown.tracker.spawn(std::future::pending::<()>());
        assert!(!shutdown.drain(Duration::from_millis(1)).await);
    }
}
