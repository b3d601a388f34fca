//! A month of a tenant: what was used by meter, what it costs by item of the price plan, and an estimate of the whole month.
//! Read by the day, so it costs a bounded number of rows however much was used.

use std::collections::BTreeMap;

use api::bill::{AppliedVersion, BillLine, UsageMonth};
use api::price::{PriceItem, PriceUnit};
use api::usage::{Granularity, UsageItem};
use api::{Decimal, Month, Permission};
use time::OffsetDateTime;

use crate::store::usage_list::{UsageRow, Wanted};
use crate::store::{self, Session};

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::bill::plans;
use crate::engine::bill::schedule::{Part, Schedule, minor_places};
use crate::engine::bill::usage::{item, parts};
use crate::engine::error::Error;

/// A month has 31 days at most and each nine meters.
const ROWS_MAX: i64 = 31 * 9;

/// How an item stands in a month.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    /// How much the caller may see of it, in what is measured.
    used: u128,
    /// The running total of the tenant.
    at: u128,
    cost: Decimal,
}

impl Engine {
    /// A month, of the topics whose usage the caller may read; the current one when `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn usage_month(
        &self,
        by: &Access,
        month: Option<Month>,
    ) -> Result<UsageMonth, Error> {
        let mut session = self.store().session().await?;
        let status = store::usage::status(&mut session, self.clock().now()).await?;
        let prices = plans::of_tenant(&mut session, by.tenant().0).await?;
        let month = month.unwrap_or_else(|| Month::of(status.at));
        let whose = (by.tenant().0, &*by.like(&[Permission::Usage]));
        let rows = days(&mut session, whose, month).await?;
        let currency = prices.currency(month);
        let lines = match currency {
            Some(_) => lines(&prices, &totals(&prices, &rows)?, (month, status.at)),
            None => Vec::new(),
        };
        let sum = |of: fn(&BillLine) -> Decimal| currency.map(|_| lines.iter().map(of).sum());
        let billed = currency.map(|currency| {
            let places = minor_places(currency);
            let rounded = lines.iter().map(|line| line.cost.round(places));
            shown(rounded.sum(), places)
        });
        let versions = prices.of(month).map(|(from, version)| AppliedVersion {
            plan: version.plan.clone(),
            valid_from: version.valid_from,
            applies_from: from,
        });
        Ok(UsageMonth {
            period: month,
            start: month.start().into(),
            end: month.end().into(),
            plan_versions: versions.collect(),
            meters: meters(rows, &prices, month)?,
            cost: sum(|line| line.cost),
            estimate: sum(|line| line.estimate),
            billed,
            lines,
            currency: currency.map(str::to_owned),
            metered_until: status.metered_until.map(Into::into),
        })
    }
}

/// What a month of a tenant costs so far, over all of its usage, and the currency; `None` when no price plan applies in it.
pub(in crate::engine) async fn cost_of(
    session: &mut Session,
    tenant: i64,
    month: Month,
) -> Result<Option<(Decimal, String)>, Error> {
    let prices = plans::of_tenant(session, tenant).await?;
    let Some(currency) = prices.currency(month) else {
        return Ok(None);
    };
    let rows = days(session, (tenant, &["%".to_owned()]), month).await?;
    let totals = totals(&prices, &rows)?;
    let cost = totals.values().map(|total| total.cost).sum();
    Ok(Some((cost, currency.to_owned())))
}

/// The days of a month, by meter, of the topics whose names are like one of the patterns.
async fn days(
    session: &mut Session,
    (tenant, topics): (i64, &[String]),
    month: Month,
) -> Result<Vec<UsageRow>, Error> {
    let wanted = Wanted {
        tenant,
        topics,
        since: month.start(),
        from: month.start(),
        to: month.end(),
        granularity: Granularity::Day.as_str(),
        names: 0,
        after: (month.start(), "", "", ""),
        limit: ROWS_MAX,
    };
    Ok(store::usage_list::list(session, &wanted).await?)
}

/// Adds days up by meter.
fn meters(rows: Vec<UsageRow>, prices: &Schedule, month: Month) -> Result<Vec<UsageItem>, Error> {
    let mut meters: BTreeMap<&str, UsageItem> = BTreeMap::new();
    for row in rows {
        let day = item(row, prices)?;
        let Some(meter) = meters.get_mut(day.meter.as_str()) else {
            let start = month.start().into();
            meters.insert(day.meter.as_str(), UsageItem { start, ..day });
            continue;
        };
        meter.units += day.units;
        meter.guaranteed_units += day.guaranteed_units;
        meter.elastic_units += day.elastic_units;
        meter.messages += day.messages;
        meter.bytes += day.bytes;
        meter.cost = add(meter.cost, day.cost);
        meter.gib_hours = add_texts(&meter.gib_hours, &day.gib_hours);
        meter.capacity_hours = add_texts(&meter.capacity_hours, &day.capacity_hours);
        meter.currency = meter.currency.take().or(day.currency);
    }
    Ok(meters.into_values().collect())
}

fn add(a: Option<Decimal>, b: Option<Decimal>) -> Option<Decimal> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (one, None) | (None, one) => one,
    }
}

fn add_texts(a: &Option<String>, b: &Option<String>) -> Option<String> {
    let [a, b] = [a, b].map(|text| text.as_ref()?.parse().ok());
    add(a, b).map(|sum: Decimal| sum.to_string())
}

/// Adds days up by item, of those that had a price.
fn totals(prices: &Schedule, rows: &[UsageRow]) -> Result<BTreeMap<PriceItem, Total>, Error> {
    let mut totals: BTreeMap<PriceItem, Total> = BTreeMap::new();
    for row in rows {
        for part in parts(row)? {
            let version = prices.at(row.start);
            let total = totals.entry(part.item).or_default();
            total.used += part.to - part.from;
            total.at = total.at.max(part.to);
            let cost = version.map_or(Decimal::ZERO, |version| version.cost(part));
            total.cost = total.cost.plus(cost);
        }
    }
    Ok(totals)
}

fn lines(
    prices: &Schedule,
    totals: &BTreeMap<PriceItem, Total>,
    (month, now): (Month, OffsetDateTime),
) -> Vec<BillLine> {
    let places = minor_places(prices.currency(month).unwrap_or_default());
    let has_price = |item: PriceItem| {
        prices
            .of(month)
            .any(|(_, version)| version.of(item).is_some())
    };
    let priced = totals.iter().filter(|(item, _)| has_price(**item));
    let line = |(&item, total): (&PriceItem, &Total)| BillLine {
        item,
        unit: item.unit(),
        quantity: quantity(item.unit(), total.used),
        cost: total.cost,
        billed: shown(total.cost.round(places), places),
        estimate: total.cost.plus(rest(prices, (item, *total), (month, now))),
    };
    priced.map(line).collect()
}

/// What the rest of the month will cost: use goes on as it was on average, and is cut where versions and plans
/// begin.
fn rest(
    prices: &Schedule,
    (item, total): (PriceItem, Total),
    (month, now): (Month, OffsetDateTime),
) -> Decimal {
    let seconds = |from: OffsetDateTime, to: OffsetDateTime| {
        u128::try_from((to - from).whole_seconds()).unwrap_or(0)
    };
    let elapsed = seconds(month.start(), now);
    if now >= month.end() || elapsed == 0 {
        return Decimal::ZERO;
    }
    let mut cuts: Vec<_> = prices
        .starts()
        .filter(|at| *at > now && *at < month.end())
        .collect();
    cuts.push(month.end());
    let (mut from, mut at, mut cost) = (now, total.at, Decimal::ZERO);
    for cut in cuts {
        let to = total.at + total.used.saturating_mul(seconds(now, cut)) / elapsed;
        let part = Part { item, from: at, to };
        cost = cost.plus(prices.cost(from, &[part]).unwrap_or(Decimal::ZERO));
        (from, at) = (cut, to);
    }
    cost
}

/// What is measured, in the unit that has a price.
pub(in crate::engine) fn quantity(unit: PriceUnit, measured: u128) -> Decimal {
    Decimal::ratio(measured, unit.measured())
}

/// An amount with all places of its currency.
fn shown(amount: Decimal, places: u32) -> String {
    match places {
        0 => amount.to_string(),
        places => amount.with_places(places as usize),
    }
}

#[cfg(test)]
mod tests {
    use api::price::{Price, Tier, Whole};
    use time::macros::datetime;

    use super::*;
    use crate::engine::bill::schedule::{Ladder, Version};

    #[test]
    fn the_rest_of_a_month_goes_on_like_its_beginning() {
        let version = |day: &str, unit_price: &str| {
            let tier = Tier {
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
        let total = Total {
            used: 100,
            at: 100,
            cost: Decimal::ZERO,
        };
        let of = |now| {
            let month = "2030-04".parse().unwrap();
            rest(&prices, (PriceItem::PublishUnits, total), (month, now)).to_string()
        };
        // 100 in ten days: the tier is full, 100 more at 1 and 100 at 2.
        assert_eq!(of(datetime!(2030-04-11 0:00 UTC)), "300");
        assert_eq!(of(datetime!(2030-04-01 0:00 UTC)), "0", "nothing to go by");
        assert_eq!(of(datetime!(2030-05-01 0:00 UTC)), "0", "it is over");
    }
}
