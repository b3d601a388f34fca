//! Usage on the wire: what a tenant used by time window, meter, topic and subscription, and what it costs.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::price::{PriceItem, PriceUnit};
use crate::{Decimal, Timestamp};

/// A metered kind of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Bytes of messages and bodies handed out from object storage. 0 units.
    ColdRead,
    /// Messages moved to a dead-letter topic, counted on that topic. 0 units.
    DeadLetter,
    /// Messages handed out by receives; each redelivery counts again.
    DeliverPull,
    /// Messages sent to a webhook; each attempt counts again.
    DeliverPush,
    /// Messages sent to a stream.
    DeliverStream,
    /// Guaranteed rate of published messages over time, used or not. Metered by the hour. 0 units.
    GuaranteedCapacity,
    /// Published messages.
    Publish,
    /// Bytes stored in the database over time. Metered by the hour.
    StoredHot,
    /// Bytes stored in object storage over time. Metered by the hour.
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

    /// The table of meters: the name on the wire and in the database, and the price items that the meter counts for. The
    /// unit of an item decides which quantity of the meter it prices: units, bytes or an amount over time. A new meter is
    /// a variant, a place in `ALL` and a row here.
    const fn row(self) -> (&'static str, &'static [PriceItem]) {
        use PriceItem as Item;
        const PUBLISH: &[Item] = &[Item::PublishUnits, Item::ElasticUnits, Item::TrafficIn];
        const DELIVER: &[Item] = &[Item::DeliverUnits, Item::ElasticUnits, Item::TrafficOut];
        match self {
            Self::ColdRead => ("cold_read", &[Item::ColdRead]),
            Self::DeadLetter => ("dead_letter", &[]),
            Self::DeliverPull => ("deliver_pull", DELIVER),
            Self::DeliverPush => ("deliver_push", DELIVER),
            Self::DeliverStream => ("deliver_stream", DELIVER),
            Self::GuaranteedCapacity => ("guaranteed_capacity", &[Item::GuaranteedCapacity]),
            Self::Publish => ("publish", PUBLISH),
            Self::StoredHot => ("stored_hot", &[Item::StoredHot]),
            Self::StoredObject => ("stored_object", &[Item::StoredObject]),
        }
    }

    /// The meter as written on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Price items that the meter counts for.
    #[must_use]
    pub const fn items(self) -> &'static [PriceItem] {
        self.row().1
    }

    /// Group of the meter: the meters of a group fill the tiers of a price together.
    #[must_use]
    pub fn group(self) -> &'static str {
        self.items()
            .first()
            .map_or(self.as_str(), |item| item.as_str())
    }

    /// Unit of a meter that measures an amount over time, which is metered by the hour; `None` for a meter that counts.
    #[must_use]
    pub fn over_time(self) -> Option<PriceUnit> {
        self.items()
            .iter()
            .map(|item| item.unit())
            .find(|unit| unit.is_over_time())
    }

    /// The meter with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|meter| meter.as_str() == name)
    }
}

/// Length of a time window of usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// One minute. Storage and guaranteed capacity are not metered by the minute.
    Minute,
    /// One hour.
    #[default]
    Hour,
    /// One day (UTC).
    Day,
}

impl Granularity {
    /// The granularity as written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Length of a window in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// Dimension by which usage is grouped, in addition to time window and meter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// No further grouping.
    #[default]
    Meter,
    /// By topic.
    Topic,
    /// By topic and subscription.
    Subscription,
}

/// Query parameters that select usage.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// A time within the first window. When absent, the windows cover one day.
    #[param(nullable = false)]
    pub from: Option<Timestamp>,
    /// A time that the last window contains or ends with. Now when absent.
    #[param(nullable = false)]
    pub to: Option<Timestamp>,
    /// Length of a window: `minute` (at most 1,440 windows, within the last 8 days), `hour` (at most 744, within the
    /// last 400 days) or `day` (at most 400).
    #[param(inline, nullable = false)]
    #[serde(default)]
    pub granularity: Granularity,
    /// Dimension by which usage is grouped, in addition to time window and meter.
    #[param(inline, nullable = false)]
    #[serde(default)]
    pub by: UsageBy,
    /// `next` of the previous page. Absent for the first page.
    #[param(
        min_length = 1,
        max_length = 300,
        nullable = false,
        pattern = r"^-?[0-9]{1,16}~[a-z_]+~[A-Za-z0-9._-]*~[A-Za-z0-9._-]*$"
    )]
    pub after: Option<String>,
    /// Maximum number of items to return.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    pub limit: Option<u32>,
}

/// Usage of one meter in one time window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageItem {
    /// Start of the window.
    pub start: Timestamp,
    /// Meter.
    pub meter: Meter,
    /// Name of the topic, which may have been deleted since. Absent when usage is not grouped by topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub topic: Option<String>,
    /// Name of the subscription, which may have been deleted since. Absent when usage is not grouped by subscription,
    /// or the meter does not concern one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub subscription: Option<String>,
    /// Metering units: one per started 64 KiB of each message.
    pub units: u64,
    /// Part of `units` within the guaranteed rate.
    pub guaranteed_units: u64,
    /// Part of `units` above the guaranteed rate.
    pub elastic_units: u64,
    /// Number of messages.
    pub messages: u64,
    /// Bytes of the messages, including their attributes. For `cold_read`, of a body only the bytes that were asked for.
    pub bytes: u64,
    /// Storage in GiB-hours (1 GiB is 2^30 bytes), a decimal number rounded to nine places. Only for storage meters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1.25")]
    pub gib_hours: Option<String>,
    /// Guaranteed messages per second times hours, a decimal number rounded to nine places. Only for
    /// `guaranteed_capacity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1000")]
    pub capacity_hours: Option<String>,
    /// Cost of this usage at its position in the month: the tiers of a price are filled in the order of the items, over
    /// all topics of the tenant. Exact to twelve decimal places, so that the items of a month add up to its cost.
    /// Absent when no price plan applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cost: Option<Decimal>,
    /// Currency of `cost` (ISO 4217). Absent when no price plan applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "EUR")]
    pub currency: Option<String>,
}

/// A page of usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsagePage {
    /// Items ordered by window, meter, topic and subscription. A window without usage has none.
    pub items: Vec<UsageItem>,
    /// Cursor of the next page, to be passed as `after`. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
    /// All messages published before this time are counted. Deliveries are counted within another second, storage and
    /// guaranteed capacity within five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metered_until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn the_list_of_meters_is_whole() {
        let schema = serde_json::to_value(Meter::schema()).unwrap();
        assert_eq!(schema["enum"], serde_json::json!(Meter::ALL));
    }

    #[test]
    fn an_item_belongs_to_one_group_of_meters_but_for_the_surcharge() {
        for item in PriceItem::ALL {
            let meters = Meter::ALL.into_iter();
            let of_item = meters.filter(|meter| meter.items().contains(&item));
            let groups: BTreeSet<_> = of_item.map(Meter::group).collect();
            let expected = 1 + usize::from(item == PriceItem::ElasticUnits);
            assert_eq!(groups.len(), expected, "{item:?}");
        }
    }

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
