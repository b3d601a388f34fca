//! Slows the guessing of keys. An address that sent too many invalid keys has to wait before this node checks another
//! unknown key from it. Keys and tokens that the node remembers are not affected, so valid callers behind the same
//! address (a NAT, a proxy) keep working.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use api::limits::GUESSES_MAX;
use parking_lot::Mutex;

use crate::engine::error::Error;
use crate::engine::limit::Limit;

/// One failure is forgiven after this time, so an address that keeps guessing gets one try in each such period.
const FORGIVEN_AFTER: Duration = Duration::from_secs(1);
/// Addresses remembered. When there are more, all failures are forgiven.
const ADDRESSES_MAX: usize = 100_000;

/// The failures of each address, kept as the time at which the last of them is forgiven.
#[derive(Debug, Default)]
pub(super) struct Guard {
    forgiven: Mutex<HashMap<IpAddr, Instant>>,
}

impl Guard {
    /// Refuses an address that has too many failures.
    pub(super) fn check(&self, peer: Option<IpAddr>) -> Result<(), Error> {
        self.check_at(peer, Instant::now())
    }

    fn check_at(&self, peer: Option<IpAddr>, now: Instant) -> Result<(), Error> {
        let Some(peer) = peer.map(network) else {
            return Ok(());
        };
        let forgiven = self.forgiven.lock().get(&peer).copied();
        let wait = forgiven.and_then(|at| at.checked_duration_since(now));
        let longest = FORGIVEN_AFTER * GUESSES_MAX;
        match wait.and_then(|wait| wait.checked_sub(longest)) {
            Some(too_long) if !too_long.is_zero() => Err(Error::Limited(Limit::Guesses)),
            Some(_) | None => Ok(()),
        }
    }

    /// Records that an address sent an invalid key or token.
    pub(super) fn failed(&self, peer: Option<IpAddr>) {
        self.failed_at(peer, Instant::now());
    }

    fn failed_at(&self, peer: Option<IpAddr>, now: Instant) {
        let Some(peer) = peer.map(network) else {
            return;
        };
        let mut forgiven = self.forgiven.lock();
        if forgiven.len() >= ADDRESSES_MAX {
            forgiven.retain(|_, at| *at > now);
            if forgiven.len() >= ADDRESSES_MAX {
                forgiven.clear();
            }
        }
        let at = forgiven.entry(peer).or_insert(now);
        *at = (*at).max(now) + FORGIVEN_AFTER;
    }
}

/// The unit in which failures are counted: one IPv4 address, or a /64 of IPv6, because one client can use all of it.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let guard = Guard::default();
        let now = Instant::now();
        let guesser = Some("2001:db8::1".parse().unwrap());
        for _ in 0..=GUESSES_MAX {
            assert!(guard.check_at(guesser, now).is_ok());
            guard.failed_at(guesser, now);
        }
        let same_network = Some("2001:db8::2".parse().unwrap());
        assert!(guard.check_at(same_network, now).is_err());
        let other = Some("2001:db8:1::1".parse().unwrap());
        assert!(guard.check_at(other, now).is_ok());
        // Each forgiven failure allows one try.
        let later = now + FORGIVEN_AFTER;
        assert!(guard.check_at(guesser, later).is_ok());
        guard.failed_at(guesser, later);
        assert!(guard.check_at(guesser, later).is_err());
        assert!(guard.check_at(guesser, later + FORGIVEN_AFTER * 30).is_ok());
    }
}
