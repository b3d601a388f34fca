//! Conversion of prices between database rows, API objects and schedules. A row is one tier of an item; the tier
//! without a size is the last. Pure; called by `plans`.

use api::price::{PlanVersion, PlanVersionSettings, Price, PriceItem, PriceTier, Prices, Whole};
use api::{Day, PlanName};

use crate::engine::bill::ladder::Ladder;
use crate::engine::bill::schedule::Version;
use crate::engine::error::Error;
use crate::store;
use crate::store::price::PriceRow;
use crate::store::price_version::VersionRow;

/// The rows of a version, by item and tier.
pub(super) fn rows(plan: &PlanName, day: Day, prices: &Prices) -> Vec<PriceRow> {
    let mut rows = Vec::new();
    for item in PriceItem::ALL {
        let Some(price) = prices.of(item) else {
            continue;
        };
        let sized = price
            .tiers
            .iter()
            .map(|tier| (i64::try_from(tier.size.0).ok(), tier.unit_price));
        let last = (None, price.unit_price);
        for (tier, (size, unit_price)) in (0i16..).zip(sized.chain([last])) {
            rows.push(PriceRow {
                plan: plan.to_string(),
                valid_from: day.0,
                item: item.as_str().to_owned(),
                tier,
                per: price.per.map_or(1, |per| i32::try_from(per.0).unwrap_or(1)),
                size,
                unit_price: unit_price.to_string(),
            });
        }
    }
    rows
}

/// A version as an API object. `prices` may include rows of other versions.
pub(super) fn shown(row: VersionRow, prices: &[PriceRow]) -> Result<PlanVersion, Error> {
    let mut found = Prices::default();
    let is_own = |price: &&PriceRow| price.plan == row.plan && price.valid_from == row.valid_from;
    for price in prices.iter().filter(is_own) {
        let item = PriceItem::ALL
            .into_iter()
            .find(|item| item.as_str() == price.item)
            .ok_or_else(|| corrupt("item", &row.plan))?;
        let unit_price = price
            .unit_price
            .parse()
            .map_err(|_| corrupt("unit_price", &row.plan))?;
        let place = found.place(item).get_or_insert(Price {
            per: (price.per > 1).then(|| Whole(u64::from(price.per.unsigned_abs()))),
            tiers: Vec::new(),
            unit_price,
        });
        match price.size {
            Some(size) => place.tiers.push(PriceTier {
                size: Whole(size.unsigned_abs()),
                unit_price,
            }),
            None => place.unit_price = unit_price,
        }
    }
    Ok(PlanVersion {
        plan: row.plan.parse().map_err(|_| corrupt("plan", &row.plan))?,
        valid_from: Day(row.valid_from),
        settings: PlanVersionSettings {
            currency: row.currency,
            prices: found,
        },
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    })
}

/// The error for a row that the schema rules out.
pub(super) fn corrupt(column: &'static str, plan: &str) -> Error {
    store::Error::Corrupt {
        table: "price",
        column,
        row: plan.to_owned(),
    }
    .into()
}

/// A version as part of a schedule.
pub(super) fn applied(row: VersionRow, prices: &[PriceRow]) -> Result<Version, Error> {
    let PlanVersion {
        plan,
        valid_from,
        settings,
        ..
    } = shown(row, prices)?;
    let ladder = |item: PriceItem| {
        let price = settings.prices.of(item)?;
        Some((item, Ladder::new(price, item.unit())))
    };
    Ok(Version {
        plan,
        valid_from,
        ladders: PriceItem::ALL.into_iter().filter_map(ladder).collect(),
        currency: settings.currency,
    })
}
