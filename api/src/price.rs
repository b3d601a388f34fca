//! Price plans on the wire: what usage costs, and from which day on. The shape excludes mistakes: an item has one
//! price, its tiers follow one another without a gap, and usage beyond them always has a price.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{PRICE_DIGITS, PRICE_PER_MAX, TIER_SIZE_MAX, TIERS_MAX};
use crate::name::PlanName;
use crate::validate::Validate;
use crate::{Day, Decimal, Timestamp};

/// A priced item.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PriceItem {
    /// Bytes handed out from object storage, per GiB.
    ColdRead,
    /// Metering units of all deliveries.
    DeliverUnits,
    /// Surcharge on metering units above the guaranteed rate, published or delivered.
    ElasticUnits,
    /// Guaranteed rate of published messages, used or not, per message per second and hour.
    GuaranteedCapacity,
    /// Metering units of published messages.
    PublishUnits,
    /// Bytes stored in the database, per GiB-hour.
    StoredHot,
    /// Bytes stored in object storage, per GiB-hour.
    StoredObject,
    /// Bytes of published messages, per GiB.
    TrafficIn,
    /// Bytes of delivered messages, per GiB.
    TrafficOut,
}

impl PriceItem {
    /// All items, in alphabetical order.
    pub const ALL: [Self; 9] = [
        Self::ColdRead,
        Self::DeliverUnits,
        Self::ElasticUnits,
        Self::GuaranteedCapacity,
        Self::PublishUnits,
        Self::StoredHot,
        Self::StoredObject,
        Self::TrafficIn,
        Self::TrafficOut,
    ];

    /// The item as written on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ColdRead => "cold_read",
            Self::DeliverUnits => "deliver_units",
            Self::ElasticUnits => "elastic_units",
            Self::GuaranteedCapacity => "guaranteed_capacity",
            Self::PublishUnits => "publish_units",
            Self::StoredHot => "stored_hot",
            Self::StoredObject => "stored_object",
            Self::TrafficIn => "traffic_in",
            Self::TrafficOut => "traffic_out",
        }
    }

    /// Unit that the item is priced in.
    #[must_use]
    pub const fn unit(self) -> PriceUnit {
        match self {
            Self::DeliverUnits | Self::ElasticUnits | Self::PublishUnits => PriceUnit::Units,
            Self::ColdRead | Self::TrafficIn | Self::TrafficOut => PriceUnit::Gib,
            Self::GuaranteedCapacity => PriceUnit::CapacityHours,
            Self::StoredHot | Self::StoredObject => PriceUnit::GibHours,
        }
    }

    /// Description of a charge in a FOCUS export.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::ColdRead => "Bytes handed out from object storage",
            Self::DeliverUnits => "Units of delivered messages",
            Self::ElasticUnits => "Surcharge on units above the guarantee",
            Self::GuaranteedCapacity => "Guaranteed rate of published messages",
            Self::PublishUnits => "Units of published messages",
            Self::StoredHot => "Bytes stored in the database",
            Self::StoredObject => "Bytes stored in object storage",
            Self::TrafficIn => "Bytes of published messages",
            Self::TrafficOut => "Bytes of delivered messages",
        }
    }
}

/// Unit that an item is priced in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum PriceUnit {
    /// Metering units.
    Units,
    /// GiB (2^30 bytes).
    #[serde(rename = "GiB")]
    Gib,
    /// GiB (2^30 bytes) stored for one hour.
    #[serde(rename = "GiB-Hours")]
    GibHours,
    /// One message per second, guaranteed for one hour.
    #[serde(rename = "Capacity-Hours")]
    CapacityHours,
}

impl PriceUnit {
    /// The unit as written on the wire and in a FOCUS export.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Units => "Units",
            Self::Gib => "GiB",
            Self::GibHours => "GiB-Hours",
            Self::CapacityHours => "Capacity-Hours",
        }
    }

    /// Size of the unit in what is measured: metering units, bytes, byte-seconds, or seconds of one message per second.
    #[must_use]
    pub const fn measured(self) -> u128 {
        match self {
            Self::Units => 1,
            Self::Gib => 1 << 30,
            Self::GibHours => (1 << 30) * 3_600,
            Self::CapacityHours => 3_600,
        }
    }

    /// Whether the unit counts an amount over time.
    #[must_use]
    pub const fn is_over_time(self) -> bool {
        matches!(self, Self::GibHours | Self::CapacityHours)
    }
}

/// The text is not a positive whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a positive whole number as a string")]
pub struct InvalidWhole;

/// A positive whole number as a string: not every JSON parser keeps large numbers exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Whole(pub u64);

impl TryFrom<String> for Whole {
    type Error = InvalidWhole;

    fn try_from(text: String) -> Result<Self, InvalidWhole> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|_| is_plain);
        number.map(Self).ok_or(InvalidWhole)
    }
}

impl From<Whole> for String {
    fn from(value: Whole) -> Self {
        value.0.to_string()
    }
}

/// A tier: a part of a month's usage with its own price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceTier {
    /// Size of the tier in units, GiB, GiB-hours or capacity-hours. Usage beyond it falls into the next tier.
    #[schema(value_type = String, pattern = "^[1-9][0-9]{0,14}$", example = "1000000")]
    pub size: Whole,
    /// Price within the tier, for `per` units.
    #[schema(value_type = String, pattern = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?$", example = "0")]
    pub unit_price: Decimal,
}

/// Price of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Number of units, GiB, GiB-hours or capacity-hours that the prices are quoted for: a power of ten from 1 to
    /// 1000000. 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^10{0,6}$", example = "1000000")]
    pub per: Option<Whole>,
    /// Tiers that the usage of a tenant fills within a calendar month (UTC), in this order. No tiers when absent.
    #[serde(
        default,
        deserialize_with = "crate::object::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schema(value_type = Option<Vec<PriceTier>>, max_items = 20)]
    pub tiers: Vec<PriceTier>,
    /// Price of all usage beyond the tiers, for `per` units.
    #[schema(value_type = String, pattern = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?$", example = "0.40")]
    pub unit_price: Decimal,
}

/// Prices of a plan version. An item without a price costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Price of bytes read from object storage, per GiB.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub cold_read: Option<Price>,
    /// Price of the metering units of all deliveries.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub deliver_units: Option<Price>,
    /// Surcharge on metering units above the guaranteed rate, published or delivered.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub elastic_units: Option<Price>,
    /// Price of the guaranteed rate of published messages (`messages_per_second.guaranteed` of the quota), used or not,
    /// per message per second and hour. Metered to the second, also while the tenant is suspended, because its capacity
    /// stays reserved.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub guaranteed_capacity: Option<Price>,
    /// Price of the metering units of published messages.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub publish_units: Option<Price>,
    /// Price of bytes stored in the database, per GiB-hour.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub stored_hot: Option<Price>,
    /// Price of bytes stored in object storage, per GiB-hour.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub stored_object: Option<Price>,
    /// Price of bytes of published messages, per GiB.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub traffic_in: Option<Price>,
    /// Price of bytes of delivered messages, per GiB.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub traffic_out: Option<Price>,
}

impl Prices {
    /// Price of an item.
    #[must_use]
    pub const fn of(&self, item: PriceItem) -> Option<&Price> {
        match item {
            PriceItem::ColdRead => self.cold_read.as_ref(),
            PriceItem::DeliverUnits => self.deliver_units.as_ref(),
            PriceItem::ElasticUnits => self.elastic_units.as_ref(),
            PriceItem::GuaranteedCapacity => self.guaranteed_capacity.as_ref(),
            PriceItem::PublishUnits => self.publish_units.as_ref(),
            PriceItem::StoredHot => self.stored_hot.as_ref(),
            PriceItem::StoredObject => self.stored_object.as_ref(),
            PriceItem::TrafficIn => self.traffic_in.as_ref(),
            PriceItem::TrafficOut => self.traffic_out.as_ref(),
        }
    }

    /// The field of an item's price.
    pub const fn place(&mut self, item: PriceItem) -> &mut Option<Price> {
        match item {
            PriceItem::ColdRead => &mut self.cold_read,
            PriceItem::DeliverUnits => &mut self.deliver_units,
            PriceItem::ElasticUnits => &mut self.elastic_units,
            PriceItem::GuaranteedCapacity => &mut self.guaranteed_capacity,
            PriceItem::PublishUnits => &mut self.publish_units,
            PriceItem::StoredHot => &mut self.stored_hot,
            PriceItem::StoredObject => &mut self.stored_object,
            PriceItem::TrafficIn => &mut self.traffic_in,
            PriceItem::TrafficOut => &mut self.traffic_out,
        }
    }
}

/// Settings of a version of a price plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanVersionSettings {
    /// Currency of the prices (ISO 4217). The same in all versions of a plan.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    pub currency: String,
    /// Prices by item.
    #[serde(deserialize_with = "crate::object::value")]
    pub prices: Prices,
}

impl Validate for PlanVersionSettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.currency.len() != 3 || !self.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            let detail = "must be three capital letters (ISO 4217)";
            errors.push(FieldError::new("/currency", detail));
        }
        for item in PriceItem::ALL {
            if let Some(price) = self.prices.of(item) {
                check_price(&mut errors, &format!("/prices/{}", item.as_str()), price);
            }
        }
        errors
    }
}

fn check_price(errors: &mut Vec<FieldError>, pointer: &str, price: &Price) {
    let mut refuse = |at: String, detail: String| {
        errors.push(FieldError::new(format!("{pointer}/{at}"), detail))
    };
    let pers = (0..7).map(|zeros| 10u64.pow(zeros));
    if price
        .per
        .is_some_and(|Whole(per)| !pers.clone().any(|p| p == per))
    {
        let detail = format!("must be 1, 10, 100 and so on to {PRICE_PER_MAX}");
        refuse("per".to_owned(), detail);
    }
    if price.tiers.len() > TIERS_MAX {
        refuse(
            "tiers".to_owned(),
            format!("must have at most {TIERS_MAX} items"),
        );
    }
    let [whole, places] = PRICE_DIGITS;
    let fits = |price: Decimal| {
        price.trillionths() < 10u128.pow(whole + 12) && price.round(places) == price
    };
    let detail = format!("must have at most {whole} digits before the point and {places} after it");
    for (index, tier) in price.tiers.iter().enumerate() {
        if !(1..=TIER_SIZE_MAX).contains(&tier.size.0) {
            refuse(
                format!("tiers/{index}/size"),
                format!("must be 1 to {TIER_SIZE_MAX}"),
            );
        }
        if !fits(tier.unit_price) {
            refuse(format!("tiers/{index}/unit_price"), detail.clone());
        }
    }
    if !fits(price.unit_price) {
        refuse("unit_price".to_owned(), detail);
    }
}

/// A version of a price plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanVersion {
    /// Name of the plan.
    pub plan: PlanName,
    /// Day (UTC) from whose start the prices apply, until the next version begins.
    pub valid_from: Day,
    /// Currency and prices.
    pub settings: PlanVersionSettings,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change of the prices.
    pub updated_at: Timestamp,
}

/// A price plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Name of the plan.
    pub name: PlanName,
    /// Currency of all its versions (ISO 4217).
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    pub currency: String,
    /// Days (UTC) from which its versions apply.
    pub versions: Vec<Day>,
    /// Time of creation.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn the_list_of_items_is_whole() {
        let schema = serde_json::to_value(PriceItem::schema()).unwrap();
        assert_eq!(schema["enum"], serde_json::json!(PriceItem::ALL));
        let all = PriceItem::ALL.map(PriceItem::as_str);
        assert!(all.is_sorted());
        assert_eq!(serde_json::json!(all), schema["enum"]);
    }

    fn parsed(text: &str) -> Result<Vec<String>, serde_json::Error> {
        let settings: PlanVersionSettings = serde_json::from_str(text)?;
        let errors = settings.validate().into_iter();
        Ok(errors.map(|error| error.pointer).collect())
    }

    #[test]
    fn a_plan_names_what_is_wrong_with_it() {
        let good = r#"{"currency":"EUR","prices":{"publish_units":{"per":"1000000","tiers":[{"size":"5","unit_price":"0"}],"unit_price":"0.40"}}}"#;
        assert_eq!(parsed(good).unwrap(), Vec::<String>::new());
        let bad = r#"{"currency":"eur","prices":{"stored_hot":{"per":"20","tiers":[{"size":"1000000000000000","unit_price":"1000000"}],"unit_price":"0.0000000001"}}}"#;
        let expected = [
            "/currency",
            "/prices/stored_hot/per",
            "/prices/stored_hot/tiers/0/size",
            "/prices/stored_hot/tiers/0/unit_price",
            "/prices/stored_hot/unit_price",
        ];
        assert_eq!(parsed(bad).unwrap(), expected);
        for (from, to) in [
            ("\"0.40\"", "0.40"),
            ("\"5\"", "\"0\""),
            ("\"5\"", "\"-5\""),
            ("publish_units", "colour"),
            ("\"0.40\"", "\"0,40\""),
        ] {
            assert!(parsed(&good.replace(from, to)).is_err(), "{from} {to}");
        }
    }

    #[test]
    fn items_are_named_alike_everywhere() {
        assert!(PriceItem::ALL.is_sorted_by_key(|item| item.as_str()));
        for item in PriceItem::ALL {
            assert_eq!(serde_json::to_value(item).unwrap(), item.as_str());
            let unit = item.unit();
            assert_eq!(serde_json::to_value(unit).unwrap(), unit.as_str());
            let mut prices = Prices::default();
            let price = Price {
                per: None,
                tiers: Vec::new(),
                unit_price: Decimal::ZERO,
            };
            *prices.place(item) = Some(price.clone());
            assert_eq!(prices.of(item), Some(&price));
            let text = serde_json::to_string(&prices).unwrap();
            assert!(text.contains(item.as_str()), "{text}");
        }
    }
}
