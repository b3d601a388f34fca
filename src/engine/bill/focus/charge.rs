//! The charges of a FOCUS export: one line of CSV (RFC 4180) per priced portion of a row of usage and price tier. Pure.
//! The cost of a charge is the exact cost of its step, so the charges of a month add up to the cost of the month.

use api::Decimal;
use api::price::{PriceItem, PriceUnit};
use time::OffsetDateTime;

use super::Export;
use crate::engine::bill::ladder::{Ladder, Step};
use crate::engine::bill::portion::{self, Portion, quantity};
use crate::engine::bill::schedule::Version;
use crate::engine::error::Error;
use crate::store::usage_read::UsageRow;

/// The columns of FOCUS 1.2 in alphabetical order, followed by those of Cursus, which begin with `x_`.
pub const COLUMNS: [&str; 45] = [
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
    "InvoiceId",
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

/// One line: the step of a portion of a row in one tier.
struct Charge<'a> {
    export: &'a Export,
    row: &'a UsageRow,
    version: &'a Version,
    ladder: &'a Ladder,
    item: PriceItem,
    step: Step,
    /// Whether the line shows the guaranteed and elastic units of the row. Only one line of a row does, so that they
    /// add up.
    has_units: bool,
}

/// Appends the lines of a row of usage; none if no plan applies.
pub(super) fn append(text: &mut String, export: &Export, row: &UsageRow) -> Result<(), Error> {
    let Some(version) = export.prices.at(row.start) else {
        return Ok(());
    };
    for Portion { item, from, to } in portion::of_row(row)? {
        let Some(ladder) = version.of(item) else {
            continue;
        };
        let is_of_units = item.unit() == PriceUnit::Units && item != PriceItem::ElasticUnits;
        for (index, step) in ladder.steps(from, to).into_iter().enumerate() {
            let charge = Charge {
                export,
                row,
                version,
                ladder,
                item,
                step,
                has_units: is_of_units && index == 0,
            };
            let fields = charge.fields().map(|field| quoted(&field));
            text.push_str(&fields.join(","));
            text.push_str("\r\n");
        }
    }
    Ok(())
}

impl Charge<'_> {
    /// The fields in the order of the columns. An empty field is null.
    fn fields(&self) -> [String; COLUMNS.len()] {
        let Self {
            export, row, step, ..
        } = self;
        let own = str::to_owned;
        let unit = self.item.unit();
        let cost = decimal(self.ladder.cost(step.from, step.to));
        let price = decimal(step.unit_price);
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
        let units = |units: i64| if self.has_units { units } else { 0 }.to_string();
        [
            cost.clone(),
            export.account.clone(),
            own("Cursus"),
            currency.clone(),
            at(export.month.end()),
            at(export.month.start()),
            own("Usage"),
            String::new(),
            own(self.item.description()),
            own("Usage-Based"),
            at(row.start + time::Duration::DAY),
            at(row.start),
            decimal(quantity(unit, used)),
            own(unit.as_str()),
            cost.clone(),
            price.clone(),
            cost.clone(),
            export.invoice.clone().unwrap_or_default(),
            own("Cursus"),
            cost,
            price,
            own("Standard"),
            currency,
            decimal(Decimal::ratio(used, self.ladder.per())),
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
            own(self.item.description()),
            format!("{{\"x_Tier\":{tier}}}"),
            format!("{plan}/{day}/{sku}/{tier}"),
            export.tenant.clone(),
            export.tenant.clone(),
            own("Tenant"),
            self.tags(),
            units(row.elastic_units),
            units(row.units - row.elastic_units),
            row.meter.clone(),
            tier.to_string(),
        ]
    }

    /// Id, name and type of the resource. Empty for capacity, which belongs to the whole tenant, and for usage that a
    /// node counted without names because it had too many.
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

    /// The names as a JSON object. Names need no escaping.
    fn tags(&self) -> String {
        let names = [
            ("topic", &self.row.topic),
            ("subscription", &self.row.subscription),
        ];
        let tags: Vec<String> = names
            .iter()
            .filter(|(_, name)| !name.is_empty())
            .map(|(key, name)| format!("\"{key}\":\"{name}\""))
            .collect();
        format!("{{{}}}", tags.join(","))
    }
}

/// A decimal with a decimal point: readers that guess the type of a column take `5` for another type than `5.0`.
fn decimal(value: Decimal) -> String {
    value.with_places(1)
}

/// A time in the format of FOCUS, in whole seconds.
fn at(time: OffsetDateTime) -> String {
    let text = api::Timestamp::from(time).to_string();
    text.replace(".000Z", "Z")
}

/// Quotes a field if RFC 4180 requires it.
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
        assert!(COLUMNS[..41].is_sorted() && COLUMNS[41..].is_sorted());
    }
}
