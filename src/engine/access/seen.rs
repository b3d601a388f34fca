//! Whom this node has let in, by the hash of what they brought. What is remembered is looked at again as a whole when
//! anything of access changes; an answer that was read before and comes in after that is not remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::store::api_key::ValidKey;

use crate::engine::access::{Access, Secret};

/// Keys and tokens remembered; beyond it all are forgotten.
const SEEN_MAX: usize = 10_000;
/// When a node has not heard for so long whether anything changed, it trusts nothing that it remembers.
const TRUST: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Seen {
    known: RwLock<Known>,
    epoch: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    entries: foldhash::HashMap<Secret, Entry>,
    /// When it was last known that nothing had changed.
    current: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    access: Arc<Access>,
    /// When it was read.
    epoch: u64,
}

impl Seen {
    pub(super) fn get(&self, secret: &Secret) -> Option<Arc<Access>> {
        let known = self.known.read();
        let access = &known.entries.get(secret)?.access;
        let is_trusted = known.current.is_some_and(|at| at.elapsed() < TRUST);
        is_trusted.then(|| access.clone())
    }

    /// Goes with what is read from now on.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Remembers somebody whose look-up began in `epoch`, if that is still the present one.
    pub(super) fn insert(&self, secret: Secret, access: &Arc<Access>, epoch: u64) {
        let mut known = self.known.write();
        if epoch != self.epoch() {
            return;
        }
        if known.entries.len() >= SEEN_MAX {
            known.entries.clear();
        }
        let access = access.clone();
        known.entries.insert(secret, Entry { access, epoch });
    }

    /// What was read before is not remembered any more.
    pub(super) fn begin_again(&self) {
        // Under the lock, so that no insert that has compared epochs comes after.
        let _known = self.known.write();
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The ids of the keys that were read before the present epoch.
    pub(super) fn keys(&self) -> Vec<String> {
        let known = self.known.read();
        let old = |entry: &&Entry| entry.epoch != self.epoch();
        let old = known.entries.values().filter(old);
        old.filter_map(|entry| entry.access.key.clone()).collect()
    }

    /// Of what was read before the present epoch keeps the keys that are among these, as they are now, and no token: tokens
    /// are cheap to check again.
    pub(super) fn replace(&self, admitted: Vec<ValidKey>) {
        let mut now: HashMap<String, ValidKey> = admitted
            .into_iter()
            .map(|key| (key.key_id.clone(), key))
            .collect();
        let mut known = self.known.write();
        let epoch = self.epoch();
        known.entries.retain(|secret, entry| {
            if entry.epoch == epoch {
                return true;
            }
            let Some(key) = entry.access.key.as_ref().and_then(|id| now.remove(id)) else {
                return false;
            };
            let is_same = key.key_hash == secret.hash();
            let used = entry.access.used.load(Ordering::Relaxed);
            let access = Arc::new(Access::of_key(key));
            access.used.store(used, Ordering::Relaxed);
            *entry = Entry { access, epoch };
            is_same
        });
    }

    /// Nothing has changed that is not known here.
    pub(super) fn is_current(&self) {
        self.known.write().current = Some(Instant::now());
    }

    /// The ids of the keys that were used since the last call.
    pub(super) fn take_used(&self) -> Vec<String> {
        let known = self.known.read();
        let used = |entry: &&Entry| entry.access.used.swap(false, Ordering::Relaxed);
        let used = known.entries.values().filter(used);
        used.filter_map(|entry| entry.access.key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::access::Tenant;

    fn key(secret: &Secret) -> ValidKey {
        ValidKey {
            key_hash: secret.hash().to_vec(),
            key_id: secret.id().to_string(),
            tenant_id: 1,
            scopes: vec!["publish".to_owned()],
            expires_at: None,
            suspended: false,
        }
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let seen = Seen::default();
        seen.is_current();
        let (_, secret) = Secret::new();
        let access = Arc::new(Access::of_key(key(&secret)));
        let epoch = seen.epoch();
        seen.begin_again();
        seen.insert(secret, &access, epoch);
        assert!(seen.get(&secret).is_none());
        seen.insert(secret, &access, seen.epoch());
        assert!(seen.get(&secret).is_some());
    }

    #[test]
    fn a_change_leaves_the_keys_that_are_still_valid_and_no_token() {
        let seen = Seen::default();
        seen.is_current();
        let ((_, kept), (_, revoked), (_, token)) = (Secret::new(), Secret::new(), Secret::new());
        for secret in [kept, revoked] {
            let access = Arc::new(Access::of_key(key(&secret)));
            seen.insert(secret, &access, 0);
        }
        let of_token = Access::new(Tenant(1), "token".to_owned(), Vec::new());
        seen.insert(token, &Arc::new(of_token), 0);
        seen.begin_again();
        let (_, fresh) = Secret::new();
        let access = Arc::new(Access::of_key(key(&fresh)));
        seen.insert(fresh, &access, seen.epoch());
        assert_eq!(
            seen.keys().len(),
            2,
            "what was read since is not asked for again"
        );
        seen.replace(vec![ValidKey {
            suspended: true,
            ..key(&kept)
        }]);
        assert!(seen.get(&kept).unwrap().suspended);
        assert!(seen.get(&revoked).is_none() && seen.get(&token).is_none());
        assert!(seen.get(&fresh).is_some());
    }

    #[test]
    fn a_node_that_hears_nothing_trusts_nothing() {
        let seen = Seen::default();
        let (_, secret) = Secret::new();
        let access = Arc::new(Access::of_key(key(&secret)));
        seen.insert(secret, &access, 0);
        assert!(seen.get(&secret).is_none());
        seen.is_current();
        assert!(seen.get(&secret).is_some());
    }
}
