//! A month of a tenant: usage by meter, cost by item of the price plan, and an estimate of the whole month. Called by
//! `GET /v1/usage/month` and, for the cost alone, by budgets. Usage is read by the day, so the number of rows is
//! bounded (I9) and no meter is cut off (I8).

use std::collections::BTreeMap;

use api::bill::{AppliedVersion, BillLine, UsageMonth};
use api::price::PriceItem;
use api::usage::{Granularity, Meter, UsageItem};
use api::{Decimal, Month, Permission};
use time::OffsetDateTime;

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::bill::currency::{minor_places, shown};
use crate::engine::bill::estimate::{self, UsageSoFar};
use crate::engine::bill::portion::{self, quantity};
use crate::engine::bill::schedule::Schedule;
use crate::engine::bill::{plans, usage};
use crate::engine::error::Error;
use crate::engine::meter::blocks::is_final;
use crate::store::usage_read::{UsageRow, UsageSelection};
use crate::store::{self, Session, TenantId};

/// Most rows of a month: one per day and meter.
#[expect(clippy::cast_possible_wrap, reason = "a few hundred")]
const ROWS_MAX: i64 = 31 * Meter::ALL.len() as i64;

/// Usage of an item in the month so far.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    /// The quantity that the caller may see, in measured units.
    used: u128,
    /// Running total of the tenant.
    total: u128,
    /// Cost of `used`.
    cost: Decimal,
}

impl Engine {
    /// Usage and cost of a month (`None`: the current one), restricted to the topics whose usage the caller may read.
    ///
    /// # Errors
    /// When the database call fails.
    pub async fn usage_month(
        &self,
        by: &Access,
        month: Option<Month>,
    ) -> Result<UsageMonth, Error> {
        let mut session = self.store().session().await?;
        let status = store::usage::status(&mut session, self.clock().now()).await?;
        let prices = plans::of_tenant(&mut session, by.tenant().0).await?;
        let month = month.unwrap_or_else(|| Month::of(status.at));
        let topics = by.like(&[Permission::Usage]);
        let rows = days(&mut session, by.tenant().0, &topics, month).await?;
        let currency = prices.currency(month);
        let lines = match currency {
            Some(_) => lines(&prices, &totals(&prices, &rows)?, month, status.at),
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
        let tenant = store::tenant::name(&mut session, by.tenant().0).await?;
        let invoice_id = invoice_id(&tenant, month, status.metered_until);
        Ok(UsageMonth {
            period: month,
            invoice_id: invoice_id.filter(|_| currency.is_some()),
            start: month.start().into(),
            end: month.end().into(),
            plan_versions: versions.collect(),
            meters: meters(&rows, &prices, month)?,
            cost: sum(|line| line.cost),
            estimate: sum(|line| line.estimate),
            billed,
            lines,
            currency: currency.map(str::to_owned),
            metered_until: status.metered_until.map(Into::into),
        })
    }
}

/// Id of the invoice of a tenant and month; `None` while its usage may still change.
pub(super) fn invoice_id(
    tenant: &str,
    month: Month,
    metered_until: Option<OffsetDateTime>,
) -> Option<String> {
    let is_closed = metered_until.is_some_and(|until| is_final(month.end(), true, until));
    is_closed.then(|| format!("{tenant}/{month}"))
}

/// Cost of all usage of a tenant in a month so far, and its currency; `None`: no price plan applies in the month.
pub(in crate::engine) async fn cost_of(
    session: &mut Session,
    tenant: TenantId,
    month: Month,
) -> Result<Option<(Decimal, String)>, Error> {
    let prices = plans::of_tenant(session, tenant).await?;
    let Some(currency) = prices.currency(month) else {
        return Ok(None);
    };
    let rows = days(session, tenant, &["%".to_owned()], month).await?;
    let totals = totals(&prices, &rows)?;
    let cost = totals.values().map(|total| total.cost).sum();
    Ok(Some((cost, currency.to_owned())))
}

/// Usage by day and meter in a month, restricted to topics whose names match one of the patterns.
async fn days(
    session: &mut Session,
    tenant: TenantId,
    topics: &[String],
    month: Month,
) -> Result<Vec<UsageRow>, Error> {
    let selection = UsageSelection {
        tenant,
        topics,
        since: month.start(),
        from: month.start(),
        to: month.end(),
        granularity: Granularity::Day.as_str(),
        names: 0,
        over_time_only: false,
        after: (month.start(), "", "", ""),
        limit: ROWS_MAX,
    };
    Ok(store::usage_read::list(session, &selection).await?)
}

/// Sums of the days, by meter.
fn meters(rows: &[UsageRow], prices: &Schedule, month: Month) -> Result<Vec<UsageItem>, Error> {
    let mut meters: BTreeMap<&str, UsageItem> = BTreeMap::new();
    for row in rows {
        let day = usage::item(row, prices)?;
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

/// Sums of the days, by item.
fn totals(prices: &Schedule, rows: &[UsageRow]) -> Result<BTreeMap<PriceItem, Total>, Error> {
    let mut totals: BTreeMap<PriceItem, Total> = BTreeMap::new();
    for row in rows {
        let version = prices.at(row.start);
        for portion in portion::of_row(row)? {
            let total = totals.entry(portion.item).or_default();
            total.used += portion.to - portion.from;
            total.total = total.total.max(portion.to);
            let cost = version.map_or(Decimal::ZERO, |version| version.cost(portion));
            total.cost = total.cost.plus(cost);
        }
    }
    Ok(totals)
}

/// The lines of a bill: one per item that has a price in the month.
fn lines(
    prices: &Schedule,
    totals: &BTreeMap<PriceItem, Total>,
    month: Month,
    now: OffsetDateTime,
) -> Vec<BillLine> {
    let places = minor_places(prices.currency(month).unwrap_or_default());
    let has_price = |item: PriceItem| {
        prices
            .of(month)
            .any(|(_, version)| version.of(item).is_some())
    };
    let line = |(&item, &Total { used, total, cost }): (&PriceItem, &Total)| BillLine {
        item,
        unit: item.unit(),
        quantity: quantity(item.unit(), used),
        cost,
        billed: shown(cost.round(places), places),
        estimate: cost.plus(estimate::rest(
            prices,
            UsageSoFar { item, used, total },
            month,
            now,
        )),
    };
    let priced = totals.iter().filter(|(item, _)| has_price(**item));
    priced.map(line).collect()
}
