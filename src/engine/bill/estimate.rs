//! An estimate of the cost of the rest of a month. It assumes that usage continues at the average rate of the month so
//! far, and applies tiers and the versions and plans that begin later in the month. Pure; `month` adds it to the cost
//! so far.

use api::price::PriceItem;
use api::{Decimal, Month};
use time::OffsetDateTime;

use crate::engine::bill::portion::Portion;
use crate::engine::bill::schedule::Schedule;

/// Usage of an item in the month so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsageSoFar {
    /// The item.
    pub(super) item: PriceItem,
    /// The quantity that the caller may see, in measured units (bytes, byte-seconds, …).
    pub(super) used: u128,
    /// Running total of the tenant, in the same units.
    pub(super) total: u128,
}

/// The estimated cost of the month from `now` on.
pub(super) fn rest(
    prices: &Schedule,
    so_far: UsageSoFar,
    month: Month,
    now: OffsetDateTime,
) -> Decimal {
    let seconds = |from: OffsetDateTime, to: OffsetDateTime| {
        u128::try_from((to - from).whole_seconds()).unwrap_or(0)
    };
    let elapsed = seconds(month.start(), now);
    if now >= month.end() || elapsed == 0 {
        return Decimal::ZERO;
    }
    let changes = prices.starts().filter(|at| *at > now && *at < month.end());
    let item = so_far.item;
    let (mut begin, mut from, mut cost) = (now, so_far.total, Decimal::ZERO);
    for end in changes.chain([month.end()]) {
        let to = so_far.total + so_far.used.saturating_mul(seconds(now, end)) / elapsed;
        let part = prices.cost(begin, &[Portion { item, from, to }]);
        cost = cost.plus(part.unwrap_or(Decimal::ZERO));
        (begin, from) = (end, to);
    }
    cost
}

#[cfg(test)]
mod tests {
    use api::price::{Price, PriceTier, PriceUnit, Whole};
    use time::macros::datetime;

    use super::*;
    use crate::engine::bill::ladder::Ladder;
    use crate::engine::bill::schedule::Version;

    #[test]
    fn the_rest_of_a_month_goes_on_like_its_beginning() {
        let version = |day: &str, unit_price: &str| {
            let tier = PriceTier {
                size: Whole(100),
                unit_price: Decimal::ZERO,
            };
            let price = Price {
                per: None,
                tiers: vec![tier],
                unit_price: unit_price.parse().unwrap(),
            };
            let ladder = Ladder::new(&price, PriceUnit::Units);
            Version {
                plan: "p".parse().unwrap(),
                currency: "EUR".to_owned(),
                valid_from: day.parse().unwrap(),
                ladders: vec![(PriceItem::PublishUnits, ladder)],
            }
        };
        let versions = [version("2030-04-01", "1"), version("2030-04-21", "2")];
        let plans = [("2030-04-01".parse().unwrap(), Some("p"))];
        let prices = Schedule::new(&plans, &versions);
        let so_far = UsageSoFar {
            item: PriceItem::PublishUnits,
            used: 100,
            total: 100,
        };
        let of = |now| {
            let month = "2030-04".parse().unwrap();
            rest(&prices, so_far, month, now).to_string()
        };
        // 100 in ten days: the tier is full, and 200 more are estimated, 100 at 1 and 100 at 2.
        assert_eq!(of(datetime!(2030-04-11 0:00 UTC)), "300");
        assert_eq!(of(datetime!(2030-04-01 0:00 UTC)), "0", "nothing to go by");
        assert_eq!(of(datetime!(2030-05-01 0:00 UTC)), "0", "it is over");
    }
}
