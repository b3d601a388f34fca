//! Push on the wire: the settings by which the service itself delivers the messages of a subscription to an HTTP
//! endpoint, and the state of that endpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::field::pointer_segment;
use crate::limits::{
    PUSH_BATCH_MESSAGES, PUSH_CONCURRENCY, PUSH_DELAYS_MAX, PUSH_DISABLE_SECONDS, PUSH_HEADERS_MAX,
    PUSH_RATE, PUSH_RETRY_SECONDS, PUSH_TIMEOUT_SECONDS, PUSH_VALUE_CHARS_MAX, URL_CHARS_MAX,
};
use crate::message::check_text;
use crate::topic::check_range;

/// What a request to the endpoint looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushFormat {
    /// The body of the message as it was published, with its content type. All else is in headers.
    #[default]
    Raw,
    /// A CloudEvent in binary mode: the body as it was published, the event's attributes in headers `ce-…`.
    CloudeventsBinary,
    /// A CloudEvent in structured mode: one JSON document.
    CloudeventsStructured,
    /// The message as JSON, with the fields of `POST …/receive`.
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
    Basic {
        /// User name, without a colon.
        username: String,
        /// Password. Required when it is set; an answer never has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<String>,
    },
    /// `Authorization: Bearer …`.
    Bearer {
        /// The token. Required when it is set; an answer never has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// `Authorization: Bearer …` with a JWT that the service signs with the key of the tenant (EdDSA) and that is valid
    /// for five minutes.
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
    Standard,
    /// After pauses that double from `min_seconds` to `max_seconds`, each up to a fifth more or less.
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
    List {
        /// The pauses in seconds, 1 to 50 of them.
        #[serde(default)]
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
    #[schema(max_length = 2048, example = "https://app.example/hooks/billing")]
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
    #[serde(deserialize_with = "headers")]
    pub headers: BTreeMap<String, String>,
    /// How requests say who sends them. Nothing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "crate::object::option")]
    pub auth: Option<PushAuth>,
    /// How requests are signed (Standard Webhooks). `["v1"]` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 2)]
    pub signatures: Option<Vec<PushSignature>>,
    /// Secret of `v1`: `whsec_` and the base64 of 24 to 64 bytes. Made by the service when absent, and then the answer
    /// has it once. A former one goes on to sign for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 96)]
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

/// Headers that a request to the endpoint gets from the service, and others that must not be set by hand.
const RESERVED_HEADERS: [&str; 10] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Beginnings of names of headers that the service writes.
const RESERVED_PREFIXES: [&str; 5] = ["ce-", "cursus-", "proxy-", "trace", "webhook-"];

/// Headers by name, or null for none. A duplicate name is an error, because one of its values would be lost.
fn headers<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
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
        if self
            .signatures
            .as_ref()
            .is_some_and(|all| !(1..=2).contains(&all.len()))
        {
            errors.push(FieldError::new(
                format!("{at}/signatures"),
                "must have 1 to 2 items",
            ));
        }
        self.check_headers(at, &mut errors);
        self.check_auth(at, &mut errors);
        if let Some(retry) = &self.retry {
            retry.check(&format!("{at}/retry"), &mut errors);
        }
        errors
    }

    fn check_headers(&self, at: &str, errors: &mut Vec<FieldError>) {
        if self.headers.len() > PUSH_HEADERS_MAX {
            let detail = format!("must have at most {PUSH_HEADERS_MAX} headers");
            errors.push(FieldError::new(format!("{at}/headers"), detail));
        }
        for (name, value) in &self.headers {
            let pointer = format!("{at}/headers/{}", pointer_segment(name));
            let lower = name.to_ascii_lowercase();
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let is_reserved = RESERVED_HEADERS.contains(&lower.as_str())
                || RESERVED_PREFIXES
                    .iter()
                    .any(|prefix| lower.starts_with(prefix));
            if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token) {
                errors.push(FieldError::new(
                    &pointer,
                    "must be the name of a header of 1 to 128 characters",
                ));
            } else if is_reserved {
                errors.push(FieldError::new(
                    &pointer,
                    "is a header that the service writes",
                ));
            }
            check_header_value(errors, &pointer, value);
        }
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

/// Adds an error unless the text can be the value of a header: characters of ASCII that are visible, and spaces between.
fn check_header_value(errors: &mut Vec<FieldError>, pointer: &str, text: &str) {
    let is_visible = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.is_empty() || text.len() > PUSH_VALUE_CHARS_MAX {
        let detail = format!("must have 1 to {PUSH_VALUE_CHARS_MAX} characters");
        errors.push(FieldError::new(pointer, detail));
    } else if !text.bytes().all(is_visible) || text.trim() != text {
        let detail = "must be visible ASCII, without spaces around it";
        errors.push(FieldError::new(pointer, detail));
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

/// What an endpoint is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushState {
    /// It gets messages.
    #[default]
    Active,
    /// It failed again and again: it gets one request now and then until one is answered with success.
    Open,
    /// It was paused by a call.
    Paused,
    /// It answered 410, or failed for long. It gets nothing until it is resumed or its settings are put again.
    Disabled,
}

/// A failed attempt to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushFailure {
    /// Time of the attempt.
    pub at: Timestamp,
    /// Cause of the failure, for people.
    #[schema(example = "answered with status 503")]
    pub detail: String,
}

/// How deliveries to an endpoint go. Counts are since the node that sends them took the endpoint over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PushStats {
    /// What the endpoint is doing.
    pub state: PushState,
    /// Why it is disabled. Absent unless it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub disabled_reason: Option<String>,
    /// Requests that may run at the same time now.
    pub concurrency: u32,
    /// Requests that the endpoint accepted.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Share of the latest requests, about a hundred, that were accepted. Absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub success_ratio: Option<f64>,
    /// Mean seconds of the latest requests, about a hundred, until they were answered. Absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub latency_seconds: Option<f64>,
    /// Time of the last request that was accepted. Absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub succeeded_at: Option<Timestamp>,
    /// The last failed attempt. Absent when none has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_failure: Option<PushFailure>,
    /// Since when every request has failed. Absent while requests succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failing_since: Option<Timestamp>,
}

/// One attempt to deliver a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PushAttempt {
    /// The subscription.
    pub subscription: String,
    /// How many times the message has been handed out, this time included.
    pub attempt: u32,
    /// Time at which the request was sent.
    pub at: Timestamp,
    /// Seconds until the answer, or until the attempt failed.
    pub duration_seconds: f64,
    /// Status of the answer. Absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status: Option<u16>,
    /// Why there was no answer. Absent when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// The first bytes of the answer's body, as text. Absent when it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub answer: Option<String>,
}

/// A request that was sent to try an endpoint, and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PushTest {
    /// URL of the request.
    pub url: String,
    /// Headers of the request; those that hold secrets say `***`.
    pub request_headers: BTreeMap<String, String>,
    /// Body of the request.
    pub request_body: String,
    /// Status of the answer. Absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status: Option<u16>,
    /// Headers of the answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answer_headers: BTreeMap<String, String>,
    /// The first bytes of the answer's body, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub answer_body: Option<String>,
    /// Why there was no answer. Absent when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// Seconds until the answer, or until the attempt failed.
    pub duration_seconds: f64,
    /// Whether the endpoint accepted it.
    pub accepted: bool,
}
