//! Usage on the wire: what a tenant used, by window of time, meter, topic and subscription, and what it costs.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Decimal, Timestamp};

/// What is metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Bytes read from object storage; 0 units.
    ColdRead,
    /// Messages that moved to a dead-letter topic, where they are stored; 0 units.
    DeadLetter,
    /// Messages handed out to a receive, redelivered ones again.
    DeliverPull,
    /// Messages sent to a webhook, each attempt again.
    DeliverPush,
    /// Messages sent to a stream.
    DeliverStream,
    /// The guaranteed rate of published messages over time, used or not, metered by the hour; 0 units.
    GuaranteedCapacity,
    /// Messages published.
    Publish,
    /// Bytes stored in the database over time, metered by the hour.
    StoredHot,
    /// Bytes stored in object storage over time, metered by the hour.
    StoredObject,
}

impl Meter {
    /// All meters, in alphabetical order.
    pub const ALL: [Self; 9] = [
        Self::ColdRead,
        Self::DeadLetter,
        Self::DeliverPull,
        Self::DeliverPush,
        Self::DeliverStream,
        Self::GuaranteedCapacity,
        Self::Publish,
        Self::StoredHot,
        Self::StoredObject,
    ];

    /// The meter as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ColdRead => "cold_read",
            Self::DeadLetter => "dead_letter",
            Self::DeliverPull => "deliver_pull",
            Self::DeliverPush => "deliver_push",
            Self::DeliverStream => "deliver_stream",
            Self::GuaranteedCapacity => "guaranteed_capacity",
            Self::Publish => "publish",
            Self::StoredHot => "stored_hot",
            Self::StoredObject => "stored_object",
        }
    }

    /// The meter of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|meter| meter.as_str() == name)
    }
}

/// Length of a window of usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// A minute; storage and guaranteed capacity are not metered by the minute.
    Minute,
    /// An hour.
    #[default]
    Hour,
    /// A day, UTC.
    Day,
}

impl Granularity {
    /// It as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Seconds of a window.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// What usage is added up by, beside windows and meters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// Nothing else.
    #[default]
    Meter,
    /// The topic.
    Topic,
    /// The topic and the subscription.
    Subscription,
}

/// Which usage.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// The first window is the one with this time; when absent, there is a day of windows.
    #[param(nullable = false)]
    pub from: Option<Timestamp>,
    /// The last window is the one that ends with or after this time; now when absent.
    #[param(nullable = false)]
    pub to: Option<Timestamp>,
    /// Length of a window: `minute` (1,440 at most, of the last 8 days), `hour` (744 at most, of the last 400 days) or
    /// `day` (400 at most).
    #[param(inline, nullable = false)]
    #[serde(default)]
    pub granularity: Granularity,
    /// By what usage is grouped, in addition to windows and meters.
    #[param(inline, nullable = false)]
    #[serde(default)]
    pub by: UsageBy,
    /// `next` of the page before; absent for the first.
    #[param(
        min_length = 1,
        max_length = 300,
        nullable = false,
        pattern = r"^-?[0-9]{1,16}~[a-z_]+~[A-Za-z0-9._-]*~[A-Za-z0-9._-]*$"
    )]
    pub after: Option<String>,
    /// Most items to return.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    pub limit: Option<u32>,
}

/// What one meter showed in one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageItem {
    /// Start of the window.
    pub start: Timestamp,
    /// What was used.
    pub meter: Meter,
    /// Name of the topic, which may be deleted; absent when it is not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub topic: Option<String>,
    /// Name of the subscription, which may be deleted; absent when it is not asked for or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub subscription: Option<String>,
    /// Metering units: one operation per started 64 KiB of a message.
    pub units: u64,
    /// Of these, units inside the guarantee.
    pub guaranteed_units: u64,
    /// Of these, units above it.
    pub elastic_units: u64,
    /// Messages.
    pub messages: u64,
    /// Bytes of the messages, attributes included; of cold reads, bytes read.
    pub bytes: u64,
    /// Of storage, GiB-hours (GiB of 2^30 bytes) as a decimal number, rounded to nine places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1.25")]
    pub gib_hours: Option<String>,
    /// Of guaranteed capacity, messages a second times hours as a decimal number, rounded to nine places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1000")]
    pub capacity_hours: Option<String>,
    /// What it costs at its place in the month: tiers fill up in the order of the items, over all topics of the tenant. Exact
    /// to twelve places, so that the items of a month add up to its cost. Absent when there is no price plan for its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cost: Option<Decimal>,
    /// The currency of `cost`, ISO 4217.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "EUR")]
    pub currency: Option<String>,
}

/// A page of usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsagePage {
    /// In the order of window, meter, topic and subscription; a window without use has none.
    pub items: Vec<UsageItem>,
    /// Pass it as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
    /// All that was published before this time is counted. Deliveries are a second behind, storage and guaranteed
    /// capacity five minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metered_until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_are_named_alike_everywhere() {
        for meter in Meter::ALL {
            assert_eq!(Meter::of(meter.as_str()), Some(meter));
            let text = serde_json::to_string(&meter).unwrap();
            assert_eq!(text, format!("\"{}\"", meter.as_str()));
        }
        assert!(Meter::ALL.is_sorted_by_key(|meter| meter.as_str()));
        assert_eq!(Meter::of("publisher"), None);
    }
}
