//! Topics on the wire: the settings that a client sends, and a topic and its stats as the service returns them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{DEDUP_WINDOW_SECONDS, RETENTION_SECONDS};
use crate::validate::Validate;
use crate::{Timestamp, TopicName};

/// Settings of a topic. When the topic is created, an absent field takes its default; when it exists, an absent field
/// keeps its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicSettings {
    /// Seconds after which a message is deleted, consumed or not. 345600 (four days) by default.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 60, maximum = 2678400)]
    pub retention_seconds: Option<u32>,
    /// Whether messages that all subscriptions have consumed are kept until their retention ends, for replay. False by
    /// default.
    pub keep_consumed: Option<bool>,
    /// Seconds within which a repeated `dedup_id` or `Idempotency-Key` is recognised. 600 by default.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 60, maximum = 86400)]
    pub dedup_window_seconds: Option<u32>,
}

impl Validate for TopicSettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check_range(
            &mut errors,
            "/retention_seconds",
            self.retention_seconds,
            &RETENTION_SECONDS,
        );
        check_range(
            &mut errors,
            "/dedup_window_seconds",
            self.dedup_window_seconds,
            &DEDUP_WINDOW_SECONDS,
        );
        errors
    }
}

/// Adds an error when `value` is present and outside of `range`.
pub(crate) fn check_range<T: PartialOrd + std::fmt::Display>(
    errors: &mut Vec<FieldError>,
    pointer: &str,
    value: Option<T>,
    range: &std::ops::RangeInclusive<T>,
) {
    if value.is_some_and(|value| !range.contains(&value)) {
        errors.push(FieldError::new(
            pointer,
            format!("must be {} to {}", range.start(), range.end()),
        ));
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Topic {
    /// Name of the topic.
    pub name: TopicName,
    /// Seconds after which a message is deleted, consumed or not.
    pub retention_seconds: u32,
    /// Whether messages that all subscriptions have consumed are kept until their retention ends.
    pub keep_consumed: bool,
    /// Seconds within which a repeated `dedup_id` or `Idempotency-Key` is recognised.
    pub dedup_window_seconds: u32,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change of the settings.
    pub updated_at: Timestamp,
}

/// Message counts of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicStats {
    /// Messages published since the topic was created.
    pub published: u64,
    /// Messages still kept.
    pub kept: u64,
    /// Time at which the oldest kept message was published. Absent when none is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub oldest_published_at: Option<Timestamp>,
}
