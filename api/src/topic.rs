//! Topics on the wire: settings a user gives, a topic as the service shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{DEDUP_WINDOW_SECONDS, RETENTION_SECONDS};
use crate::validate::Validate;
use crate::{Timestamp, TopicName};

/// Settings of a topic. An absent field takes its default when the topic is created and keeps its value when it exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicSettings {
    /// Seconds that a message is kept at most, consumed or not; 345600 (four days) when it is created without.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 60, maximum = 2678400)]
    pub retention_seconds: Option<u32>,
    /// Whether messages that every subscription has consumed are kept until retention ends, for replay; false when it is
    /// created without.
    pub keep_consumed: Option<bool>,
    /// Seconds in which a repeated `dedup_id` or `Idempotency-Key` is recognised; 600 when it is created without.
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

/// Adds an error when `value` is given and out of `range`.
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
    /// Its name.
    pub name: TopicName,
    /// Seconds that a message is kept at most.
    pub retention_seconds: u32,
    /// Whether consumed messages are kept until retention ends.
    pub keep_consumed: bool,
    /// Seconds in which a repeated `dedup_id` or `Idempotency-Key` is recognised.
    pub dedup_window_seconds: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its settings last changed.
    pub updated_at: Timestamp,
}

/// How full a topic is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicStats {
    /// Messages published since the topic exists.
    pub published: u64,
    /// Messages still kept.
    pub kept: u64,
    /// When the oldest kept message was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub oldest_published_at: Option<Timestamp>,
}
