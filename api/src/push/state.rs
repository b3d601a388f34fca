//! The state of an endpoint on the wire: what it is doing, how deliveries go, attempts, and what trying it showed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

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

/// What holds for an endpoint apart from its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushStatus {
    /// Time at which it was paused. Absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub paused_at: Option<Timestamp>,
    /// Time at which it was disabled, because it answered 410 or failed for long. Absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub disabled_at: Option<Timestamp>,
    /// Why it is disabled. Absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub disabled_reason: Option<String>,
    /// Time until which the former secret signs, too. Absent when there is none, or it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub old_secret_until: Option<Timestamp>,
    /// Requests a minute that the endpoint has consented to. Absent when it was not asked, or allows any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub granted_per_minute: Option<u32>,
}
