//! Who calls: an API key opens a tenant. Keys are 256 random bits, so a plain SHA-256 of them is enough at rest; the key
//! itself is shown once. A node trusts a key it has seen for a short while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};

use crate::store::{self, Store};

use super::error::Error;
use super::{Engine, Tenant};

/// How long a node trusts a key without asking again: revoking one takes effect after this at the latest.
const TRUST: Duration = Duration::from_secs(10);
/// Keys remembered.
const KEYS_MAX: usize = 10_000;
/// How every key begins, so that scanners for leaked secrets can find one.
const PREFIX: &str = "csk_";

/// Keys this node has seen.
#[derive(Debug, Default)]
pub(super) struct Keys {
    seen: RwLock<HashMap<[u8; 32], (Tenant, Instant)>>,
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

impl Engine {
    /// Whether requests without a key are let in: whoever reaches the node may use it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.inner.parts.open
    }

    /// The tenant of an API key (`None`: the request has none).
    ///
    /// # Errors
    /// When there is no key, it is not valid, or the database does not answer.
    pub async fn authenticate(&self, key: Option<&str>) -> Result<Tenant, Error> {
        let Some(key) = key else {
            return if self.inner.parts.open {
                Ok(self.inner.default_tenant)
            } else {
                Err(Error::Unauthenticated)
            };
        };
        let hash = hash(key);
        let keys = &self.inner.keys;
        if let Some((tenant, seen)) = keys.seen.read().get(&hash)
            && seen.elapsed() < TRUST
        {
            return Ok(*tenant);
        }
        let tenant = Box::pin(self.tenant_of(&hash)).await?;
        let mut seen = keys.seen.write();
        if seen.len() >= KEYS_MAX {
            seen.clear();
        }
        seen.insert(hash, (tenant, Instant::now()));
        Ok(tenant)
    }
}

impl Engine {
    async fn tenant_of(&self, hash: &[u8; 32]) -> Result<Tenant, Error> {
        let mut session = self.store().session().await?;
        let tenant = store::api_key::tenant_of(&mut session, hash).await?;
        tenant.map(Tenant).ok_or(Error::Unauthenticated)
    }
}

/// Makes a key for a tenant, which is created when it is new, and returns the key: it cannot be shown again.
///
/// # Errors
/// When the database does not answer.
pub async fn create_key(store: &Store, tenant: &str) -> Result<String, Error> {
    let key = format!(
        "{PREFIX}{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    );
    let mut session = store.session().await?;
    let tenant = store::api_key::tenant_named(&mut session, tenant, None).await?;
    store::api_key::insert(&mut session, &hash(&key), tenant, "key", None).await?;
    Ok(key)
}
