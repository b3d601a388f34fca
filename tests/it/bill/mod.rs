//! Money: prices, plans, bills, FOCUS exports and budgets.

mod budget;
pub(crate) mod focus;
mod focus_validator;
mod guarantee;
pub(crate) mod price;
mod tenant_plan;
