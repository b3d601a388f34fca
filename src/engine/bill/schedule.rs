//! What usage costs, without a database: tiers over the running total of a month. The cost of a part of a month is the cost
//! at its end less the cost at its beginning, so parts add up to the whole to the last place, whatever their size. A cost
//! is computed exactly, in whole numbers, and rounded once, half to even, to 10^-12; bills round it further, to a coin.

use api::price::{Price, PriceItem, PriceUnit};
use api::usage::Meter;
use api::{Day, Decimal, Month, PlanName};
use time::OffsetDateTime;

/// A price of 1 in 10^-9, as prices are kept; a cost has three places more.
const PLACES: u32 = 9;
const COST_PLACES: u128 = 1_000;

/// The price of an item, ready to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// How many of what is measured a price is for.
    per: u128,
    /// Where tiers end, in what is measured, and their prices; the last has no end.
    tiers: Vec<(u128, Decimal)>,
}

/// A part of a month's use that lies in one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which tier, from 0.
    pub tier: usize,
    /// Its price.
    pub unit_price: Decimal,
    /// The running total of the month where the part begins.
    pub from: u128,
    /// And where it ends.
    pub to: u128,
}

impl Ladder {
    /// A price, of an item that is counted in `unit`.
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

    /// How many of what is measured a price is for.
    #[must_use]
    pub const fn per(&self) -> u128 {
        self.per
    }

    /// What the first `quantity` of a month costs.
    #[must_use]
    pub fn cost_at(&self, quantity: u128) -> Decimal {
        // The whole multiples of `per` and what is left of them are added up apart: neither grows too large, and nothing is
        // rounded before the end.
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

    /// What a part of a month costs.
    #[must_use]
    pub fn cost(&self, from: u128, to: u128) -> Decimal {
        self.cost_at(to).minus(self.cost_at(from))
    }

    /// A part of a month, cut where tiers end.
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

/// A version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Of which plan.
    pub plan: PlanName,
    /// ISO 4217.
    pub currency: String,
    /// The day from which it applies to whoever has the plan.
    pub valid_from: Day,
    /// What has a price.
    pub ladders: Vec<(PriceItem, Ladder)>,
}

/// Days to which one version applies, or none: from one on, until the next span begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    from: Day,
    version: Option<Version>,
}

/// What prices apply to a tenant on which day: the versions of the plans that it has, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule(Vec<Span>);

impl Schedule {
    /// From the plans of a tenant, each with the day from which it has it, in order, and all versions of them.
    #[must_use]
    pub fn new(plans: &[(Day, Option<&str>)], versions: &[Version]) -> Self {
        let mut spans = Vec::new();
        let ends = plans.iter().skip(1).map(|(from, _)| Some(*from));
        for (&(from, plan), end) in plans.iter().zip(ends.chain([None])) {
            let of_plan = versions.iter().filter(|v| Some(v.plan.as_str()) == plan);
            let begun = of_plan.clone().rfind(|v| v.valid_from <= from);
            let version = begun.cloned();
            spans.push(Span { from, version });
            let within =
                |v: &&Version| v.valid_from > from && end.is_none_or(|end| v.valid_from < end);
            spans.extend(of_plan.filter(within).map(|v| Span {
                from: v.valid_from,
                version: Some(v.clone()),
            }));
        }
        Self(spans)
    }

    /// Whether nothing ever has a price.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From when on usage is added up to price what comes from `first` on: running totals begin with the month.
    #[must_use]
    pub fn totals_since(&self, first: OffsetDateTime) -> OffsetDateTime {
        if self.is_empty() {
            first
        } else {
            Month::of(first).start()
        }
    }

    /// The version that applies at a time. The running totals of a month go on when another version or plan begins within
    /// it: its tiers are those of the whole month, and what was used before has filled the first of them.
    #[must_use]
    pub fn at(&self, time: OffsetDateTime) -> Option<&Version> {
        let begun = |span: &&Span| span.from.start() <= time;
        self.0.iter().rev().find(begun)?.version.as_ref()
    }

    /// The versions that apply in a month, with the days from which they do.
    pub fn of(&self, month: Month) -> impl Iterator<Item = (Day, &Version)> {
        let ends = self.0.iter().skip(1).map(|span| Some(span.from.start()));
        let spans = self.0.iter().zip(ends.chain([None]));
        spans.filter_map(move |(span, end)| {
            let is_of_month =
                span.from.start() < month.end() && end.is_none_or(|end| end > month.start());
            Some((span.from, span.version.as_ref().filter(|_| is_of_month)?))
        })
    }

    /// The currency of a month: it has one, because another one begins with a month only.
    #[must_use]
    pub fn currency(&self, month: Month) -> Option<&str> {
        self.of(month).next().map(|(_, version)| &*version.currency)
    }

    /// When another version begins, or none.
    pub fn starts(&self) -> impl Iterator<Item = OffsetDateTime> {
        self.0.iter().map(|span| span.from.start())
    }

    /// What a part of the use at a time costs; `None` when no version applies then.
    #[must_use]
    pub fn cost(&self, time: OffsetDateTime, parts: &[Part]) -> Option<Decimal> {
        let version = self.at(time)?;
        Some(parts.iter().map(|part| version.cost(*part)).sum())
    }
}

impl Version {
    /// The price of an item.
    #[must_use]
    pub fn of(&self, item: PriceItem) -> Option<&Ladder> {
        let found = self.ladders.iter().find(|(of, _)| *of == item);
        found.map(|(_, ladder)| ladder)
    }

    /// What a part costs; nothing without a price.
    #[must_use]
    pub fn cost(&self, part: Part) -> Decimal {
        let ladder = self.of(part.item);
        ladder.map_or(Decimal::ZERO, |ladder| ladder.cost(part.from, part.to))
    }
}

/// What a meter measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Metering units.
    pub units: u128,
    /// Of these, units above the guarantee.
    pub elastic_units: u128,
    /// Bytes.
    pub bytes: u128,
    /// Bytes stored, or messages a second guaranteed, over seconds.
    pub over_time: u128,
}

/// A part of a month's use of an item, between two running totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of what.
    pub item: PriceItem,
    /// The running total before it.
    pub from: u128,
    /// And after it.
    pub to: u128,
}

/// What of a meter's measure has a price: `used`, after what was measured `before` in the month.
#[must_use]
pub fn parts(meter: Meter, used: Measured, before: Measured) -> Vec<Part> {
    let part = |item, of: fn(&Measured) -> u128| Part {
        item,
        from: of(&before),
        to: of(&before) + of(&used),
    };
    let elastic = part(PriceItem::ElasticUnits, |m| m.elastic_units);
    let parts = match meter {
        Meter::Publish => vec![
            part(PriceItem::PublishUnits, |m| m.units),
            elastic,
            part(PriceItem::TrafficIn, |m| m.bytes),
        ],
        Meter::DeliverPull | Meter::DeliverPush | Meter::DeliverStream => vec![
            part(PriceItem::DeliverUnits, |m| m.units),
            elastic,
            part(PriceItem::TrafficOut, |m| m.bytes),
        ],
        Meter::ColdRead => vec![part(PriceItem::ColdRead, |m| m.bytes)],
        Meter::GuaranteedCapacity => vec![part(PriceItem::GuaranteedCapacity, |m| m.over_time)],
        Meter::StoredHot => vec![part(PriceItem::StoredHot, |m| m.over_time)],
        Meter::StoredObject => vec![part(PriceItem::StoredObject, |m| m.over_time)],
        Meter::DeadLetter => Vec::new(),
    };
    parts
        .into_iter()
        .filter(|part| part.to > part.from)
        .collect()
}

/// How many places the smallest coin of a currency has (ISO 4217).
#[must_use]
pub fn minor_places(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX"
        | "UYI" | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use api::price::{Tier, Whole};
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn price(per: u64, tiers: &[(u64, &str)], unit_price: &str) -> Price {
        let tier = |&(size, price): &(u64, &str)| Tier {
            size: Whole(size),
            unit_price: price.parse().unwrap(),
        };
        Price {
            per: Some(Whole(per)),
            tiers: tiers.iter().map(tier).collect(),
            unit_price: unit_price.parse().unwrap(),
        }
    }

    fn version((plan, day): (&str, &str), price: &Price) -> Version {
        let ladder = Ladder::new(price, PriceUnit::Units);
        Version {
            plan: plan.parse().unwrap(),
            currency: "EUR".to_owned(),
            valid_from: day.parse().unwrap(),
            ladders: vec![(PriceItem::PublishUnits, ladder)],
        }
    }

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    /// What a part of the published units costs.
    fn cost(schedule: &Schedule, at: OffsetDateTime, (from, to): (u128, u128)) -> Option<String> {
        let item = PriceItem::PublishUnits;
        let cost = schedule.cost(at, &[Part { item, from, to }]);
        cost.map(|cost| cost.to_string())
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
    fn a_version_that_begins_within_a_month_goes_on_with_its_totals() {
        let old = version(("p", "2030-01-01"), &price(1, &[(10, "1")], "2"));
        let new = version(("p", "2030-01-16"), &price(1, &[(20, "3")], "5"));
        let schedule = Schedule::new(&[(day("2000-01-01"), Some("p"))], &[old, new]);
        let cost = |at, from, to| cost(&schedule, at, (from, to));
        let (before, first, second) = (
            datetime!(2029-12-31 23:59 UTC),
            datetime!(2030-01-15 23:59 UTC),
            datetime!(2030-01-16 0:00 UTC),
        );
        assert_eq!(cost(before, 0, 10), None);
        assert_eq!(cost(first, 0, 15).as_deref(), Some("20"), "10 at 1, 5 at 2");
        // 15 of the first 20 are used: 5 at 3, then 5 at 5.
        assert_eq!(cost(second, 15, 25).as_deref(), Some("40"));
        let of = |month: &str| schedule.of(month.parse().unwrap()).count();
        assert_eq!((of("2029-12"), of("2030-01"), of("2030-02")), (0, 2, 1));
    }

    #[test]
    fn plans_follow_one_another_and_leave_days_without_a_price() {
        let versions = [
            version(("a", "2030-01-01"), &price(1, &[], "1")),
            version(("a", "2030-02-10"), &price(1, &[], "2")),
            version(("b", "2030-02-20"), &price(1, &[(100, "3")], "4")),
        ];
        let plans = [
            (day("2030-01-05"), Some("a")),
            (day("2030-02-15"), Some("b")),
            (day("2030-03-10"), None),
            (day("2030-04-01"), Some("a")),
        ];
        let schedule = Schedule::new(&plans, &versions);
        let cost = |at: &str| cost(&schedule, day(at).start(), (50, 150));
        for (at, expected) in [
            ("2030-01-04", None),
            ("2030-01-05", Some("100")),
            ("2030-02-14", Some("200")),
            ("2030-02-19", None),
            // 50 in the tier, which those before have half filled.
            ("2030-02-20", Some("350")),
            ("2030-03-10", None),
            ("2030-04-01", Some("200")),
        ] {
            assert_eq!(cost(at).as_deref(), expected, "{at}");
        }
        let of = |month: &str| {
            let applied = schedule.of(month.parse().unwrap());
            let text = |(from, v): (Day, &Version)| format!("{from} {} {}", v.plan, v.valid_from);
            applied.map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            of("2030-02"),
            [
                "2030-01-05 a 2030-01-01",
                "2030-02-10 a 2030-02-10",
                "2030-02-20 b 2030-02-20"
            ]
        );
        assert_eq!(of("2030-03"), ["2030-02-20 b 2030-02-20"]);
        assert_eq!(of("2029-12"), [""; 0]);
    }

    #[test]
    fn the_largest_month_at_the_highest_price_is_still_exact() {
        let price = price(
            1,
            &[(999_999_999_999_999, "999999.999999999")],
            "999999.999999999",
        );
        // As many units as are counted, and a billion GiB-hours.
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
            let tier = |(size, nanos)| Tier { size: Whole(size), unit_price: amount(nanos) };
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
            // Of whole multiples of what prices are for nothing has to be rounded.
            let quantity = whole * ladder.per() / measured * measured;
            let exact: u128 = ladder.steps(0, quantity).iter()
                .map(|step| (step.to - step.from) / measured * step.unit_price.trillionths()).sum();
            let per = ladder.per() / measured;
            prop_assert_eq!(ladder.cost_at(quantity).trillionths(), api::decimal::half_even(exact, per));
        }
    }
}
