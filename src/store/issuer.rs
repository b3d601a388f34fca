//! Table `issuer`: the trusted issuers of tokens, each with its public keys as last fetched.

use time::OffsetDateTime;

use super::{Error, Session, TenantId};

/// A row, with the name of its tenant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct IssuerRow {
    /// Internal number.
    pub issuer_id: i64,
    /// Its name in this installation.
    pub name: String,
    /// The `iss` claim of its tokens.
    pub issuer: String,
    /// The URL of its public keys.
    pub jwks_url: String,
    /// Accepted audiences: `aud` must contain one of them.
    pub audiences: Vec<String>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<String>,
    /// The only tenant that its tokens give access to; `None`: a claim names the tenant.
    pub tenant: Option<String>,
    /// The claim that names the tenant.
    pub tenant_claim: Option<String>,
    /// The claim that holds the scopes.
    pub scope_claim: String,
    /// The most that its tokens may do.
    pub scopes: Vec<String>,
    /// Tolerated difference of clocks, in seconds.
    pub clock_skew_seconds: i32,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change of settings.
    pub updated_at: OffsetDateTime,
    /// Its public keys as last fetched.
    pub jwks: Option<String>,
    /// When they were last fetched.
    pub jwks_read_at: Option<OffsetDateTime>,
}

/// Settings to write.
#[derive(Debug, Clone)]
pub struct NewIssuer<'a> {
    /// Its name in this installation.
    pub name: &'a str,
    /// The `iss` claim of its tokens.
    pub issuer: &'a str,
    /// The URL of its public keys.
    pub jwks_url: &'a str,
    /// Accepted audiences: `aud` must contain one of them.
    pub audiences: &'a [String],
    /// Accepted signature algorithms.
    pub algorithms: &'a [&'a str],
    /// The only tenant that its tokens give access to; `None`: a claim names the tenant.
    pub tenant: Option<TenantId>,
    /// The claim that names the tenant.
    pub tenant_claim: Option<&'a str>,
    /// The claim that holds the scopes.
    pub scope_claim: &'a str,
    /// The most that its tokens may do.
    pub scopes: &'a [String],
    /// Tolerated difference of clocks, in seconds.
    pub clock_skew_seconds: i32,
}

/// Creates an issuer, or changes the one of this name; `true`: created. If the URL of its keys changes, the stored keys
/// are deleted.
///
/// # Errors
/// When the database call fails, or another issuer has this `iss` (constraint `issuer_issuer_key`).
pub async fn put(
    session: &mut Session,
    new: &NewIssuer<'_>,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "-- issuer.put
         INSERT INTO issuer AS i (name, issuer, jwks_url, audiences, algorithms, tenant_id, tenant_claim, scope_claim,
                                  clock_skew_seconds, created_at, updated_at, scopes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, now()), coalesce($10, now()), $11)
         ON CONFLICT (name) DO UPDATE SET issuer = excluded.issuer, jwks_url = excluded.jwks_url,
             audiences = excluded.audiences, algorithms = excluded.algorithms, tenant_id = excluded.tenant_id,
             tenant_claim = excluded.tenant_claim, scope_claim = excluded.scope_claim, scopes = excluded.scopes,
             clock_skew_seconds = excluded.clock_skew_seconds, updated_at = excluded.updated_at,
             jwks = CASE WHEN i.jwks_url = excluded.jwks_url THEN i.jwks END,
             jwks_read_at = CASE WHEN i.jwks_url = excluded.jwks_url THEN i.jwks_read_at END
         -- 0 in a row that was inserted
         RETURNING xmax = 0",
    )
    .bind(new.name)
    .bind(new.issuer)
    .bind(new.jwks_url)
    .bind(new.audiences)
    .bind(new.algorithms)
    .bind(new.tenant)
    .bind(new.tenant_claim)
    .bind(new.scope_claim)
    .bind(new.clock_skew_seconds)
    .bind(now)
    .bind(new.scopes)
    .fetch_one(session.run("issuer.put"))
    .await?)
}

/// All issuers, in order of name; an installation has few.
///
/// # Errors
/// When the database call fails.
pub async fn all(session: &mut Session) -> Result<Vec<IssuerRow>, Error> {
    Ok(sqlx::query_as(
        "-- issuer.all
         SELECT i.*, t.name AS tenant FROM issuer i LEFT JOIN tenant t USING (tenant_id) ORDER BY i.name",
    )
    .fetch_all(session.run("issuer.all"))
    .await?)
}

/// Stores the public keys that were just fetched from `jwks_url`.
///
/// # Errors
/// When the database call fails.
pub async fn keys_read(
    session: &mut Session,
    issuer_id: i64,
    jwks_url: &str,
    jwks: &str,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- issuer.keys_read
         UPDATE issuer SET jwks = $3, jwks_read_at = coalesce($4, now()) WHERE issuer_id = $1 AND jwks_url = $2",
    )
    .bind(issuer_id)
    .bind(jwks_url)
    .bind(jwks)
    .bind(now)
    .execute(session.run("issuer.keys_read"))
    .await?;
    Ok(())
}

/// Deletes an issuer; `false`: there is none of this name.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, name: &str) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- issuer.delete
         DELETE FROM issuer WHERE name = $1",
    )
    .bind(name)
    .execute(session.run("issuer.delete"))
    .await?;
    Ok(done.rows_affected() == 1)
}
