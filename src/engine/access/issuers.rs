//! The token issuers and their public keys, as this node knows them. A background loop fetches the keys of each issuer
//! again every few minutes (`fetch`). A token that names an unknown key triggers a fetch at once, because the issuer may
//! have rotated its keys. When an issuer does not respond, its last keys stay valid for a day.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use parking_lot::{Mutex, RwLock};
use time::OffsetDateTime;

use crate::engine::access::fetch::Asked;
use crate::engine::access::key_set::{PublicKey, PublicKeys};
use crate::store::issuer::IssuerRow;

/// Age at which public keys are fetched again.
const FETCH_AGE: Duration = Duration::from_secs(300);
/// Age up to which public keys are trusted while their issuer does not respond.
const TRUSTED: time::Duration = time::Duration::hours(24);

/// All issuers, by the `iss` claim of their tokens.
#[derive(Debug, Default)]
pub(super) struct Issuers {
    by_iss: RwLock<HashMap<String, Arc<Issuer>>>,
}

/// An issuer and its public keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) row: IssuerRow,
    /// Shared by this value and the one that replaces it when other settings change.
    pub(super) keys: Arc<Keys>,
}

/// The public keys behind one URL.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: RwLock<Known>,
    /// How its issuer was asked for them.
    pub(super) asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Known {
    keys: PublicKeys,
    /// When they were fetched, by the database's clock.
    read_at: Option<OffsetDateTime>,
}

impl Issuers {
    pub(super) fn get(&self, iss: &str) -> Option<Arc<Issuer>> {
        self.by_iss.read().get(iss).cloned()
    }

    /// Replaces the list of issuers by `rows`. An issuer whose `jwks_url` is unchanged keeps the keys that this node
    /// fetched.
    pub(super) fn replace(&self, rows: Vec<IssuerRow>) {
        let mut by_iss = self.by_iss.write();
        let before = std::mem::take(&mut *by_iss);
        for row in rows {
            let same = before
                .get(&row.issuer)
                .filter(|old| old.row.jwks_url == row.jwks_url);
            let issuer = Issuer::new(row, same.map(|old| &**old));
            by_iss.insert(issuer.row.issuer.clone(), Arc::new(issuer));
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Issuer>> {
        self.by_iss.read().values().cloned().collect()
    }
}

impl Issuer {
    fn new(row: IssuerRow, before: Option<&Self>) -> Self {
        let keys = before.map(|old| old.keys.clone()).unwrap_or_default();
        if row.jwks_read_at > keys.known.read().read_at {
            let parsed = row.jwks.as_deref().and_then(PublicKeys::parse);
            keys.put(parsed.unwrap_or_default(), row.jwks_read_at);
        }
        if before.is_some_and(|old| old.row.updated_at != row.updated_at) {
            keys.asked.lock().pause_no_more();
        }
        Self { row, keys }
    }
}

impl Keys {
    pub(super) fn put(&self, keys: PublicKeys, read_at: Option<OffsetDateTime>) {
        *self.known.write() = Known { keys, read_at };
    }

    pub(super) fn is_due(&self, now: OffsetDateTime) -> bool {
        let read_at = self.known.read().read_at;
        read_at.is_none_or(|at| now - at >= FETCH_AGE)
    }

    pub(super) fn is_trusted(&self, now: OffsetDateTime) -> bool {
        let read_at = self.known.read().read_at;
        read_at.is_some_and(|at| now - at <= TRUSTED)
    }

    /// The keys that may have signed a token with this header.
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<PublicKey> {
        self.known.read().keys.candidates(algorithm, id)
    }

    /// Whether the key that a token with this header names is known.
    pub(super) fn names(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.known.read().keys.names(algorithm, id)
    }
}
