//! The month of a tenant on the wire: usage so far, its cost so far, and an estimate for the whole month.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::name::PlanName;
use crate::price::{PriceItem, PriceUnit};
use crate::usage::UsageItem;
use crate::{Day, Decimal, Month, Timestamp};

/// Query parameters that select a month.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PeriodQuery {
    /// Calendar month (UTC). The current month when absent.
    #[param(value_type = Option<String>, nullable = false, pattern = "^2[0-9]{3}-(0[1-9]|1[0-2])$", example = "2026-11")]
    pub period: Option<Month>,
}

/// One line of a bill: one item of the price plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BillLine {
    /// Priced item.
    pub item: PriceItem,
    /// Unit of `quantity`.
    pub unit: PriceUnit,
    /// Quantity used, rounded half to even to twelve decimal places.
    pub quantity: Decimal,
    /// Cost of the quantity, to twelve decimal places.
    pub cost: Decimal,
    /// Amount billed: `cost` rounded half to even to the minor unit of the currency, such as cents.
    #[schema(pattern = r"^(0|[1-9][0-9]*)(\.[0-9]{1,4})?$", example = "12.34")]
    pub billed: String,
    /// Expected cost of the whole month. The average use since the start of the month is projected to its end, then
    /// priced with the tiers, plan versions and plans that apply until then. For a past month it equals `cost`.
    pub estimate: Decimal,
}

/// A version of a price plan that applies during a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedVersion {
    /// Name of the price plan.
    pub plan: PlanName,
    /// First day (UTC) of the plan version; it identifies the version within its plan.
    pub valid_from: Day,
    /// Day (UTC) from whose start the version applies to the tenant. It ends where the next version begins or the
    /// tenant stops having a plan.
    pub applies_from: Day,
}

/// Usage and cost of a tenant in one calendar month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageMonth {
    /// The month.
    pub period: Month,
    /// Id of the month's invoice, which the FOCUS export repeats. Absent while the usage of the month may still change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "shop/2026-11")]
    pub invoice_id: Option<String>,
    /// Start of the month.
    pub start: Timestamp,
    /// End of the month, exclusive.
    pub end: Timestamp,
    /// Versions of price plans that apply during the month, in order of time. Empty when the tenant has no price plan;
    /// then nothing in this document has a price.
    pub plan_versions: Vec<AppliedVersion>,
    /// Currency of all amounts (ISO 4217). Absent when no price plan applies during the month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "EUR")]
    pub currency: Option<String>,
    /// Usage so far by meter, with its cost. `start` of each item is the start of the month.
    pub meters: Vec<UsageItem>,
    /// Cost so far by item of the price plan. Items without a price are left out.
    pub lines: Vec<BillLine>,
    /// Total cost so far, to twelve decimal places. Absent without a price plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cost: Option<Decimal>,
    /// Sum of the billed amounts of `lines`. Absent without a price plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        pattern = r"^(0|[1-9][0-9]*)(\.[0-9]{1,4})?$",
        example = "12.34"
    )]
    pub billed: Option<String>,
    /// Sum of the estimates of `lines`. Absent without a price plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub estimate: Option<Decimal>,
    /// All messages published before this time are counted. Deliveries are counted within another second, storage and
    /// guaranteed capacity within five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metered_until: Option<Timestamp>,
}
