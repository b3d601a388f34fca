//! The price of one item: tiers over the running total of a month. Pure; built from a plan by `plans`, applied by
//! `schedule`. The cost of a part of a month is the cost at its end minus the cost at its start, so the parts of a
//! month add up exactly to the whole. A cost is computed in integers and rounded once, half to even, to 10^-12.

use api::Decimal;
use api::price::{Price, PriceUnit};

/// Decimal places of a price. A cost has three more.
const PLACES: u32 = 9;
const COST_PLACES: u128 = 1_000;

/// The price of an item, prepared for computing costs. Quantities are in measured units: units, bytes, byte-seconds,
/// and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// The quantity that a price is quoted for.
    per: u128,
    /// End and price of each tier. The last tier ends at `u128::MAX`.
    tiers: Vec<(u128, Decimal)>,
}

/// The part of some usage that is in one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Number of the tier, from 0.
    pub tier: usize,
    /// Price of the tier.
    pub unit_price: Decimal,
    /// Running total of the month at the start of the part.
    pub from: u128,
    /// Running total of the month at its end.
    pub to: u128,
}

impl Ladder {
    /// The price of an item that is billed in `unit`.
    #[must_use]
    pub fn new(price: &Price, unit: PriceUnit) -> Self {
        let mut end = 0u128;
        let mut tiers = Vec::with_capacity(price.tiers.len() + 1);
        for tier in &price.tiers {
            end += u128::from(tier.size.0) * unit.measured();
            tiers.push((end, tier.unit_price));
        }
        tiers.push((u128::MAX, price.unit_price));
        let per = price.per.map_or(1, |per| per.0);
        Self {
            per: u128::from(per.max(1)) * unit.measured(),
            tiers,
        }
    }

    /// The quantity that a price is quoted for.
    #[must_use]
    pub const fn per(&self) -> u128 {
        self.per
    }

    /// Cost of the first `quantity` units of a month.
    #[must_use]
    pub fn cost_at(&self, quantity: u128) -> Decimal {
        // Multiples of `per` and remainders are summed separately, so that neither sum overflows and only the result is
        // rounded.
        let (mut whole, mut rest) = (0u128, 0u128);
        for step in self.steps(0, quantity) {
            let span = step.to - step.from;
            let price = step.unit_price.trillionths() / 10u128.pow(12 - PLACES);
            whole = whole.saturating_add((span / self.per).saturating_mul(price));
            rest = rest.saturating_add((span % self.per).saturating_mul(price));
        }
        let rest = api::decimal::half_even(rest.saturating_mul(COST_PLACES), self.per);
        Decimal::from_trillionths(whole.saturating_mul(COST_PLACES).saturating_add(rest))
    }

    /// Cost of the usage between two running totals of a month.
    #[must_use]
    pub fn cost(&self, from: u128, to: u128) -> Decimal {
        self.cost_at(to).minus(self.cost_at(from))
    }

    /// The usage between two running totals, divided at the ends of tiers.
    #[must_use]
    pub fn steps(&self, from: u128, to: u128) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = from;
        for (tier, &(end, unit_price)) in self.tiers.iter().enumerate() {
            let upto = end.min(to);
            if upto > at {
                steps.push(Step {
                    tier,
                    unit_price,
                    from: at,
                    to: upto,
                });
                at = upto;
            }
        }
        steps
    }
}

#[cfg(test)]
pub(super) mod tests {
    use api::price::{PriceTier, Whole};
    use proptest::prelude::*;

    use super::*;

    /// A price per `per` units: size and price of each tier, and the price above them.
    pub(in crate::engine::bill) fn price(
        per: u64,
        tiers: &[(u64, &str)],
        unit_price: &str,
    ) -> Price {
        let tier = |&(size, price): &(u64, &str)| PriceTier {
            size: Whole(size),
            unit_price: price.parse().unwrap(),
        };
        Price {
            per: Some(Whole(per)),
            tiers: tiers.iter().map(tier).collect(),
            unit_price: unit_price.parse().unwrap(),
        }
    }

    #[test]
    fn tiers_fill_up_one_after_the_other() {
        let tiers = [(1_000, "0"), (2_000, "0.50")];
        let ladder = Ladder::new(&price(1_000, &tiers, "0.25"), PriceUnit::Units);
        for (quantity, cost) in [
            (0, "0"),
            (1_000, "0"),
            (1_001, "0.0005"),
            (3_000, "1"),
            (7_000, "2"),
        ] {
            assert_eq!(ladder.cost_at(quantity).to_string(), cost, "{quantity}");
        }
        let steps = ladder.steps(999, 3_001);
        let spans: Vec<_> = steps.iter().map(|s| (s.tier, s.from, s.to)).collect();
        assert_eq!(
            spans,
            [(0, 999, 1_000), (1, 1_000, 3_000), (2, 3_000, 3_001)]
        );
    }

    #[test]
    fn storage_is_priced_by_the_gib_hour() {
        let ladder = Ladder::new(&price(1, &[], "0.09"), PriceUnit::GibHours);
        // A third of a GiB-hour; a byte for a second.
        assert_eq!(ladder.cost_at((1 << 30) * 1_200).to_string(), "0.03");
        assert_eq!(ladder.cost_at(1).to_string(), "0");
        assert_eq!(ladder.cost_at(43).to_string(), "0.000000000001");
    }

    #[test]
    fn the_largest_month_at_the_highest_price_is_still_exact() {
        let price = price(
            1,
            &[(999_999_999_999_999, "999999.999999999")],
            "999999.999999999",
        );
        // The largest count of units, and a billion GiB-hours.
        for (unit, many) in [
            (PriceUnit::Units, 1u128 << 62),
            (PriceUnit::GibHours, 1 << 30),
        ] {
            let ladder = Ladder::new(&price, unit);
            let cost = ladder.cost_at(many * unit.measured()).trillionths();
            assert_eq!(cost, many * 999_999_999_999_999 * 1_000, "{unit:?}");
        }
    }

    prop_compose! {
        fn ladders()(
            tiers in prop::collection::vec((1u64..50_000, 0u128..10_000_000_000), 0..5),
            beyond in 0u128..10_000_000_000,
            zeros in 0u32..7,
            unit in prop::sample::select(vec![PriceUnit::Units, PriceUnit::Gib, PriceUnit::GibHours]),
        ) -> (Ladder, u128) {
            let amount = |nanos: u128| Decimal::from_trillionths(nanos * 1_000);
            let tier = |(size, nanos)| PriceTier { size: Whole(size), unit_price: amount(nanos) };
            let price = Price {
                per: Some(Whole(10u64.pow(zeros))),
                tiers: tiers.into_iter().map(tier).collect(),
                unit_price: amount(beyond),
            };
            (Ladder::new(&price, unit), unit.measured())
        }
    }

    proptest! {
        #[test]
        fn a_whole_costs_what_its_parts_cost_in_their_order(
            (ladder, measured) in ladders(),
            cuts in prop::collection::vec(0u128..1_000_000_007, 1..20),
        ) {
            let mut at = 0;
            let mut sum = Decimal::ZERO;
            let mut sum_of_steps = Decimal::ZERO;
            for cut in cuts {
                let to = at + cut * measured / 9_973;
                let cost = ladder.cost(at, to);
                prop_assert!(ladder.cost_at(to) >= ladder.cost_at(at));
                sum = sum.plus(cost);
                let steps = ladder.steps(at, to);
                prop_assert_eq!(steps.iter().map(|step| step.to - step.from).sum::<u128>(), to - at);
                let costs = steps.iter().map(|step| ladder.cost(step.from, step.to));
                sum_of_steps = sum_of_steps.plus(costs.sum());
                at = to;
            }
            prop_assert_eq!(sum, ladder.cost_at(at));
            prop_assert_eq!(sum_of_steps, sum);
        }

        #[test]
        fn a_cost_is_the_exact_one_rounded_once((ladder, measured) in ladders(), whole in 0u128..1_000_000) {
            // Multiples of `per` need no rounding.
            let quantity = whole * ladder.per() / measured * measured;
            let exact: u128 = ladder.steps(0, quantity).iter()
                .map(|step| (step.to - step.from) / measured * step.unit_price.trillionths()).sum();
            let per = ladder.per() / measured;
            prop_assert_eq!(ladder.cost_at(quantity).trillionths(), api::decimal::half_even(exact, per));
        }
    }
}
