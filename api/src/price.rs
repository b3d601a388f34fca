//! Price plans on the wire: what usage costs, from which day on. The shape says no wrong thing: an item has one price, its
//! tiers follow one another without a gap, and what is beyond them has a price, too.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{PRICE_DIGITS, PRICE_PER_MAX, TIER_SIZE_MAX, TIERS_MAX};
use crate::name::PlanName;
use crate::validate::Validate;
use crate::{Day, Decimal, Timestamp};

/// What has a price.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PriceItem {
    /// Bytes read from object storage, by the GiB.
    ColdRead,
    /// Units of all deliveries.
    DeliverUnits,
    /// A surcharge on units above the guarantee, published or delivered.
    ElasticUnits,
    /// The guaranteed rate of published messages, used or not, by the message a second for an hour.
    GuaranteedCapacity,
    /// Units of published messages.
    PublishUnits,
    /// Bytes stored in the database, by the GiB-hour.
    StoredHot,
    /// Bytes stored in object storage, by the GiB-hour.
    StoredObject,
    /// Bytes of published messages, by the GiB.
    TrafficIn,
    /// Bytes of delivered messages, by the GiB.
    TrafficOut,
}

impl PriceItem {
    /// All of them, in alphabetical order.
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

    /// It as it stands on the wire and in the database.
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

    /// What it is counted in.
    #[must_use]
    pub const fn unit(self) -> PriceUnit {
        match self {
            Self::DeliverUnits | Self::ElasticUnits | Self::PublishUnits => PriceUnit::Units,
            Self::ColdRead | Self::TrafficIn | Self::TrafficOut => PriceUnit::Gib,
            Self::GuaranteedCapacity => PriceUnit::CapacityHours,
            Self::StoredHot | Self::StoredObject => PriceUnit::GibHours,
        }
    }
}

/// What an item is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum PriceUnit {
    /// Metering units.
    Units,
    /// 2^30 bytes.
    #[serde(rename = "GiB")]
    Gib,
    /// 2^30 bytes for an hour.
    #[serde(rename = "GiB-Hours")]
    GibHours,
    /// A message a second, guaranteed for an hour.
    #[serde(rename = "Capacity-Hours")]
    CapacityHours,
}

impl PriceUnit {
    /// It as it stands on the wire, and in a FOCUS export.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Units => "Units",
            Self::Gib => "GiB",
            Self::GibHours => "GiB-Hours",
            Self::CapacityHours => "Capacity-Hours",
        }
    }

    /// How many of what is measured (units, bytes, byte-seconds, seconds of a message a second) it is.
    #[must_use]
    pub const fn measured(self) -> u128 {
        match self {
            Self::Units => 1,
            Self::Gib => 1 << 30,
            Self::GibHours => (1 << 30) * 3_600,
            Self::CapacityHours => 3_600,
        }
    }
}

/// Why a text is no whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number, as text")]
pub struct InvalidWhole;

/// A whole number as text: large ones are no numbers of every JSON parser.
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

/// A part of a month's use with a price of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// How many units, GiB, GiB-hours or capacity-hours it holds: the next ones are of the next tier.
    #[schema(value_type = String, pattern = "^[1-9][0-9]{0,14}$", example = "1000000")]
    pub size: Whole,
    /// The price in it.
    #[schema(value_type = String, pattern = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?$", example = "0")]
    pub unit_price: Decimal,
}

/// The price of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// For how many units, GiB, GiB-hours or capacity-hours prices are: 1, 10, 100 and so on to 1000000; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^10{0,6}$", example = "1000000")]
    pub per: Option<Whole>,
    /// What comes first in a calendar month (UTC) of a tenant, in this order; none when absent.
    #[serde(
        default,
        deserialize_with = "crate::object::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schema(max_items = 20)]
    pub tiers: Vec<Tier>,
    /// The price of all that is beyond the tiers.
    #[schema(value_type = String, pattern = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?$", example = "0.40")]
    pub unit_price: Decimal,
}

/// The prices of a version; what has none costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Of bytes read from object storage, by the GiB.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub cold_read: Option<Price>,
    /// Of units of all deliveries.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub deliver_units: Option<Price>,
    /// A surcharge on units above the guarantee, published or delivered.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub elastic_units: Option<Price>,
    /// Of the guaranteed rate of published messages (`messages_per_second.guaranteed` of the quota), used or not, by the
    /// message a second for an hour. Counted to the second, also while the tenant is suspended: its capacity is kept free.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub guaranteed_capacity: Option<Price>,
    /// Of units of published messages.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub publish_units: Option<Price>,
    /// Of bytes stored in the database, by the GiB-hour.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub stored_hot: Option<Price>,
    /// Of bytes stored in object storage, by the GiB-hour.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub stored_object: Option<Price>,
    /// Of bytes of published messages, by the GiB.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub traffic_in: Option<Price>,
    /// Of bytes of delivered messages, by the GiB.
    #[serde(
        default,
        deserialize_with = "crate::object::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub traffic_out: Option<Price>,
}

impl Prices {
    /// The price of an item.
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

    /// Where the price of an item stands.
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

/// A version of a plan, as it is put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanVersionSettings {
    /// ISO 4217; the same in all versions of a plan.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    pub currency: String,
    /// The prices.
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

/// A version of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanVersion {
    /// Name of the plan.
    pub plan: PlanName,
    /// The day from whose start (UTC) its prices apply, until the next version begins.
    pub valid_from: Day,
    /// Its currency and prices.
    pub settings: PlanVersionSettings,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its prices last changed.
    pub updated_at: Timestamp,
}

/// A price plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Its name.
    pub name: PlanName,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    pub currency: String,
    /// The days from which its versions apply.
    pub versions: Vec<Day>,
    /// When it was created.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

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
