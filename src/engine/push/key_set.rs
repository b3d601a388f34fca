//! The public keys of a tenant, which anybody may read: they verify what is signed for it.

use api::TenantName;
use api::jwks::{Jwk, Jwks};

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::push::key::TenantKey;
use crate::store;

impl Engine {
    /// The public keys that verify what is signed for a tenant; none before anything is.
    ///
    /// # Errors
    /// When the tenant does not exist, or the database is unavailable.
    pub async fn jwks(&self, tenant: &TenantName) -> Result<Jwks, Error> {
        let mut session = self.store().session().await?;
        let row = store::signing_key::by_tenant(&mut session, tenant.as_str()).await?;
        let row = row.ok_or_else(|| Error::not_found("tenant", tenant))?;
        let Some((id, seed)) = row.key_id.zip(row.seed) else {
            return Ok(Jwks { keys: Vec::new() });
        };
        let key = TenantKey::of(id.to_string(), &seed.0).ok_or_else(|| store::Error::Corrupt {
            table: "signing_key",
            column: "seed",
            row: id.to_string(),
        })?;
        Ok(Jwks {
            keys: vec![Jwk::ed25519(key.id(), key.public_x())],
        })
    }
}
