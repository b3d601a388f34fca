//! How the program ends. `main` makes one `Shutdown`; every task that outlives a call is spawned on its `tracker` and ends
//! when `token` is cancelled. The first SIGTERM, SIGINT or SIGHUP asks for that; a second one ends the waiting.

use std::fs;
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
        // The terminal was closed. Under nohup that is nothing to us, and stays so.
        let mut hangup = match ignores_hangup() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        let (token, now) = (self.token.clone(), self.now.clone());
        // Not on the tracker: it waits for signals that may never come, and must still hear them while the rest drains.
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                    Some(_) = async { hangup.as_mut()?.recv().await } => "SIGHUP",
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

    /// What `work` gives, unless the program is asked to end before; then it is dropped.
    pub async fn unless_ending<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.token.cancelled() => None,
        }
    }

    /// What `work` gives within `patience`, and while the user can wait.
    pub async fn within<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = tokio::time::sleep(patience) => None,
            () = self.now.cancelled() => None,
        }
    }

    /// Waits for the tracked tasks; false when `patience` ran out or the user did not want to wait.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        self.within(patience, self.tracker.wait()).await.is_some()
    }
}

/// Whether SIGHUP was set to be ignored by whoever started this process. Only Linux says.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, SignalKind::hangup())
}

/// Whether a signal is in the mask of the ignored ones of `/proc/<pid>/status`.
fn ignores(status: &str, kind: SignalKind) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_ignored_when_the_mask_says_so() {
        let status = "Name:\tcursus\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n";
        assert!(ignores(status, SignalKind::hangup()));
        assert!(!ignores(status, SignalKind::interrupt()));
        assert!(!ignores("", SignalKind::hangup()));
    }

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
