//! Subscriptions on the wire: the settings that a client sends, and a subscription and its stats as the service returns
//! them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::fairness::{Fairness, FairnessStats};
use crate::limits::{ATTEMPTS, IN_FLIGHT, VISIBILITY_SECONDS};
use crate::push::{PushSettings, PushStats, PushStatus};
use crate::topic::check_range;
use crate::validate::Validate;
use crate::{SubscriptionName, Timestamp, TopicName};

/// Position at which a new subscription begins to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartPosition {
    /// After all existing messages: the first message is the next one published.
    #[default]
    End,
    /// At the oldest message that the topic still keeps.
    Start,
}

/// Settings of a subscription. When the subscription is created, an absent field takes its default; when it exists, an
/// absent field keeps its value. `topic` is required to create a subscription and cannot be changed.
///
/// This schema declares no `default` values on purpose: generated clients would send them, and an update would reset
/// the fields that it leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionSettings {
    /// Topic to read from.
    pub topic: Option<TopicName>,
    /// Position at which to begin to read. Used only when the subscription is created; `end` by default.
    pub from: Option<StartPosition>,
    /// Seconds for which a received message is hidden from other receivers unless the receive sets its own timeout. 30
    /// by default.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 0, maximum = 43200)]
    pub visibility_timeout_seconds: Option<u32>,
    /// Number of delivery attempts after which a message moves to the dead-letter topic. 16 by default. Without a
    /// dead-letter topic a message is redelivered until its retention ends.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 1, maximum = 1000)]
    pub max_attempts: Option<u16>,
    /// Topic that receives the messages whose attempts are used up. An empty string removes the setting; none by
    /// default.
    #[schema(pattern = "^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$", max_length = 128)]
    pub dead_letter_topic: Option<String>,
    /// Maximum number of messages in flight: handed out and not settled. 120000 by default.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 1, maximum = 1000000)]
    pub max_in_flight: Option<u32>,
    /// Fair delivery between customers. `{"enabled": false}` turns it off; off by default.
    #[serde(default, deserialize_with = "crate::object::option")]
    pub fairness: Option<Fairness>,
    /// Delivery to an HTTP endpoint. `{"enabled": false}` ends it; off by default.
    #[serde(default, deserialize_with = "crate::object::option")]
    pub push: Option<PushSettings>,
}

impl Validate for SubscriptionSettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let visibility = self.visibility_timeout_seconds;
        check_range(
            &mut errors,
            "/visibility_timeout_seconds",
            visibility,
            &VISIBILITY_SECONDS,
        );
        check_range(&mut errors, "/max_attempts", self.max_attempts, &ATTEMPTS);
        check_range(
            &mut errors,
            "/max_in_flight",
            self.max_in_flight,
            &IN_FLIGHT,
        );
        if let Some(topic) = self
            .dead_letter_topic
            .as_deref()
            .filter(|topic| !topic.is_empty())
            && let Err(error) = topic.parse::<TopicName>()
        {
            errors.push(FieldError::new("/dead_letter_topic", error.to_string()));
        }
        if let Some(fairness) = &self.fairness {
            errors.extend(fairness.validate("/fairness"));
        }
        if let Some(push) = &self.push {
            errors.extend(push.validate("/push"));
        }
        errors
    }
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subscription {
    /// Name of the subscription.
    pub name: SubscriptionName,
    /// Topic that it reads from.
    pub topic: TopicName,
    /// Seconds for which a received message is hidden from other receivers unless the receive sets its own timeout.
    pub visibility_timeout_seconds: u32,
    /// Number of delivery attempts after which a message is dead-lettered.
    pub max_attempts: u16,
    /// Topic that receives the messages whose attempts are used up. Absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dead_letter_topic: Option<TopicName>,
    /// Maximum number of messages in flight.
    pub max_in_flight: u32,
    /// Fair delivery between customers. Absent when it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fairness: Option<Fairness>,
    /// Delivery to an HTTP endpoint. Absent when messages are received. A secret that the service makes is only in the
    /// answer to the request that made it; a password and a token are in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub push: Option<PushSettings>,
    /// What holds for the endpoint apart from its settings. Absent when messages are received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub push_status: Option<PushStatus>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change of the settings.
    pub updated_at: Timestamp,
}

/// Current state of a subscription, for people, dashboards and autoscalers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionStats {
    /// Messages that a receive could return now.
    pub ready: u64,
    /// Messages handed out, not settled, and whose visibility timeout is not over.
    pub in_flight: u64,
    /// Messages returned with a delay that is not over.
    pub delayed: u64,
    /// `ready` + `in_flight`.
    pub backlog: u64,
    /// Age of the oldest ready message in seconds since it was published. 0 when none is ready.
    pub oldest_ready_age_seconds: f64,
    /// State of the customers. Absent when fair delivery is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fairness: Option<FairnessStats>,
    /// State of the endpoint. Absent when messages are received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub push: Option<PushStats>,
}
