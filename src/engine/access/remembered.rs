//! The callers that this node has let in, by the hash of their key or token. When anything about access changes, a new
//! epoch begins and all entries of older epochs are read again together. A lookup that began in an older epoch is not
//! remembered, because its result may be out of date.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::engine::access::{Access, Secret};
use crate::store::api_key::ValidKey;

/// Most keys and tokens remembered. When there are more, all are forgotten.
const SEEN_MAX: usize = 10_000;
/// Entries are trusted for this long after the node last knew that nothing had changed.
const TRUST: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Remembered {
    state: RwLock<State>,
    epoch: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    entries: foldhash::HashMap<Secret, Entry>,
    /// When the node last knew that all entries were current.
    current_at: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    access: Arc<Access>,
    /// The epoch in which its lookup began.
    epoch: u64,
}

impl Remembered {
    pub(super) fn get(&self, secret: &Secret) -> Option<Arc<Access>> {
        let state = self.state.read();
        let entry = state.entries.get(secret)?;
        let is_trusted = state.current_at.is_some_and(|at| at.elapsed() < TRUST);
        let is_current = entry.access.key.is_some() || entry.epoch == self.epoch();
        (is_trusted && is_current).then(|| entry.access.clone())
    }

    /// Whether a caller was let in before, trusted now or not.
    pub(super) fn has(&self, secret: &Secret) -> bool {
        self.state.read().entries.contains_key(secret)
    }

    /// Forgets a caller that is refused now.
    pub(super) fn forget(&self, secret: &Secret) {
        self.state.write().entries.remove(secret);
    }

    /// The present epoch, to be passed to [`Remembered::insert`] after a lookup.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Remembers a caller whose lookup began in `epoch`, if that is still the present epoch.
    pub(super) fn insert(&self, secret: Secret, access: &Arc<Access>, epoch: u64) {
        let mut state = self.state.write();
        if epoch != self.epoch() {
            return;
        }
        if state.entries.len() >= SEEN_MAX {
            state.entries.clear();
        }
        let access = access.clone();
        state.entries.insert(secret, Entry { access, epoch });
    }

    /// Begins a new epoch: results of lookups that began earlier are not remembered any more.
    pub(super) fn begin_epoch(&self) {
        // Under the lock, so that no insert that compared the old epoch takes place afterwards.
        let _state = self.state.write();
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The ids of the keys that were read in earlier epochs.
    pub(super) fn old_keys(&self) -> Vec<String> {
        let state = self.state.read();
        let epoch = self.epoch();
        let old = state.entries.values().filter(|entry| entry.epoch != epoch);
        old.filter_map(|entry| entry.access.key.clone()).collect()
    }

    /// Replaces the entries of earlier epochs by `valid`, the keys of [`Remembered::old_keys`] that are still valid.
    /// Other keys are dropped. A token of an earlier epoch stays known, but is verified again, which is cheap.
    pub(super) fn refresh(&self, valid: Vec<ValidKey>) {
        let mut valid: HashMap<String, ValidKey> = valid
            .into_iter()
            .map(|key| (key.key_id.clone(), key))
            .collect();
        let mut state = self.state.write();
        let epoch = self.epoch();
        state.entries.retain(|secret, entry| {
            let Some(id) = &entry.access.key else {
                return true;
            };
            if entry.epoch == epoch {
                return true;
            }
            let Some(key) = valid.remove(id) else {
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

    /// Trusts no entry until [`Remembered::confirm_current`], and forgets the results of lookups that run now.
    pub(super) fn distrust(&self) {
        self.begin_epoch();
        self.state.write().current_at = None;
    }

    /// Records that all entries are current now.
    pub(super) fn confirm_current(&self) {
        self.state.write().current_at = Some(Instant::now());
    }

    /// The callers with a refusal that is not recorded yet.
    pub(super) fn missed(&self) -> Vec<Arc<Access>> {
        let state = self.state.read();
        let all = state.entries.values().map(|entry| &entry.access);
        let is_missed = |access: &&Arc<Access>| {
            let withheld = access.withheld.as_ref();
            withheld.is_some_and(|withheld| withheld.is_missed())
        };
        all.filter(is_missed).cloned().collect()
    }

    /// The ids of the keys that were used since the last call.
    pub(super) fn take_used(&self) -> Vec<String> {
        let state = self.state.read();
        let was_used = |entry: &&Entry| entry.access.used.swap(false, Ordering::Relaxed);
        let used = state.entries.values().filter(was_used);
        used.filter_map(|entry| entry.access.key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::access::Tenant;
    use crate::store::TenantId;

    fn key(secret: &Secret) -> ValidKey {
        ValidKey {
            key_hash: secret.hash().to_vec(),
            key_id: secret.id().to_string(),
            tenant_id: TenantId::new(1),
            scopes: vec!["publish".to_owned()],
            expires_at: None,
            suspended: false,
        }
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let remembered = Remembered::default();
        remembered.confirm_current();
        let (_, secret) = Secret::new();
        let access = Arc::new(Access::of_key(key(&secret)));
        let epoch = remembered.epoch();
        remembered.begin_epoch();
        remembered.insert(secret, &access, epoch);
        assert!(remembered.get(&secret).is_none());
        remembered.insert(secret, &access, remembered.epoch());
        assert!(remembered.get(&secret).is_some());
    }

    #[test]
    fn a_change_leaves_the_keys_that_are_still_valid_and_trusts_no_token() {
        let remembered = Remembered::default();
        remembered.confirm_current();
        let ((_, kept), (_, revoked), (_, token)) = (Secret::new(), Secret::new(), Secret::new());
        for secret in [kept, revoked] {
            let access = Arc::new(Access::of_key(key(&secret)));
            remembered.insert(secret, &access, 0);
        }
        let of_token = Access::new(Tenant(TenantId::new(1)), "token".to_owned(), Vec::new());
        remembered.insert(token, &Arc::new(of_token), 0);
        remembered.begin_epoch();
        let (_, fresh) = Secret::new();
        let access = Arc::new(Access::of_key(key(&fresh)));
        remembered.insert(fresh, &access, remembered.epoch());
        assert_eq!(
            remembered.old_keys().len(),
            2,
            "a key of the present epoch is not read again"
        );
        remembered.refresh(vec![ValidKey {
            suspended: true,
            ..key(&kept)
        }]);
        assert!(remembered.get(&kept).unwrap().suspended);
        assert!(remembered.get(&revoked).is_none() && remembered.get(&token).is_none());
        assert!(!remembered.has(&revoked) && remembered.has(&token));
        assert!(remembered.get(&fresh).is_some());
    }

    #[test]
    fn a_node_that_does_not_know_that_nothing_changed_trusts_no_entry() {
        let remembered = Remembered::default();
        let (_, secret) = Secret::new();
        let access = Arc::new(Access::of_key(key(&secret)));
        remembered.insert(secret, &access, 0);
        assert!(remembered.get(&secret).is_none());
        remembered.confirm_current();
        assert!(remembered.get(&secret).is_some());
        remembered.distrust();
        assert!(remembered.get(&secret).is_none() && remembered.has(&secret));
    }
}
