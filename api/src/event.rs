//! Event sinks on the wire: where events of the service go, and how their delivery stands. An event is a CloudEvent; what
//! its `data` holds is said by the kinds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::FieldError;
use crate::limits::URL_CHARS_MAX;
use crate::message::check_text;
use crate::name::{EventSinkName, TopicName};
use crate::usage::UsageItem;
use crate::validate::Validate;

/// What events tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// `cursus.usage`: what was used in a window of time that is over; see `UsageEvent`.
    Usage,
    /// `cursus.budget`: a threshold of a budget is reached.
    Budget,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Usage, Self::Budget];

    /// The kind as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Budget => "budget",
        }
    }

    /// The `type` of its events.
    #[must_use]
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Usage => "cursus.usage",
            Self::Budget => "cursus.budget",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Length of the windows of usage events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventGranularity {
    /// An hour.
    #[default]
    Hour,
    /// A minute; storage and guaranteed capacity, which are not metered by the minute, have an hour.
    Minute,
}

impl EventGranularity {
    /// It as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Minute => "minute",
        }
    }
}

/// Whose events a sink gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventTenants {
    /// Those of the tenant that has the sink.
    #[default]
    Own,
    /// Those of all tenants; for who operates the service.
    All,
}

/// Where events go: to a topic or a URL, one of the two. What is absent takes its default, also when the sink exists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSinkSettings {
    /// A topic of the tenant: an event is a message there, its id the `dedup_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    /// A URL that events are sent to by POST: `https`, or `http` on a loopback address; without user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 2048,
        pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$",
        example = "https://billing.example/events"
    )]
    pub url: Option<String>,
    /// Which events; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 2)]
    pub events: Option<Vec<EventKind>>,
    /// Length of the windows of usage events; an hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub granularity: Option<EventGranularity>,
    /// Whose events: the tenant's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub tenants: Option<EventTenants>,
    /// Whether the URL takes up to 100 events at once, as `application/cloudevents-batch+json`; one by one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<bool>,
}

impl EventSinkSettings {
    /// The events that it gets, each once.
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
            (Some(_), Some(_)) => refuse("/url", "a sink is a topic or a URL, not both"),
            (None, None) => refuse("", "say where events go: topic or url"),
            (Some(_), None) if self.batch == Some(true) => {
                refuse("/batch", "is for a URL; a topic has one message an event");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let kinds = self.events.as_deref();
        if kinds.is_some_and(|kinds| !(1..=EventKind::ALL.len()).contains(&kinds.len())) {
            refuse("/events", "must have 1 to 2 items");
        }
        errors
    }
}

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventFailure {
    /// When.
    pub at: Timestamp,
    /// In words.
    #[schema(example = "answered with status 503")]
    pub detail: String,
}

/// An event sink, and how its delivery stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventSink {
    /// Its name.
    pub name: EventSinkName,
    /// Its settings; none is absent but `topic` or `url`.
    pub settings: EventSinkSettings,
    /// `whsec_…`, with which what is sent to the URL is signed (Standard Webhooks, `v1`); only in the answer that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = r"^whsec_[A-Za-z0-9+/]{43}=$")]
    pub secret: Option<String>,
    /// Events that wait for their delivery.
    #[schema(minimum = 0, maximum = 12000)]
    pub waiting: u32,
    /// Usage before this time was made into events; absent when it gets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub usage_until: Option<Timestamp>,
    /// When events were last delivered; absent when they never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub delivered_at: Option<Timestamp>,
    /// How a delivery last failed; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_failure: Option<EventFailure>,
    /// Attempts that failed since events were last delivered.
    pub failed_attempts: u32,
    /// The next attempt; present only while attempts fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_attempt_at: Option<Timestamp>,
    /// When the URL said that it is gone (410). Nothing is sent until the sink is put again; events wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub disabled_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its settings were last put.
    pub updated_at: Timestamp,
}

/// The `data` of an event `cursus.usage`: what one tenant used of one meter, topic and subscription in one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEvent {
    /// The tenant, which is the `subject` too.
    pub tenant: String,
    /// End of the window, which is the `time` too.
    pub end: Timestamp,
    /// What was used; `start` is the start of the window.
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
                r#"{"topic":"t","events":["usage","usage","usage"]}"#,
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
