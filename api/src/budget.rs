//! Budgets on the wire: the amount that a tenant intends to spend in a month, and how much of it is spent.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{ALERT_PERCENT, ALERTS_MAX, BUDGET_DIGITS};
use crate::name::BudgetName;
use crate::validate::Validate;
use crate::{Decimal, Month, Timestamp};

/// Percentage of a budget's amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(value_type = u16, minimum = 1, maximum = 1000)]
pub struct Percent(pub u16);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::whole::number(deserializer).map(Self)
    }
}

/// Settings of a budget. A PUT replaces all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetSettings {
    /// Amount that a calendar month (UTC) may cost, in the currency of the tenant's price plan.
    #[schema(
        value_type = String,
        pattern = r"^([1-9][0-9]{0,11}(\.[0-9]{1,4})?|0\.([1-9][0-9]{0,3}|0[1-9][0-9]{0,2}|00[1-9][0-9]?|000[1-9]))$",
        example = "100.00"
    )]
    pub amount: Decimal,
    /// Percentages of the amount at which an event is emitted, each once a month. 50, 80 and 100 when absent; no events
    /// when empty.
    #[schema(max_items = 10, example = json!([50, 80, 100]))]
    pub alert_percents: Option<Vec<Percent>>,
    /// Whether publish and receive requests are refused from the time the amount is spent until the end of the month.
    /// False when absent.
    pub hard_stop: Option<bool>,
}

impl Validate for BudgetSettings {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let [whole, places] = BUDGET_DIGITS;
        let fits = self.amount.trillionths() < 10u128.pow(whole + 12)
            && self.amount.round(places) == self.amount;
        if !fits || self.amount == Decimal::ZERO {
            let detail = format!(
                "must be above 0, with at most {whole} digits before the point and {places} after it"
            );
            errors.push(FieldError::new("/amount", detail));
        }
        let percents = self.alert_percents.as_deref().unwrap_or_default();
        if percents.len() > ALERTS_MAX {
            let detail = format!("must have at most {ALERTS_MAX} items");
            errors.push(FieldError::new("/alert_percents", detail));
        }
        for (index, percent) in percents.iter().enumerate() {
            if !ALERT_PERCENT.contains(&percent.0) {
                let [from, to] = [ALERT_PERCENT.start(), ALERT_PERCENT.end()];
                let at = format!("/alert_percents/{index}");
                errors.push(FieldError::new(at, format!("must be {from} to {to}")));
            }
        }
        errors
    }
}

/// An alert that was emitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetAlert {
    /// Percentage of the amount that was reached.
    pub percent: Percent,
    /// Cost of the month at the time of the alert.
    pub cost: Decimal,
    /// Time of the alert.
    pub at: Timestamp,
}

/// A budget and its state in the current month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budget {
    /// Name of the budget.
    pub name: BudgetName,
    /// Amount that a calendar month may cost.
    pub amount: Decimal,
    /// Percentages of the amount at which an event is emitted, in ascending order.
    pub alert_percents: Vec<Percent>,
    /// Whether publish and receive requests are refused once the amount is spent.
    pub hard_stop: bool,
    /// Current month (UTC), which all values below refer to.
    pub period: Month,
    /// Cost of the tenant's usage in the month so far. Null without a price plan.
    pub cost: Option<Decimal>,
    /// Currency of the month (ISO 4217). Null without a price plan.
    #[schema(example = "EUR")]
    pub currency: Option<String>,
    /// Cost as a percentage of the amount, rounded down. Null without a price plan.
    pub percent: Option<u64>,
    /// Alerts emitted this month.
    pub alerts: Vec<BudgetAlert>,
    /// Whether this budget currently stops the tenant.
    pub stopped: bool,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change of the settings.
    pub updated_at: Timestamp,
}

/// `data` of an event of type `cursus.budget`: a percentage of a budget was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetEvent {
    /// Name of the budget.
    pub budget: String,
    /// Month (UTC).
    pub period: Month,
    /// Percentage that was reached.
    pub percent: Percent,
    /// Amount of the budget.
    pub amount: Decimal,
    /// Cost of the month so far.
    pub cost: Decimal,
    /// Currency of `amount` and `cost` (ISO 4217).
    pub currency: String,
    /// Whether this budget now stops the tenant.
    pub stopped: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Result<Vec<String>, serde_json::Error> {
        let settings: BudgetSettings = serde_json::from_str(text)?;
        let errors = settings.validate().into_iter();
        Ok(errors.map(|error| error.pointer).collect())
    }

    #[test]
    fn a_budget_names_what_is_wrong_with_it() {
        for good in [
            r#"{"amount":"999999999999.9999","alert_percents":[1,1000.0,1],"hard_stop":true}"#,
            r#"{"amount":"0.0001","alert_percents":[],"hard_stop":null}"#,
        ] {
            assert_eq!(wrong(good).unwrap(), [""; 0], "{good}");
        }
        for (amount, percents, pointers) in [
            ("0", "[50]", &["/amount"][..]),
            ("0.00001", "[50]", &["/amount"]),
            (
                "1000000000000",
                "[0, 1001]",
                &["/amount", "/alert_percents/0", "/alert_percents/1"],
            ),
            ("1", "[1,2,3,4,5,6,7,8,9,10,11]", &["/alert_percents"]),
        ] {
            let text = format!(r#"{{"amount":"{amount}","alert_percents":{percents}}}"#);
            assert_eq!(wrong(&text).unwrap(), pointers, "{text}");
        }
        for bad in [
            "{}",
            r#"{"amount":1}"#,
            r#"{"amount":"-1"}"#,
            r#"{"amount":"1","alert_percents":[1.5]}"#,
            r#"{"amount":"1","alert_percents":[70000]}"#,
            r#"{"amount":"1","currency":"EUR"}"#,
        ] {
            assert!(wrong(bad).is_err(), "{bad}");
        }
    }
}
