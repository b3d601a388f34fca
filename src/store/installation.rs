//! Table `installation`: the one row that all nodes share. It holds the key of receipts, the current hot slot, and the
//! versions of the catalog, of access (keys, issuers, tenants) and of quotas. Each node reads it about once a second;
//! no publish reads or writes it.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Era, Error, Session};

/// The row that all nodes share.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Installation {
    /// Random id of the installation; the keys of its objects begin with it.
    pub installation_id: Uuid,
    /// The HMAC-SHA256 key that signs receipts.
    pub receipt_key: Vec<u8>,
    /// The slot that new payloads are written to.
    pub hot_slot: i16,
    /// Raised when a topic or subscription changes.
    pub catalog_version: i64,
    /// Raised when a key, an issuer or a tenant changes.
    pub access_version: i64,
    /// Raised when a quota changes.
    pub quota_version: i64,
    /// The era of the database, raised when it has lost something (`history`).
    pub era: Era,
    /// The database's time.
    pub at: OffsetDateTime,
}

impl Installation {
    /// The prefix of all keys of this installation in object storage. The collection deletes unknown objects below it.
    #[must_use]
    pub fn object_prefix(&self) -> String {
        format!("{}/", self.installation_id.simple())
    }

    /// A key for a new object of a kind (`pack`, `body`). It is random: it reveals nothing and is never used twice.
    #[must_use]
    pub fn object_key(&self, kind: &str) -> String {
        format!("{}{kind}/{}", self.object_prefix(), Uuid::new_v4().simple())
    }
}

/// Reads the row; `None` before the first start.
///
/// # Errors
/// When the database call fails.
pub async fn get(session: &mut Session) -> Result<Option<Installation>, Error> {
    Ok(sqlx::query_as(
        "-- installation.get
         SELECT installation_id, receipt_key, hot_slot, catalog_version, access_version, quota_version, era,
                clock_timestamp() AS at FROM installation",
    )
    .fetch_optional(session.run("installation.get"))
    .await?)
}

/// Inserts the row with this receipt key. If another node did it before, nothing changes: read the row with [`get`].
///
/// # Errors
/// When the database call fails.
pub async fn ensure(
    session: &mut Session,
    receipt_key: &[u8; 32],
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    sqlx::query(
        "-- installation.ensure
         INSERT INTO installation (receipt_key, hot_slot, rotated_at) VALUES ($1, 0, coalesce($2, now()))
         ON CONFLICT (only_row) DO NOTHING",
    )
    .bind(&receipt_key[..])
    .bind(now)
    .execute(session.run("installation.ensure"))
    .await?;
    Ok(())
}

/// Moves the current slot from `old` to `new` if it has been current for `at_least`; `false`: it has not, or another
/// node moved it before.
///
/// # Errors
/// When the database call fails.
pub async fn set_slot(
    session: &mut Session,
    old: i16,
    new: i16,
    at_least: Duration,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let moved = sqlx::query(
        "-- installation.set_slot
         UPDATE installation SET hot_slot = $2, rotated_at = coalesce($4, now())
         WHERE hot_slot = $1 AND rotated_at <= coalesce($4, now()) - $3 * interval '1 second'",
    )
    .bind(old)
    .bind(new)
    .bind(at_least.as_secs_f64())
    .bind(now)
    .execute(session.run("installation.set_slot"))
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// The version of the catalog.
///
/// # Errors
/// When the database call fails.
pub async fn catalog_version(session: &mut Session) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- installation.catalog_version
         SELECT catalog_version FROM installation",
    )
    .fetch_one(session.run("installation.catalog_version"))
    .await?)
}

/// Raises the version of the catalog: with the commit all nodes see that a topic or subscription changed. Returns the
/// new version. Must be the last statement of its transaction, because it blocks other changes of the catalog.
///
/// # Errors
/// When the database call fails.
pub async fn bump_catalog(session: &mut Session) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- installation.bump_catalog
         UPDATE installation SET catalog_version = catalog_version + 1 RETURNING catalog_version",
    )
    .fetch_one(session.run("installation.bump_catalog"))
    .await?)
}

/// Raises the version of access: with the commit all nodes see that a key, an issuer or a tenant changed. Must be the
/// last statement of its transaction, like [`bump_catalog`].
///
/// # Errors
/// When the database call fails.
pub async fn bump_access(session: &mut Session) -> Result<(), Error> {
    sqlx::query(
        "-- installation.bump_access
         UPDATE installation SET access_version = access_version + 1",
    )
    .execute(session.run("installation.bump_access"))
    .await?;
    Ok(())
}

/// Raises the version of quotas: with the commit all nodes see that a quota changed. Returns the new version, which is
/// stored with the changed quota. It blocks other changes of quotas until the commit, so versions are committed in
/// order.
///
/// # Errors
/// When the database call fails.
pub async fn bump_quota(session: &mut Session) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "-- installation.bump_quota
         UPDATE installation SET quota_version = quota_version + 1 RETURNING quota_version",
    )
    .fetch_one(session.run("installation.bump_quota"))
    .await?)
}
