//! Shutdown of the program. `app` creates one `Shutdown`. Every task that outlives a call is spawned on its `tracker`
//! and ends when `token` is cancelled. The first SIGTERM, SIGINT or SIGHUP cancels `token`; a second one ends the
//! waiting for the tasks.

use std::fs;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The signals to end, and the tasks to wait for.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: accept nothing new, finish what is in flight.
    pub token: CancellationToken,
    /// Cancelled by the second signal: drop what is in flight.
    pub now: CancellationToken,
    /// Tasks that the shutdown waits for.
    pub tracker: TaskTracker,
}

impl Shutdown {
    /// Handles signals until the program ends.
    ///
    /// # Errors
    ///
    /// When the signal handlers cannot be installed.
    pub fn listen(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // SIGHUP means that the terminal was closed. Under nohup it is ignored and must stay so.
        let mut hangup = match ignores_hangup() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        let (token, now) = (self.token.clone(), self.now.clone());
        // Not on the tracker: this task may wait for ever, and must still handle a signal while the tracker drains.
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

    /// The result of `work`, or `None` when shutdown is requested first; `work` is then dropped.
    pub async fn unless_ending<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.token.cancelled() => None,
        }
    }

    /// The result of `work`, or `None` after `time_limit` or a second signal.
    pub async fn within<T>(
        &self,
        time_limit: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = tokio::time::sleep(time_limit) => None,
            () = self.now.cancelled() => None,
        }
    }

    /// Waits for the tracked tasks. False when `time_limit` ran out or a second signal came first.
    pub async fn drain(&self, time_limit: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        self.within(time_limit, self.tracker.wait()).await.is_some()
    }
}

/// Whether the parent process set SIGHUP to be ignored, as nohup does. Known on Linux only.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, SignalKind::hangup())
}

/// Whether the mask of ignored signals in `/proc/<pid>/status` contains a signal.
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
    fn a_signal_is_ignored_when_it_is_in_the_mask() {
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
