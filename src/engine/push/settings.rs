//! Settings of endpoints: checked before the transaction that puts a subscription, and written in it. Secrets are
//! write-only: what is stored to be shown has none, and the audit log shows only whether one was given.

use std::borrow::Cow;

use api::FieldError;
use api::limits::PUSH_OVERLAP_SECONDS_DEFAULT;
use api::push::{PushAuth, PushSettings, PushSignature, secret_bytes};
use api::subscription::SubscriptionSettings;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::engine::Engine;
use crate::engine::error::Error;
use crate::engine::push::consent;
use crate::engine::push::endpoint::signs;
use crate::engine::push::sign;
use crate::outbound::Url;
use crate::store::Session;
use crate::store::event_sink::SigningKey;
use crate::store::push_endpoint::{self, Credential, NewEndpoint, Settings};
use crate::store::signing_key::{self, NewKey};
use crate::store::subscription::SubscriptionRow;

/// What stands for a secret that was given.
const HIDDEN: &str = "***";

/// Settings that were checked.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    settings: &'a PushSettings,
    /// Requests a minute that the endpoint has consented to.
    granted_per_minute: Option<i32>,
}

/// The outcome of writing settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Put {
    /// Whether anything changed.
    pub changed: bool,
    /// The secret, if the service has made it.
    pub made_secret: Option<String>,
}

impl Engine {
    /// Checks what the settings of an endpoint name outside of the service.
    ///
    /// # Errors
    /// When nothing may be sent to the URL, or the endpoint does not consent.
    pub async fn checked_push<'a>(
        &self,
        settings: Option<&'a PushSettings>,
    ) -> Result<Option<Checked<'a>>, Error> {
        let Some(settings) = settings else {
            return Ok(None);
        };
        let mut granted_per_minute = None;
        if settings.is_enabled() {
            let refused = |detail| invalid("url", detail);
            let url = settings.url.as_deref().unwrap_or_default();
            self.outbound().check(url).map_err(refused)?;
            if settings.consent == Some(true) {
                let installation = self.installation().installation_id;
                let asked = consent::ask(self.outbound(), installation, settings);
                granted_per_minute = asked.await.map_err(refused)?;
            }
        }
        Ok(Some(Checked {
            settings,
            granted_per_minute,
        }))
    }
}

fn invalid(field: &str, detail: impl Into<String>) -> Error {
    Error::Invalid(vec![FieldError::new(format!("/push/{field}"), detail)])
}

/// Writes the settings of the endpoint of a subscription that the caller has locked, or deletes it.
///
/// # Errors
/// When a password or token is missing, or the database is unavailable.
pub async fn put(
    tx: &mut Session,
    row: &SubscriptionRow,
    checked: Checked<'_>,
    now: Option<OffsetDateTime>,
) -> Result<Put, Error> {
    let settings = checked.settings;
    if !settings.is_enabled() {
        return Ok(Put {
            changed: push_endpoint::delete(tx, row.subscription_id).await?,
            made_secret: None,
        });
    }
    let old = push_endpoint::lock(tx, row.subscription_id).await?;
    let given = settings.secret.as_deref().map(secret_bytes).transpose();
    let given = given.map_err(|detail| invalid("secret", detail))?;
    let kept = old.as_ref().map(|old| old.secret.clone());
    let secret = given.map(SigningKey).or(kept);
    let is_made = secret.is_none();
    let secret = secret.unwrap_or_else(|| SigningKey(sign::new_secret().to_vec()));
    let new = Settings {
        settings: serde_json::to_string(&shown(settings)).map_err(|_| Error::Internal)?,
        credential: credential(settings, old.as_ref())?,
        secret,
        granted_per_minute: checked.granted_per_minute,
        disabled_at: None,
    };
    if old.as_ref() == Some(&new) {
        return Ok(Put::default());
    }
    if needs_key(settings) {
        let key = NewKey {
            tenant: row.tenant_id,
            key_id: Uuid::new_v4(),
            seed: SigningKey(rand::random::<[u8; 32]>().to_vec()),
        };
        signing_key::ensure(tx, &key, now).await?;
    }
    let endpoint = NewEndpoint {
        subscription: row.subscription_id,
        tenant: row.tenant_id,
        settings: &new,
        overlap_seconds: PUSH_OVERLAP_SECONDS_DEFAULT,
    };
    push_endpoint::put(tx, &endpoint, now).await?;
    Ok(Put {
        changed: true,
        made_secret: is_made.then(|| sign::shown(&new.secret.0)),
    })
}

/// Whether the key of the tenant signs something.
fn needs_key(settings: &PushSettings) -> bool {
    signs(settings, PushSignature::V1a) || matches!(settings.auth, Some(PushAuth::Jwt { .. }))
}

/// The password or token: the one that was given, else the stored one. A stored one is sent only to the origin that it
/// was given for: a caller must not get it by changing the URL.
fn credential(
    settings: &PushSettings,
    old: Option<&Settings>,
) -> Result<Option<Credential>, Error> {
    let (field, given) = match &settings.auth {
        Some(PushAuth::Basic { password, .. }) => ("auth/password", password),
        Some(PushAuth::Bearer { token }) => ("auth/token", token),
        Some(PushAuth::Jwt { .. }) | None => return Ok(None),
    };
    if let Some(given) = given {
        return Ok(Some(Credential(given.clone())));
    }
    let kept = old.filter(|old| {
        let before: Option<PushSettings> = serde_json::from_str(&old.settings).ok();
        before.is_some_and(|before| {
            is_alike(before.auth.as_ref(), settings.auth.as_ref())
                && origin(&before).is_some_and(|origin| self::origin(settings) == Some(origin))
        })
    });
    let kept = kept.and_then(|old| old.credential.clone());
    let detail = "is required: there is none yet for this kind of auth and the origin of this URL";
    kept.map(Some).ok_or_else(|| invalid(field, detail))
}

fn is_alike(before: Option<&PushAuth>, now: Option<&PushAuth>) -> bool {
    match (before, now) {
        (Some(PushAuth::Basic { username, .. }), Some(PushAuth::Basic { username: now, .. })) => {
            username == now
        }
        (Some(PushAuth::Bearer { .. }), Some(PushAuth::Bearer { .. })) => true,
        _ => false,
    }
}

/// Scheme, host and port of the URL.
fn origin(settings: &PushSettings) -> Option<String> {
    let url = Url::parse(settings.url.as_deref()?).ok()?;
    Some(url.origin().ascii_serialization())
}

/// The settings as they are stored and shown: without secrets.
fn shown(settings: &PushSettings) -> PushSettings {
    let auth = settings.auth.clone().map(|auth| match auth {
        PushAuth::Basic { username, .. } => PushAuth::Basic {
            username,
            password: None,
        },
        PushAuth::Bearer { .. } => PushAuth::Bearer { token: None },
        jwt @ PushAuth::Jwt { .. } => jwt,
    });
    PushSettings {
        enabled: None,
        secret: None,
        auth,
        ..settings.clone()
    }
}

/// Settings as the audit log records them: they say which secrets were given. Values of headers are often secrets, too.
#[must_use]
pub fn recorded(settings: &SubscriptionSettings) -> Cow<'_, SubscriptionSettings> {
    let Some(push) = &settings.push else {
        return Cow::Borrowed(settings);
    };
    let hide = |given: &mut Option<String>| *given = given.take().map(|_| HIDDEN.to_owned());
    let mut push = push.clone();
    hide(&mut push.secret);
    match &mut push.auth {
        Some(PushAuth::Basic { password, .. }) => hide(password),
        Some(PushAuth::Bearer { token }) => hide(token),
        Some(PushAuth::Jwt { .. }) | None => {}
    }
    for value in push.headers.values_mut() {
        HIDDEN.clone_into(value);
    }
    let push = Some(push);
    Cow::Owned(SubscriptionSettings {
        push,
        ..settings.clone()
    })
}
