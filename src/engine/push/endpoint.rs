//! An endpoint as its driver uses it: its row, with all that need not be worked out for each request. Nothing is read
//! from the database for a request.

use std::sync::Arc;
use std::time::Duration;

use api::SubscriptionName;
use api::limits::{
    PUSH_CONCURRENCY_DEFAULT, PUSH_DISABLE_SECONDS_DEFAULT, PUSH_TIMEOUT_SECONDS_DEFAULT,
};
use api::push::{PushAuth, PushFormat, PushSettings, PushSignature};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::engine::access::Tenant;
use crate::engine::push::key::{Bearer, TenantKey};
use crate::engine::push::rate::Rate;
use crate::engine::push::sign::Signer;
use crate::outbound::{HeaderMap, HeaderName, HeaderValue, Url};
use crate::store::push_endpoint::EndpointRow;
use crate::store::{self, TenantId};

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its row.
    pub row: EndpointRow,
    /// Its settings.
    pub settings: PushSettings,
    /// Where requests go.
    pub url: Url,
    /// The subscription.
    pub subscription: SubscriptionName,
    /// Lets requests pass at the rate that was set, or that the endpoint has consented to.
    pub(super) rate: Option<Arc<Rate>>,
    /// What a request looks like.
    pub format: PushFormat,
    /// Time for a request.
    pub timeout: Duration,
    /// Signs requests.
    pub(super) signer: Signer,
    /// The headers that every request has.
    pub(super) headers: HeaderMap,
    /// Makes the tokens that requests carry.
    pub(super) bearer: Option<Arc<Bearer>>,
    /// CloudEvents `source` of messages that were not published as events.
    pub(super) source: String,
}

impl Endpoint {
    /// An endpoint of a row.
    ///
    /// # Errors
    /// When the row holds what the service did not write.
    pub fn of(row: EndpointRow) -> Result<Self, store::Error> {
        let corrupt = |column| store::Error::Corrupt {
            table: "push_endpoint",
            column,
            row: row.subscription_id.to_string(),
        };
        let settings: PushSettings =
            serde_json::from_str(&row.settings).map_err(|_| corrupt("settings"))?;
        let url = settings.url.as_deref().unwrap_or_default();
        let url = Url::parse(url).map_err(|_| corrupt("settings"))?;
        let subscription = row.subscription.parse();
        let subscription = subscription.map_err(|_| corrupt("subscription"))?;
        let key = key_of(&row).map_err(corrupt)?;
        let bearer = match &settings.auth {
            Some(PushAuth::Jwt { audience }) => {
                let key = key.as_ref().ok_or_else(|| corrupt("key_id"))?;
                let audience = audience.as_deref().or(settings.url.as_deref());
                let audience = audience.unwrap_or_default();
                let bearer = Bearer::of(key, row.installation_id, &row.tenant, audience);
                Some(Arc::new(bearer.ok_or_else(|| corrupt("seed"))?))
            }
            Some(PushAuth::Basic { .. } | PushAuth::Bearer { .. }) | None => None,
        };
        let mut signer = Signer::default();
        if signs(&settings, PushSignature::V1) {
            signer = signer.with_secret(&row.secret.0, None);
            if let Some(old) = &row.old_secret {
                signer = signer.with_secret(&old.0, row.old_secret_until);
            }
        }
        if signs(&settings, PushSignature::V1a) {
            signer = signer.with_key(key.ok_or_else(|| corrupt("key_id"))?);
        }
        let seconds = settings
            .timeout_seconds
            .unwrap_or(PUSH_TIMEOUT_SECONDS_DEFAULT);
        Ok(Self {
            rate: Rate::of(settings.limits.as_ref(), row.granted_per_minute).map(Arc::new),
            format: settings.format.unwrap_or_default(),
            timeout: Duration::from_secs(seconds.into()),
            headers: headers(&row, &settings).ok_or_else(|| corrupt("settings"))?,
            source: format!("urn:uuid:{}", row.installation_id),
            signer,
            bearer,
            settings,
            url,
            subscription,
            row,
        })
    }

    /// The tenant whose messages it gets.
    pub(super) fn tenant(&self) -> Tenant {
        Tenant(self.row.tenant_id)
    }

    /// Whether it is the URL of a sink. It gets its messages as they are, which are events, one request at a time and in
    /// their order.
    pub(super) fn is_in_order(&self) -> bool {
        self.row.tenant_id == TenantId::SYSTEM
    }

    /// Requests at the same time, at most.
    pub(super) fn concurrency(&self) -> u32 {
        let limits = self.settings.limits.as_ref();
        let concurrency = limits.and_then(|limits| limits.concurrency);
        concurrency.unwrap_or(PUSH_CONCURRENCY_DEFAULT)
    }

    /// How long everything may fail until it is disabled.
    pub(super) fn disable_after(&self) -> time::Duration {
        let seconds = self.settings.disable_after_seconds;
        time::Duration::seconds(seconds.unwrap_or(PUSH_DISABLE_SECONDS_DEFAULT).into())
    }
}

/// Whether requests are signed with a scheme.
pub(super) fn signs(settings: &PushSettings, scheme: PushSignature) -> bool {
    let schemes = settings.signatures.as_deref();
    schemes.unwrap_or(&[PushSignature::V1]).contains(&scheme)
}

/// The key of the tenant. Fails with the name of the column that is wrong.
fn key_of(row: &EndpointRow) -> Result<Option<Arc<TenantKey>>, &'static str> {
    let Some((id, seed)) = row.key_id.zip(row.seed.as_ref()) else {
        return Ok(None);
    };
    let key = TenantKey::of(id.to_string(), &seed.0).ok_or("seed")?;
    Ok(Some(Arc::new(key)))
}

/// The headers that every request has; `None`: one cannot be sent.
fn headers(row: &EndpointRow, settings: &PushSettings) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if row.tenant_id == TenantId::SYSTEM {
        return Some(headers);
    }
    let agent = concat!("cursus/", env!("CARGO_PKG_VERSION"));
    headers.insert("user-agent", HeaderValue::from_static(agent));
    for (name, value) in &settings.headers {
        let name: HeaderName = name.parse().ok()?;
        headers.insert(name, HeaderValue::from_str(value).ok()?);
    }
    let subscription = HeaderValue::from_str(&row.subscription).ok()?;
    headers.insert("cursus-subscription", subscription);
    // The content type of other formats is that of the message.
    if let PushFormat::Json | PushFormat::JsonBatch = settings.format.unwrap_or_default() {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    let credential = row.credential.as_ref().map(|credential| &*credential.0);
    let authorization = match &settings.auth {
        Some(PushAuth::Basic { username, .. }) => {
            let pair = format!("{username}:{}", credential?);
            Some(format!("Basic {}", STANDARD.encode(pair)))
        }
        Some(PushAuth::Bearer { .. }) => Some(format!("Bearer {}", credential?)),
        Some(PushAuth::Jwt { .. }) | None => None,
    };
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::from_str(&authorization).ok()?;
        value.set_sensitive(true);
        headers.insert("authorization", value);
    }
    Some(headers)
}
