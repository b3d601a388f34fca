//! Keeps the private Postgres running: one loop, started by `Embedded::start` and ended by `stop`. When Postgres dies
//! or its socket is removed, it is started again, with no limit of attempts, because backends of the dead one may still
//! hold its shared memory. Statements fail meanwhile, and the store reports them as `unavailable`.

use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::cluster::Cluster;

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);

/// How long a first start is retried before it fails. Remaining backends of a killed Postgres exit well within this
/// time.
const START_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn run(cluster: Cluster, mut child: Child, stop: CancellationToken) {
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.map_or_else(|err| err.to_string(), |status| status.to_string());
                tracing::error!(status, "Postgres ended by itself; starting it again");
            }
            () = cluster.socket_gone() => {
                let dir = cluster.sockets.display();
                tracing::error!(%dir, "the socket of Postgres was removed; starting Postgres again");
                cluster.shut(child).await;
            }
            () = stop.cancelled() => break,
        }
        let Some(again) = relaunch(&cluster, &stop).await else {
            return;
        };
        tracing::info!("Postgres is back");
        child = again;
    }
    cluster.shut(child).await;
}

/// Retries until Postgres is started; `None` when shutdown begins.
async fn relaunch(cluster: &Cluster, stop: &CancellationToken) -> Option<Child> {
    let mut wait = RETRY_FIRST;
    loop {
        match cluster.launch(stop).await {
            Ok(child) => return Some(child),
            Err(Error::Ending) => return None,
            Err(err) => tracing::warn!(%err, "starting Postgres again"),
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => return None,
        }
        wait = (wait * 2).min(RETRY_MOST);
    }
}

/// The first start. It is retried only while remaining backends of a killed Postgres may prevent it.
pub(super) async fn first_launch(
    cluster: &Cluster,
    ending: &CancellationToken,
) -> Result<Child, Error> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match cluster.launch(ending).await {
            Err(err) if err.is_transient() && Instant::now() < deadline => {
                sleep(RETRY_FIRST * 4).await
            }
            done => return done,
        }
    }
}
