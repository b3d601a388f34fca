//! Table `push_endpoint`: where the messages of push subscriptions are delivered to. A row also says which node does it:
//! a node drives an endpoint as long as it sends heartbeats, so that no row is renewed while nothing changes.

use time::OffsetDateTime;
use uuid::Uuid;

use super::event_sink::SigningKey;
use super::{Error, Session, SubscriptionId, TenantId};

/// A password or token; it must not be logged.
#[derive(Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Credential(pub String);

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(***)")
    }
}

/// A row, with the names of its subscription and tenant, and what signs for the tenant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EndpointRow {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// Its name.
    pub subscription: String,
    /// Owner.
    pub tenant_id: TenantId,
    /// Name of the owner.
    pub tenant: String,
    /// The settings as they are shown, JSON.
    pub settings: String,
    /// Password or token of requests.
    pub credential: Option<Credential>,
    /// The key that signs.
    pub secret: SigningKey,
    /// The key before, which also signs.
    pub old_secret: Option<SigningKey>,
    /// Until when it does.
    pub old_secret_until: Option<OffsetDateTime>,
    /// Requests a minute that the endpoint has consented to.
    pub granted_per_minute: Option<i32>,
    /// Raised with every change.
    pub version: i64,
    /// The node that delivers.
    pub driver: Option<Uuid>,
    /// When it was paused.
    pub paused_at: Option<OffsetDateTime>,
    /// When it was disabled.
    pub disabled_at: Option<OffsetDateTime>,
    /// Why it was disabled.
    pub disabled_reason: Option<String>,
    /// Since when every request failed.
    pub failing_since: Option<OffsetDateTime>,
    /// How deliveries go, JSON.
    pub stats: Option<String>,
    /// Attempts that failed since the last that did not; counted of endpoints that get messages in order.
    pub failed_attempts: i32,
    /// No request begins before; counted and kept as `failed_attempts`.
    pub next_attempt_at: Option<OffsetDateTime>,
    /// Names the key of the tenant; `None`: it has none.
    pub key_id: Option<Uuid>,
    /// The private key of the tenant.
    pub seed: Option<SigningKey>,
    /// Random id of the installation.
    pub installation_id: Uuid,
}

/// Endpoints of these subscriptions.
///
/// # Errors
/// When the database call fails.
pub async fn of_subscriptions(
    session: &mut Session,
    subscriptions: &[SubscriptionId],
) -> Result<Vec<EndpointRow>, Error> {
    Ok(sqlx::query_as(
        "-- push_endpoint.of_subscriptions
         SELECT e.*, s.name AS subscription, t.name AS tenant, k.key_id, k.seed, i.installation_id
         FROM push_endpoint e JOIN subscription s USING (subscription_id) JOIN tenant t ON t.tenant_id = e.tenant_id
              LEFT JOIN signing_key k ON k.tenant_id = e.tenant_id CROSS JOIN installation i
         WHERE e.subscription_id = ANY ($1)",
    )
    .bind(subscriptions)
    .fetch_all(session.run("push_endpoint.of_subscriptions"))
    .await?)
}

/// What a change of settings is compared with.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Settings {
    /// The settings as they are shown, JSON.
    pub settings: String,
    /// Password or token of requests.
    pub credential: Option<Credential>,
    /// The key that signs.
    pub secret: SigningKey,
    /// Requests a minute that the endpoint has consented to.
    pub granted_per_minute: Option<i32>,
    /// When it was disabled.
    pub disabled_at: Option<OffsetDateTime>,
}

/// Locks the endpoint of a subscription that the caller has locked; `None`: it has none.
///
/// # Errors
/// When the database call fails.
pub async fn lock(
    session: &mut Session,
    subscription: SubscriptionId,
) -> Result<Option<Settings>, Error> {
    Ok(sqlx::query_as(
        "-- push_endpoint.lock
         SELECT settings, credential, secret, granted_per_minute, disabled_at FROM push_endpoint
         WHERE subscription_id = $1 FOR NO KEY UPDATE",
    )
    .bind(subscription)
    .fetch_optional(session.run("push_endpoint.lock"))
    .await?)
}

/// An endpoint to write.
#[derive(Debug)]
pub struct NewEndpoint<'a> {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its owner.
    pub tenant: TenantId,
    /// All its settings.
    pub settings: &'a Settings,
    /// Seconds for which a secret that is replaced goes on to sign.
    pub overlap_seconds: u32,
}

/// Creates the endpoint of a subscription, or writes all its settings and enables it.
///
/// # Errors
/// When the database call fails.
pub async fn put(
    session: &mut Session,
    new: &NewEndpoint<'_>,
    now: Option<OffsetDateTime>,
) -> Result<(), Error> {
    let settings = new.settings;
    sqlx::query(
        "-- push_endpoint.put
         INSERT INTO push_endpoint AS e (subscription_id, tenant_id, settings, credential, secret, granted_per_minute)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (subscription_id) DO UPDATE
         SET settings = excluded.settings, credential = excluded.credential, secret = excluded.secret,
             granted_per_minute = excluded.granted_per_minute, version = e.version + 1, disabled_at = NULL,
             disabled_reason = NULL, disabled_told = false, failing_since = NULL, failed_attempts = 0, next_attempt_at = NULL,
             old_secret = CASE WHEN excluded.secret <> e.secret THEN e.secret ELSE e.old_secret END,
             old_secret_until = CASE WHEN excluded.secret <> e.secret THEN coalesce($8, now()) + $7 * interval '1 second'
                                     ELSE e.old_secret_until END",
    )
    .bind(new.subscription)
    .bind(new.tenant)
    .bind(&settings.settings)
    .bind(&settings.credential)
    .bind(&settings.secret)
    .bind(settings.granted_per_minute)
    .bind(f64::from(new.overlap_seconds))
    .bind(now)
    .execute(session.run("push_endpoint.put"))
    .await?;
    Ok(())
}

/// Replaces the secret of an endpoint. The present one goes on to sign for `overlap_seconds`; returns until when. The
/// outer `None`: the subscription has no endpoint.
///
/// # Errors
/// When the database call fails.
pub async fn rotate(
    session: &mut Session,
    subscription: SubscriptionId,
    secret: &SigningKey,
    overlap_seconds: u32,
    now: Option<OffsetDateTime>,
) -> Result<Option<Option<OffsetDateTime>>, Error> {
    Ok(sqlx::query_scalar(
        "-- push_endpoint.rotate
         UPDATE push_endpoint
         SET secret = $2, version = version + 1, old_secret = CASE WHEN $3 > 0 THEN secret END,
             old_secret_until = CASE WHEN $3 > 0 THEN coalesce($4, now()) + $3 * interval '1 second' END
         WHERE subscription_id = $1 RETURNING old_secret_until",
    )
    .bind(subscription)
    .bind(secret)
    .bind(f64::from(overlap_seconds))
    .bind(now)
    .fetch_optional(session.run("push_endpoint.rotate"))
    .await?)
}

/// Pauses an endpoint; `false`: the subscription has none, or it is paused already.
///
/// # Errors
/// When the database call fails.
pub async fn pause(
    session: &mut Session,
    subscription: SubscriptionId,
    now: Option<OffsetDateTime>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- push_endpoint.pause
         UPDATE push_endpoint SET paused_at = coalesce($2, now()), version = version + 1
         WHERE subscription_id = $1 AND paused_at IS NULL",
    )
    .bind(subscription)
    .bind(now)
    .execute(session.run("push_endpoint.pause"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Resumes an endpoint that is paused or disabled; `false`: it is neither, or the subscription has none.
///
/// # Errors
/// When the database call fails.
pub async fn resume(session: &mut Session, subscription: SubscriptionId) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- push_endpoint.resume
         UPDATE push_endpoint SET paused_at = NULL, disabled_at = NULL, disabled_reason = NULL, disabled_told = false,
                failing_since = NULL, version = version + 1
         WHERE subscription_id = $1 AND (paused_at IS NOT NULL OR disabled_at IS NOT NULL)",
    )
    .bind(subscription)
    .execute(session.run("push_endpoint.resume"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes the endpoint of a subscription; `false`: it has none.
///
/// # Errors
/// When the database call fails.
pub async fn delete(session: &mut Session, subscription: SubscriptionId) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- push_endpoint.delete
         DELETE FROM push_endpoint WHERE subscription_id = $1",
    )
    .bind(subscription)
    .execute(session.run("push_endpoint.delete"))
    .await?;
    Ok(done.rows_affected() == 1)
}
