//! A month as FOCUS 1.2 (FinOps Open Cost and Usage Specification): a row a day, meter, topic, subscription and tier. By the
//! day, because that is the finest period which tools for costs load by default and the coarsest that shows trends; by tier,
//! because a row has one unit price. Amounts are exact to twelve places and add up to the cost of the month; whoever bills
//! rounds the month's lines, not these rows. Read page by page, so that a node never holds more of it.

use std::sync::Arc;

use api::price::PriceItem;
use api::usage::Granularity;
use api::{Decimal, Month, Permission};
use time::OffsetDateTime;

use crate::store;
use crate::store::usage_list::{UsageRow, Wanted};

use crate::engine::Engine;
use crate::engine::access::Access;
use crate::engine::bill::month::quantity;
use crate::engine::bill::plans;
use crate::engine::bill::schedule::{Ladder, Part, Schedule, Step, Version};
use crate::engine::bill::usage::{UsageAfter, item, parts};
use crate::engine::error::Error;

/// Rows of usage read at once.
const PAGE_ROWS: u16 = 5_000;

/// The columns, in alphabetical order; own ones begin with `x_`.
pub const COLUMNS: [&str; 44] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_ElasticUnits",
    "x_GuaranteedUnits",
    "x_Meter",
    "x_Tier",
];

/// An export that is under way.
#[derive(Debug, Clone)]
pub struct Export {
    by: Arc<Access>,
    month: Month,
    prices: Schedule,
    account: String,
    tenant: String,
    after: Option<UsageAfter>,
    is_done: bool,
}

impl Export {
    /// Its month.
    #[must_use]
    pub const fn month(&self) -> Month {
        self.month
    }
}

impl Engine {
    /// Begins to export a month, of the topics whose usage the caller may read; the current one when `None`. The answer has
    /// the first page.
    ///
    /// # Errors
    /// When the tenant never had a price plan, or the database does not answer.
    pub async fn export_usage(
        &self,
        by: Arc<Access>,
        month: Option<Month>,
    ) -> Result<(String, Export), Error> {
        let mut session = self.store().session().await?;
        let status = store::usage::status(&mut session, self.clock().now()).await?;
        let prices = plans::of_tenant(&mut session, by.tenant().0).await?;
        if prices.is_empty() {
            let detail =
                "the tenant never had a price plan, so there is nothing that it is charged for";
            return Err(Error::Conflict(detail.to_owned()));
        }
        let tenant = store::tenant::name(&mut session, by.tenant().0).await?;
        drop(session);
        let mut export = Export {
            by,
            month: month.unwrap_or_else(|| Month::of(status.at)),
            prices,
            account: self.installation().installation_id.to_string(),
            tenant,
            after: None,
            is_done: false,
        };
        let mut text = COLUMNS.join(",") + "\r\n";
        text.push_str(&self.export_page(&mut export).await?.unwrap_or_default());
        Ok((text, export))
    }

    /// The next page of an export; `None` after the last.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn export_page(&self, export: &mut Export) -> Result<Option<String>, Error> {
        if export.is_done {
            return Ok(None);
        }
        let month = export.month;
        let after = export.after.as_ref().map(UsageAfter::place);
        let wanted = Wanted {
            tenant: export.by.tenant().0,
            topics: &export.by.like(&[Permission::Usage]),
            since: month.start(),
            from: month.start(),
            to: month.end(),
            granularity: Granularity::Day.as_str(),
            names: 2,
            after: after.unwrap_or((month.start(), "", "", "")),
            limit: i64::from(PAGE_ROWS),
        };
        let mut session = self.store().session().await?;
        let rows = store::usage_list::list(&mut session, &wanted).await?;
        drop(session);
        export.is_done = rows.len() < usize::from(PAGE_ROWS);
        let mut text = String::new();
        for row in rows {
            charges(&mut text, export, &row)?;
            export.after = Some(UsageAfter::of(&item(row, &export.prices)?));
        }
        Ok(Some(text))
    }
}

/// What all charges of a row of usage have in common, and one of them.
struct Charge<'a> {
    export: &'a Export,
    row: &'a UsageRow,
    version: &'a Version,
    ladder: &'a Ladder,
    item: PriceItem,
    step: Step,
    /// Guaranteed and elastic units; they stand in one charge of the row only, so that they can be added up.
    units: Option<(i64, i64)>,
}

fn charges(text: &mut String, export: &Export, row: &UsageRow) -> Result<(), Error> {
    let Some(version) = export.prices.at(row.start) else {
        return Ok(());
    };
    for Part { item, from, to } in parts(row)? {
        let Some(ladder) = version.of(item) else {
            continue;
        };
        let is_of_units = matches!(item, PriceItem::PublishUnits | PriceItem::DeliverUnits);
        for (index, step) in ladder.steps(from, to).into_iter().enumerate() {
            let units = (row.units - row.elastic_units, row.elastic_units);
            let charge = Charge {
                export,
                row,
                version,
                ladder,
                item,
                step,
                units: (is_of_units && index == 0).then_some(units),
            };
            let fields = charge.fields().map(|field| quoted(&field));
            text.push_str(&fields.join(","));
            text.push_str("\r\n");
        }
    }
    Ok(())
}

impl Charge<'_> {
    /// A field a column, in their order; empty is null.
    fn fields(&self) -> [String; COLUMNS.len()] {
        let Self {
            export, row, step, ..
        } = self;
        let own = str::to_owned;
        let unit = self.item.unit();
        let cost = self.ladder.cost(step.from, step.to).to_string();
        let price = step.unit_price.to_string();
        let used = step.to - step.from;
        let per = self.ladder.per() / unit.measured();
        let pricing_unit = match per {
            1 => own(unit.as_str()),
            per => format!("{per} {}", unit.as_str()),
        };
        let currency = self.version.currency.clone();
        let (resource_id, resource_name, resource_type) = self.resource();
        let sku = self.item.as_str();
        let (plan, day, tier) = (&self.version.plan, self.version.valid_from, step.tier);
        let units =
            |of: fn((i64, i64)) -> i64| self.units.map_or("0".to_owned(), |u| of(u).to_string());
        [
            cost.clone(),
            export.account.clone(),
            own("Cursus"),
            currency.clone(),
            at(export.month.end()),
            at(export.month.start()),
            own("Usage"),
            String::new(),
            own(description(self.item)),
            own("Usage-Based"),
            at(row.start + time::Duration::DAY),
            at(row.start),
            quantity(unit, used).to_string(),
            own(unit.as_str()),
            cost.clone(),
            price.clone(),
            cost.clone(),
            own("Cursus"),
            cost,
            price,
            own("Standard"),
            currency,
            Decimal::ratio(used, self.ladder.per()).to_string(),
            pricing_unit,
            own("Cursus"),
            own("Cursus"),
            resource_id,
            resource_name,
            own(resource_type),
            own("Integration"),
            own("Cursus"),
            own("Messaging"),
            own(sku),
            own(description(self.item)),
            format!("{{\"x_Tier\":{tier}}}"),
            format!("{plan}/{day}/{sku}/{tier}"),
            export.tenant.clone(),
            export.tenant.clone(),
            own("Tenant"),
            self.tags(),
            units(|u| u.1),
            units(|u| u.0),
            row.meter.clone(),
            tier.to_string(),
        ]
    }

    /// Id, name and type of what was used; empty of capacity, which is all of the tenant's, and when a node had too many
    /// names to keep.
    fn resource(&self) -> (String, String, &'static str) {
        let Self { export, row, .. } = self;
        let (folder, name, kind) = match (&*row.topic, &*row.subscription) {
            ("", "") => return (String::new(), String::new(), ""),
            (topic, "") => ("topics", topic, "Topic"),
            (_, subscription) => ("subscriptions", subscription, "Subscription"),
        };
        let id = format!("{}/{folder}/{name}", export.tenant);
        (id, name.to_owned(), kind)
    }

    /// Names have no character that JSON escapes.
    fn tags(&self) -> String {
        let pairs = [
            ("topic", &self.row.topic),
            ("subscription", &self.row.subscription),
        ];
        let pairs = pairs.iter().filter(|(_, name)| !name.is_empty());
        let pairs: Vec<String> = pairs
            .map(|(key, name)| format!("\"{key}\":\"{name}\""))
            .collect();
        format!("{{{}}}", pairs.join(","))
    }
}

const fn description(item: PriceItem) -> &'static str {
    match item {
        PriceItem::ColdRead => "Bytes read from object storage",
        PriceItem::DeliverUnits => "Units of delivered messages",
        PriceItem::ElasticUnits => "Surcharge on units above the guarantee",
        PriceItem::GuaranteedCapacity => "Guaranteed rate of published messages",
        PriceItem::PublishUnits => "Units of published messages",
        PriceItem::StoredHot => "Bytes stored in the database",
        PriceItem::StoredObject => "Bytes stored in object storage",
        PriceItem::TrafficIn => "Bytes of published messages",
        PriceItem::TrafficOut => "Bytes of delivered messages",
    }
}

/// A time as FOCUS writes it, by the second.
fn at(time: OffsetDateTime) -> String {
    let text = api::Timestamp::from(time).to_string();
    text.replace(".000Z", "Z")
}

/// A field of RFC 4180.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(quoted("plain text"), "plain text");
        assert_eq!(quoted(r#"{"a":"b","c":1}"#), r#""{""a"":""b"",""c"":1}""#);
        assert_eq!(quoted("two\nlines"), "\"two\nlines\"");
        assert!(COLUMNS[..40].is_sorted() && COLUMNS[40..].is_sorted());
    }
}
