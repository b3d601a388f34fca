//! Table `api_key`: which tenant a key opens (I7). Only hashes come here; the keys themselves are known to nobody.

use time::OffsetDateTime;

use super::{Error, Session};

/// The tenant that the key with this SHA-256 opens; `None` when it does not exist or is revoked.
///
/// # Errors
/// When the database does not answer.
pub async fn tenant_of(session: &mut Session, hash: &[u8; 32]) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar(
        "-- api_key.tenant_of
         SELECT tenant_id FROM api_key WHERE key_hash = $1 AND revoked_at IS NULL",
    )
    .bind(&hash[..])
    .fetch_optional(session.run("api_key.tenant_of"))
    .await?)
}

/// Adds a key; one that is there stays as it is.
///
/// # Errors
/// When the database does not answer.
pub async fn insert(
    session: &mut Session,
    hash: &[u8; 32],
    tenant: i64,
    name: &str,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- api_key.insert
         INSERT INTO api_key (key_hash, tenant_id, name, created_at) VALUES ($1, $2, $3, coalesce($4, now()))
         ON CONFLICT (key_hash) DO NOTHING",
    )
    .bind(&hash[..])
    .bind(tenant)
    .bind(name)
    .bind(now)
    .execute(session.run("api_key.insert"))
    .await?;
    Ok(())
}

/// The tenant that the migration makes: the only one of the embedded mode.
///
/// # Errors
/// When the database does not answer.
pub async fn default_tenant(session: &mut Session) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- api_key.default_tenant
         SELECT tenant_id FROM tenant WHERE name = 'default'",
    )
    .fetch_one(session.run("api_key.default_tenant"))
    .await?)
}

/// The tenant of this name, made when it is new.
///
/// # Errors
/// When the database does not answer.
pub async fn tenant_named(
    session: &mut Session,
    name: &str,
    now: Option<OffsetDateTime>,
) -> Result<i64, Error> {
    // The update changes nothing: it makes a row that exists already come back.
    Ok(sqlx::query_scalar(
        "-- api_key.tenant_named
         INSERT INTO tenant (name, created_at) VALUES ($1, coalesce($2, now()))
         ON CONFLICT (name) DO UPDATE SET name = excluded.name
         RETURNING tenant_id",
    )
    .bind(name)
    .bind(now)
    .fetch_one(session.run("api_key.tenant_named"))
    .await?)
}
