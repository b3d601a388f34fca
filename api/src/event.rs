//! Event sinks on the wire: the topic or URL that receives events of the service, and the state of its delivery. An
//! event is a CloudEvent; its `data` depends on the [`EventKind`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::limits::URL_CHARS_MAX;
use crate::message::check_text;
use crate::name::{EventSinkName, TopicName};
use crate::usage::UsageItem;
use crate::validate::Validate;

/// Kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// `cursus.usage`: usage of a completed time window; `data` is a `UsageEvent`.
    Usage,
    /// `cursus.budget`: a percentage of a budget was reached; `data` is a `BudgetEvent`.
    Budget,
    /// `cursus.endpoint`: the endpoint of a push subscription was disabled, because it is gone or failed for long; `data`
    /// has `subscription` and `reason`.
    Endpoint,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Usage, Self::Budget, Self::Endpoint];

    /// The kind as written on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Budget => "budget",
            Self::Endpoint => "endpoint",
        }
    }

    /// CloudEvents `type` of the kind's events.
    #[must_use]
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Usage => "cursus.usage",
            Self::Budget => "cursus.budget",
            Self::Endpoint => "cursus.endpoint",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Length of the time windows of usage events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventGranularity {
    /// One hour.
    #[default]
    Hour,
    /// One minute. Storage and guaranteed capacity are metered by the hour only, so their windows stay one hour long.
    Minute,
}

impl EventGranularity {
    /// The granularity as written on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Minute => "minute",
        }
    }
}

/// Tenants whose events a sink receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventTenants {
    /// Only the tenant that owns the sink.
    #[default]
    Own,
    /// All tenants. Reserved for the operator of the service.
    All,
}

/// Settings of an event sink: exactly one of `topic` and `url` is required. A PUT replaces all settings; an absent
/// field takes its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSinkSettings {
    /// Topic of the tenant that events are published to, one message per event. The event id is the message's
    /// `dedup_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    /// URL that events are sent to by POST. Must be `https` at a public address or one that the operator allowed
    /// (`--outbound-allow`), or `http` on a loopback address, without user or password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 2048,
        pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$",
        example = "https://billing.example/events"
    )]
    pub url: Option<String>,
    /// Kinds of events to deliver. All kinds when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 3)]
    pub events: Option<Vec<EventKind>>,
    /// Length of the time windows of usage events. One hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub granularity: Option<EventGranularity>,
    /// Tenants whose events are delivered. Only the tenant that owns the sink when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub tenants: Option<EventTenants>,
    /// Whether one request to the URL may carry up to 100 events, as `application/cloudevents-batch+json`. False when
    /// absent: one event per request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<bool>,
}

impl EventSinkSettings {
    /// Kinds of events that the sink receives, each once.
    #[must_use]
    pub fn kinds(&self) -> Vec<EventKind> {
        let wants = |kind: &EventKind| {
            let kinds = self.events.as_ref();
            kinds.is_none_or(|kinds| kinds.contains(kind))
        };
        EventKind::ALL.into_iter().filter(wants).collect()
    }
}

impl Validate for EventSinkSettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(url) = &self.url {
            check_text(&mut errors, || "/url".to_owned(), url, URL_CHARS_MAX);
        }
        let mut refuse = |pointer, detail| errors.push(FieldError::new(pointer, detail));
        match (&self.topic, &self.url) {
            (Some(_), Some(_)) => refuse("/url", "only one of topic and url is allowed"),
            (None, None) => refuse("", "one of topic and url is required"),
            (Some(_), None) if self.batch == Some(true) => {
                refuse(
                    "/batch",
                    "is allowed only with url; a topic gets one message per event",
                );
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let kinds = self.events.as_deref();
        if kinds.is_some_and(|kinds| !(1..=EventKind::ALL.len()).contains(&kinds.len())) {
            refuse("/events", "must have 1 to 3 items");
        }
        errors
    }
}

/// A failed delivery attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventFailure {
    /// Time of the attempt.
    pub at: Timestamp,
    /// Cause of the failure, for people.
    #[schema(example = "answered with status 503")]
    pub detail: String,
}

/// An event sink and the state of its delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventSink {
    /// Name of the sink.
    pub name: EventSinkName,
    /// Settings in force. Defaults are filled in; of `topic` and `url` only one is present.
    pub settings: EventSinkSettings,
    /// Secret, `whsec_…`, that signs requests to the URL (Standard Webhooks, `v1`). Present only in the response that
    /// creates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = r"^whsec_[A-Za-z0-9+/]{43}=$")]
    pub secret: Option<String>,
    /// Events waiting for delivery; counting stops at 12,000.
    #[schema(minimum = 0, maximum = 12000)]
    pub waiting: u32,
    /// Usage before this time has been turned into events. Absent when the sink receives no usage events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub usage_until: Option<Timestamp>,
    /// Time of the last successful delivery. Absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub delivered_at: Option<Timestamp>,
    /// Last failed delivery attempt. Absent when none has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_failure: Option<EventFailure>,
    /// Attempts that have failed since the last successful delivery.
    pub failed_attempts: u32,
    /// Time of the next attempt. Present only while attempts fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_attempt_at: Option<Timestamp>,
    /// Time at which the URL responded with 410 Gone. Nothing is sent until the sink is put again; its events wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub disabled_at: Option<Timestamp>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time at which the settings were last put.
    pub updated_at: Timestamp,
}

/// `data` of an event of type `cursus.usage`: usage of one tenant, meter, topic and subscription in one time window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEvent {
    /// Name of the tenant; also the `subject` of the event.
    pub tenant: String,
    /// End of the time window; also the `time` of the event.
    pub end: Timestamp,
    /// Usage in the window; its `start` is the start of the window.
    #[serde(flatten)]
    pub item: UsageItem,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(text: &str) -> Vec<String> {
        let settings: EventSinkSettings = serde_json::from_str(text).unwrap();
        let errors = settings.validate().into_iter();
        errors.map(|error| error.pointer).collect()
    }

    #[test]
    fn a_sink_is_a_topic_or_a_url() {
        for good in [r#"{"topic":"t"}"#, r#"{"url":"https://a/","batch":true}"#] {
            assert!(pointers(good).is_empty(), "{good}");
        }
        for (bad, pointer) in [
            ("{}", ""),
            (r#"{"topic":"t","url":"https://a/"}"#, "/url"),
            (r#"{"topic":"t","batch":true}"#, "/batch"),
            (r#"{"topic":"t","events":[]}"#, "/events"),
            (
                r#"{"topic":"t","events":["usage","usage","usage","usage"]}"#,
                "/events",
            ),
            (r#"{"url":"\u0007"}"#, "/url"),
        ] {
            assert_eq!(pointers(bad), [pointer], "{bad}");
        }
        for unreadable in [
            r#"{"topic":"t","colour":1}"#,
            r#"{"topic":"a b"}"#,
            r#"{"topic":"t","events":["rain"]}"#,
            r#"{"topic":"t","granularity":"day"}"#,
        ] {
            assert!(serde_json::from_str::<EventSinkSettings>(unreadable).is_err());
        }
    }

    #[test]
    fn kinds_are_named_alike_everywhere_and_wanted_once() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(EventKind::of(kind.as_str()), Some(kind));
            assert_eq!(kind.event_type(), format!("cursus.{}", kind.as_str()));
        }
        let twice = EventSinkSettings {
            events: Some(vec![EventKind::Budget, EventKind::Budget]),
            ..EventSinkSettings::default()
        };
        assert_eq!(twice.kinds(), [EventKind::Budget]);
        assert_eq!(EventSinkSettings::default().kinds(), EventKind::ALL);
    }
}
