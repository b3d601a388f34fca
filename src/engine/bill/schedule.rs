//! The prices that apply to a tenant over time: versions of its plans, one after the other. Pure; `plans` reads it from
//! the database. Running totals belong to the month. When another version or plan begins within a month, its tiers
//! include the usage before it.

use api::price::PriceItem;
use api::{Day, Decimal, Month, PlanName};
use time::OffsetDateTime;

use crate::engine::bill::ladder::Ladder;
use crate::engine::bill::portion::Portion;

/// A version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The plan.
    pub plan: PlanName,
    /// Currency of its prices (ISO 4217).
    pub currency: String,
    /// First day on which it applies to the tenants of the plan.
    pub valid_from: Day,
    /// The priced items.
    pub ladders: Vec<(PriceItem, Ladder)>,
}

impl Version {
    /// Price of an item.
    #[must_use]
    pub fn of(&self, item: PriceItem) -> Option<&Ladder> {
        let mut ladders = self.ladders.iter();
        ladders.find_map(|(of, ladder)| (*of == item).then_some(ladder))
    }

    /// Cost of a portion; zero if its item has no price.
    #[must_use]
    pub fn cost(&self, portion: Portion) -> Decimal {
        self.of(portion.item).map_or(Decimal::ZERO, |ladder| {
            ladder.cost(portion.from, portion.to)
        })
    }
}

/// A span of days to which one version applies, or none. It ends where the next span begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    from: Day,
    version: Option<Version>,
}

/// The versions that apply to a tenant, by day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule(Vec<Span>);

impl Schedule {
    /// Builds a schedule of the plans of a tenant, each with its first day, and all versions of these plans, both in
    /// order of time.
    #[must_use]
    pub fn new(plans: &[(Day, Option<&str>)], versions: &[Version]) -> Self {
        let mut spans = Vec::new();
        let ends = plans.iter().skip(1).map(|(from, _)| Some(*from));
        for (&(from, plan), end) in plans.iter().zip(ends.chain([None])) {
            let of_plan = versions.iter().filter(|v| Some(v.plan.as_str()) == plan);
            let begun = of_plan.clone().rfind(|v| v.valid_from <= from);
            spans.push(Span {
                from,
                version: begun.cloned(),
            });
            let within =
                |v: &&Version| v.valid_from > from && end.is_none_or(|end| v.valid_from < end);
            spans.extend(of_plan.filter(within).map(|v| Span {
                from: v.valid_from,
                version: Some(v.clone()),
            }));
        }
        Self(spans)
    }

    /// Whether the tenant never had a plan.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Time from which running totals are needed to price usage from `first` on: the start of the month if anything has
    /// a price, else `first`.
    #[must_use]
    pub fn totals_since(&self, first: OffsetDateTime) -> OffsetDateTime {
        if self.is_empty() {
            first
        } else {
            Month::of(first).start()
        }
    }

    /// The version that applies at a time.
    #[must_use]
    pub fn at(&self, time: OffsetDateTime) -> Option<&Version> {
        let begun = |span: &&Span| span.from.start() <= time;
        self.0.iter().rev().find(begun)?.version.as_ref()
    }

    /// The versions that apply in a month, each with the day from which it applies.
    pub fn of(&self, month: Month) -> impl Iterator<Item = (Day, &Version)> {
        let ends = self.0.iter().skip(1).map(|span| Some(span.from.start()));
        let spans = self.0.iter().zip(ends.chain([None]));
        spans.filter_map(move |(span, end)| {
            let is_of_month =
                span.from.start() < month.end() && end.is_none_or(|end| end > month.start());
            Some((span.from, span.version.as_ref().filter(|_| is_of_month)?))
        })
    }

    /// Currency of a month. There is at most one, because a plan in another currency must begin with a month.
    #[must_use]
    pub fn currency(&self, month: Month) -> Option<&str> {
        self.of(month).next().map(|(_, version)| &*version.currency)
    }

    /// Times at which the applying version changes.
    pub fn starts(&self) -> impl Iterator<Item = OffsetDateTime> {
        self.0.iter().map(|span| span.from.start())
    }

    /// Cost of the portions of a row of usage at `time`; `None`: no version applies then.
    #[must_use]
    pub fn cost(&self, time: OffsetDateTime, portions: &[Portion]) -> Option<Decimal> {
        let version = self.at(time)?;
        Some(portions.iter().map(|portion| version.cost(*portion)).sum())
    }
}

#[cfg(test)]
mod tests {
    use api::price::PriceUnit;
    use time::macros::datetime;

    use super::*;
    use crate::engine::bill::ladder::tests::price;

    fn version((plan, day): (&str, &str), price: &api::price::Price) -> Version {
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

    /// The cost of a part of the published units.
    fn cost(schedule: &Schedule, at: OffsetDateTime, (from, to): (u128, u128)) -> Option<String> {
        let item = PriceItem::PublishUnits;
        let cost = schedule.cost(at, &[Portion { item, from, to }]);
        cost.map(|cost| cost.to_string())
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
        // 15 of the first 20 are used before: 5 at 3, then 5 at 5.
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
            // The tier has 50 units, and the usage before has filled half of it.
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
}
