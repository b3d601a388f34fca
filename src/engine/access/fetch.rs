//! Fetches the public keys of issuers. One request at a time runs for a key set, in a task of its own, and its outcome
//! is the outcome of all tokens that wait for it. After a failure the next request waits, longer each time. Why keys
//! could not be had is logged when it changes, not each time.

use std::sync::Arc;
use std::time::Duration;

use api::limits::{KEY_SET_BYTES_MAX, KEY_SET_KEYS_MAX};
use futures_util::StreamExt;
use futures_util::stream;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::causes;
use crate::clock::Clock;
use crate::engine::access::Gate;
use crate::engine::access::issuers::Issuer;
use crate::engine::access::key_set::PublicKeys;
use crate::outbound::Outbound;
use crate::repeat::{doubled, every};
use crate::store::{self, Store};

/// Shortest time between two requests to one issuer, also when tokens name unknown keys.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest time between two requests to an issuer that fails.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Pause between two scans for issuers that are due.
const SCAN_PAUSE: Duration = Duration::from_secs(1);
/// Issuers that the scan asks at the same time, so that one that hangs does not hold up the others.
const AT_ONCE: usize = 8;

/// The requests for one key set.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The request that was made last; it ends when its sender is dropped.
    running: Option<watch::Receiver<()>>,
    /// When the next request may begin.
    next_at: Option<OffsetDateTime>,
    /// Failures since the last success.
    failures: u32,
    /// Why the last request failed.
    problem: Option<String>,
}

impl Asked {
    /// Lets the next request begin at once: the settings of the issuer have changed.
    pub(super) fn pause_no_more(&mut self) {
        self.next_at = None;
        self.failures = 0;
    }

    /// Records an outcome, and returns whether it is news.
    fn ended(&mut self, problem: Option<String>, now: OffsetDateTime) -> bool {
        self.failures = match problem {
            Some(_) => self.failures.saturating_add(1),
            None => 0,
        };
        self.next_at = Some(now + pause(self.failures));
        let is_news = self.problem != problem;
        self.problem = problem;
        is_news
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    doubled(PAUSE, failures.saturating_sub(1), PAUSE_MAX)
}

impl Gate {
    /// Fetches the public keys of all issuers again when they are due, until `stop`.
    pub async fn keep_issuers(&self, stop: CancellationToken) {
        let mut rounds = every(SCAN_PAUSE, &stop);
        while rounds.next().await {
            let now = self.clock.estimate();
            let due = self.issuers.all().into_iter();
            let due = due.filter(|issuer| issuer.keys.is_due(now));
            stream::iter(due)
                .for_each_concurrent(AT_ONCE, async |issuer| self.fetch_keys(&issuer).await)
                .await;
        }
    }

    /// Fetches the keys of an issuer, unless it is too early for that. Waits for the request that is running, if one is.
    pub(super) async fn fetch_keys(&self, issuer: &Arc<Issuer>) {
        let Some(mut running) = self.running_fetch(issuer) else {
            return;
        };
        // Never a value: an error says that the request has ended.
        let _ = running.changed().await;
    }

    fn running_fetch(&self, issuer: &Arc<Issuer>) -> Option<watch::Receiver<()>> {
        let mut asked = issuer.keys.asked.lock();
        if let Some(running) = asked.running.take_if(|it| it.has_changed().is_ok()) {
            asked.running = Some(running.clone());
            return Some(running);
        }
        let now = self.clock.estimate();
        if asked.next_at.is_some_and(|at| now < at) {
            return None;
        }
        let (ends_on_drop, running) = watch::channel(());
        asked.running = Some(running.clone());
        let fetch = Fetch {
            store: self.store.clone(),
            clock: self.clock.clone(),
            outbound: self.outbound.clone(),
            issuer: issuer.clone(),
        };
        // A task of its own: the client whose token began the request may leave before it ends. Bounded in time by
        // `outbound`.
        tokio::spawn(async move {
            fetch.run().await;
            drop(ends_on_drop);
        });
        Some(running)
    }
}

/// One request for a key set.
struct Fetch {
    store: Store,
    clock: Clock,
    outbound: Outbound,
    issuer: Arc<Issuer>,
}

impl Fetch {
    async fn run(self) {
        let outcome = self.read().await;
        let now = self.clock.estimate();
        let text = match outcome {
            Ok((text, keys)) => {
                self.issuer.keys.put(keys, Some(now));
                self.report(None, now);
                text
            }
            Err(problem) => {
                self.report(Some(problem), now);
                return;
            }
        };
        let saved = async {
            let mut session = self.store.session().await?;
            let (id, url) = (self.issuer.row.issuer_id, &self.issuer.row.jwks_url);
            store::issuer::keys_read(&mut session, id, url, &text, Some(now)).await
        };
        if let Err(error) = saved.await {
            tracing::debug!(%error, "public keys of an issuer could not be stored for other nodes");
        }
    }

    /// The key set, as text and as keys, or what is wrong with it.
    async fn read(&self) -> Result<(String, PublicKeys), String> {
        let url = &self.issuer.row.jwks_url;
        let response = self.outbound.get(url, KEY_SET_BYTES_MAX).await;
        let body = response.map_err(|error| causes::in_line(&error))?;
        let text = String::from_utf8(body.to_vec()).map_err(|_| "it is not UTF-8".to_owned())?;
        let keys = PublicKeys::parse(&text).ok_or("it is not a key set (RFC 7517)")?;
        if keys.is_empty() {
            return Err("none of its keys can verify RS256, ES256 or EdDSA".to_owned());
        }
        if keys.dropped > 0 {
            let (issuer, dropped) = (&self.issuer.row.name, keys.dropped);
            tracing::warn!(
                issuer,
                dropped,
                "the issuer has more than {KEY_SET_KEYS_MAX} public keys; the last ones are not used"
            );
        }
        Ok((text, keys))
    }

    fn report(&self, problem: Option<String>, now: OffsetDateTime) {
        let mut asked = self.issuer.keys.asked.lock();
        if !asked.ended(problem, now) {
            return;
        }
        let (issuer, url) = (&self.issuer.row.name, &self.issuer.row.jwks_url);
        match &asked.problem {
            Some(cause) => tracing::warn!(
                issuer,
                url,
                cause,
                "no public keys from the issuer; what was read before is used for a day"
            ),
            None => tracing::info!(issuer, url, "public keys of the issuer read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_failures_and_ends_with_them() {
        let seconds: Vec<_> = (0..9).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn only_what_changes_is_news() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut asked = Asked::default();
        assert!(!asked.ended(None, now));
        assert!(asked.ended(Some("refused".to_owned()), now));
        assert!(!asked.ended(Some("refused".to_owned()), now));
        assert_eq!(asked.next_at, Some(now + Duration::from_secs(10)));
        assert!(asked.ended(Some("status 500".to_owned()), now));
        assert!(asked.ended(None, now));
        assert_eq!(asked.next_at, Some(now + PAUSE));
    }
}
