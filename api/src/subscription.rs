//! Subscriptions on the wire: settings a user gives, a subscription and its stats as the service shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::fairness::{Fairness, FairnessStats};
use crate::limits::{ATTEMPTS, IN_FLIGHT, VISIBILITY_SECONDS};
use crate::topic::check_range;
use crate::validate::Validate;
use crate::{SubscriptionName, Timestamp, TopicName};

/// Where a new subscription begins to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first message published after it exists.
    #[default]
    End,
    /// With the oldest message that the topic still keeps.
    Start,
}

/// Settings of a subscription. An absent field takes its default when the subscription is created and keeps its value
/// when it exists; `topic` is needed to create it and cannot change. The schema names no defaults: generated clients send
/// them, and an update would set back what it does not mention.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionSettings {
    /// The topic it reads.
    pub topic: Option<TopicName>,
    /// Where it begins to read; only looked at when it is created.
    pub from: Option<Start>,
    /// Seconds a received message stays hidden unless the receive says otherwise; 30 when it is created without.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 0, maximum = 43200)]
    pub visibility_timeout_seconds: Option<u32>,
    /// Attempts before a message goes to the dead-letter topic, without which it is redelivered until retention ends;
    /// 16 when it is created without.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 1, maximum = 1000)]
    pub max_attempts: Option<u16>,
    /// Topic that takes the messages whose attempts are used up. Empty text takes it away.
    #[schema(pattern = "^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$", max_length = 128)]
    pub dead_letter_topic: Option<String>,
    /// Messages that may be out at once; 120000 when it is created without.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 1, maximum = 1000000)]
    pub max_in_flight: Option<u32>,
    /// Customers take turns; null switches it off, and it is off when it is created without.
    #[serde(
        default,
        deserialize_with = "crate::object::nullable",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Fairness>)]
    pub fairness: Option<Option<Fairness>>,
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
        if let Some(fairness) = self.fairness.iter().flatten().next() {
            errors.extend(fairness.validate("/fairness"));
        }
        errors
    }
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subscription {
    /// Its name.
    pub name: SubscriptionName,
    /// The topic it reads.
    pub topic: TopicName,
    /// Seconds a received message stays hidden unless the receive says otherwise.
    pub visibility_timeout_seconds: u32,
    /// Attempts before a message is dead-lettered.
    pub max_attempts: u16,
    /// Topic that takes the messages whose attempts are used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dead_letter_topic: Option<TopicName>,
    /// Messages that may be out at once.
    pub max_in_flight: u32,
    /// How customers take turns; absent: they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fairness: Option<Fairness>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its settings last changed.
    pub updated_at: Timestamp,
}

/// How a subscription stands, for people, dashboards and autoscalers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionStats {
    /// Messages that a receive would get now.
    pub ready: u64,
    /// Messages handed out and neither settled nor due again.
    pub in_flight: u64,
    /// Messages put back with a delay that is not over.
    pub delayed: u64,
    /// `ready` + `in_flight`.
    pub backlog: u64,
    /// Seconds since the oldest ready message was published; 0 when none is ready.
    pub oldest_ready_age_seconds: f64,
    /// How its customers stand, when they take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fairness: Option<FairnessStats>,
}
