//! A month of a tenant on the wire: what was used, what it costs so far, and what it will cost if it goes on like this.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::name::PlanName;
use crate::price::{PriceItem, PriceUnit};
use crate::usage::UsageItem;
use crate::{Day, Decimal, Month, Timestamp};

/// Which month.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PeriodQuery {
    /// A calendar month (UTC); the current one when absent.
    #[param(value_type = Option<String>, nullable = false, pattern = "^2[0-9]{3}-(0[1-9]|1[0-2])$", example = "2026-11")]
    pub period: Option<Month>,
}

/// A line of a bill: an item of the price plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BillLine {
    /// What is priced.
    pub item: PriceItem,
    /// What it is counted in.
    pub unit: PriceUnit,
    /// How much was used, rounded half to even to twelve places.
    pub quantity: Decimal,
    /// What it costs, to twelve places.
    pub cost: Decimal,
    /// What is billed for it: the cost rounded half to even to the smallest coin of the currency.
    #[schema(pattern = r"^(0|[1-9][0-9]*)(\.[0-9]{1,4})?$", example = "12.34")]
    pub billed: String,
    /// What the whole month will cost if use goes on as it was on average since the month began: the quantity is estimated,
    /// in proportion to time, and then priced with tiers and with versions and plans that begin later in the month. Of a
    /// month that is over it is the cost.
    pub estimate: Decimal,
}

/// A version of a price plan that applies in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedVersion {
    /// The plan.
    pub plan: PlanName,
    /// Which version of it.
    pub valid_from: Day,
    /// The day (UTC) from which it applies to the tenant, until the next one does or the tenant has no plan any more.
    pub applies_from: Day,
}

/// A month of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageMonth {
    /// The month.
    pub period: Month,
    /// When it begins.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
    /// The versions of price plans that apply in the month, in order of time. Without any, nothing here has a price.
    pub plan_versions: Vec<AppliedVersion>,
    /// The currency of all amounts, ISO 4217; absent when no price plan applies in the month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "EUR")]
    pub currency: Option<String>,
    /// What was used so far, by meter, with its cost; `start` is that of the month.
    pub meters: Vec<UsageItem>,
    /// What it costs so far, by item of the plan; items without a price are left out.
    pub lines: Vec<BillLine>,
    /// What all of it costs so far, to twelve places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cost: Option<Decimal>,
    /// The sum of what is billed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        pattern = r"^(0|[1-9][0-9]*)(\.[0-9]{1,4})?$",
        example = "12.34"
    )]
    pub billed: Option<String>,
    /// The sum of the estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub estimate: Option<Decimal>,
    /// All that was published before this time is counted. Deliveries are a second behind, storage and guaranteed
    /// capacity five minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metered_until: Option<Timestamp>,
}
