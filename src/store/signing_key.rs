//! Table `signing_key`: the Ed25519 key of each tenant for which something is signed. It is made once, by the first
//! transaction that needs it, and never changes.

use time::OffsetDateTime;
use uuid::Uuid;

use super::event_sink::SigningKey;
use super::{Error, Session, TenantId};

/// The key of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct KeyRow {
    /// Names it; `None`: the tenant has none.
    pub key_id: Option<Uuid>,
    /// The private key.
    pub seed: Option<SigningKey>,
}

/// A key to store.
#[derive(Debug)]
pub struct NewKey {
    /// Its tenant.
    pub tenant: TenantId,
    /// Names it.
    pub key_id: Uuid,
    /// The private key.
    pub seed: SigningKey,
}

/// Stores a key for a tenant that has none. If another transaction did it before, nothing changes.
///
/// # Errors
/// When the database call fails.
pub async fn ensure(
    session: &mut Session,
    new: &NewKey,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- signing_key.ensure
         INSERT INTO signing_key (tenant_id, key_id, seed, created_at) VALUES ($1, $2, $3, coalesce($4, now()))
         ON CONFLICT (tenant_id) DO NOTHING",
    )
    .bind(new.tenant)
    .bind(new.key_id)
    .bind(&new.seed)
    .bind(now)
    .execute(session.run("signing_key.ensure"))
    .await?;
    Ok(())
}

/// The key of the tenant of this name; `None`: there is no such tenant.
///
/// # Errors
/// When the database call fails.
pub async fn by_tenant(session: &mut Session, tenant: &str) -> Result<Option<KeyRow>, Error> {
    Ok(sqlx::query_as(
        "-- signing_key.by_tenant
         SELECT k.key_id, k.seed FROM tenant t LEFT JOIN signing_key k USING (tenant_id) WHERE t.name = $1",
    )
    .bind(tenant)
    .fetch_optional(session.run("signing_key.by_tenant"))
    .await?)
}
