//! Table `push_endpoint`: where the messages of push subscriptions are delivered to. A row also says which node does it:
//! a node drives an endpoint as long as it sends heartbeats, so that no row is renewed while nothing changes.

use time::OffsetDateTime;
use uuid::Uuid;

use super::event_sink::SigningKey;
use super::{SubscriptionId, TenantId};

/// A password or token; it must not be logged.
#[derive(Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Credential(pub String);

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(***)")
    }
}

/// A row, with the names of its subscription and tenant.
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
}
