//! Table `api_key`: API keys, each with its tenant and its permissions (I7). Only the hash of a secret is stored.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Error, Session, TenantId};

/// A row, with its tenant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct KeyRow {
    /// SHA-256 of the secret.
    pub key_hash: Vec<u8>,
    /// The part of the key that may be displayed.
    pub key_id: String,
    /// The tenant that the key belongs to.
    pub tenant_id: TenantId,
    /// A label from its creator.
    pub name: String,
    /// The permissions of the key.
    pub scopes: Vec<String>,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// The key is refused from this time on; `None`: it does not expire.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last used, within a minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// Time of the revocation; `None`: it is not revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// A key that is not revoked, with the fields that authentication needs.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ValidKey {
    /// SHA-256 of the secret.
    pub key_hash: Vec<u8>,
    /// The part of the key that may be displayed.
    pub key_id: String,
    /// The tenant that the key belongs to.
    pub tenant_id: TenantId,
    /// The permissions of the key.
    pub scopes: Vec<String>,
    /// The key is refused from this time on; `None`: it does not expire.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether its tenant is suspended.
    pub suspended: bool,
}

/// The keys with these ids that are not revoked.
///
/// # Errors
/// When the database call fails.
pub async fn valid(session: &mut Session, ids: &[String]) -> Result<Vec<ValidKey>, Error> {
    Ok(sqlx::query_as(
        "-- api_key.valid
         SELECT k.key_hash, k.key_id, k.tenant_id, k.scopes, k.expires_at, t.suspended_at IS NOT NULL AS suspended
         FROM api_key k JOIN tenant t USING (tenant_id) WHERE k.key_id = ANY ($1) AND k.revoked_at IS NULL",
    )
    .bind(ids)
    .fetch_all(session.run("api_key.valid"))
    .await?)
}

/// A key to write.
#[derive(Debug, Clone)]
pub struct InsertKey<'a> {
    /// SHA-256 of the secret.
    pub hash: &'a [u8; 32],
    /// The tenant that the key belongs to.
    pub tenant: TenantId,
    /// A label from its creator.
    pub name: &'a str,
    /// The permissions of the key.
    pub scopes: &'a [String],
    /// Time until it expires; `None`: it does not expire.
    pub expires_in: Option<Duration>,
}

/// Adds a key.
///
/// # Errors
/// When the database call fails.
pub async fn insert(
    session: &mut Session,
    key: &InsertKey<'_>,
    now: Option<OffsetDateTime>,
) -> Result<KeyRow, Error> {
    Ok(sqlx::query_as(
        "-- api_key.insert
         INSERT INTO api_key (key_hash, tenant_id, name, scopes, created_at, expires_at)
         VALUES ($1, $2, $3, $4, coalesce($6, now()), coalesce($6, now()) + $5 * interval '1 second')
         RETURNING *",
    )
    .bind(&key.hash[..])
    .bind(key.tenant)
    .bind(key.name)
    .bind(key.scopes)
    .bind(key.expires_in.map(|life| life.as_secs_f64()))
    .bind(now)
    .fetch_one(session.run("api_key.insert"))
    .await?)
}

/// Lets a key expire after `overlap`, unless it expires earlier. `None`: there is no such key, or it is revoked.
///
/// # Errors
/// When the database call fails.
pub async fn expire(
    session: &mut Session,
    tenant: TenantId,
    id: &str,
    overlap: Duration,
    now: Option<OffsetDateTime>,
) -> Result<Option<KeyRow>, Error> {
    Ok(sqlx::query_as(
        "-- api_key.expire
         UPDATE api_key SET expires_at = least(expires_at, coalesce($4, now()) + $3 * interval '1 second')
         WHERE tenant_id = $1 AND key_id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > coalesce($4, now()))
         RETURNING *",
    )
    .bind(tenant)
    .bind(id)
    .bind(overlap.as_secs_f64())
    .bind(now)
    .fetch_optional(session.run("api_key.expire"))
    .await?)
}

/// Revokes a key and keeps its row as a record. `false`: there is no such key, or it is revoked already.
///
/// # Errors
/// When the database call fails.
pub async fn revoke(
    session: &mut Session,
    tenant: TenantId,
    id: &str,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- api_key.revoke
         UPDATE api_key SET revoked_at = coalesce($3, now()) WHERE tenant_id = $1 AND key_id = $2 AND revoked_at IS NULL",
    )
    .bind(tenant)
    .bind(id)
    .bind(now)
    .execute(session.run("api_key.revoke"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Finds a key of a tenant.
///
/// # Errors
/// When the database call fails.
pub async fn by_id(
    session: &mut Session,
    tenant: TenantId,
    id: &str,
) -> Result<Option<KeyRow>, Error> {
    Ok(sqlx::query_as(
        "-- api_key.by_id
         SELECT * FROM api_key WHERE tenant_id = $1 AND key_id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(session.run("api_key.by_id"))
    .await?)
}

/// The number of keys of a tenant that are not revoked.
///
/// # Errors
/// When the database call fails.
pub async fn count(session: &mut Session, tenant: TenantId) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- api_key.count
         SELECT count(*) FROM api_key WHERE tenant_id = $1 AND revoked_at IS NULL",
    )
    .bind(tenant)
    .fetch_one(session.run("api_key.count"))
    .await?)
}

/// Keys of a tenant in order of age, from the one after the id `after` on.
///
/// # Errors
/// When the database call fails.
pub async fn list(
    session: &mut Session,
    tenant: TenantId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<KeyRow>, Error> {
    Ok(sqlx::query_as(
        "-- api_key.list
         SELECT * FROM api_key k
         WHERE tenant_id = $1 AND ($2::text IS NULL OR (created_at, key_id) >
             (SELECT a.created_at, a.key_id FROM api_key a WHERE a.tenant_id = $1 AND a.key_id = $2))
         ORDER BY created_at, key_id LIMIT $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .fetch_all(session.run("api_key.list"))
    .await?)
}

/// Records that these keys were used, except where the recorded use is less than a minute old.
///
/// # Errors
/// When the database call fails.
pub async fn used(
    session: &mut Session,
    ids: &[String],
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- api_key.used
         UPDATE api_key SET last_used_at = coalesce($2, now())
         WHERE key_id = ANY ($1) AND (last_used_at IS NULL OR last_used_at <= coalesce($2, now()) - interval '1 minute')",
    )
    .bind(ids)
    .bind(now)
    .execute(session.run("api_key.used"))
    .await?;
    Ok(())
}
