//! Push on the wire: the settings by which the service itself delivers the messages of a subscription to an HTTP
//! endpoint. `headers` has what requests carry, `secret` what signs them, `state` what the endpoint is doing.

mod headers;
mod secret;
mod state;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{
    PUSH_BATCH_MESSAGES, PUSH_CONCURRENCY, PUSH_DELAYS_MAX, PUSH_DISABLE_SECONDS, PUSH_RATE,
    PUSH_RETRY_SECONDS, PUSH_TIMEOUT_SECONDS, URL_CHARS_MAX,
};
use crate::message::check_text;
use crate::topic::check_range;

use headers::check_header_value;

pub use secret::{PushRotation, PushSecret, SECRET_PREFIX, secret_bytes};
pub use state::{PushAttempt, PushFailure, PushState, PushStats, PushStatus, PushTest};

/// What a request to the endpoint looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushFormat {
    /// The body of the message as it was published, with its content type. All else is in headers. Libraries of Standard
    /// Webhooks verify texts only. Those for Python and JavaScript parse them as JSON unless told not to, and for an empty
    /// body one raises an error and the other returns `undefined`. With `json` the body is always JSON.
    #[default]
    Raw,
    /// A CloudEvent in binary mode: the body as it was published, the event's attributes in headers `ce-…`. A message
    /// that was published as an event keeps its attributes.
    CloudeventsBinary,
    /// A CloudEvent in structured mode: one JSON document, with the body as `data`. A body that is neither JSON nor text
    /// comes in binary mode, because libraries misread `data_base64`; they tell the modes apart by the content type.
    CloudeventsStructured,
    /// The message as JSON, with the fields of `POST …/receive`. The body of the request is always JSON.
    Json,
    /// Several messages as JSON: `{"messages": […]}`, as `POST …/receive` answers.
    JsonBatch,
}

/// A scheme of Standard Webhooks that signs requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushSignature {
    /// HMAC-SHA256 with the secret of the endpoint.
    V1,
    /// Ed25519 with the key of the tenant. Its public key is at `/v1/tenants/{tenant}/jwks.json`: no secret is shared.
    V1a,
}

/// How requests say who sends them, apart from the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PushAuth {
    /// `Authorization: Basic …`.
    #[schema(title = "PushBasicAuth")]
    Basic {
        /// User name, without a colon.
        username: String,
        /// Password. Required when it is set; an answer never has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<String>,
    },
    /// `Authorization: Bearer …`.
    #[schema(title = "PushBearerAuth")]
    Bearer {
        /// The token. Required when it is set; an answer never has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// `Authorization: Bearer …` with a JWT that the service signs with the key of the tenant (EdDSA) and that is valid
    /// for five minutes.
    #[schema(title = "PushJwtAuth")]
    Jwt {
        /// Claim `aud`. The URL of the endpoint by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
    },
}

/// How much is sent to the endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushLimits {
    /// Requests at the same time, at most. 64 by default. Fewer are sent while the endpoint is slow or in trouble.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub concurrency: Option<u32>,
    /// Requests a second, at most. No limit by default.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100000)]
    pub per_second: Option<u32>,
    /// Requests a minute, at most. No limit by default; only one of `per_second` and `per_minute` may be given.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100000)]
    pub per_minute: Option<u32>,
}

/// When a message is sent again that the endpoint did not take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "policy", rename_all = "snake_case", deny_unknown_fields)]
pub enum PushRetry {
    /// The table of Standard Webhooks: after 5 seconds, 5 minutes, 30 minutes, 2, 5, 10, 14, 20 and 24 hours, each up to
    /// a fifth more or less.
    #[default]
    #[schema(title = "PushStandardRetry")]
    Standard,
    /// After pauses that double from `min_seconds` to `max_seconds`, each up to a fifth more or less.
    #[schema(title = "PushExponentialRetry")]
    Exponential {
        /// The first pause. 5 by default.
        #[serde(default, deserialize_with = "crate::whole::option")]
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 1, maximum = 86400)]
        min_seconds: Option<u32>,
        /// The longest pause. 3600 by default.
        #[serde(default, deserialize_with = "crate::whole::option")]
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 1, maximum = 86400)]
        max_seconds: Option<u32>,
    },
    /// After the pauses of a list.
    #[schema(title = "PushListRetry")]
    List {
        /// The pauses in seconds, 1 to 50 of them.
        #[serde(deserialize_with = "crate::whole::list")]
        #[schema(min_items = 1, max_items = 50)]
        delays_seconds: Vec<u32>,
    },
}

/// Delivery to an HTTP endpoint. A PUT with `push` replaces all its settings; only the secret, a password and a token
/// that are absent keep their values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushSettings {
    /// False ends push: messages are received again. True when absent; a response never has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The endpoint: an https URL. Required unless `enabled` is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 2048,
        pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$"
    )]
    #[schema(example = "https://app.example/hooks/billing")]
    pub url: Option<String>,
    /// What a request looks like. `raw` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<PushFormat>,
    /// Messages of one request with the format `json_batch`, at most. 100 by default.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub batch_max_messages: Option<u32>,
    /// Headers that are sent with every request, at most 20.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(deserialize_with = "headers::read")]
    #[schema(schema_with = headers::schema)]
    pub headers: BTreeMap<String, String>,
    /// How requests say who sends them. Nothing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "crate::object::option")]
    pub auth: Option<PushAuth>,
    /// How requests are signed (Standard Webhooks). `["v1"]` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 2)]
    pub signatures: Option<Vec<PushSignature>>,
    /// Secret of `v1`: `whsec_` and the standard base64, with its padding, of 24 to 64 bytes. An endpoint without one
    /// gets one that the service makes, and only that answer has it. A former one goes on to sign for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 94, pattern = "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$")]
    pub secret: Option<String>,
    /// Seconds within which the endpoint must answer. 15 by default.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 30)]
    pub timeout_seconds: Option<u32>,
    /// How much is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "crate::object::option")]
    pub limits: Option<PushLimits>,
    /// When a message is sent again that was not taken. `standard` by default. A message whose attempts are used up, by
    /// this policy or by `max_attempts` of the subscription, moves to the dead-letter topic; without one, the last pause
    /// repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "crate::object::option")]
    pub retry: Option<PushRetry>,
    /// Seconds for which everything must fail until the endpoint is disabled. 432000, five days, by default.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 2678400)]
    pub disable_after_seconds: Option<u32>,
    /// Whether the endpoint is asked for consent when it is set (CloudEvents, `OPTIONS` with `WebHook-Request-Origin`). A
    /// rate that it grants is kept. False by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<bool>,
}

impl PushSettings {
    /// Whether messages are delivered to an endpoint.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled != Some(false)
    }

    /// The fields that are out of range; pointers begin with `at`.
    #[must_use]
    pub fn validate(&self, at: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !self.is_enabled() {
            return errors;
        }
        match &self.url {
            None => errors.push(FieldError::new(format!("{at}/url"), "is required")),
            Some(url) => check_text(&mut errors, || format!("{at}/url"), url, URL_CHARS_MAX),
        }
        let mut range = |name: &str, value, range| {
            check_range(&mut errors, &format!("{at}/{name}"), value, range);
        };
        let limits = self.limits.clone().unwrap_or_default();
        range(
            "batch_max_messages",
            self.batch_max_messages,
            &PUSH_BATCH_MESSAGES,
        );
        range(
            "timeout_seconds",
            self.timeout_seconds,
            &PUSH_TIMEOUT_SECONDS,
        );
        range(
            "disable_after_seconds",
            self.disable_after_seconds,
            &PUSH_DISABLE_SECONDS,
        );
        range("limits/concurrency", limits.concurrency, &PUSH_CONCURRENCY);
        range("limits/per_second", limits.per_second, &PUSH_RATE);
        range("limits/per_minute", limits.per_minute, &PUSH_RATE);
        if limits.per_second.is_some() && limits.per_minute.is_some() {
            let detail = "only one of per_second and per_minute is allowed";
            errors.push(FieldError::new(format!("{at}/limits"), detail));
        }
        if self.batch_max_messages.is_some() && self.format != Some(PushFormat::JsonBatch) {
            let detail = "is allowed only with the format json_batch";
            errors.push(FieldError::new(format!("{at}/batch_max_messages"), detail));
        }
        match self.signatures.as_deref() {
            Some([one, other]) if one == other => {
                errors.push(FieldError::new(
                    format!("{at}/signatures"),
                    "lists one twice",
                ));
            }
            None | Some([_] | [_, _]) => {}
            Some(_) => {
                let detail = "must have 1 to 2 items";
                errors.push(FieldError::new(format!("{at}/signatures"), detail));
            }
        }
        if let Some(Err(detail)) = self.secret.as_deref().map(secret_bytes) {
            errors.push(FieldError::new(format!("{at}/secret"), detail));
        }
        headers::check(&mut errors, at, &self.headers);
        self.check_auth(at, &mut errors);
        if let Some(retry) = &self.retry {
            retry.check(&format!("{at}/retry"), &mut errors);
        }
        errors
    }

    fn check_auth(&self, at: &str, errors: &mut Vec<FieldError>) {
        match &self.auth {
            Some(PushAuth::Basic { username, password }) => {
                if username.contains(':') {
                    let detail = "must have no colon";
                    errors.push(FieldError::new(format!("{at}/auth/username"), detail));
                }
                check_header_value(errors, &format!("{at}/auth/username"), username);
                if let Some(password) = password {
                    check_header_value(errors, &format!("{at}/auth/password"), password);
                }
            }
            Some(PushAuth::Bearer { token: Some(token) }) => {
                check_header_value(errors, &format!("{at}/auth/token"), token);
            }
            Some(PushAuth::Jwt {
                audience: Some(audience),
            }) => {
                check_text(
                    errors,
                    || format!("{at}/auth/audience"),
                    audience,
                    URL_CHARS_MAX,
                );
            }
            Some(PushAuth::Bearer { token: None } | PushAuth::Jwt { audience: None }) | None => {}
        }
    }
}

impl PushRetry {
    fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        match self {
            Self::Standard => {}
            Self::Exponential {
                min_seconds,
                max_seconds,
            } => {
                check_range(
                    errors,
                    &format!("{at}/min_seconds"),
                    *min_seconds,
                    &PUSH_RETRY_SECONDS,
                );
                check_range(
                    errors,
                    &format!("{at}/max_seconds"),
                    *max_seconds,
                    &PUSH_RETRY_SECONDS,
                );
                if min_seconds.unwrap_or(5) > max_seconds.unwrap_or(3_600) {
                    let detail = "must not be less than min_seconds";
                    errors.push(FieldError::new(format!("{at}/max_seconds"), detail));
                }
            }
            Self::List { delays_seconds } => {
                if !(1..=PUSH_DELAYS_MAX).contains(&delays_seconds.len()) {
                    let detail = format!("must have 1 to {PUSH_DELAYS_MAX} items");
                    errors.push(FieldError::new(format!("{at}/delays_seconds"), detail));
                }
                for (index, seconds) in delays_seconds.iter().enumerate() {
                    let pointer = format!("{at}/delays_seconds/{index}");
                    check_range(errors, &pointer, Some(*seconds), &PUSH_RETRY_SECONDS);
                }
            }
        }
    }
}
