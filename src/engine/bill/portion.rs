//! The priced portions of a row of usage, with their running totals in the month. The store adds up the usage before
//! the row; the table of meters (`api::usage::Meter`) names the items. No quantity of a row is in two portions of the
//! same item.

use api::Decimal;
use api::price::{PriceItem, PriceUnit};
use api::usage::Meter;

use crate::engine::error::Error;
use crate::store;
use crate::store::usage_read::UsageRow;

/// Usage of an item between two running totals of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// The item.
    pub item: PriceItem,
    /// Running total before the portion.
    pub from: u128,
    /// Running total after it.
    pub to: u128,
}

/// The quantities of a meter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Metering units.
    pub units: u128,
    /// Metering units above the guarantee, a part of `units`.
    pub elastic_units: u128,
    /// Bytes.
    pub bytes: u128,
    /// An amount over time: byte-seconds of storage, or messages per second times seconds of guaranteed capacity.
    pub over_time: u128,
}

impl Measured {
    /// The quantity that the price of an item applies to.
    const fn of(&self, item: PriceItem) -> u128 {
        match item.unit() {
            PriceUnit::Units if matches!(item, PriceItem::ElasticUnits) => self.elastic_units,
            PriceUnit::Units => self.units,
            PriceUnit::Gib => self.bytes,
            PriceUnit::GibHours | PriceUnit::CapacityHours => self.over_time,
        }
    }
}

/// The portions of `used`, a meter's usage that follows `before` in the same month.
#[must_use]
pub fn portions(meter: Meter, used: Measured, before: Measured) -> Vec<Portion> {
    let portion = |&item: &PriceItem| Portion {
        item,
        from: before.of(item),
        to: before.of(item) + used.of(item),
    };
    let items = meter.items().iter();
    items
        .map(portion)
        .filter(|portion| portion.to > portion.from)
        .collect()
}

/// Converts a measured quantity to the unit of its price.
pub(super) fn quantity(unit: PriceUnit, measured: u128) -> Decimal {
    Decimal::ratio(measured, unit.measured())
}

/// The portions of a row.
pub(in crate::engine) fn of_row(row: &UsageRow) -> Result<Vec<Portion>, Error> {
    let whole = |text: &str| text.parse::<u128>().map_err(|_| corrupt("over_time", row));
    let number = |number: i64| u128::from(number.unsigned_abs());
    let before = Measured {
        units: number(row.units_before),
        elastic_units: number(row.elastic_before),
        bytes: number(row.bytes_before),
        over_time: whole(&row.over_time_before)?,
    };
    let used = Measured {
        units: number(row.units),
        elastic_units: number(row.elastic_units),
        bytes: number(row.bytes),
        over_time: whole(&row.over_time_after)?.saturating_sub(before.over_time),
    };
    Ok(portions(meter(row)?, used, before))
}

/// The meter of a row.
pub(in crate::engine) fn meter(row: &UsageRow) -> Result<Meter, Error> {
    Meter::of(&row.meter).ok_or_else(|| corrupt("meter", row))
}

fn corrupt(column: &'static str, row: &UsageRow) -> Error {
    store::Error::Corrupt {
        table: "usage",
        column,
        row: row.meter.clone(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items of a meter with the running totals of 1, 2, 3 and 4 that follow 10, 20, 30 and 40.
    fn of(meter: Meter) -> Vec<(&'static str, u128, u128)> {
        let [used, before] = [1, 10].map(|times| Measured {
            units: times,
            elastic_units: 2 * times,
            bytes: 3 * times,
            over_time: 4 * times,
        });
        let portions = portions(meter, used, before).into_iter();
        let text = |p: Portion| (p.item.as_str(), p.from, p.to);
        portions.map(text).collect()
    }

    #[test]
    fn an_item_is_priced_by_what_its_unit_counts() {
        let publish = [
            ("publish_units", 10, 11),
            ("elastic_units", 20, 22),
            ("traffic_in", 30, 33),
        ];
        assert_eq!(of(Meter::Publish), publish);
        let deliver = [
            ("deliver_units", 10, 11),
            ("elastic_units", 20, 22),
            ("traffic_out", 30, 33),
        ];
        assert_eq!(of(Meter::DeliverPull), deliver);
        assert_eq!(of(Meter::DeliverPush), deliver);
        assert_eq!(of(Meter::DeliverStream), deliver);
        assert_eq!(of(Meter::ColdRead), [("cold_read", 30, 33)]);
        let capacity = [("guaranteed_capacity", 40, 44)];
        assert_eq!(of(Meter::GuaranteedCapacity), capacity);
        assert_eq!(of(Meter::StoredHot), [("stored_hot", 40, 44)]);
        assert_eq!(of(Meter::StoredObject), [("stored_object", 40, 44)]);
        assert_eq!(of(Meter::DeadLetter), []);
    }

    #[test]
    fn what_was_not_used_has_no_portion() {
        let before = Measured {
            units: 5,
            bytes: 5,
            ..Measured::default()
        };
        let used = Measured {
            bytes: 1,
            ..Measured::default()
        };
        let portions = portions(Meter::Publish, used, before);
        let item = PriceItem::TrafficIn;
        assert_eq!(
            portions,
            [Portion {
                item,
                from: 5,
                to: 6
            }]
        );
    }
}
