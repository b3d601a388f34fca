//! Slows the guessing of keys. Failures are counted for the network that a request came from, and for the key that it
//! names: the first slows one guesser, the second many of them who try the secrets of one key. Beyond a burst, one more
//! is checked per second. Keys and tokens that the node remembers are not affected, so valid callers behind the same
//! address keep working; and a key whose secret fits the id in it is not a guess of that key, so that nobody can shut
//! its owner out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use api::KeyId;
use api::limits::GUESSES_MAX;
use parking_lot::Mutex;

use crate::engine::access::Secret;
use crate::engine::error::Error;
use crate::engine::limit::Limit;

/// One failure is forgiven after this time, so a source that keeps guessing gets one try in each such period.
const FORGIVEN_AFTER: Duration = Duration::from_secs(1);
/// Sources remembered. When there are more, all failures are forgiven.
const SOURCES_MAX: usize = 100_000;

/// What failures are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    /// The network that a request came from.
    Network(IpAddr),
    /// The key that it named.
    Key(KeyId),
}

/// A caller that is not known yet: where its request came from, and the key that it names but cannot prove.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stranger {
    network: Option<IpAddr>,
    guessed: Option<KeyId>,
}

impl Stranger {
    pub(super) fn new(client: Option<IpAddr>, bearer: &str, secret: &Secret) -> Self {
        let guessed = Secret::named(bearer).filter(|_| !secret.is_of(bearer));
        Self {
            network: client.map(network),
            guessed,
        }
    }

    fn sources(self) -> impl Iterator<Item = Source> {
        let network = self.network.map(Source::Network);
        network.into_iter().chain(self.guessed.map(Source::Key))
    }
}

/// The failures of each source, kept as the time at which the last of them is forgiven.
#[derive(Debug, Default)]
pub(super) struct Guard {
    forgiven: Mutex<HashMap<Source, Instant>>,
}

impl Guard {
    /// Refuses a caller with too many failures.
    pub(super) fn check(&self, stranger: Stranger) -> Result<(), Error> {
        self.check_at(stranger, Instant::now())
    }

    fn check_at(&self, stranger: Stranger, now: Instant) -> Result<(), Error> {
        let forgiven = self.forgiven.lock();
        let is_over = |source: Source| {
            let until = forgiven.get(&source);
            let wait = until.and_then(|at| at.checked_duration_since(now));
            wait.is_some_and(|wait| wait > FORGIVEN_AFTER * GUESSES_MAX)
        };
        if stranger.sources().any(is_over) {
            return Err(Error::Limited(Limit::Guesses));
        }
        Ok(())
    }

    /// Records that a caller sent an invalid key or token.
    pub(super) fn failed(&self, stranger: Stranger) {
        self.failed_at(stranger, Instant::now());
    }

    fn failed_at(&self, stranger: Stranger, now: Instant) {
        let mut forgiven = self.forgiven.lock();
        if forgiven.len() >= SOURCES_MAX {
            forgiven.retain(|_, at| *at > now);
            if forgiven.len() >= SOURCES_MAX {
                forgiven.clear();
            }
        }
        for source in stranger.sources() {
            let at = forgiven.entry(source).or_insert(now);
            *at = (*at).max(now) + FORGIVEN_AFTER;
        }
    }
}

/// The unit in which failures are counted: one IPv4 address, or a /64 of IPv6, because one client can use all of it.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(ip: &str) -> Stranger {
        Stranger::new(Some(ip.parse().unwrap()), "a.b.c", &Secret::of("a.b.c"))
    }

    fn with_key(ip: &str, bearer: &str) -> Stranger {
        Stranger::new(Some(ip.parse().unwrap()), bearer, &Secret::of(bearer))
    }

    #[test]
    fn a_network_that_fails_too_often_waits_and_others_do_not() {
        let guard = Guard::default();
        let now = Instant::now();
        let guesser = from("2001:db8::1");
        for _ in 0..=GUESSES_MAX {
            assert!(guard.check_at(guesser, now).is_ok());
            guard.failed_at(guesser, now);
        }
        assert!(guard.check_at(from("2001:db8::2"), now).is_err());
        assert!(guard.check_at(from("2001:db8:1::1"), now).is_ok());
        // Each forgiven failure allows one try.
        let later = now + FORGIVEN_AFTER;
        assert!(guard.check_at(guesser, later).is_ok());
        guard.failed_at(guesser, later);
        assert!(guard.check_at(guesser, later).is_err());
        assert!(guard.check_at(guesser, later + FORGIVEN_AFTER * 30).is_ok());
    }

    #[test]
    fn a_key_that_many_guess_is_slowed_for_them_and_not_for_its_owner() {
        let guard = Guard::default();
        let now = Instant::now();
        let (key, _) = Secret::new();
        for n in 0..=GUESSES_MAX {
            // No secret has an `x`, so none of these is the key.
            let guess = format!("{}x{n}", &key[..key.len() - 2]);
            guard.failed_at(with_key(&format!("192.0.2.{n}"), &guess), now);
        }
        let (id, _) = key.rsplit_once('_').unwrap();
        let more = format!("{id}_0");
        assert!(
            guard
                .check_at(with_key("198.51.100.1", &more), now)
                .is_err()
        );
        assert!(guard.check_at(with_key("198.51.100.1", &key), now).is_ok());
        assert!(
            guard
                .check_at(with_key("198.51.100.1", "cursus_00_0"), now)
                .is_ok()
        );
    }
}
